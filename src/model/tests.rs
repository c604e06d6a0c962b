mod damage;
mod open_clip;
mod open_clip_table;
mod pickled;
mod ready_made;
mod transformers;

use std::collections::BTreeMap;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tempfile::TempDir;

use super::*;

/// A copy of a model in `tests/fixtures/golden`, to be damaged.
struct Fixture {
    directory: TempDir,
}

/// Type, shape and bytes by name.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

impl Fixture {
    fn copy(name: &str) -> Fixture {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/golden").join(name);
        let directory = tempfile::tempdir().unwrap();
        copy_all(&golden, directory.path());
        Fixture { directory }
    }

    fn load(&self) -> Result<Model, ModelError> {
        Model::from_dir(self.directory.path(), &Variant::default(), Form::PORTABLE)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    fn remove(&self, file: &str) {
        std::fs::remove_file(self.path(file)).unwrap();
    }

    /// Changes a file's bytes.
    fn edit(&self, file: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(self.path(file)).unwrap();
        change(&mut bytes);
        std::fs::write(self.path(file), bytes).unwrap();
    }

    /// `path` as in `model_cfg.text_cfg.width`.
    fn set(&self, file: &str, path: &str, value: Value) {
        self.edit(file, |bytes| {
            let mut config: Value = serde_json::from_slice(bytes).unwrap();
            *path.split('.').fold(&mut config, |place, key| &mut place[key]) = value;
            *bytes = serde_json::to_vec(&config).unwrap();
        });
    }

    fn tensors(&self, file: &str, change: impl FnOnce(&mut Tensors)) {
        self.edit(file, |bytes| {
            let mut tensors: Tensors = SafeTensors::deserialize(bytes)
                .unwrap()
                .iter()
                .map(|(name, tensor)| {
                    (name.to_owned(), (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec()))
                })
                .collect();
            change(&mut tensors);
            let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
                (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
            });
            *bytes = safetensors::serialize(views, None).unwrap();
        });
    }
}

fn copy_all(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_all(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Damages a good model and compares the error.
#[track_caller]
fn check(name: &str, damage: impl FnOnce(&Fixture), message: &str) {
    let fixture = Fixture::copy(name);
    fixture.load().unwrap();
    damage(&fixture);
    let found = fixture.load().unwrap_err().to_string();
    assert_eq!(found, message.replace("DIR", &fixture.directory.path().display().to_string()));
}

#[test]
fn the_builtin_model_loads() {
    let model = Model::builtin(Form::PORTABLE).unwrap();
    assert_eq!(model.name, "emoji-clip");
    assert_eq!(model.fingerprint.len(), 64);
    assert_eq!((model.spec.image.height, model.spec.image.width, model.spec.embed_dim), (64, 64, 128));
    let text = model.spec.text.unwrap();
    assert_eq!((text.context_length, text.vocab_size), (32, 3072));
    assert!(model.spec.logit_scale > 1.0 && model.spec.logit_scale <= 100.0);
    assert!(serde_json::from_slice::<Value>(&model.tokenizer_json).is_ok());
}

/// As `cat FILES | sha256sum` prints it.
#[test]
fn the_fingerprint_is_of_the_files_one_after_the_other() {
    for (name, fingerprint) in [
        ("bf16-patch16", "91f127e7432c4db934346742d0419e20c745f808edc1375d39314400f825c559"),
        ("transformers-patch8", "ff840820628b062b1eb5dee2e5d0d85f395009042a121fefbeef0fbde19e8711"),
        ("transformers-shards", "807593e256fc81e76cb598072d6a12dd0b0a43e3139be49c5ba1845d75378b14"),
    ] {
        assert_eq!(Fixture::copy(name).load().unwrap().fingerprint, fingerprint, "{name}");
    }
}
