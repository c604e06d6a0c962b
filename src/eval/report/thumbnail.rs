//! Pictures scaled down, inside the page.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::cli::inputs::Input;
use crate::clip::image::{ImageLimits, ImagePreprocessor};
use crate::clip::spec::{ImageSpec, Interpolation, ResizeMode};
use crate::grpc::proto::image::Source;
use crate::grpc::proto::input::Content;

/// Pixels of a side.
pub(super) const SIDE: u32 = 96;

/// More is not decoded for a page.
const LIMITS: ImageLimits = ImageLimits { max_bytes: 64 << 20, max_pixels: 100_000_000 };

/// An address with the picture itself; `None` if it cannot be read.
pub(super) fn data(input: &Input) -> Option<String> {
    let Content::Image(image) = input.load(LIMITS.max_bytes as u64).ok()? else { return None };
    let Some(Source::Encoded(bytes)) = image.source else { return None };
    let spec = ImageSpec {
        height: SIDE,
        width: SIDE,
        interpolation: Interpolation::Bicubic,
        resize_mode: ResizeMode::Longest,
    };
    let row = ImagePreprocessor::new(spec, LIMITS).encoded(&bytes).ok()?;
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, SIDE, SIDE);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().ok()?.write_image_data(&row.0).ok()?;
    Some(format!("data:image/png;base64,{}", STANDARD.encode(file)))
}
