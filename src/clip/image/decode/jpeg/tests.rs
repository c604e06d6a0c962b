use libjpeg_turbo_rs::{Encoder, PixelFormat, Subsampling};

use super::*;

const WIDTH: usize = 203;
const HEIGHT: usize = 61;

/// Noise, so that every sample shows what it was made of.
fn noise(channels: usize) -> Vec<u8> {
    (0..WIDTH * HEIGHT * channels).map(|i| (i.wrapping_mul(2_654_435_761) >> 16) as u8).collect()
}

fn samples(file: &[u8], columns: Option<Range<usize>>) -> (Range<usize>, Vec<u8>) {
    let mut opened = Box::new(Jpeg::open(file).unwrap());
    let columns = columns.map_or(0..WIDTH, |columns| opened.columns(columns));
    (columns, opened.decode().unwrap().samples.into_owned())
}

/// Of every part of the picture, the columns asked for are those of the whole.
#[track_caller]
fn check(file: &[u8], channels: usize) {
    let (_, whole) = samples(file, None);
    assert_eq!(whole.len(), WIDTH * HEIGHT * channels);
    for start in (0..WIDTH).step_by(7) {
        for end in [start + 1, start + 20, WIDTH - 3, WIDTH]
            .into_iter()
            .filter(|end| (start + 1..=WIDTH).contains(end))
        {
            let (columns, part) = samples(file, Some(start..end));
            assert!(columns.start <= start && end <= columns.end);
            assert_eq!(part.len(), columns.len() * HEIGHT * channels);
            let rows = whole.chunks_exact(WIDTH * channels).zip(part.chunks_exact(columns.len() * channels));
            for (y, (whole, part)) in rows.enumerate() {
                let part = &part[(start - columns.start) * channels..][..(end - start) * channels];
                assert_eq!(
                    part,
                    &whole[start * channels..end * channels],
                    "row {y}, columns {start} to {end}"
                );
            }
        }
    }
}

fn rgb(subsampling: Subsampling) -> Vec<u8> {
    Encoder::new(&noise(3), WIDTH, HEIGHT, PixelFormat::Rgb).subsampling(subsampling).encode().unwrap()
}

#[test]
fn a_part_is_what_the_whole_has_there() {
    for subsampling in [
        Subsampling::S444,
        Subsampling::S422,
        Subsampling::S420,
        Subsampling::S440,
        Subsampling::S411,
        Subsampling::S441,
    ] {
        check(&rgb(subsampling), 3);
    }
}

#[test]
fn so_it_is_in_other_modes() {
    let pixels = noise(3);
    let progressive = Encoder::new(&pixels, WIDTH, HEIGHT, PixelFormat::Rgb)
        .subsampling(Subsampling::S420)
        .progressive(true)
        .encode();
    check(&progressive.unwrap(), 3);
    let grey = Encoder::new(&pixels[..WIDTH * HEIGHT], WIDTH, HEIGHT, PixelFormat::Grayscale).encode();
    check(&grey.unwrap(), 1);
    let cmyk = Encoder::new(&noise(4), WIDTH, HEIGHT, PixelFormat::Cmyk).encode();
    check(&cmyk.unwrap(), 4);
}

/// Even where nothing that is asked for is missing.
#[test]
fn a_file_cut_anywhere_is_refused() {
    let file = rgb(Subsampling::S420);
    for len in (0..file.len() - 2).step_by(97) {
        let refused = Jpeg::open(&file[..len]).and_then(|mut jpeg| {
            jpeg.columns(0..8);
            Box::new(jpeg).decode()
        });
        assert!(refused.is_err(), "{len} of {}", file.len());
    }
}

/// A progressive file whose scans are repeated: few bytes, much work.
#[test]
fn scans_are_counted() {
    let file = Encoder::new(&[128; 64], 8, 8, PixelFormat::Grayscale).progressive(true).encode().unwrap();
    let of = |marker: u8| file.windows(2).rposition(|bytes| bytes == [0xFF, marker]).unwrap();
    let (last_scan, end) = (of(0xDA), of(0xD9));
    let mut many = file[..last_scan].to_vec();
    for _ in 0..MAX_SCANS {
        many.extend_from_slice(&file[last_scan..end]);
    }
    many.extend([0xFF, 0xD9]);
    let refused = Jpeg::open(&many).and_then(|jpeg| Box::new(jpeg).decode());
    let message = refused.err().map(|error| error.to_string()).unwrap();
    assert!(message.contains("scan"), "{message}");
}

/// The second of four components finer than the first.
#[test]
fn components_finer_than_the_first_are_refused() {
    let mut file = Encoder::new(&noise(4), WIDTH, HEIGHT, PixelFormat::Cmyk).encode().unwrap();
    let frame = file.windows(2).position(|bytes| bytes == [0xFF, 0xC0]).unwrap();
    // Marker, length, depth, height, width, count; then three bytes for each.
    let second = frame + 2 + 2 + 1 + 4 + 1 + 3;
    file[second + 1] = 0x41;
    let refused = Jpeg::open(&file).err().unwrap();
    assert!(matches!(refused, ImageError::UnsupportedVariant { .. }), "{refused}");
}
