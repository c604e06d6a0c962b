//! What bytes look like that are no picture of a supported format, so that the message can say what to send instead.

use crate::clip::image::error::ImageError;

/// Formats of pictures that people send, and that are not decoded: name, offset of the signature, signature. More
/// special ones come first.
const PICTURES: [(&str, usize, &[u8]); 24] = [
    ("AVIF", 4, b"ftypavif"),
    ("AVIF", 4, b"ftypavis"),
    ("HEIC", 4, b"ftyphe"),
    ("HEIC", 4, b"ftypmif1"),
    ("HEIC", 4, b"ftypmsf1"),
    ("JPEG 2000", 4, b"jP  \r\n\x87\n"),
    ("JPEG 2000", 0, b"\xFF\x4F\xFF\x51"),
    ("JPEG XL", 4, b"JXL \r\n\x87\n"),
    ("JPEG XL", 0, b"\xFF\x0A"),
    ("PDF", 0, b"%PDF-"),
    ("PostScript", 0, b"%!PS"),
    ("Photoshop", 0, b"8BPS"),
    ("ICO", 0, b"\0\0\x01\0"),
    ("OpenEXR", 0, b"\x76\x2F\x31\x01"),
    ("Radiance HDR", 0, b"#?RADIANCE"),
    ("DDS", 0, b"DDS "),
    ("QOI", 0, b"qoif"),
    ("farbfeld", 0, b"farbfeld"),
    ("PBM", 0, b"P4\n"),
    ("PGM", 0, b"P5\n"),
    ("PPM", 0, b"P6\n"),
    ("PAM", 0, b"P7\n"),
    ("video", 4, b"ftyp"),
    ("video", 0, b"\x1A\x45\xDF\xA3"),
];

/// How a text begins that is sent in a picture's place, in lower case; what it is, and what to do.
const TEXTS: [(&str, &str, &str); 9] = [
    ("data:", "a data URI", "decode what follows the comma, and send these bytes"),
    ("http://", "a URL", "nothing is fetched: send the bytes of the file behind it"),
    ("https://", "a URL", "nothing is fetched: send the bytes of the file behind it"),
    ("file:", "a URL", "send the bytes of the file"),
    ("<!doctype html", "an HTML page", PAGE),
    ("<html", "an HTML page", PAGE),
    ("<?xml", "an XML document", PAGE),
    ("<error", "an XML document", PAGE),
    ("{", "JSON", "send the bytes of the image file alone"),
];

const PAGE: &str = "it may be what a web server says instead of the file: look at what was downloaded";

/// Enough of a text to know it by.
const BEGINNING: usize = 1024;

/// A text of so many letters and digits is no word.
const LONGEST_WORD: usize = 64;

/// How pictures begin in base64: JPEG, PNG, RIFF, GIF, TIFF twice.
const BASE64: [&[u8]; 6] = [b"/9j/", b"iVBORw0KGgo", b"UklGR", b"R0lGOD", b"SUkqA", b"TU0AK"];

pub(super) fn refusal(bytes: &[u8]) -> ImageError {
    let picture = PICTURES
        .into_iter()
        .find(|(_, offset, signature)| bytes.get(*offset..).is_some_and(|from| from.starts_with(signature)));
    if let Some((name, ..)) = picture {
        return ImageError::UnsupportedFormat { name };
    }
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(BEGINNING)]).to_ascii_lowercase();
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if text.starts_with('<') && text.contains("<svg") {
        return ImageError::UnsupportedFormat { name: "SVG" };
    }
    if let Some((_, what, instead)) = TEXTS.into_iter().find(|(start, ..)| text.starts_with(start)) {
        return ImageError::NotAnImage { what, instead };
    }
    if is_base64(bytes) {
        return ImageError::NotAnImage { what: "base64 text", instead: "decode it, and send these bytes" };
    }
    if is_tga(bytes) { ImageError::UnsupportedFormat { name: "TGA" } } else { ImageError::UnknownFormat }
}

fn is_base64(bytes: &[u8]) -> bool {
    let beginning = bytes[..bytes.len().min(BEGINNING)].trim_ascii();
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/-_=\r\n".contains(byte);
    beginning.iter().all(is_letter)
        && (beginning.len() > LONGEST_WORD || BASE64.iter().any(|start| beginning.starts_with(start)))
}

/// The format has no signature at its start, and only later files have one at their end.
fn is_tga(bytes: &[u8]) -> bool {
    let header = |header: &[u8]| {
        let (map, kind, depth) = (header[1], header[2], header[16]);
        let has_size = header[12..14] != [0, 0] && header[14..16] != [0, 0];
        map <= 1 && [1, 2, 3, 9, 10, 11].contains(&kind) && [8, 15, 16, 24, 32].contains(&depth) && has_size
    };
    bytes.ends_with(b"TRUEVISION-XFILE.\0") || bytes.get(..18).is_some_and(header)
}
