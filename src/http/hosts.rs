//! Whence pictures may be fetched: which hosts, and at which addresses these may be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use http::Uri;

/// Whence pictures may come, as in `cdn.example.org`, `*.example.org`, `private:minio.storage:9000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    name: String,
    /// `*.`: all below the name, and not the name itself.
    below: bool,
    /// `None`: those of http and https.
    port: Option<u16>,
    /// `private:`: its addresses may be of a private network or of this machine.
    private: bool,
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Host, String> {
        let (private, rest) = match text.strip_prefix("private:") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (below, rest) = match rest.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let unfit = || {
            format!("{text:?} is not a host such as cdn.example.org, *.example.org or private:10.0.0.7:9000")
        };
        let (name, port) = match rest.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().map_err(|_| unfit())?)),
            None => (rest, None),
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(unfit());
        }
        Ok(Host { name: name.to_ascii_lowercase(), below, port, private })
    }
}

impl Host {
    fn allows(&self, name: &str, port: u16) -> bool {
        let name_fits = match self.below {
            true => name.strip_suffix(&self.name).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            false => name == self.name,
        };
        name_fits && self.port.map_or(port == 80 || port == 443, |own| port == own)
    }

    pub(super) fn may_be_at(&self, address: IpAddr) -> bool {
        is_public(address) || (self.private && is_private(address))
    }
}

/// The entry that allows an address, or why there is none.
pub(super) fn allowed<'a>(hosts: &'a [Host], uri: &Uri) -> Result<&'a Host, &'static str> {
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err("the address is not complete");
    };
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return Err("only http and https are fetched"),
    };
    if authority.as_str().contains('@') {
        return Err("an address with a user is not fetched");
    }
    let name = authority.host().to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let port = authority.port_u16().unwrap_or(default);
    hosts.iter().find(|host| host.allows(name, port)).ok_or("pictures are not fetched from that host")
}

/// Whether it is on the internet at large: of what IANA's registries of special addresses list, nothing.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            !(is_private(address)
                || v4.is_link_local()
                || v4.is_documentation()
                || v4.is_multicast()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 192 && b == 88 && c == 99)
                || (a == 198 && (18..20).contains(&b)))
        }
        IpAddr::V6(v6) => match embedded(v6) {
            Some(v4) => is_public(IpAddr::V4(v4)),
            None => {
                let [a, b, ..] = v6.segments();
                // All that is given out, less what documents and Teredo have of it.
                (0x2000..0x4000).contains(&a) && !(a == 0x2001 && (b < 0x200 || b == 0xdb8)) && a != 0x3fff
            }
        },
    }
}

/// Of a network that is somebody's own, or this machine. Not link-local addresses, where clouds keep their secrets.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback(),
        IpAddr::V6(v6) => match embedded(v6) {
            Some(v4) => is_private(IpAddr::V4(v4)),
            None => v6.is_loopback() || (v6.segments()[0] & 0xfe00) == 0xfc00,
        },
    }
}

/// The address of version 4 that one of version 6 stands for: mapped, compatible, translated, or 6to4.
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0) if v6 != Ipv6Addr::LOCALHOST => Some(v4(g, h)),
        (0, 0, 0, 0, 0, 0xffff) | (0, 0, 0, 0, 0xffff, 0) | (0x64, 0xff9b, 0, 0, 0, 0) => Some(v4(g, h)),
        (0x2002, ..) => Some(v4(b, c)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Vec<Host> {
        text.split(',').map(|host| host.parse().unwrap()).collect()
    }

    #[test]
    fn hosts_are_listed() {
        let hosts = hosts("cdn.example.org,*.pictures.example.org,private:minio.storage:9000,10.0.0.7");
        let check = |uri: &str, fine: bool| {
            let allowed = uri.parse().is_ok_and(|uri| allowed(&hosts, &uri).is_ok());
            assert_eq!(allowed, fine, "{uri}");
        };
        for uri in [
            "http://cdn.example.org/a.jpg",
            "https://CDN.example.org/a.jpg",
            "https://cdn.example.org:443/a.jpg",
            "https://cdn.example.org./a.jpg",
            "https://a.pictures.example.org/",
            "https://a.b.pictures.example.org/",
            "http://minio.storage:9000/a",
            "http://10.0.0.7/a",
        ] {
            check(uri, true);
        }
        for uri in [
            "ftp://cdn.example.org/a.jpg",
            "file:///etc/passwd",
            "gopher://cdn.example.org/",
            "//cdn.example.org/a.jpg",
            "cdn.example.org",
            "/a.jpg",
            "http:/cdn.example.org/a.jpg",
            "http://cdn.example.org:8080/a.jpg",
            "http://cdn.example.org:22/",
            "http://cdn.example.org@evil.org/",
            "http://evil.org@cdn.example.org/",
            "http://user:password@cdn.example.org/",
            "http://cdn.example.org.evil.org/",
            "http://evilcdn.example.org/",
            "http://example.org/",
            "http://pictures.example.org/",
            "http://.pictures.example.org/",
            "http://evilpictures.example.org/",
            "http://cdn.example.org%2eevil.org/",
            "http://cdn.example.org#.evil.org@evil.org/",
            "http://cdn。example。org/",
            "http://minio.storage/a",
            "http://localhost/",
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://017700000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://0/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::]/",
            "http://169.254.169.254/latest/meta-data/",
            "http://metadata.google.internal/",
            "http://10.0.0.7.nip.io/",
            "http://10.0.0.7:80@evil.org/",
            "http://10.0.0.77/",
            "http:///cdn.example.org/",
            "http://cdn.example.org\\@evil.org/",
        ] {
            check(uri, uri == "http://cdn.example.org#.evil.org@evil.org/");
        }
    }

    #[test]
    fn a_host_is_where_it_is_meant_to_be() {
        let [public, private] = &hosts("cdn.example.org,private:minio.storage")[..] else {
            panic!("two hosts")
        };
        let check = |address: &str, of_public: bool, of_private: bool| {
            let ip = address.parse().unwrap();
            assert_eq!((public.may_be_at(ip), private.may_be_at(ip)), (of_public, of_private), "{address}");
        };
        for address in
            ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::808:808"]
        {
            check(address, true, true);
        }
        for address in [
            "10.0.0.7",
            "172.16.0.1",
            "192.168.1.1",
            "127.0.0.1",
            "127.255.255.255",
            "::1",
            "fd00::1",
            "fc00::1",
            "::ffff:10.0.0.7",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ] {
            check(address, false, true);
        }
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "2002:a9fe:a9fe::",
            "100.64.0.1",
            "192.0.0.1",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "2001::1",
            "100::1",
            "fd00:ec2::254",
        ] {
            // The last is a cloud's, in a network of one's own.
            check(address, false, address == "fd00:ec2::254");
        }
    }

    #[test]
    fn what_is_no_host_is_told() {
        for text in ["", "http://a", "a b", "private:", "*.", "a:port", "a/b", "[::1]"] {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
    }
}
