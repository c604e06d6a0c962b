//! Pictures within JSON: base64, alone or in a data URI.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;

/// Either alphabet, and padded or not: all of them are sent.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD_BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const URL_SAFE_BASE64: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

/// The file in a string; an error is for the client.
pub(super) fn decode(text: &str) -> Result<Bytes, String> {
    let base64 = match text.split_once(':') {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("data") => data_uri(rest)?,
        Some((scheme, _)) if ["http", "https"].iter().any(|each| scheme.eq_ignore_ascii_case(each)) => {
            // Those that may be fetched have been.
            return Err("pictures are not fetched from addresses here; send base64, or a data URI".to_owned());
        }
        _ => text,
    };
    let base64 = without_white_space(base64);
    let engine = if base64.bytes().any(|byte| byte == b'-' || byte == b'_') {
        &URL_SAFE_BASE64
    } else {
        &STANDARD_BASE64
    };
    match engine.decode(base64.as_bytes()) {
        Ok(file) => Ok(file.into()),
        Err(error) => Err(format!("not base64: {error}")),
    }
}

/// What follows `data:`.
fn data_uri(rest: &str) -> Result<&str, String> {
    match rest.split_once(',') {
        Some((head, base64)) if head.trim_end().to_ascii_lowercase().ends_with(";base64") => Ok(base64),
        Some(_) => Err("a data URI whose data is not base64: write data:image/jpeg;base64,...".to_owned()),
        None => Err("a data URI without data: write data:image/jpeg;base64,...".to_owned()),
    }
}

/// Lines are broken by tools that follow MIME.
fn without_white_space(base64: &str) -> Cow<'_, str> {
    if base64.bytes().any(|byte| byte.is_ascii_whitespace()) {
        base64.chars().filter(|char| !char.is_ascii_whitespace()).collect()
    } else {
        Cow::Borrowed(base64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_people_send_it() {
        let bytes = [0xfb, 0xff, 0x00, 0x41];
        for text in [
            "+/8AQQ==",
            "+/8AQQ",
            "-_8AQQ==",
            "-_8AQQ",
            "+/8A\r\nQQ==\n",
            "data:image/png;base64,+/8AQQ==",
            "DATA:;base64,+/8AQQ",
            "data:image/png;name=a.png;BASE64,-_8AQQ",
        ] {
            assert_eq!(decode(text).unwrap(), bytes[..], "{text}");
        }
    }

    #[test]
    fn what_is_not_base64_is_told() {
        let check = |text: &str, says: &str| {
            let error = decode(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        };
        check("https://example.org/a.jpg", "not fetched");
        check("HTTP://example.org/a.jpg", "not fetched");
        check("data:image/png,abc", "not base64");
        check("data:image/png;base64", "without data");
        check("a cat!", "not base64");
        check("file:///etc/passwd", "not base64");
        check("+_", "not base64");
    }
}
