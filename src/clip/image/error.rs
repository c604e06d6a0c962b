//! Why a picture was not accepted, in words for the one who sent it.

use super::ImageFormat;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    #[error("the image is empty")]
    Empty,
    #[error("the image is {actual} bytes long, the limit is {limit}")]
    TooManyBytes { actual: usize, limit: usize },
    #[error("the image format is not recognised; supported are {}", ImageFormat::listed("and"))]
    UnknownFormat,
    #[error("this is {name}, which is not supported; supported are {}", ImageFormat::listed("and"))]
    UnsupportedFormat { name: &'static str },
    /// The commonest mistakes: something that stands for a picture, or came in its place.
    #[error("this is {what} and not an image file: {instead}")]
    NotAnImage { what: &'static str, instead: &'static str },
    #[error("this kind of {format} is not supported: {reason}")]
    UnsupportedVariant { format: ImageFormat, reason: String },
    #[error("the image has no pixels: its width or height is zero")]
    ZeroSize,
    #[error("the image is {width} x {height} pixels, the limit is {limit} pixels")]
    TooManyPixels { width: u32, height: u32, limit: u64 },
    /// Only where one side is tens of thousands of times the other, or more.
    #[error("the image is {width} x {height} pixels, too elongated to be resized for this model")]
    TooElongated { width: u32, height: u32 },
    #[error("{width} x {height} pixels of RGB are {expected} bytes, got {actual}")]
    RgbLength { width: u32, height: u32, expected: u64, actual: usize },
    /// Damaged, truncated, or not what the first bytes promise.
    #[error("the {format} cannot be decoded: {reason}")]
    Undecodable { format: ImageFormat, reason: String },
}
