//! The numbers that say what a CLIP model expects and produces.
//!
//! It does not read files: `model` fills a [`ClipSpec`] from a checkpoint.

/// Everything about a model that is not its weights or its vocabulary.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipSpec {
    /// Width of an embedding.
    pub embed_dim: usize,
    pub image: ImageSpec,
    /// `None`: there is no text encoder.
    pub text: Option<TextSpec>,
    /// Factor from cosine similarity to logit: `exp(logit_scale)` of the checkpoint, for CLIP at most 100
    /// (Radford et al. 2021, section 2.5).
    pub logit_scale: f32,
    /// Added to every logit; 0 for CLIP.
    pub logit_bias: f32,
    pub scores: Scores,
}

impl ClipSpec {
    /// What the model embeds, in words.
    pub fn modalities(&self) -> &'static [&'static str] {
        if self.text.is_some() { &["image", "text"] } else { &["image"] }
    }
}

/// How logits become scores: as the model was trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scores {
    /// CLIP: a score is a share of all labels' probability, so that they sum to 1.
    Softmax,
    /// SigLIP: each pair of a picture and a text is a probability of its own (Zhai et al. 2023).
    Sigmoid,
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
    pub tokenization: Tokenization,
    pub padding: Padding,
}

impl TextSpec {
    /// Lengths of token rows, from a few words to the longest; one if all rows have it.
    pub fn lengths(&self) -> Vec<usize> {
        /// Tokens of a caption of a few words.
        const SHORT: usize = 8;
        match self.padding.rows {
            PaddedTo::Longest if SHORT < self.context_length => vec![SHORT, self.context_length],
            PaddedTo::Longest | PaddedTo::Context(_) => vec![self.context_length],
        }
    }
}

/// Whose rules tokens are made by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokenization {
    /// open_clip's own tokenizer: byte pairs between a start and an end token, which is the last of the vocabulary.
    Clip,
    /// What `tokenizer.json` says, after the text was cleaned.
    File(Cleaning, End),
}

/// What becomes of the token that a tokenizer adds at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Kept,
    /// CLIPA's encoders see padding in its place (open_clip's `strip_sep_token`).
    Padded,
}

/// What is done to a text before the tokenizer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleaning {
    /// Nothing.
    None,
    /// transformers' `Siglip2Tokenizer`: lower case.
    Lower,
    /// transformers' `SiglipTokenizer`: lower case, no ASCII punctuation, single spaces.
    Siglip,
    /// open_clip's `whitespace`: `ftfy`, HTML entities, single spaces.
    OpenClipSpaces,
    /// open_clip's `lower`: the same in lower case.
    OpenClipLower,
    /// open_clip's `canonicalize`: the same without ASCII punctuation; `_` is a space.
    OpenClipCanonical,
}

/// How rows of one batch become equally long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Padding {
    /// The token that is no text.
    pub id: u32,
    pub rows: PaddedTo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaddedTo {
    /// The longest of a batch: the encoder does not see what pads.
    Longest,
    /// The context length, by the tokenizer: the encoder was trained to see what pads.
    Context(Side),
}

/// Where padding goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

impl Padding {
    /// CLIP's: encoders do not look behind a row's end token.
    pub const CLIP: Padding = Padding { id: 0, rows: PaddedTo::Longest };
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
