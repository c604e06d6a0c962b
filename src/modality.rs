//! The two kinds of input a CLIP model embeds.

use std::ops::Index;

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

/// One for each modality.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByModality<T> {
    pub image: T,
    pub text: T,
}

impl<T: Clone> ByModality<T> {
    /// The same for both.
    pub fn both(value: T) -> ByModality<T> {
        ByModality { image: value.clone(), text: value }
    }
}

impl<T> Index<Modality> for ByModality<T> {
    type Output = T;

    fn index(&self, modality: Modality) -> &T {
        match modality {
            Modality::Image => &self.image,
            Modality::Text => &self.text,
        }
    }
}
