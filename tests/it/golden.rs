//! clipd computes what open_clip and transformers compute: for checkpoints of many shapes, on every device and
//! precision.
//!
//! `tests/fixtures/golden/make.py` wrote the checkpoints and the reference's results.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clipd::clip::row::{ImageRow, TokenRow};
use clipd::clip::text::TextTokenizer;
use clipd::engine::device::{Device, Precision, Seat};
use clipd::engine::kinds::{available_devices, bf16_supported, int8_supported};
use clipd::engine::onnx::OnnxModel;
use clipd::engine::{Batch, Engine, EngineError};
use clipd::model::calibration::Calibration;
use clipd::model::graph::{Form, Operators, Products, WeightType};
use clipd::model::variant::Variant;
use clipd::model::{Model, ModelError};
use ndarray::{Array2, ArrayView1};
use safetensors::SafeTensors;

/// The checkpoints that lie beside their golden file.
const CHECKPOINTS: [&str; 18] = [
    "quick-gelu-patch8",
    "gelu-patch14",
    "bf16-patch16",
    "transformers-patch8",
    "transformers-shards",
    "siglip-patch8",
    "siglip2-patch7",
    "siglip-timm",
    "siglip2-timm",
    "resnet",
    "clipa",
    "worldwide",
    "vision-only",
    "ready-made",
    "transformers-js",
    "optimum",
    "inference",
    "bert",
];
/// The embedded model's.
const BUILTIN: &str = "emoji-clip";

#[test]
fn fp32_on_the_cpu_agrees_with_the_reference() {
    Setup::new(Device::CPU, Precision::Fp32, 0.999_999_9, 1e-5).check_all();
}

#[test]
fn fp32_on_openvino_agrees_with_the_reference() {
    Setup::new(Device::OPENVINO, Precision::Fp32, 0.999_999_9, 1e-5).check_all();
}

/// What GPUs get, as far as the CPU provider has the same operators.
#[test]
fn fused_operators_agree_with_the_reference() {
    let mut setup = Setup::new(Device::CPU, Precision::Fp32, 0.999_999_9, 1e-5);
    setup.form.operators = Operators::Fused;
    setup.check_all();
}

#[test]
fn bf16_on_openvino_comes_close_to_the_reference() {
    if !bf16_supported() {
        eprintln!("skipped: this CPU has no bf16 instructions");
        return;
    }
    // Kernels for other batch sizes round differently: up to a few units in the 8th bit.
    Setup::new(Device::OPENVINO, Precision::Bf16, 0.999, 0.02).check_all();
}

#[test]
fn int8_on_openvino_comes_close_to_the_reference() {
    if !int8_supported() {
        eprintln!("skipped: this CPU does not multiply 8-bit integers in vectors");
        return;
    }
    // The only one of these models that has a calibration; it is narrow, so that less evens out than in a large one.
    let mut setup = Setup::new(Device::OPENVINO, Precision::Int8, 0.998, 0.02);
    setup.form.products = in_8_bits();
    setup.check(BUILTIN, Model::builtin(setup.form.clone()));
}

/// The CPU provider has few kernels for fp16 and computes the rest in fp32; which, depends on the batch.
#[test]
fn fp16_weights_come_close_to_the_reference() {
    let mut setup = Setup::new(Device::CPU, Precision::Fp32, 0.9995, 1e-3);
    setup.form.weights = WeightType::Fp16;
    setup.check_all();
}

#[test]
fn the_cpu_refuses_other_precisions() {
    let Model { spec, image, text, .. } = Model::builtin(Form::PORTABLE).unwrap();
    let model = OnnxModel::new(Device::CPU, &spec, image, text).unwrap();
    for precision in [Precision::Bf16, Precision::Int8] {
        let error = model.open(&Seat::new(Device::CPU, precision)).err();
        assert!(matches!(error, Some(EngineError::Device(_))), "{error:?}");
    }
}

