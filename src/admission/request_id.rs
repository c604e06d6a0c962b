//! What a call is called, in its answer and in the log.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::random::random;

/// Header of requests and answers.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest that is taken from a client.
const BYTES: usize = 128;

/// The client's own, or one that is made. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RequestId(HeaderValue);

impl RequestId {
    pub fn of(headers: &HeaderMap) -> RequestId {
        let own =
            headers.get(REQUEST_ID).filter(|id| !id.is_empty() && id.len() <= BYTES && id.to_str().is_ok());
        let mut id = own.cloned().unwrap_or_else(made);
        // It does not come again, and so has no place in the table of an HTTP/2 connection.
        id.set_sensitive(true);
        RequestId(id)
    }

    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    pub(super) fn value(&self) -> HeaderValue {
        self.0.clone()
    }

    /// Puts it into an answer.
    pub fn put(self, headers: &mut HeaderMap) {
        headers.insert(REQUEST_ID, self.0);
    }
}

fn made() -> HeaderValue {
    let mut id = *b"req_00000000000000000000000000000000";
    let bytes = (u128::from(random()) << 64 | u128::from(random())).to_be_bytes();
    for (pair, byte) in id[4..].chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    HeaderValue::from_bytes(&id).unwrap_or_else(|_| unreachable!("letters and digits are a header"))
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: &[u8]) -> String {
        let headers = [(REQUEST_ID, HeaderValue::from_bytes(id).unwrap())].into_iter().collect();
        RequestId::of(&headers).as_str().to_owned()
    }

    #[test]
    fn the_clients_own_is_kept_if_it_fits_the_log() {
        assert_eq!(of(b"mine-1"), "mine-1");
        assert_eq!(of(&[b'a'; BYTES]).len(), BYTES);
        for unfit in [&b""[..], &[b'a'; BYTES + 1], b"\xffbinary"] {
            let made = of(unfit);
            assert!(made.starts_with("req_") && made.len() == 36, "{made}");
            assert_ne!(made, of(unfit));
        }
    }
}
