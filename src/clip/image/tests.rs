mod parity;

use super::*;
use crate::clip::spec::{Interpolation, ResizeMode};

const UNLIMITED: ImageLimits = ImageLimits { max_bytes: usize::MAX, max_pixels: u64::MAX };

const PNG: &[u8] = include_bytes!("../../../tests/fixtures/parity/pictures/rgb.png");

fn spec(interpolation: Interpolation, resize_mode: ResizeMode) -> ImageSpec {
    ImageSpec { height: 64, width: 64, interpolation, resize_mode }
}

fn preprocessor(resize_mode: ResizeMode, limits: ImageLimits) -> ImagePreprocessor {
    ImagePreprocessor::new(spec(Interpolation::Bicubic, resize_mode), limits)
}

/// A PNG that ends after its header.
fn png_header(width: u32, height: u32, depth: u8, colour_type: u8) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([depth, colour_type, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0D".to_vec();
    png.extend(&chunk);
    png.extend(crc32(&chunk).to_be_bytes());
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1)))
    })
}

#[track_caller]
fn check_refused(bytes: &[u8], limits: ImageLimits, message: &str) {
    let preprocessor = preprocessor(ResizeMode::Shortest, limits);
    let error = preprocessor.probe(bytes).unwrap_err();
    assert_eq!(error.to_string(), message);
    assert_eq!(preprocessor.encoded(bytes).unwrap_err(), error);
}

#[test]
fn the_header_decides_before_anything_is_decoded() {
    let limits = ImageLimits { max_bytes: PNG.len() - 1, max_pixels: 1_000_000 };
    check_refused(b"", limits, "the image is empty");
    check_refused(
        PNG,
        limits,
        &format!("the image is {} bytes long, the limit is {}", PNG.len(), PNG.len() - 1),
    );
    check_refused(
        b"\0\0\x01\0\x01\0\x01\x01\0\0\x01\0",
        limits,
        "this is ICO, which is not supported; supported are JPEG, PNG, WebP, GIF, BMP and TIFF",
    );
    check_refused(
        b"a picture",
        limits,
        "the image format is not recognised; supported are JPEG, PNG, WebP, GIF, BMP and TIFF",
    );
    check_refused(
        &png_header(40_000, 50_000, 8, 2),
        limits,
        "the image is 40000 x 50000 pixels, the limit is 1000000 pixels",
    );
    // SOI and a frame header of 8 bits, 0 x 1 pixels, one component.
    check_refused(
        b"\xFF\xD8\xFF\xC0\0\x0B\x08\0\x01\0\0\x01\x01\x11\0\xFF\xD9",
        limits,
        "the JPEG cannot be decoded: corrupt data: SOF width must not be 0",
    );
}

