//! Samples of fewer than 8 bits, as PNG and TIFF pack them.

use crate::clip::image::picture::Mode;

/// One byte per pixel from rows of packed bits. Indices stay, shades are spread over 0 to 255.
pub(super) fn unpack(packed: &[u8], depth: u8, mode: &Mode, width: usize) -> Vec<u8> {
    let depth = usize::from(depth);
    let largest = u8::MAX >> (8 - depth);
    let unit = match mode {
        Mode::Indexed(_) => 1,
        _ => u8::MAX / largest,
    };
    let per_byte = 8 / depth;
    packed
        .chunks_exact(width.div_ceil(per_byte))
        .flat_map(|row| {
            (0..width).map(move |x| {
                let shift = 8 - depth * (x % per_byte + 1);
                (row[x / per_byte] >> shift & largest) * unit
            })
        })
        .collect()
}
