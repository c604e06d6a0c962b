use std::path::Path;

use super::*;
use crate::clip::image::{ImageFormat, ImageLimits};
use crate::clip::spec::{ImageSpec, Interpolation, ResizeMode};

fn preprocessor(limits: ImageLimits) -> ImagePreprocessor {
    let spec = ImageSpec {
        height: 64,
        width: 64,
        interpolation: Interpolation::Bicubic,
        resize_mode: ResizeMode::Shortest,
    };
    ImagePreprocessor::new(spec, limits)
}

const UNLIMITED: ImageLimits = ImageLimits { max_bytes: usize::MAX, max_pixels: u64::MAX };

#[test]
fn a_sketch_has_as_many_pixels_as_the_decoder_finds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/pictures");
    let mut compared = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let Ok(header) = preprocessor(UNLIMITED).probe(&bytes) else { continue };
        if matches!(header.format, ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::Gif) {
            let pixels = u64::from(header.width) * u64::from(header.height);
            assert_eq!(sketch(&bytes).1, pixels, "{}", path.display());
            compared += 1;
        }
    }
    assert!(compared > 10, "{compared} pictures");
}

#[test]
fn whatever_is_cut_off_has_a_sketch() {
    for name in ["rgb.png", "progressive.jpg"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/pictures").join(name);
        let bytes = std::fs::read(&path).unwrap();
        for end in 0..bytes.len().min(1000) {
            preprocessor(UNLIMITED).encoded_effort(&bytes[..end]);
        }
    }
}

/// A PNG's first bytes, as far as its height.
fn png(width: u32, height: u32) -> Vec<u8> {
    [&b"\x89PNG\r\n\x1a\n\0\0\0\x0DIHDR"[..], &width.to_be_bytes(), &height.to_be_bytes()].concat()
}

#[test]
fn what_a_header_refuses_takes_no_decoding() {
    let effort = |pixels: u64| {
        let limits = ImageLimits { max_pixels: pixels, ..UNLIMITED };
        preprocessor(limits).encoded_effort(&png(30_000, 30_000))
    };
    assert!(effort(900_000_000) > Duration::from_millis(700));
    assert!(effort(899_999_999) < Duration::from_millis(1));
}

#[test]
fn raw_pixels_of_the_models_size_are_only_copied() {
    assert_eq!(preprocessor(UNLIMITED).rgb_effort(64, 64), Duration::ZERO);
    assert!(preprocessor(UNLIMITED).rgb_effort(65, 65) > Duration::ZERO);
}
