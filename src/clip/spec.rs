//! The numbers that say what a CLIP model expects and produces.
//!
//! It does not read files: `model` fills a [`ClipSpec`] from a checkpoint.

/// Everything about a model that is not its weights or its vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipSpec {
    /// Width of an embedding.
    pub embed_dim: usize,
    pub image: ImageSpec,
    pub text: TextSpec,
    /// Factor from cosine similarity to logit: `exp(logit_scale)` of the checkpoint, at most 100
    /// (Radford et al. 2021, section 2.5).
    pub logit_scale: f32,
    /// Added to every logit; 0 for CLIP.
    pub logit_bias: f32,
}

/// How pictures become the image encoder's input.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageSpec {
    /// Pixels.
    pub height: u32,
    /// Pixels.
    pub width: u32,
    pub interpolation: Interpolation,
    pub resize_mode: ResizeMode,
}

impl ImageSpec {
    /// Bytes of one model input: height x width x RGB.
    pub fn row_bytes(&self) -> usize {
        self.height as usize * self.width as usize * 3
    }
}

/// How texts become the text encoder's input.
#[derive(Clone, Debug, PartialEq)]
pub struct TextSpec {
    /// Longest token row, start and end tokens included.
    pub context_length: usize,
    /// Token ids are below this.
    pub vocab_size: usize,
}

/// Resampling filter; the name in `preprocess_cfg.interpolation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    Bicubic,
    Bilinear,
}

/// How a picture of another shape is fitted; the name in `preprocess_cfg.resize_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResizeMode {
    /// Short side to the model's size, then the centre is cut out.
    Shortest,
    /// Long side to the model's size, then the rest is padded.
    Longest,
    /// Both sides to the model's size, shape ignored.
    Squash,
}
