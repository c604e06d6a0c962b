//! `clipd calibrate`: a model in 8 bits comes as close to fp32 as was promised, or nothing is written.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clipd::clip::embedding::{dot, normalize};
use clipd::clip::image::{ImageLimits, ImagePreprocessor};
use clipd::engine::Batch;
use clipd::engine::device::{Device, Precision, Seat};
use clipd::engine::kinds::{available_devices, int8_supported};
use clipd::engine::single::Single;
use clipd::model::Model;
use clipd::model::calibration::{CALIBRATION_FILE, Calibration, Reached};
use clipd::model::graph::{Form, Products};
use clipd::model::variant::Variant;
use tempfile::TempDir;

use crate::command_line::clipd;
use crate::support::fixtures;

/// Whether there is no such precision here, which is told.
fn is_skipped() -> bool {
    let here = int8_supported() && available_devices().unwrap().contains(&Device::OPENVINO);
    if !here {
        eprintln!("skipped: this machine does not multiply 8-bit integers, or has no OpenVINO");
    }
    !here
}

/// A copy of a checkpoint, to write beside it.
fn copy(name: &str) -> TempDir {
    let home = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixtures().join("golden").join(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, home.path().join(path.file_name().unwrap())).unwrap();
    }
    home
}

/// Exit code, standard output, standard error.
fn calibrate(model: &Path, texts: bool, more: &[&str]) -> (Option<i32>, String, String) {
    let zeroshot = fixtures().join("zeroshot");
    let mut command = clipd();
    command.args(["calibrate", "--model"]).arg(model).arg("--images").arg(&zeroshot);
    if texts {
        command.arg("--texts").arg(zeroshot.join("labels.txt"));
    }
    let output = command.args(more).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn image_encoder(
    directory: &Path,
    device: Device,
    precision: Precision,
    products: Products,
) -> (Model, Single) {
    let form = Form { products, ..device.form(precision) };
    let mut model = Model::from_dir(directory, &Variant::default(), form).unwrap();
    let graph = std::mem::take(&mut model.image);
    let single = Single::open(&model.spec, graph, &Seat::new(device, precision)).unwrap();
    (model, single)
}

fn unit(engine: &mut Single, batch: &Batch) -> Vec<f32> {
    let mut values = engine.embed(batch).unwrap().row(0).to_vec();
    normalize(&mut values).unwrap();
    values
}

#[test]
fn what_was_calibrated_is_served_as_close_as_promised() {
    if is_skipped() {
        return;
    }
    for (name, texts) in [("quick-gelu-patch8", false), ("siglip-timm", true), ("vision-only", false)] {
        let home = copy(name);
        let file = home.path().join(CALIBRATION_FILE);
        let (code, stdout, stderr) = calibrate(home.path(), texts, &["--inputs=64"]);
        assert_eq!((code, stdout.trim()), (Some(0), file.to_str().unwrap()), "{name}: {stderr}");
        let calibration = Calibration::read(&file).unwrap();
        assert_eq!(calibration.text.is_some(), texts, "{name}");
        let Reached { inputs, held_out, mean_cosine, min_cosine, .. } = calibration.image.clone().unwrap();
        assert_eq!((inputs, held_out), (48 + 24, 16), "{name}");
        assert!(mean_cosine >= 0.9995 && min_cosine >= 0.998, "{name}: {stderr}");

        // By itself, on all of the pictures.
        let products = Products::Int8(Arc::new(calibration));
        let (model, mut rounded) = image_encoder(home.path(), Device::OPENVINO, Precision::Int8, products);
        let (_, mut exact) = image_encoder(home.path(), Device::CPU, Precision::Fp32, Products::Float);
        let limits = ImageLimits { max_bytes: 1 << 20, max_pixels: 1 << 20 };
        let preprocessor = ImagePreprocessor::new(model.spec.image, limits);
        let cosines: Vec<f32> = pictures()
            .iter()
            .map(|path| {
                let row = preprocessor.encoded(&fs::read(path).unwrap()).unwrap();
                let batch = Batch::Images(vec![row]);
                dot(&unit(&mut rounded, &batch), &unit(&mut exact, &batch))
            })
            .collect();
        let mean = cosines.iter().sum::<f32>() / cosines.len() as f32;
        // It is rounded, and no more than that.
        assert!((0.9993..0.999_999).contains(&mean), "{name}: {mean}");

        // What is there is what embeddings depend on, and is not replaced.
        let before = fs::read(&file).unwrap();
        let (code, _, stderr) = calibrate(home.path(), texts, &["--inputs=64"]);
        assert_eq!(code, Some(1), "{name}");
        assert!(stderr.contains("it is there already"), "{name}: {stderr}");
        assert_eq!(fs::read(&file).unwrap(), before);
    }
}

fn pictures() -> Vec<PathBuf> {
    let noto = fixtures().join("zeroshot/noto");
    let paths = fs::read_dir(noto).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "png")).collect()
}

