//! The `grpc-timeout` header.

use std::time::Duration;

use http::HeaderMap;

/// What the client asks for, if it does.
pub(super) fn of(headers: &HeaderMap) -> Option<Duration> {
    parse(headers.get("grpc-timeout")?.to_str().ok()?)
}

/// `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, "Timeout"). Nonsense is no timeout.
fn parse(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(value * 3600)),
        'M' => Some(Duration::from_secs(value * 60)),
        'S' => Some(Duration::from_secs(value)),
        'm' => Some(Duration::from_millis(value)),
        'u' => Some(Duration::from_micros(value)),
        'n' => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts() {
        let check = |text: &str, expected: Option<Duration>| {
            assert_eq!(parse(text), expected, "{text:?}");
        };
        check("2H", Some(Duration::from_secs(7200)));
        check("3M", Some(Duration::from_secs(180)));
        check("10S", Some(Duration::from_secs(10)));
        check("250m", Some(Duration::from_millis(250)));
        check("99999999u", Some(Duration::from_micros(99_999_999)));
        check("1n", Some(Duration::from_nanos(1)));
        check("100000000m", None);
        check("m", None);
        check("1.5S", None);
        check("-1S", None);
        check("10", None);
        check("", None);
        check("1\u{e9}", None);
    }
}