/// See `texts.json` beside the models.
#[derive(serde::Deserialize)]
struct Reference {
    text: String,
    ids: Vec<u32>,
}

#[test]
fn tokens_of_other_tokenizers_are_those_of_their_libraries() {
    for name in
        ["siglip-patch8", "siglip2-patch7", "siglip-timm", "siglip2-timm", "bert", "clipa", "worldwide"]
    {
        let model = Model::from_dir(&directory(name), &Variant::default(), Form::PORTABLE).unwrap();
        let spec = model.spec.text.unwrap();
        let tokenizer = TextTokenizer::new(&model.tokenizer_json, &spec, 1000).unwrap();
        let texts = std::fs::read(directory(name).join("texts.json")).unwrap();
        let references: Vec<Reference> = serde_json::from_slice(&texts).unwrap();
        assert!(references.len() >= 10, "{name}");
        for Reference { text, ids } in references {
            let tokens = tokenizer.encode(&text).unwrap();
            if name.starts_with("siglip2") && text.contains("<eos>") {
                // Deliberately not as there: special tokens are not looked for in a text.
                assert_ne!(*tokens.row.0, *ids);
                continue;
            }
            // Where the encoder does not see what pads, the batch pads.
            let (row, padding) = ids.split_at(tokens.row.0.len());
            assert_eq!(*tokens.row.0, *row, "{name}: {text:?}");
            assert!(padding.iter().all(|id| *id == spec.padding.id), "{name}: {text:?}");
            assert_eq!(tokens.truncated, tokens.tokens as usize > ids.len(), "{name}: {text:?}");
        }
    }
}

#[test]
fn ready_made_graphs_are_not_rounded() {
    let forms = [
        Form { weights: WeightType::Fp16, ..Form::PORTABLE },
        Form { products: in_8_bits(), ..Form::PORTABLE },
    ];
    for form in forms {
        let error = Model::from_dir(&directory("ready-made"), &Variant::default(), form).unwrap_err();
        assert!(error.to_string().contains("ready-made graphs are served as they are"), "{error}");
    }
}

/// Rounded weights are a little off, and what that makes of a picture must not grow with its brightness.
#[test]
fn rounded_weights_cost_bright_pictures_no_more_than_dark_ones() {
    let open = |form| {
        let Model { spec, image, text, .. } = Model::builtin(form).unwrap();
        let model = OnnxModel::new(Device::CPU, &spec, image, text).unwrap();
        (spec, model.open(&Seat::new(Device::CPU, Precision::Fp32)).unwrap())
    };
    let (spec, mut reference) = open(Form::PORTABLE);
    // One even grey each, from black to white.
    let greys = (0..=255).step_by(15).map(|grey| ImageRow(vec![grey; spec.image.row_bytes()].into()));
    let pictures = Batch::Images(greys.collect());
    let expected = reference.embed(&pictures).unwrap();
    let half = Form { weights: WeightType::Fp16, ..Form::PORTABLE };
    let eighth = Form { products: in_8_bits(), ..Form::PORTABLE };
    for (name, form, least) in [("fp16", half, 0.999_999_5), ("int8", eighth, 0.999)] {
        let actual = open(form).1.embed(&pictures).unwrap();
        for (index, (expected, actual)) in expected.outer_iter().zip(actual.outer_iter()).enumerate() {
            let cosine = cosine(expected, actual);
            eprintln!("{name}, grey {}: {cosine:.7}", 15 * index);
            assert!(cosine >= least, "{name}, grey {}: {cosine}", 15 * index);
        }
    }
}

/// As the embedded model is calibrated.
fn in_8_bits() -> Products {
    Products::Int8(Arc::new(Calibration::builtin().unwrap()))
}

