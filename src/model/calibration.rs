//! What rounds a model to 8 bits: for what enters each linear layer, how it is rounded.
//!
//! `clipd calibrate` writes one, a file beside the model; graphs are written by it. It is numbers alone: how they are
//! found is not known here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::ModelError;
use super::io::{hexadecimal, read};

/// Where `clipd calibrate` puts it, in the model's directory.
pub const CALIBRATION_FILE: &str = "clipd_int8.json";

/// Octaves are divided into so many steps for the factors of channels: rounding a factor costs at most a twelfth of a
/// bit, and it is a small number in the file.
const STEPS: f32 = 4.0;

/// See the module.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// [`super::Model::fingerprint`] of the only model that it is for.
    pub model: String,
    /// What it promises of images; `None`: their encoder stays in floating point. Nothing is computed by it.
    pub image: Option<Reached>,
    /// The same of texts.
    pub text: Option<Reached>,
    /// By the names of layers; those that are not here stay in floating point.
    pub tensors: BTreeMap<String, Rounding>,
}

/// How close the embeddings of an encoder came to those in fp32, on inputs that it was not calibrated with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reached {
    /// How many inputs it was calibrated with, made-up ones among them.
    pub inputs: usize,
    /// How many others were compared.
    pub held_out: usize,
    pub mean_cosine: f64,
    pub min_cosine: f64,
    /// Layers that stay in floating point to reach that.
    pub kept: Vec<String>,
    /// How many times as fast as in floating point it was where it was calibrated.
    pub speed: f64,
    /// The same with none kept.
    pub speed_with_none_kept: f64,
}

/// How the numbers of a tensor become integers: `q = round(x / factor / step) + zero`, in the range of the type, with a
/// factor for each channel. Weights are multiplied by the same factors, so that the product stays what it is (Xiao et
/// al. 2023, SmoothQuant).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rounding {
    pub step: f32,
    /// `None`: integers are signed, and zero is 0. Otherwise they are unsigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero: Option<u8>,
    /// The logarithm of each channel's factor, in quarters of an octave; none: all are 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub factors: Vec<i8>,
}

impl Rounding {
    /// The logarithm in quarters of an octave, for [`Rounding::factors`].
    pub fn log(factor: f64) -> i8 {
        let log = (factor.log2() * f64::from(STEPS)).round();
        log.clamp(f64::from(i8::MIN), f64::from(i8::MAX)) as i8
    }

    /// What [`Rounding::log`] is of.
    pub fn factor(log: i8) -> f32 {
        (f32::from(log) / STEPS).exp2()
    }

    /// The integers that there are, without `zero`.
    pub fn range(&self) -> [i16; 2] {
        match self.zero {
            None => [i8::MIN.into(), i8::MAX.into()],
            Some(zero) => [-i16::from(zero), i16::from(u8::MAX) - i16::from(zero)],
        }
    }
}

impl Calibration {
    /// Reads the file of [`CALIBRATION_FILE`]'s kind.
    ///
    /// # Errors
    /// Where it cannot be read, or is none.
    pub fn read(path: &Path) -> Result<Calibration, ModelError> {
        let directory = path.parent().unwrap_or(Path::new(""));
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        Calibration::parse(&path.display().to_string(), &read(directory, &file)?)
    }

    pub(super) fn parse(file: &str, json: &[u8]) -> Result<Calibration, ModelError> {
        let parsed: Result<Calibration, _> = serde_json::from_slice(json);
        let calibration = parsed.map_err(|source| ModelError::Json { file: file.to_owned(), source })?;
        for (name, Rounding { step, .. }) in &calibration.tensors {
            if !step.is_normal() || *step <= 0.0 {
                let key = format!("step of {name}");
                let supported = "a number above zero".to_owned();
                return Err(ModelError::Config {
                    file: file.to_owned(),
                    key,
                    value: step.to_string(),
                    supported,
                });
            }
        }
        Ok(calibration)
    }

    /// As [`Calibration::read`] takes it.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and strings become JSON")
    }

    /// SHA-256 over all that embeddings depend on, in hexadecimal.
    pub fn hash(&self) -> String {
        let mut hasher = Sha256::new();
        hasher.update(serde_json::to_vec(&self.tensors).expect("numbers and strings become JSON"));
        hexadecimal(hasher)
    }
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reached { mean_cosine, min_cosine, kept, .. } = self;
        write!(f, "mean {mean_cosine:.6}, min {min_cosine:.6}, {} layers kept from rounding", kept.len())
    }
}

/// Without its thousands of numbers.
impl fmt::Debug for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Calibration({} tensors)", self.tensors.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_keep_within_an_eighth_of_an_octave() {
        for factor in [1.0, 0.013, 7.7, 4096.0] {
            let kept = f64::from(Rounding::factor(Rounding::log(factor)));
            assert!((kept / factor).log2().abs() <= 0.125 + 1e-6, "{factor} became {kept}");
        }
        assert_eq!([Rounding::log(1.0), Rounding::log(2.0), Rounding::log(1e30)], [0, 4, i8::MAX]);
    }

    #[test]
    fn what_is_written_is_read_and_its_hash_is_of_the_numbers_alone() {
        let rounding = Rounding { step: 0.5, zero: Some(9), factors: vec![-3, 0, 7] };
        let mut calibration = Calibration {
            model: "of a model".to_owned(),
            image: None,
            text: None,
            tensors: [("a".to_owned(), rounding)].into(),
        };
        let hash = calibration.hash();
        let again = Calibration::parse("file", calibration.to_json().as_bytes()).unwrap();
        assert!(again == calibration);
        calibration.model.clear();
        assert_eq!(calibration.hash(), hash);
        calibration.tensors.get_mut("a").unwrap().factors[1] = 1;
        assert_ne!(calibration.hash(), hash);
    }

    #[test]
    fn what_is_no_calibration_is_refused_by_name() {
        let refused = |json: &str| Calibration::parse("x.json", json.as_bytes()).unwrap_err().to_string();
        assert!(refused("{}").starts_with("x.json: missing field `model`"));
        let bad = r#"{"model":"","image":null,"text":null,"tensors":{"a":{"step":0}}}"#;
        assert_eq!(refused(bad), "x.json: step of a is 0, supported is a number above zero");
    }
}