#[test]
fn who_asks_for_more_has_more_in_floating_point() {
    if is_skipped() {
        return;
    }
    let home = copy("quick-gelu-patch8");
    let out = home.path().join("strict.json");
    let strict = format!("--out={}", out.display());
    let (code, _, stderr) = calibrate(home.path(), false, &["--int8-cosine=0.99993,0.9998", &strict]);
    assert_eq!(code, Some(0), "{stderr}");
    let Calibration { image, text, tensors, .. } = Calibration::read(&out).unwrap();
    let reached = image.unwrap();
    assert!(reached.mean_cosine >= 0.99993 && reached.min_cosine >= 0.9998, "{stderr}");
    assert!(!reached.kept.is_empty() && reached.kept.iter().all(|layer| !tensors.contains_key(layer)));
    assert!(stderr.contains("stay in floating point (with none: "), "{stderr}");
    assert!(text.is_none() && tensors.keys().all(|name| name.starts_with("visual.")));

    let never = home.path().join("never.json");
    let (code, _, stderr) =
        calibrate(home.path(), false, &["--int8-cosine=1,1", &format!("--out={}", never.display())]);
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("--int8-cosine cannot be met: with all layers in floating point it is 0.99"),
        "{stderr}"
    );
    assert!(!never.exists());
}

#[test]
fn what_cannot_be_calibrated_says_why() {
    if is_skipped() {
        return;
    }
    let refused = |name: &str, texts: bool, more: &[&str], expected: &str| {
        let home = copy(name);
        let (code, _, stderr) = calibrate(home.path(), texts, more);
        assert!(matches!(code, Some(1 | 64)) && stderr.contains(expected), "{name}: {stderr}");
        assert!(!home.path().join(CALIBRATION_FILE).exists());
    };
    refused("vision-only", true, &[], "this model has no text encoder");
    refused("quick-gelu-patch8", false, &["--inputs=10"], "10 images are too few, 16 are the least");
    refused("quick-gelu-patch8", false, &["--int8-cosine=0.9"], "--int8-cosine: \"0.9\" is not two numbers");
    refused(
        "quick-gelu-patch8",
        false,
        &["--int8-cosine=0.9,2"],
        "--int8-cosine: \"2\" is not a number from 0 to 1",
    );
    // Its subdirectories are not copied: without them it is no model; as it lies there, it is one of ready-made graphs.
    let (code, _, stderr) =
        calibrate(&fixtures().join("golden/ready-made"), false, &["--out=/nonexistent/x.json"]);
    assert!(code == Some(1) && stderr.contains("has no layers that can be rounded"), "{stderr}");
}

/// For other tools, in operators of the standard.
#[test]
fn a_calibrated_model_is_exported_as_it_is_served() {
    let home = tempfile::tempdir().unwrap();
    let export = |name: &str, more: &[&str]| {
        let out = home.path().join(name);
        let output = clipd().args(["export", "--out"]).arg(&out).args(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let contains = |file: &str, word: &str| {
            let bytes = fs::read(out.join(file)).unwrap();
            bytes.windows(word.len()).any(|window| window == word.as_bytes())
        };
        assert!(!contains("text.onnx", "QuantizeLinear"), "texts are not in the calibration");
        (contains("image.onnx", "QuantizeLinear"), fs::metadata(out.join("image.onnx.data")).unwrap().len())
    };
    let (float, bytes) = export("float", &[]);
    let (rounded, fewer) = export(
        "rounded",
        &[concat!("--calibration=", env!("CARGO_MANIFEST_DIR"), "/src/model/builtin/clipd_int8.json")],
    );
    assert!(!float && rounded && fewer < bytes / 2, "{bytes} bytes became {fewer}");
}

#[test]
fn a_model_without_a_calibration_is_not_served_in_8_bits() {
    if is_skipped() {
        return;
    }
    let home = copy("quick-gelu-patch8");
    let serve = |more: &str| {
        let addresses = ["--listen=127.0.0.1:0", "--http-listen=off", "--metrics-listen=127.0.0.1:0"];
        let mut command = clipd();
        command.args(["serve", "--check-config", "--precision=int8", more]).args(addresses);
        let output = command.arg("--model").arg(home.path()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, stderr) = serve("--threads=1");
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("precision int8 needs a calibration") && stderr.contains(CALIBRATION_FILE),
        "{stderr}"
    );
    // That of the embedded model.
    let other = concat!("--calibration=", env!("CARGO_MANIFEST_DIR"), "/src/model/builtin/clipd_int8.json");
    let (code, stderr) = serve(other);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("the calibration is of another model"), "{stderr}");
}
