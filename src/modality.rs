//! The two kinds of input a CLIP model embeds.

/// Which encoder a row needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Modality {
    Image,
    Text,
}

impl Modality {
    pub const ALL: [Modality; 2] = [Modality::Image, Modality::Text];

    /// The lower-case word used in metrics, logs and error messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Modality::Image => "image",
            Modality::Text => "text",
        }
    }

    /// Position in [`Modality::ALL`], for arrays indexed by modality.
    pub fn index(self) -> usize {
        self as usize
    }
}
