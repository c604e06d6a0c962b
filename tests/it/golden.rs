//! clipd computes what open_clip and transformers compute: for checkpoints of many shapes, on every device and
//! precision.
//!
//! `tests/fixtures/golden/make.py` wrote the checkpoints and the reference's results.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clipd::clip::row::{ImageRow, TokenRow};
use clipd::engine::device::{Device, Precision, available_devices, bf16_supported, int8_supported};
use clipd::engine::onnx::OnnxModel;
use clipd::engine::{Batch, Engine, EngineError};
use clipd::model::Model;
use ndarray::{Array2, ArrayView1};
use safetensors::SafeTensors;

/// The checkpoints that lie beside their golden file.
const CHECKPOINTS: [&str; 6] = [
    "quick-gelu-patch8",
    "gelu-patch14",
    "bf16-patch16",
    "transformers-patch8",
    "transformers-shards",
    "ready-made",
];
/// The embedded model's.
const BUILTIN: &str = "emoji-clip";

#[test]
fn fp32_on_the_cpu_agrees_with_the_reference() {
    let setup =
        Setup { device: Device::Cpu, precision: Precision::Fp32, min_cosine: 0.9999, max_drift: 1e-5 };
    setup.check_all();
}

#[test]
fn fp32_on_openvino_agrees_with_the_reference() {
    let setup =
        Setup { device: Device::OpenVino, precision: Precision::Fp32, min_cosine: 0.9999, max_drift: 1e-5 };
    setup.check_all();
}

#[test]
fn bf16_on_openvino_comes_close_to_the_reference() {
    if !bf16_supported() {
        eprintln!("skipped: this CPU has no bf16 instructions");
        return;
    }
    // Kernels for other batch sizes round differently: up to a few units in the 8th bit.
    let setup =
        Setup { device: Device::OpenVino, precision: Precision::Bf16, min_cosine: 0.999, max_drift: 0.02 };
    setup.check_all();
}

#[test]
fn int8_on_openvino_comes_close_to_the_reference() {
    if !int8_supported() {
        eprintln!("skipped: this CPU does not multiply 8-bit integers in vectors");
        return;
    }
    // The models here are narrow, so that less evens out than in a large one.
    let setup =
        Setup { device: Device::OpenVino, precision: Precision::Int8, min_cosine: 0.998, max_drift: 1e-5 };
    setup.check_all();
}

/// The CPU provider rounds weights to fp16 and computes in fp32; a GPU rounds what it computes too.
#[test]
fn fp16_weights_come_close_to_the_reference() {
    let named = CHECKPOINTS.map(|name| (name, Model::from_dir(&directory(name)).unwrap()));
    for (name, model) in named.into_iter().chain([(BUILTIN, Model::builtin().unwrap())]) {
        let golden = Golden::read(name);
        let fp16 = (model.image.with_fp16_weights(), model.text.with_fp16_weights());
        let (Some(image), Some(text)) = fp16 else {
            // Served as they are.
            assert_eq!(name, "ready-made");
            continue;
        };
        let onnx = OnnxModel::new(&model.spec, image, text).unwrap();
        let mut engine = onnx.open(Device::Cpu, Precision::Fp32, NonZeroUsize::MIN).unwrap();
        let images = (golden.images(), golden.embeddings("image_embeddings"));
        let texts = (golden.texts(), golden.embeddings("text_embeddings"));
        for (batch, expected) in [images, texts] {
            let (cosine, _) = compare(&mut engine, &batch, &expected);
            eprintln!("fp16 weights, {name} {}: smallest cosine {cosine:.7}", batch.modality().as_str());
            assert!(cosine >= 0.9995, "{name}: {cosine}");
        }
    }
}

#[test]
fn the_cpu_refuses_other_precisions() {
    let Model { spec, image, text, .. } = Model::builtin().unwrap();
    let model = OnnxModel::new(&spec, image, text).unwrap();
    for precision in [Precision::Bf16, Precision::Int8] {
        let error = model.open(Device::Cpu, precision, NonZeroUsize::MIN).err();
        assert!(matches!(error, Some(EngineError::Device(_))), "{error:?}");
    }
}

#[test]
fn ready_made_graphs_are_not_quantised() {
    let model = Model::from_dir(&directory("ready-made")).unwrap();
    assert!(model.image.with_int8_weights().is_none() && model.text.with_int8_weights().is_none());
}

#[test]
fn engines_of_one_model_agree() {
    let golden = Golden::read(BUILTIN);
    let Model { spec, image, text, .. } = Model::builtin().unwrap();
    let model = OnnxModel::new(&spec, image, text).unwrap();
    let open = || model.open(Device::Cpu, Precision::Fp32, NonZeroUsize::MIN).unwrap();
    let (mut first, mut second) = (open(), open());
    drop(model);
    let images = golden.images();
    let before = first.embed(&images).unwrap();
    assert_eq!(before, second.embed(&images).unwrap());
    drop(first);
    assert_eq!(before, second.embed(&images).unwrap());
}

