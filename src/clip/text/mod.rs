//! Texts become token rows: clean, split, encode, truncate, and pad where the encoder sees what pads.
//!
//! Otherwise it does not pad (the batch does), and it leaves it to the caller whether a text that was too long
//! is an error.
//!
//! CLIP's contract is open_clip 3.3's `SimpleTokenizer`, with ids from the model's own
//! `tokenizer.json`. Of that file the vocabulary, the merges and the splitting are used. Its
//! normaliser, truncation and padding are not: the cleaning here is open_clip's, which no
//! normaliser expresses. Of other models the file says everything but truncation, padding and the cleaning before it.
//! Special tokens are never looked for in a text, so that one that spells `<|endoftext|>` cannot end itself.

mod clean;
mod html;
mod mojibake;

use std::collections::HashSet;

use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{Encoding, Model, PostProcessor, Tokenizer, TruncationDirection};

use super::row::TokenRow;
use super::spec::{Cleaning, End, PaddedTo, Padding, Side, TextSpec, Tokenization};

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// Makes token rows for one model.
pub struct TextTokenizer {
    /// For CLIP, splitting and byte-pair encoding only.
    tokenizer: Tokenizer,
    rules: Rules,
    padding: Padding,
    context_length: usize,
    max_bytes: usize,
}

enum Rules {
    Clip {
        start: u32,
        end: u32,
    },
    /// Special tokens are added by the file's post-processor.
    File(Cleaning, End),
}

/// A text as the encoder takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Start token, text, end token, as far as the model has them; at most its context length. Padded to that if the
    /// model sees padding.
    pub row: TokenRow,
    /// Length before truncation and padding, start and end token included.
    pub tokens: u32,
    /// Whether the end of the text was cut off.
    pub truncated: bool,
}

/// Why a text was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    #[error("the text is {actual} bytes long, the limit is {limit}")]
    TooManyBytes { actual: usize, limit: usize },
    #[error("the text is empty, or only characters that do not count, such as white space")]
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
        let (tokenizer, rules) = match spec.tokenization {
            Tokenization::Clip => clip(&file, spec)?,
            Tokenization::File(cleaning, end) => (as_filed(file, spec)?, Rules::File(cleaning, end)),
        };
        let &TextSpec { context_length, padding, .. } = spec;
        Ok(Self { tokenizer, rules, padding, context_length, max_bytes })
    }

    /// The tokens of `text`. Truncation keeps the beginning of the text and the end token.
    pub fn encode(&self, text: &str) -> Result<Tokens, TextError> {
        if text.len() > self.max_bytes {
            return Err(TextError::TooManyBytes { actual: text.len(), limit: self.max_bytes });
        }
        let clean = match self.rules {
            Rules::Clip { .. } => clean::clean(text),
            Rules::File(cleaning, _) => clean::cleaned(text, cleaning),
        };
        if clean.is_empty() {
            return Err(TextError::Empty);
        }
        let unfit = |error: tokenizers::Error| TextError::Untokenizable { reason: error.to_string() };
        let mut encoding = self.tokenizer.encode_fast(clean, false).map_err(unfit)?;
        let added = match self.rules {
            Rules::Clip { .. } => 2,
            Rules::File(..) => self.tokenizer.get_post_processor().map_or(0, |each| each.added_tokens(false)),
        };
        let (length, room) = (encoding.len(), self.context_length - added);
        encoding.truncate(room, 0, TruncationDirection::Right);
        let row = match self.rules {
            Rules::Clip { start, end } => [&[start], encoding.get_ids(), &[end]].concat(),
            Rules::File(_, end) => {
                let encoding: Encoding = self.tokenizer.post_process(encoding, None, true).map_err(unfit)?;
                let mut row = encoding.get_ids().to_vec();
                if let (End::Padded, Some(last)) = (end, row.last_mut()) {
                    *last = self.padding.id;
                }
                row
            }
        };
        let row = TokenRow(self.padded(row).into());
        Ok(Tokens { row, tokens: (length + added) as u32, truncated: length > room })
    }

    fn padded(&self, mut row: Vec<u32>) -> Vec<u32> {
        match self.padding.rows {
            PaddedTo::Longest => row,
            PaddedTo::Context(Side::Right) => {
                row.resize(self.context_length, self.padding.id);
                row
            }
            PaddedTo::Context(Side::Left) => {
                let mut padded = vec![self.padding.id; self.context_length - row.len()];
                padded.append(&mut row);
                padded
            }
        }
    }
}

/// What CLIP's rules take of a file.
fn clip(file: &Tokenizer, spec: &TextSpec) -> Result<(Tokenizer, Rules), TokenizerError> {
    let ModelWrapper::BPE(model) = file.get_model() else {
        return Err(TokenizerError::NotBytePair);
    };
    check_bytes(model)?;
    let (start, end) = special_ids(file, spec.vocab_size)?;
    check_room(spec, 2)?;
    let mut tokenizer = Tokenizer::new(model.clone());
    tokenizer.with_pre_tokenizer(file.get_pre_tokenizer().cloned());
    Ok((tokenizer, Rules::Clip { start, end }))
}

/// The file's own rules, without what is done here.
fn as_filed(mut file: Tokenizer, spec: &TextSpec) -> Result<Tokenizer, TokenizerError> {
    let special = |id: &u32| file.get_added_tokens_decoder().get(id).is_some_and(|token| token.special);
    // What no text becomes may be beyond the table of embeddings.
    let ids = file.get_vocab(true).into_values().filter(|id| !special(id)).chain([spec.padding.id]);
    let highest = ids.max().unwrap_or(0);
    if highest as usize >= spec.vocab_size {
        return Err(TokenizerError::IdOutOfRange { id: highest, vocab_size: spec.vocab_size });
    }
    check_room(spec, file.get_post_processor().map_or(0, |each| each.added_tokens(false)))?;
    file.set_encode_special_tokens(true);
    file.with_padding(None);
    file.with_truncation(None).map_err(|error| TokenizerError::Unreadable { reason: error.to_string() })?;
    Ok(file)
}

/// For a token between those that are always added.
fn check_room(spec: &TextSpec, added: usize) -> Result<(), TokenizerError> {
    match spec.context_length {
        context_length if context_length <= added => Err(TokenizerError::ContextTooShort { context_length }),
        _ => Ok(()),
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
