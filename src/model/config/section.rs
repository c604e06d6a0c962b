//! One object of a configuration file.
//!
//! Reading a key removes it, so that [`Section::finish`] finds the ones that nobody knows.

use serde_json::{Map, Value, json};

use crate::model::ModelError;

/// An object whose keys have not all been read yet.
pub(super) struct Section {
    file: &'static str,
    /// Keys that lead to the object, with a dot after each.
    path: String,
    keys: Map<String, Value>,
}

impl Section {
    /// A file, which is one object.
    pub(super) fn file(file: &'static str, json: &[u8]) -> Result<Section, ModelError> {
        match serde_json::from_slice(json) {
            Ok(keys) => Ok(Section { file, path: String::new(), keys }),
            Err(source) => Err(ModelError::Json { file: file.to_owned(), source }),
        }
    }

    /// The object at `key`. `default` is there if nothing else is.
    pub(super) fn section(&mut self, key: &str, default: Option<Value>) -> Result<Section, ModelError> {
        match self.take(key).or(default).unwrap_or(Value::Null) {
            Value::Object(keys) => {
                Ok(Section { file: self.file, path: format!("{}{key}.", self.path), keys })
            }
            other => Err(self.refusal(key, &other, "an object")),
        }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.keys.get(key).is_some_and(|value| !value.is_null())
    }

    /// `null` is the same as leaving the key out.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.keys.remove(key).filter(|value| !value.is_null())
    }

    pub(super) fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.keys.remove(*key);
        }
    }

    /// Keys that may be present with the one value that the graphs implement, or none.
    pub(super) fn require(&mut self, keys: &[(&str, Value)]) -> Result<(), ModelError> {
        for (key, supported) in keys {
            if let Some(value) = self.take(key)
                && value != *supported
            {
                return Err(self.refusal(key, &value, &supported.to_string()));
            }
        }
        Ok(())
    }

    pub(super) fn flag(&mut self, key: &str) -> Result<bool, ModelError> {
        match self.take(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(self.refusal(key, &other, "true or false")),
        }
    }

    pub(super) fn size(&mut self, key: &str, default: Option<usize>) -> Result<usize, ModelError> {
        let value = self.take(key).or(default.map(|size| json!(size))).unwrap_or(Value::Null);
        positive_size(&value).ok_or_else(|| self.refusal(key, &value, "a positive integer"))
    }

    pub(super) fn positive(&mut self, key: &str, default: f64) -> Result<f64, ModelError> {
        let value = self.take(key).unwrap_or(json!(default));
        let number = value.as_f64().filter(|number| *number > 0.0);
        number.ok_or_else(|| self.refusal(key, &value, "a positive number"))
    }

    /// Four sizes; `None` if there is something else, which stays.
    pub(super) fn four_sizes(&mut self, key: &str) -> Result<Option<[usize; 4]>, ModelError> {
        let Some(Value::Array(values)) = self.keys.get(key) else { return Ok(None) };
        let sizes = values.iter().map(positive_size).collect::<Option<Vec<_>>>();
        let sizes = sizes.and_then(|sizes| sizes.try_into().ok());
        let value = self.take(key).unwrap_or(Value::Null);
        sizes.map(Some).ok_or_else(|| self.refusal(key, &value, "a positive integer, or four of them"))
    }

    /// A number for a square, or `[height, width]`.
    pub(super) fn height_and_width(
        &mut self,
        key: &str,
        default: usize,
    ) -> Result<(usize, usize), ModelError> {
        let value = self.take(key).unwrap_or(json!(default));
        let sides = match value.as_array().map(Vec::as_slice) {
            Some([height, width]) => positive_size(height).zip(positive_size(width)),
            Some(_) => None,
            None => positive_size(&value).map(|side| (side, side)),
        };
        sides.ok_or_else(|| self.refusal(key, &value, "a positive integer or [height, width]"))
    }

    /// Three numbers, or one for all three.
    pub(super) fn rgb(&mut self, key: &str, default: [f32; 3]) -> Result<[f32; 3], ModelError> {
        let Some(value) = self.take(key) else { return Ok(default) };
        let channel = |value: &Value| value.as_f64().map(|number| number as f32);
        let channels = match value.as_array() {
            Some(values) => values.iter().map(channel).collect::<Option<Vec<f32>>>(),
            None => channel(&value).map(|number| vec![number; 3]),
        };
        channels
            .and_then(|channels| channels.try_into().ok())
            .ok_or_else(|| self.refusal(key, &value, "a number or three"))
    }

    /// The first choice is the default.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Result<T, ModelError> {
        let value = self.take(key).unwrap_or(json!(choices[0].0));
        choices.iter().find(|(name, _)| value == *name).map(|(_, choice)| *choice).ok_or_else(|| {
            self.refusal(key, &value, &choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "))
        })
    }

    pub(super) fn finish(self) -> Result<(), ModelError> {
        match self.keys.iter().find(|(_, value)| !value.is_null()) {
            Some((key, value)) => Err(self.refusal(key, value, "nothing: clipd does not know this key")),
            None => Ok(()),
        }
    }

    pub(super) fn refusal(&self, key: &str, value: &Value, supported: &str) -> ModelError {
        ModelError::Config {
            file: self.file.to_owned(),
            key: format!("{}{key}", self.path),
            value: value.to_string(),
            supported: supported.to_owned(),
        }
    }
}

/// Sizes above `u32::MAX` are as wrong as negative ones.
fn positive_size(value: &Value) -> Option<usize> {
    value
        .as_u64()
        .and_then(|size| u32::try_from(size).ok())
        .filter(|&size| size > 0)
        .map(|size| size as usize)
}
