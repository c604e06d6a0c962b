//! What a caller says of its trace: W3C's `traceparent` and `tracestate`.
//!
//! See <https://www.w3.org/TR/trace-context/>.

use http::{HeaderMap, HeaderName};

use super::identifier;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-`, 32 digits of the trace, 16 of the span, and two of flags.
const LENGTH: usize = 55;

/// A longer state is not passed on.
const STATE_BYTES: usize = 512;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) trace: [u8; 16],
    /// `None`: the trace begins here.
    pub(super) span: Option<[u8; 8]>,
    pub(super) state: String,
    pub(super) sampled: bool,
}

impl Parent {
    /// `None`: there is none, or none that makes sense.
    pub(super) fn of(headers: &HeaderMap) -> Option<Parent> {
        let mut all = headers.get_all(TRACEPARENT).iter();
        let (Some(value), None) = (all.next(), all.next()) else { return None };
        let (trace, span, sampled) = parse(value.as_bytes())?;
        Some(Parent { trace, span: Some(span), state: state(headers), sampled })
    }

    /// Of a trace that begins here, if it is one of the `sample`.
    pub(super) fn none(sample: f64) -> Option<Parent> {
        let (high, low) = (identifier(), identifier());
        // By the end of its identifier, as others who sample by ratio do.
        let drawn = (u64::from_be_bytes(low) >> 11) as f64 / (1_u64 << 53) as f64;
        let mut trace = [0; 16];
        trace[..8].copy_from_slice(&high);
        trace[8..].copy_from_slice(&low);
        (drawn < sample).then_some(Parent { trace, span: None, state: String::new(), sampled: true })
    }
}

fn parse(value: &[u8]) -> Option<([u8; 16], [u8; 8], bool)> {
    let (known, more) = value.split_at_checked(LENGTH)?;
    let [b0, b1, b'-', rest @ ..] = known else { return None };
    let [version] = hex([*b0, *b1].as_slice())?;
    // Later versions may say more, after another dash; the last possible one is none.
    let fits = match version {
        0 => more.is_empty(),
        0xff => false,
        _ => more.first().is_none_or(|next| *next == b'-'),
    };
    let (trace, rest) = rest.split_at(32);
    let (span, flags) = rest.strip_prefix(b"-")?.split_at(16);
    let (trace, span): ([u8; 16], [u8; 8]) = (hex(trace)?, hex(span)?);
    let [flags] = hex(flags.strip_prefix(b"-")?)?;
    (fits && trace != [0; 16] && span != [0; 8]).then_some((trace, span, flags & 1 == 1))
}

/// Small letters only.
fn hex<const BYTES: usize>(digits: &[u8]) -> Option<[u8; BYTES]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    (digits.len() == 2 * BYTES).then_some(bytes)
}

fn state(headers: &HeaderMap) -> String {
    let parts: Vec<&str> =
        headers.get_all(TRACESTATE).iter().filter_map(|value| value.to_str().ok()).collect();
    let state = parts.join(",");
    if state.len() <= STATE_BYTES { state } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn of(values: &[&str]) -> Option<Parent> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, value.parse().unwrap());
        }
        headers.append(TRACESTATE, "a=1".parse().unwrap());
        headers.append(TRACESTATE, "b=2".parse().unwrap());
        Parent::of(&headers)
    }

    #[test]
    fn a_traceparent_is_read_as_the_standard_has_it() {
        let parent = of(&[&format!("00-{TRACE}-{SPAN}-01")]).unwrap();
        assert_eq!(parent.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes());
        assert_eq!(parent.span, Some(0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()));
        assert_eq!(parent.state, "a=1,b=2");
        for (flags, sampled) in [("00", false), ("01", true), ("02", false), ("ff", true)] {
            assert_eq!(of(&[&format!("00-{TRACE}-{SPAN}-{flags}")]).unwrap().sampled, sampled, "{flags}");
        }
        for later in ["01", "cc-more"] {
            let (version, more) = later.split_at(2);
            assert!(of(&[&format!("{version}-{TRACE}-{SPAN}-01{more}")]).is_some(), "{later}");
        }
    }

    #[test]
    fn one_that_makes_no_sense_is_none() {
        let zeros = "0".repeat(32);
        for wrong in [
            String::new(),
            "nonsense".to_owned(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("00-{TRACE}-{SPAN}-011"),
            format!("cc-{TRACE}-{SPAN}-01.more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0x-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00_{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}_{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}_01"),
        ] {
            assert_eq!(of(&[&wrong]), None, "{wrong}");
        }
        let right = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(of(&[&right, &right]), None, "two of them");
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_ratio_is_kept() {
        let share = |ratio| (0..10_000).filter(|_| Parent::none(ratio).is_some()).count();
        assert_eq!((share(0.0), share(1.0)), (0, 10_000));
        // Ten standard deviations.
        assert!((1_700..=2_300).contains(&share(0.2)), "{}", share(0.2));
    }
}
