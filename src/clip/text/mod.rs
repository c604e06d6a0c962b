//! Texts become token rows: clean, split, byte-pair encode, truncate.
//!
//! It does not pad (the batch does) and leaves it to the caller whether a text that was too long
//! is an error.
//!
//! The contract is open_clip 3.3's `SimpleTokenizer`, with ids from the model's own
//! `tokenizer.json`. Of that file the vocabulary, the merges and the splitting are used. Its
//! normaliser, truncation and padding are not: the cleaning here is open_clip's, which no
//! normaliser expresses. Nor are its special tokens looked for in the text, so that a text that
//! spells `<|endoftext|>` cannot end itself.

mod clean;
mod html;
mod mojibake;

use std::collections::HashSet;

use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{Model, Tokenizer};

use super::row::TokenRow;
use super::spec::TextSpec;

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// Makes token rows for one model.
pub struct TextTokenizer {
    /// Splitting and byte-pair encoding only.
    tokenizer: Tokenizer,
    start: u32,
    end: u32,
    context_length: usize,
    max_bytes: usize,
}

/// A text as the encoder takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Start token, text, end token; at most the model's context length.
    pub row: TokenRow,
    /// Length before truncation, start and end token included.
    pub tokens: u32,
    /// Whether the end of the text was cut off.
    pub truncated: bool,
}

/// Why a text was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    #[error("the text is {actual} bytes long, the limit is {limit}")]
    TooManyBytes { actual: usize, limit: usize },
    #[error("the text is empty, or only white space and control characters")]
    Empty,
    #[error("the text cannot be split into tokens: {reason}")]
    Untokenizable { reason: String },
}

/// Why a `tokenizer.json` does not fit the model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    #[error("cannot be read: {reason}")]
    Unreadable { reason: String },
    #[error("it holds no byte-pair encoding, the kind that CLIP uses")]
    NotBytePair,
    #[error("the vocabulary lacks {token}")]
    MissingToken { token: String },
    #[error("token id {id} is not below the model's vocabulary size {vocab_size}")]
    IdOutOfRange { id: u32, vocab_size: usize },
    /// The model pools at the highest id of a row; and a vocabulary that ends elsewhere is another model's.
    #[error("{END} has id {end}, the model's vocabulary ends with id {last}")]
    EndNotLast { end: u32, last: usize },
    #[error("a context of {context_length} tokens has no room for a text")]
    ContextTooShort { context_length: usize },
}

impl TextTokenizer {
    /// `tokenizer_json` is the content of the model's `tokenizer.json`; texts may be `max_bytes`
    /// bytes of UTF-8 long.
    pub fn new(tokenizer_json: &[u8], spec: &TextSpec, max_bytes: usize) -> Result<Self, TokenizerError> {
        let file = Tokenizer::from_bytes(tokenizer_json)
            .map_err(|error| TokenizerError::Unreadable { reason: error.to_string() })?;
        let ModelWrapper::BPE(model) = file.get_model() else {
            return Err(TokenizerError::NotBytePair);
        };
        check_bytes(model)?;
        let (start, end) = special_ids(&file, spec.vocab_size)?;
        if spec.context_length < 3 {
            return Err(TokenizerError::ContextTooShort { context_length: spec.context_length });
        }
        let mut tokenizer = Tokenizer::new(model.clone());
        tokenizer.with_pre_tokenizer(file.get_pre_tokenizer().cloned());
        Ok(Self { tokenizer, start, end, context_length: spec.context_length, max_bytes })
    }

    /// The tokens of `text`. Truncation keeps the beginning of the text and the end token.
    pub fn encode(&self, text: &str) -> Result<Tokens, TextError> {
        if text.len() > self.max_bytes {
            return Err(TextError::TooManyBytes { actual: text.len(), limit: self.max_bytes });
        }
        let clean = clean::clean(text);
        if clean.is_empty() {
            return Err(TextError::Empty);
        }
        let encoding = self
            .tokenizer
            .encode_fast(clean, false)
            .map_err(|error| TextError::Untokenizable { reason: error.to_string() })?;
        let ids = encoding.get_ids();
        let room = self.context_length - 2;
        let kept = &ids[..ids.len().min(room)];
        let row = [&[self.start], kept, &[self.end]].concat();
        Ok(Tokens { row: TokenRow(row.into()), tokens: ids.len() as u32 + 2, truncated: ids.len() > room })
    }
}

/// Every byte must have its symbol, inside a word and at its end: what is missing would become
/// the unknown token, which CLIP vocabularies define as the end token.
fn check_bytes(model: &BPE) -> Result<(), TokenizerError> {
    let suffix = model.end_of_word_suffix.as_deref().unwrap_or_default();
    let alphabet: HashSet<char> = ByteLevel::alphabet().into_iter().collect();
    for symbol in alphabet {
        for token in [symbol.to_string(), format!("{symbol}{suffix}")] {
            if model.token_to_id(&token).is_none() {
                return Err(TokenizerError::MissingToken { token });
            }
        }
    }
    Ok(())
}

/// Ids of the start and the end token, once the whole vocabulary is known to fit the model.
fn special_ids(file: &Tokenizer, vocab_size: usize) -> Result<(u32, u32), TokenizerError> {
    let id = |token: &str| {
        file.token_to_id(token).ok_or_else(|| TokenizerError::MissingToken { token: token.to_owned() })
    };
    let (start, end) = (id(START)?, id(END)?);
    let highest = file.get_vocab(true).into_values().max().unwrap_or(end);
    if highest as usize >= vocab_size {
        return Err(TokenizerError::IdOutOfRange { id: highest, vocab_size });
    }
    if end as usize + 1 != vocab_size {
        return Err(TokenizerError::EndNotLast { end, last: vocab_size - 1 });
    }
    Ok((start, end))
}

#[cfg(test)]
mod tests;
