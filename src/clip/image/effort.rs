//! How long a picture takes to prepare, before anything is done with it: so that a line of pictures can be planned.
//!
//! It reads the few bytes of a header that say what work there is, and checks nothing: a picture that lies about
//! itself is found out when it is decoded. The rates are straight lines through some 250 pictures of 160 to 2,560
//! pixels, on a core of an AMD EPYC (Zen 4) with nothing else to do; they were off by up to a third. What another
//! machine is slower by is for the caller to learn, and applies to all of them alike.

use std::time::Duration;

use super::ImagePreprocessor;

/// Nanoseconds.
struct Rates {
    once: f64,
    per_byte: f64,
    per_pixel: f64,
}

/// Where a file's pixels take most of the time, it is known how many they are; otherwise their rate is 0.
const JPEG: Rates = Rates { once: 90_000.0, per_byte: 7.0, per_pixel: 2.3 };
const PROGRESSIVE_JPEG: Rates = Rates { once: 90_000.0, per_byte: 35.0, per_pixel: 2.0 };
const PNG: Rates = Rates { once: 100_000.0, per_byte: 8.0, per_pixel: 0.8 };
const GIF: Rates = Rates { once: 180_000.0, per_byte: 10.0, per_pixel: 1.7 };
const LOSSY_WEBP: Rates = Rates { once: 100_000.0, per_byte: 300.0, per_pixel: 0.0 };
const LOSSLESS_WEBP: Rates = Rates { once: 100_000.0, per_byte: 27.0, per_pixel: 0.0 };
const OTHER: Rates = Rates { once: 100_000.0, per_byte: 2.0, per_pixel: 0.0 };
const RGB: Rates = Rates { once: 100_000.0, per_byte: 0.0, per_pixel: 1.0 };

impl ImagePreprocessor {
    /// Of an encoded picture.
    pub fn encoded_effort(&self, bytes: &[u8]) -> Duration {
        let (rates, pixels) = sketch(bytes);
        self.effort(&rates, bytes.len(), pixels)
    }

    /// Of raw pixels; zero where they are only copied.
    pub fn rgb_effort(&self, width: u32, height: u32) -> Duration {
        match self.place(width, height) {
            Ok(placement) if !placement.keeps_size() => {
                self.effort(&RGB, 0, u64::from(width) * u64::from(height))
            }
            _ => Duration::ZERO,
        }
    }

    fn effort(&self, rates: &Rates, bytes: usize, pixels: u64) -> Duration {
        let within = bytes <= self.limits.max_bytes && pixels <= self.limits.max_pixels;
        // What is beyond a limit is refused by its header.
        let work = if within { rates.per_byte * bytes as f64 + rates.per_pixel * pixels as f64 } else { 0.0 };
        Duration::from_nanos((rates.once + work) as u64)
    }
}

/// What kind of file it seems to be, and how many pixels it claims to have.
fn sketch(bytes: &[u8]) -> (Rates, u64) {
    match bytes {
        [0xFF, 0xD8, segments @ ..] => jpeg(segments),
        [0x89, b'P', b'N', b'G', ..] => (PNG, area(bytes.get(16..), |side| u32::from_be_bytes(*side).into())),
        [b'G', b'I', b'F', b'8', ..] => (GIF, area(bytes.get(6..), |side| u16::from_le_bytes(*side).into())),
        [b'R', b'I', b'F', b'F', ..] if bytes.get(12..16) == Some(b"VP8L") => (LOSSLESS_WEBP, 0),
        [b'R', b'I', b'F', b'F', ..] => (LOSSY_WEBP, 0),
        _ => (OTHER, 0),
    }
}

/// The frame's header is behind segments of any length, each with a marker and, after that, its own length.
fn jpeg(mut segments: &[u8]) -> (Rates, u64) {
    while let [0xFF, marker, high, low, ..] = *segments {
        match marker {
            // Start of frame: its sides are behind the bits of a sample.
            0xC0 | 0xC1 => return (JPEG, frame(segments)),
            0xC2 => return (PROGRESSIVE_JPEG, frame(segments)),
            _ => {}
        }
        let next = 2 + usize::from(u16::from_be_bytes([high, low]));
        segments = segments.get(next..).unwrap_or_default();
    }
    (JPEG, 0)
}

fn frame(segment: &[u8]) -> u64 {
    area(segment.get(5..), |side| u16::from_be_bytes(*side).into())
}

/// Of two sides that follow each other.
fn area<const N: usize>(sides: Option<&[u8]>, read: impl Fn(&[u8; N]) -> u64) -> u64 {
    let side = |at: usize| sides?.get(at..)?.first_chunk().map(&read);
    side(0).unwrap_or(0).saturating_mul(side(N).unwrap_or(0))
}

#[cfg(test)]
mod tests;
