//! Which of several exports of the same graphs is meant: transformers.js's `dtype`.

use std::str::FromStr;

/// Part of the names of ONNX files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variant(Option<String>);

impl Variant {
    /// Whether one was asked for.
    pub fn is_asked_for(&self) -> bool {
        self.0.is_some()
    }

    /// What stands before `.onnx`; nothing for `fp32`, which is also what is meant if nothing is said.
    pub(in crate::model) fn suffix(&self) -> String {
        match self.0.as_deref() {
            None | Some("fp32") => String::new(),
            Some("q8") => "_quantized".to_owned(),
            Some(name) => format!("_{name}"),
        }
    }
}

/// `fp32`, `fp16`, `q8`, `int8`, `uint8`, `q4`, `q4f16`, `bnb4`, or another word of files.
impl FromStr for Variant {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Variant, Self::Err> {
        let is_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_word
            .then(|| Variant(Some(text.to_owned())))
            .ok_or("not a word of letters and digits, such as fp16")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_parts_of_file_names() {
        let suffix = |text: &str| text.parse::<Variant>().unwrap().suffix();
        assert_eq!(["fp32", "fp16", "q8", "int8"].map(suffix), ["", "_fp16", "_quantized", "_int8"]);
        assert_eq!(Variant::default().suffix(), "");
        for wrong in ["", "../x", "fp16.onnx", "a b"] {
            assert!(wrong.parse::<Variant>().is_err(), "{wrong}");
        }
    }
}
