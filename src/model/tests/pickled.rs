//! Weights that PyTorch saved give the same graphs as the same weights in safetensors.

use super::*;

/// `weights` of the golden model, replaced by a file of `tests/fixtures/pickled`.
fn replaced(name: &str, weights: &str, file: &str, by: &str) -> Fixture {
    let fixture = Fixture::copy(name);
    fixture.remove(weights);
    let pickled = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/pickled").join(file);
    std::fs::copy(pickled, fixture.path(by)).unwrap();
    fixture
}

#[test]
fn pickled_weights_are_those_of_safetensors() {
    for (name, weights, file, by) in [
        ("bf16-patch16", WEIGHTS_FILE, "state_dict.bin", "open_clip_pytorch_model.bin"),
        ("bf16-patch16", WEIGHTS_FILE, "state_dict.bin", "epoch_32.pt"),
        ("transformers-patch8", "model.safetensors", "training.pt", "pytorch_model.bin"),
    ] {
        let expected = Fixture::copy(name).load().unwrap();
        let found = replaced(name, weights, file, by).load().unwrap();
        assert_eq!((&found.image, &found.text), (&expected.image, &expected.text), "{by}");
        assert_eq!(found.spec.logit_scale, expected.spec.logit_scale);
        assert_ne!(found.fingerprint, expected.fingerprint, "it is that of the files");
    }
}

#[test]
fn safetensors_go_first_and_of_several_pickled_files_none_is_guessed() {
    let fixture = Fixture::copy("bf16-patch16");
    std::fs::write(fixture.path("open_clip_pytorch_model.bin"), "nonsense").unwrap();
    fixture.load().unwrap();
    let fixture = replaced("bf16-patch16", WEIGHTS_FILE, "state_dict.bin", "epoch_1.pt");
    std::fs::copy(fixture.path("epoch_1.pt"), fixture.path("epoch_2.pt")).unwrap();
    assert!(fixture.load().unwrap_err().to_string().contains(WEIGHTS_FILE));
}

#[test]
fn prefixes_of_training_are_stripped() {
    let fixture = Fixture::copy("bf16-patch16");
    let expected = fixture.load().unwrap();
    fixture.tensors(WEIGHTS_FILE, |tensors| {
        *tensors = std::mem::take(tensors)
            .into_iter()
            .map(|(name, tensor)| (format!("module._orig_mod.{name}"), tensor))
            .collect();
    });
    assert_eq!(fixture.load().unwrap().image, expected.image);
}

#[test]
fn what_is_wrong_with_a_pickled_file_is_said_with_its_name() {
    check(
        "bf16-patch16",
        |fixture| {
            fixture.remove(WEIGHTS_FILE);
            std::fs::write(fixture.path("open_clip_pytorch_model.bin"), b"\x80\x02cos\nsystem\n").unwrap();
        },
        "open_clip_pytorch_model.bin: a pickle of before PyTorch 1.6: load it with torch.load and save it with \
         torch.save, or better with safetensors.torch.save_file",
    );
}