#[test]
fn what_is_sent_in_the_place_of_a_picture_is_named() {
    let check = |bytes: &[u8], message: &str| {
        let limits = ImageLimits { max_bytes: 1 << 20, max_pixels: 1 << 20 };
        let error = preprocessor(ResizeMode::Shortest, limits).probe(bytes).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error} instead of {message}");
    };
    let format = |bytes: &[u8], name: &str| check(bytes, &format!("this is {name}, which is not supported;"));
    format(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC");
    format(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC");
    format(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1", "AVIF");
    format(b"\0\0\0\x20ftypisom\0\0\x02\0isomiso2", "video");
    format(b"\0\0\0\x0cjP  \r\n\x87\n\0\0\0\x14ftypjp2 ", "JPEG 2000");
    format(b"\xFF\x4F\xFF\x51\0\x2f\0\0", "JPEG 2000");
    format(b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL");
    format(b"%PDF-1.7\n%\xE2\xE3\xCF\xD3", "PDF");
    format(b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>", "SVG");
    format(b"\xEF\xBB\xBF<?xml version=\"1.0\"?>\n<!-- by hand -->\n<svg/>", "SVG");
    let mut tga = [0; 18 + 3];
    (tga[2], tga[12], tga[14], tga[16]) = (2, 1, 1, 24);
    format(&tga, "TGA");

    let text = |bytes: &[u8], what: &str| check(bytes, &format!("this is {what} and not an image file: "));
    text(b"data:image/png;base64,iVBORw0KGgoAAAANSUhEUg==", "a data URI");
    text(b"/9j/4AAQSkZJRgABAQEASABIAAD/\n2wBDAAgGBg==", "base64 text");
    text(b"iVBORw0KGgoAAAANSUhEUgAAAG8AAABTCAYAAAB", "base64 text");
    text(&[b'Q'; 1000], "base64 text");
    text(b"\n<!DOCTYPE html>\n<html><body>404", "an HTML page");
    text(b"<html lang=\"en\">", "an HTML page");
    text(b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "an XML document");
    text(b"{\"error\": \"not found\"}", "JSON");
    text(b"https://example.com/cat.jpg", "a URL");

    check(b"cat", "the image format is not recognised");
    check(&[0; 100], "the image format is not recognised");
}

#[test]
fn a_picture_at_the_limits_is_accepted() {
    let at = ImageLimits { max_bytes: PNG.len(), max_pixels: 111 * 83 };
    let header = preprocessor(ResizeMode::Shortest, at).probe(PNG);
    let expected = ImageHeader { format: ImageFormat::Png, width: 111, height: 83 };
    assert_eq!(header, Ok(expected));
    let below = ImageLimits { max_pixels: 111 * 83 - 1, ..at };
    check_refused(PNG, below, "the image is 111 x 83 pixels, the limit is 9212 pixels");
}

/// An extended WebP with a canvas of 1 x 1 and a lossy frame that says it is 16,383 x 16,383.
#[test]
fn a_frame_larger_than_its_canvas_is_refused() {
    let mut webp = b"RIFF\0\0\0\0WEBPVP8X\x0A\0\0\0".to_vec();
    webp.extend([0; 10]);
    webp.extend(b"VP8 \x0A\0\0\0\x10\0\0\x9D\x01\x2A\xFF\x3F\xFF\x3F");
    let len = webp.len() as u32 - 8;
    webp[4..8].copy_from_slice(&len.to_le_bytes());
    check_refused(
        &webp,
        UNLIMITED,
        "the WebP cannot be decoded: a frame has not the size it is announced with",
    );
}

/// Frames within frames within frames: following them all would exhaust the stack.
#[test]
fn nested_animation_frames_are_refused() {
    let levels = 100_000;
    let frames = (0..levels).rev().flat_map(|inside: u32| {
        let mut frame = b"ANMF".to_vec();
        frame.extend((16 + 24 * inside).to_le_bytes());
        frame.extend([0; 16]);
        frame
    });
    let mut webp = b"RIFF\0\0\0\0WEBPVP8X\x0A\0\0\0\x02".to_vec();
    webp.extend([0; 9]);
    webp.extend(b"ANIM\x06\0\0\0\0\0\0\0\0\0");
    webp.extend(frames);
    let len = webp.len() as u32 - 8;
    webp[4..8].copy_from_slice(&len.to_le_bytes());
    let refused = preprocessor(ResizeMode::Shortest, UNLIMITED).encoded(&webp);
    assert!(matches!(refused, Err(ImageError::Undecodable { .. })), "{refused:?}");
}

#[test]
fn truncated_pictures_are_refused() {
    let preprocessor = preprocessor(ResizeMode::Shortest, UNLIMITED);
    for (name, bytes) in parity::pictures() {
        assert!(preprocessor.encoded(&bytes).is_ok(), "{name}");
        // Of files with several pictures, the first one is cut at these.
        for percent in [2, 5, 15, 30, 40] {
            let cut = &bytes[..bytes.len() * percent / 100];
            match preprocessor.encoded(cut) {
                Err(ImageError::Undecodable { reason, .. }) => assert!(!reason.is_empty()),
                Err(ImageError::UnknownFormat | ImageError::Empty) => {}
                other => panic!("{percent} % of {name}: {other:?}"),
            }
        }
    }
}

#[test]
fn damaged_pictures_never_panic() {
    let preprocessor = preprocessor(ResizeMode::Shortest, UNLIMITED);
    let mut decoded = 0;
    for (name, bytes) in parity::pictures() {
        // Headers densely, the rest here and there.
        let step = (bytes.len() / 40).max(1);
        for at in (0..64.min(bytes.len())).chain((0..bytes.len()).step_by(step)) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x55;
            // Many of these still decode; the row then has its size.
            if let Ok(header) = preprocessor.probe(&damaged)
                && u64::from(header.width) * u64::from(header.height) < 1 << 18
                && let Ok(row) = preprocessor.encoded(&damaged)
            {
                assert_eq!(row.0.len(), 64 * 64 * 3, "{name}");
                decoded += 1;
            }
        }
    }
    assert!(decoded > 500, "most damage is in pixels: {decoded}");
}

#[test]
fn raw_pixels_need_the_length_of_their_size() {
    let preprocessor = preprocessor(ResizeMode::Shortest, ImageLimits { max_bytes: 1, max_pixels: 100 });
    let refused = |width, height, pixels: &[u8]| {
        let error = preprocessor.rgb(width, height, &Bytes::copy_from_slice(pixels)).unwrap_err();
        error.to_string()
    };
    let zero = "the image has no pixels: its width or height is zero";
    assert_eq!(refused(0, 5, &[]), zero);
    assert_eq!(refused(5, 0, &[]), zero);
    assert_eq!(refused(2, 3, &[0; 17]), "2 x 3 pixels of RGB are 18 bytes, got 17");
    assert_eq!(
        refused(u32::MAX, u32::MAX, &[]),
        "the image is 4294967295 x 4294967295 pixels, the limit is 100 pixels"
    );
    assert!(preprocessor.rgb(10, 10, &vec![0; 300].into()).is_ok());
}

#[test]
fn raw_pixels_of_the_models_size_are_not_copied() {
    let preprocessor = preprocessor(ResizeMode::Squash, UNLIMITED);
    let ImageSpec { width, height, .. } = preprocessor.spec;
    let pixels = Bytes::from(vec![7; preprocessor.spec.row_bytes()]);
    let ImageRow(row) = preprocessor.rgb(width, height, &pixels).unwrap();
    assert_eq!((row.as_ptr(), row.len()), (pixels.as_ptr(), pixels.len()));
    assert!(preprocessor.ready(width + 1, height, &pixels).is_none());
    assert!(preprocessor.ready(width, height, &pixels.slice(1..)).is_none());
}

#[test]
fn raw_pixels_are_the_same_picture_as_encoded_ones() {
    let preprocessor = preprocessor(ResizeMode::Shortest, UNLIMITED);
    let mut reader = png::Decoder::new(std::io::Cursor::new(PNG)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    let raw = preprocessor.rgb(111, 83, &pixels.into()).unwrap();
    assert_eq!(raw, preprocessor.encoded(PNG).unwrap());
}

/// Where Pillow makes the picture white: its converter clips 16-bit grey at 255.
#[test]
fn sixteen_bit_grey_is_its_high_byte() {
    fn grey(depth: u8, sample: impl Fn(u8) -> Vec<u8>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 80, 70);
        encoder.set_color(png::ColorType::Grayscale);
        encoder.set_depth(png::BitDepth::from_u8(depth).unwrap());
        let samples: Vec<u8> = (0..80 * 70).flat_map(|i| sample((i % 251) as u8)).collect();
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&samples).unwrap();
        writer.finish().unwrap();
        bytes
    }
    let preprocessor = preprocessor(ResizeMode::Shortest, UNLIMITED);
    let deep = preprocessor.encoded(&grey(16, |high| vec![high, 0xAB])).unwrap();
    assert_eq!(deep, preprocessor.encoded(&grey(8, |high| vec![high])).unwrap());
}

#[test]
fn needles_cost_no_more_than_their_pixels() {
    let needle = png_header(1, 50_000_000, 8, 2);
    // Only a few pixels in the middle reach the crop.
    let shortest = preprocessor(ResizeMode::Shortest, UNLIMITED);
    assert!(shortest.probe(&needle).is_ok());
    // Every pixel counts: the weights alone would take a gigabyte.
    for mode in [ResizeMode::Squash, ResizeMode::Longest] {
        assert_eq!(
            preprocessor(mode, UNLIMITED).probe(&needle),
            Err(ImageError::TooElongated { width: 1, height: 50_000_000 })
        );
    }

    let mut pixels = [9, 9, 9].repeat(300_000);
    let middle = 300_000 / 2 * 3;
    pixels[middle - 30..middle + 30].fill(200);
    let row = shortest.rgb(300_000, 1, &pixels.into()).unwrap();
    assert!(row.0.iter().all(|sample| *sample == 200));
}