/// How a model is run, and how far from the reference it may be.
struct Setup {
    device: Device,
    precision: Precision,
    min_cosine: f32,
    /// Between a row alone and the same row in a batch: the largest difference of two unit vectors in one
    /// coordinate.
    max_drift: f32,
}

impl Setup {
    fn check_all(&self) {
        if !available_devices().unwrap().contains(&self.device) {
            eprintln!("skipped: this ONNX Runtime has no device {}", self.device);
            return;
        }
        self.check(BUILTIN, Model::builtin().unwrap());
        for name in CHECKPOINTS {
            let model = Model::from_dir(&directory(name)).unwrap();
            assert_eq!(model.name, name);
            self.check(name, model);
        }
    }

    fn check(&self, name: &str, model: Model) {
        let golden = Golden::read(name);
        let Model { spec, mut image, mut text, .. } = model;
        if self.precision == Precision::Int8 {
            let (Some(image8), Some(text8)) = (image.with_int8_weights(), text.with_int8_weights()) else {
                return;
            };
            (image, text) = (image8, text8);
        }
        assert!((spec.logit_scale - golden.number("logit_scale")).abs() < 1e-4 * spec.logit_scale, "{name}");
        assert_eq!(spec.logit_bias, golden.number("logit_bias"), "{name}");

        let model = OnnxModel::new(&spec, image, text).unwrap();
        let threads = NonZeroUsize::new(2).unwrap();
        let mut engine = model.open(self.device, self.precision, threads).unwrap();
        let images = (golden.images(), golden.embeddings("image_embeddings"));
        let texts = (golden.texts(), golden.embeddings("text_embeddings"));
        for (batch, expected) in [images, texts] {
            let (cosine, drift) = compare(&mut engine, &batch, &expected);
            let setup = format!("{} {}", self.device, self.precision.as_str());
            let modality = batch.modality().as_str();
            eprintln!("{setup} {name} {modality}: smallest cosine {cosine:.7}, largest drift {drift:.1e}");
            assert!(cosine >= self.min_cosine, "{setup} {name} {modality}: cosine {cosine}");
            assert!(drift <= self.max_drift, "{setup} {name} {modality}: drift {drift}");
        }
    }
}

/// The smallest cosine between a row's embedding and the expected one, alone and in the batch, and the
/// largest difference between the two.
fn compare(engine: &mut impl Engine, batch: &Batch, expected: &Array2<f32>) -> (f32, f32) {
    let together = engine.embed(batch).unwrap();
    assert_eq!(together.dim(), expected.dim());
    let (mut cosine, mut drift) = (1.0_f32, 0.0_f32);
    for index in 0..batch.rows() {
        let alone = engine.embed(&single(batch, index)).unwrap();
        let (alone, together) = (unit(alone.row(0)), unit(together.row(index)));
        let expected = unit(expected.row(index));
        cosine = cosine.min(expected.dot(&alone)).min(expected.dot(&together));
        drift = (&alone - &together).iter().fold(drift, |drift, difference| drift.max(difference.abs()));
    }
    (cosine, drift)
}

fn single(batch: &Batch, index: usize) -> Batch {
    match batch {
        Batch::Images(rows) => Batch::Images(vec![rows[index].clone()]),
        Batch::Texts(rows) => Batch::Texts(vec![rows[index].clone()]),
    }
}

fn unit(row: ArrayView1<'_, f32>) -> ndarray::Array1<f32> {
    &row / row.dot(&row).sqrt()
}

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden").join(name)
}

/// Inputs and the reference's outputs for one model; `make.py` says what is in it.
struct Golden {
    file: Vec<u8>,
}

impl Golden {
    fn read(name: &str) -> Golden {
        Golden { file: std::fs::read(directory(name).join("golden.safetensors")).unwrap() }
    }

    fn images(&self) -> Batch {
        let (shape, bytes) = self.tensor("images");
        let row = shape[1..].iter().product();
        Batch::Images(bytes.chunks(row).map(|pixels| ImageRow(pixels.into())).collect())
    }

    /// Rows of different lengths, without the padding.
    fn texts(&self) -> Batch {
        let (shape, tokens) = self.integers("tokens");
        let (_, lengths) = self.integers("token_lengths");
        let rows = tokens.chunks(shape[1]).zip(lengths);
        Batch::Texts(rows.map(|(row, length)| TokenRow(row[..length as usize].into())).collect())
    }

    fn embeddings(&self, name: &str) -> Array2<f32> {
        let (shape, bytes) = self.tensor(name);
        let values = bytes.as_chunks().0.iter().map(|&number| f32::from_le_bytes(number)).collect();
        Array2::from_shape_vec((shape[0], shape[1]), values).unwrap()
    }

    fn number(&self, name: &str) -> f32 {
        f32::from_le_bytes(self.tensor(name).1.try_into().unwrap())
    }

    fn integers(&self, name: &str) -> (Vec<usize>, Vec<u32>) {
        let (shape, bytes) = self.tensor(name);
        (shape, bytes.as_chunks().0.iter().map(|&number| u32::from_le_bytes(number)).collect())
    }

    fn tensor(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        let tensors = SafeTensors::deserialize(&self.file).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        (tensor.shape().to_vec(), tensor.data().to_vec())
    }
}
