//! Repair of mojibake: UTF-8 that was once decoded as something else, as in "schÃ¶n".
//!
//! It does not know languages, and leaves alone what no combination of characters gives away.
//!
//! The contract is `fix_encoding` of ftfy 6.3.1, whose tables and order of attempts these are,
//! for texts that need no more work than [`WORK_PER_BYTE`] allows.

mod badness;
mod bytes;
mod codec;

use std::borrow::Cow;

use self::codec::Codec;
use super::html;

/// How often each byte of a text may be looked at. ftfy repeats its steps until nothing changes,
/// which takes time quadratic in the length for `Ãƒƒƒƒ...`. None of 100,000 texts with several
/// kinds of mojibake in each other needed more.
const WORK_PER_BYTE: usize = 12;

/// What may still be spent on one text.
pub(super) struct Repair {
    allowance: usize,
}

impl Repair {
    pub(super) fn of(text: &str) -> Self {
        Self { allowance: WORK_PER_BYTE * text.len() }
    }

    /// `text` is the text that this was made for, in whatever shape it is by now, or a part of it.
    pub(super) fn repair<'a>(&mut self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        while let Some(repaired) = self.step(&text) {
            text = Cow::Owned(repaired);
        }
        text
    }

    fn step(&mut self, text: &str) -> Option<String> {
        if text.is_ascii() || !badness::is_bad(text) {
            return None;
        }
        self.allowance = self.allowance.checked_sub(text.len())?;
        codec::candidates(text)
            .find_map(|codec| decode_again(text, codec))
            .or_else(|| self.repair_sequences(text))
            .or_else(|| Some(text.chars().map(html::windows_1252).collect()))
            .filter(|repaired| repaired != text)
    }

    /// Repairs what looks like UTF-8 inside of something else.
    fn repair_sequences(&mut self, text: &str) -> Option<String> {
        let mut repaired = String::with_capacity(text.len());
        let mut done = 0;
        while let Some(sequences) = codec::next_sequences(text, done) {
            repaired.push_str(&text[done..sequences.start]);
            done = sequences.end;
            if sequences.len() == text.len() {
                // There is no smaller part to repair, and the whole was tried.
                return None;
            }
            repaired.push_str(&self.repair(&text[sequences]));
        }
        repaired.push_str(&text[done..]);
        (repaired != text).then_some(repaired)
    }
}

/// What `text` is if its bytes, taken for `codec`, were UTF-8 or something close to it.
fn decode_again(text: &str, codec: Codec) -> Option<String> {
    let mut bytes = codec::encode(text, codec);
    // Mac Roman has its en dash where a space behind it would be taken for a part of it.
    if codec != Codec::MacRoman {
        bytes = bytes::restore_spaces(&bytes);
    }
    if codec.marks_lost_bytes() {
        bytes = bytes::replace_incomplete(&bytes);
    }
    bytes::decode(bytes)
}

#[cfg(test)]
mod tests;