#[test]
fn engines_of_one_model_agree() {
    let golden = Golden::read(BUILTIN);
    let Model { spec, image, text, .. } = Model::builtin(Form::PORTABLE).unwrap();
    let model = OnnxModel::new(Device::CPU, &spec, image, text).unwrap();
    let open = || model.open(&Seat::new(Device::CPU, Precision::Fp32)).unwrap();
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
    form: Form,
    min_cosine: f64,
    /// Between a row alone and the same row in a batch: the largest difference of two unit vectors in one
    /// coordinate.
    max_drift: f32,
}

impl Setup {
    fn new(device: Device, precision: Precision, min_cosine: f64, max_drift: f32) -> Setup {
        Setup { device, precision, form: device.form(precision), min_cosine, max_drift }
    }

    fn check_all(&self) {
        if !available_devices().unwrap().contains(&self.device) {
            eprintln!("skipped: this ONNX Runtime has no device {}", self.device);
            return;
        }
        self.check(BUILTIN, Model::builtin(self.form.clone()));
        for name in CHECKPOINTS {
            self.check(name, Model::from_dir(&directory(name), &Variant::default(), self.form.clone()));
        }
    }

    fn check(&self, name: &str, model: Result<Model, ModelError>) {
        let model = match model {
            Err(ModelError::ReadyMade(_)) => return,
            model => model.unwrap(),
        };
        assert_eq!(model.name, name);
        let golden = Golden::read(name);
        let Model { spec, image, text, .. } = model;
        if spec.text.is_some() {
            let scale = golden.number("logit_scale");
            assert!((spec.logit_scale - scale).abs() < 1e-4 * scale, "{name}");
            assert_eq!(spec.logit_bias, golden.number("logit_bias"), "{name}");
        }

        let model = OnnxModel::new(self.device, &spec, image, text).unwrap();
        let threads = NonZeroUsize::new(2).unwrap();
        let mut engine = model.open(&Seat { threads, ..Seat::new(self.device, self.precision) }).unwrap();
        let images = (golden.images(), golden.embeddings("image_embeddings"));
        let texts = spec.text.map(|_| (golden.texts(), golden.embeddings("text_embeddings")));
        for (batch, expected) in [images].into_iter().chain(texts) {
            let (cosine, drift) = compare(&mut *engine, &batch, &expected);
            let setup = format!("{} {} {:?}", self.device, self.precision.as_str(), self.form);
            let modality = batch.modality().as_str();
            eprintln!("{setup} {name} {modality}: smallest cosine {cosine:.9}, largest drift {drift:.1e}");
            assert!(cosine >= self.min_cosine, "{setup} {name} {modality}: cosine {cosine}");
            assert!(drift <= self.max_drift, "{setup} {name} {modality}: drift {drift}");
        }
    }
}

/// The smallest cosine between a row's embedding and the expected one, alone and in the batch, and the
/// largest difference between the two.
fn compare(engine: &mut dyn Engine, batch: &Batch, expected: &Array2<f32>) -> (f64, f32) {
    let together = engine.embed(batch).unwrap();
    assert_eq!(together.dim(), expected.dim());
    let (mut smallest, mut drift) = (1.0_f64, 0.0_f32);
    for index in 0..batch.rows() {
        let alone = engine.embed(&single(batch, index)).unwrap();
        let (alone, together, expected) = (alone.row(0), together.row(index), expected.row(index));
        smallest = smallest.min(cosine(expected, alone)).min(cosine(expected, together));
        let apart = unit(alone) - unit(together);
        drift = apart.iter().fold(drift, |drift, difference| drift.max(difference.abs()));
    }
    (smallest, drift)
}

/// In fp64: fp32 would round to what it is to tell apart.
fn cosine(a: ArrayView1<'_, f32>, b: ArrayView1<'_, f32>) -> f64 {
    let (a, b) = (a.mapv(f64::from), b.mapv(f64::from));
    a.dot(&b) / (a.dot(&a) * b.dot(&b)).sqrt()
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
        Batch::Images(bytes.chunks(row).map(|pixels| ImageRow(pixels.to_vec().into())).collect())
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
