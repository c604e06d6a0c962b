//! What each address may take, where there are no keys to tell callers apart.
//!
//! Behind a proxy all callers have one address: its own.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::limits::{Bounds, Limits};

/// Addresses that are remembered at a time; of more, those that called longest ago begin anew.
const MAX_ADDRESSES: u64 = 65_536;

/// Cheap to clone.
#[derive(Clone)]
pub struct Addresses {
    limits: Limits,
    bounds: Cache<IpAddr, Arc<Bounds>>,
}

impl Addresses {
    /// Each has these limits.
    pub fn new(limits: Limits) -> Addresses {
        let bounds =
            Cache::builder().max_capacity(MAX_ADDRESSES).eviction_policy(EvictionPolicy::lru()).build();
        Addresses { limits, bounds }
    }

    pub(super) fn bounds(&self, address: IpAddr) -> Arc<Bounds> {
        self.bounds.get_with(network(address), || Arc::new(Bounds::new(&self.limits)))
    }
}

/// What one customer of a provider has: an address of IPv4, or of IPv6 the first 64 bits (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_limits_of_its_own() {
        let addresses = Addresses::new("requests_per_second = 0.001".parse().unwrap());
        let taken = |address: &str| addresses.bounds(address.parse().unwrap()).take_request().is_err();
        assert!(!taken("192.0.2.1"));
        assert!(taken("192.0.2.1") && taken("::ffff:192.0.2.1"), "the same, written otherwise");
        assert!(!taken("192.0.2.2"));
        assert!(!taken("2001:db8:0:1::1"));
        assert!(taken("2001:db8:0:1:ffff::2"), "the same network");
        assert!(!taken("2001:db8:0:2::1"));
    }
}
