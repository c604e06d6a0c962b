use serde::Deserialize;
use serde_json::{Value, json};

use super::*;

const TOKENIZER: &[u8] = include_bytes!("../../model/builtin/tokenizer.json");
const TEXTS: &[u8] = include_bytes!("../../../tests/fixtures/parity/texts.json");
const START_ID: u32 = 3070;
const END_ID: u32 = 3071;
const VOCAB: usize = 3072;

fn spec(context_length: usize, vocab_size: usize) -> TextSpec {
    TextSpec { context_length, vocab_size, tokenization: Tokenization::Clip, padding: Padding::CLIP }
}

fn tokenizer(context_length: usize, max_bytes: usize) -> TextTokenizer {
    let spec = spec(context_length, VOCAB);
    TextTokenizer::new(TOKENIZER, &spec, max_bytes).unwrap()
}

/// See `tests/fixtures/parity/make.py`.
#[derive(Deserialize)]
struct Reference {
    text: String,
    ids: Vec<u32>,
}

#[test]
fn tokens_are_open_clips() {
    let references: Vec<Reference> = serde_json::from_slice(TEXTS).unwrap();
    assert_eq!(references.len(), 2823);
    let tokenizer = tokenizer(1000, 1000);
    for Reference { text, ids } in references {
        if ids.is_empty() {
            assert_eq!(tokenizer.encode(&text), Err(TextError::Empty), "{text:?}");
            continue;
        }
        let tokens = tokenizer.encode(&text).unwrap();
        let expected = [&[START_ID], ids.as_slice(), &[END_ID]].concat();
        assert_eq!(*tokens.row.0, *expected, "{text:?}");
        assert_eq!(tokens.tokens as usize, expected.len());
        assert!(!tokens.truncated);
    }
}

#[test]
fn special_tokens_in_a_text_are_plain_text() {
    let tokenizer = tokenizer(1000, 1000);
    let tokens = tokenizer.encode("<|endoftext|> <|startoftext|> <|pad|>").unwrap();
    let (first, rest) = tokens.row.0.split_first().unwrap();
    let (last, text) = rest.split_last().unwrap();
    assert_eq!((*first, *last), (START_ID, END_ID));
    assert!(text.iter().all(|id| (1..START_ID).contains(id)), "{text:?}");
}

#[track_caller]
fn check_truncation(context_length: usize, len: usize, truncated: bool) {
    // One token each.
    let text = "a dog a dog a dog";
    let tokens = tokenizer(context_length, 1000).encode(text).unwrap();
    assert_eq!(tokens.tokens, 8);
    assert_eq!(tokens.row.0.len(), len);
    assert_eq!(tokens.row.0.last(), Some(&END_ID));
    assert_eq!(tokens.truncated, truncated);
}

#[test]
fn truncation_keeps_the_end_token() {
    check_truncation(9, 8, false);
    check_truncation(8, 8, false);
    check_truncation(7, 7, true);
    check_truncation(3, 3, true);
}

#[test]
fn texts_that_are_refused() {
    let tokenizer = tokenizer(32, 10);
    for text in ["", " \n", "\u{FEFF}", "&#1;"] {
        assert_eq!(tokenizer.encode(text), Err(TextError::Empty), "{text:?}");
    }
    let error = tokenizer.encode("ten bytes é").unwrap_err();
    assert_eq!(error.to_string(), "the text is 12 bytes long, the limit is 10");
    assert!(tokenizer.encode("ten byte é").is_err());
    assert!(tokenizer.encode("ten bytes!").is_ok());
}

/// `change` is made to the built-in model's tokenizer.json.
#[track_caller]
fn check_refused(vocab_size: usize, change: impl FnOnce(&mut Value), message: &str) {
    let mut file: Value = serde_json::from_slice(TOKENIZER).unwrap();
    change(&mut file);
    let spec = spec(32, vocab_size);
    let result = TextTokenizer::new(&serde_json::to_vec(&file).unwrap(), &spec, 100);
    assert_eq!(result.err().unwrap().to_string(), message);
}

#[test]
fn vocabularies_that_do_not_fit_the_model_are_refused() {
    check_refused(VOCAB - 1, |_| (), "token id 3071 is not below the model's vocabulary size 3071");
    check_refused(
        VOCAB + 1,
        |file| {
            file["model"]["vocab"]["beyond"] = json!(VOCAB);
        },
        "<|endoftext|> has id 3071, the model's vocabulary ends with id 3072",
    );
    check_refused(49_408, |_| (), "<|endoftext|> has id 3071, the model's vocabulary ends with id 49407");
    check_refused(
        VOCAB,
        |file| {
            file["model"]["vocab"].as_object_mut().unwrap().remove("!</w>");
            file["model"]["merges"] = json!([]);
        },
        "the vocabulary lacks !</w>",
    );
    check_refused(
        VOCAB,
        |file| {
            file["added_tokens"] = json!([]);
            file["post_processor"] = Value::Null;
            file["model"]["vocab"].as_object_mut().unwrap().remove(START);
        },
        "the vocabulary lacks <|startoftext|>",
    );
    check_refused(
        VOCAB,
        |file| {
            file["model"] = json!({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"});
        },
        "it holds no byte-pair encoding, the kind that CLIP uses",
    );
}

#[test]
fn what_is_no_tokenizer_or_has_no_room_is_refused() {
    let error = TextTokenizer::new(b"{", &spec(32, VOCAB), 100).err().unwrap();
    assert!(matches!(error, TokenizerError::Unreadable { .. }), "{error}");
    let error = TextTokenizer::new(TOKENIZER, &spec(2, VOCAB), 100).err().unwrap();
    assert_eq!(error.to_string(), "a context of 2 tokens has no room for a text");
}
