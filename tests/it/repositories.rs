//! `deploy/models.md`, what to type: its table is made of lists of files that others have published, and of what is
//! taken where these are in the hub.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clipd::model::hub::{Access, Repository};
use clipd::model::variant::Variant;
use serde::Deserialize;

use crate::support::fixtures;
use crate::support::hub::{Hub, WEIGHTS, pull_of, serve, sha256};

const PAGE: &str = "deploy/models.md";

/// `tests/fixtures/hub/repositories.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Known {
    sources: BTreeMap<String, String>,
    models: Vec<Row>,
}

/// What is known of a repository.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    /// As it is typed.
    repository: String,
    /// Of ONNX graphs.
    variant: Option<String>,
    layout: String,
    /// open_clip's name of the architecture.
    configuration: Option<String>,
    /// Where open_clip's has others.
    pixels: Option<u64>,
    /// Whether the files are all that there are.
    #[serde(default)]
    whole: bool,
    /// That the list is of; others are of no certain one.
    #[serde(default)]
    commit: String,
    /// By who says so.
    files: BTreeMap<String, Vec<String>>,
}

impl Row {
    fn known(&self) -> BTreeSet<&str> {
        self.files.values().flatten().map(String::as_str).collect()
    }

    /// Names that a model of this layout needs, of each group one, the best first. `has_own_tokenizer`: not CLIP's.
    fn needed(&self, has_own_tokenizer: bool) -> Vec<Vec<String>> {
        let suffix = match self.variant.as_deref() {
            None => String::new(),
            Some("q8") => "_quantized".to_owned(),
            Some(variant) => format!("_{variant}"),
        };
        let graph = |name: &str| format!("onnx/{name}{suffix}.onnx");
        let (vision, text, both) = (graph("vision_model"), graph("text_model"), graph("model"));
        let (groups, tokenizer_config): (&[&[&str]], _) = match &*self.layout {
            "open_clip" => (
                &[
                    &["open_clip_model.safetensors", "open_clip_pytorch_model.bin"],
                    &["open_clip_config.json"],
                    &["tokenizer.json"],
                ],
                "tokenizer_config.json",
            ),
            "transformers" => (
                &[
                    &["model.safetensors", "pytorch_model.bin"],
                    &["config.json"],
                    &["preprocessor_config.json"],
                    &["tokenizer.json"],
                ],
                "tokenizer_config.json",
            ),
            "transformers.js" => (
                &[
                    &[&vision, &both],
                    &[&text, &both],
                    &["config.json"],
                    &["preprocessor_config.json"],
                    &["tokenizer.json"],
                ],
                "tokenizer_config.json",
            ),
            "open_clip_inference" => (
                &[
                    &["visual.onnx"],
                    &["text.onnx"],
                    &["model_config.json"],
                    &["open_clip_config.json"],
                    &["tokenizer.json"],
                ],
                "tokenizer_config.json",
            ),
            "immich" => (
                &[
                    &["visual/model.onnx"],
                    &["textual/model.onnx"],
                    &["config.json"],
                    &["visual/preprocess_cfg.json"],
                    &["textual/tokenizer.json"],
                ],
                "textual/tokenizer_config.json",
            ),
            layout => panic!("{layout}"),
        };
        let named = |group: &&[&str]| group.iter().map(|name| (*name).to_owned()).collect();
        let mut groups: Vec<Vec<String>> = groups.iter().map(named).collect();
        groups.extend(has_own_tokenizer.then(|| vec![tokenizer_config.to_owned()]));
        groups
    }

    fn is_of_weights(&self) -> bool {
        ["open_clip", "transformers"].contains(&&*self.layout)
    }

    /// What clipd takes of the known files, if they make a model.
    async fn pull(&self) -> Option<BTreeSet<String>> {
        let files: BTreeMap<&'static str, Vec<u8>> = self
            .known()
            .into_iter()
            .map(|name| (&*name.to_owned().leak(), name.as_bytes().to_vec()))
            .collect();
        let hub = Hub { announced: sha256(WEIGHTS.as_bytes()), files, ..Hub::default() };
        let ((_hub, address), cache) = (serve(hub).await, tempfile::tempdir().unwrap());
        let variant =
            self.variant.as_deref().map_or_else(Variant::default, |variant| variant.parse().unwrap());
        let repository: Repository = "emoji/clip".parse().unwrap();
        let (pulled, _) = pull_of(repository, variant, address, cache.path(), Access::default()).await;
        let directory = pulled.ok()?;
        Some(
            self.known()
                .into_iter()
                .filter(|name| directory.join(name).exists())
                .map(str::to_owned)
                .collect(),
        )
    }
}

/// What open_clip says of an architecture, and whether clipd serves its weights.
#[derive(Default)]
struct Architecture {
    floats: String,
    pixels: String,
    is_siglip: bool,
    /// Why its weights are not served.
    refused: Option<String>,
}

fn architectures() -> BTreeMap<String, Architecture> {
    let directory = fixtures().join("open_clip");
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
    let table = read("README.md");
    let configurations: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(&read("configurations.json")).unwrap();
    let of = |(name, model): (String, serde_json::Value)| {
        let answer = table.split(&format!("\n| {name} | ")).nth(1).unwrap();
        let answer = answer.split(" |\n").next().unwrap();
        let architecture = Architecture {
            floats: model["embed_dim"].to_string(),
            pixels: model["vision_cfg"]["image_size"].to_string(),
            is_siglip: model.get("init_logit_bias").is_some(),
            refused: (answer != "served").then(|| answer.to_owned()),
        };
        (name, architecture)
    };
    configurations.into_iter().map(of).collect()
}

async fn line(row: &Row, architecture: &Architecture) -> String {
    let known = row.known();
    let needed = row.needed(architecture.is_siglip);
    let unknown: Vec<String> = needed
        .iter()
        .filter(|group| !group.iter().any(|name| known.contains(&**name)))
        .map(|group| format!("`{}`", group[0]))
        .collect();
    let refused = architecture.refused.as_ref().filter(|_| row.is_of_weights());
    let (taken, list) = if let Some(reason) = refused {
        (String::new(), format!("not served: {reason}"))
    } else if !unknown.is_empty() {
        (String::new(), format!("not checked: {}", unknown.join(", ")))
    } else {
        let pulled = row.pull().await.unwrap_or_else(|| panic!("{} has all that it needs", row.repository));
        let mut first = needed.iter().filter_map(|group| group.iter().find(|name| known.contains(&***name)));
        let weights = first.next().unwrap();
        assert!(pulled.contains(weights), "{}: {pulled:?}", row.repository);
        assert!(first.all(|name| pulled.contains(name)), "{}: {pulled:?}", row.repository);
        let says_logits = row.is_of_weights() || pulled.contains("model_config.json");
        let taken = match row.is_of_weights() {
            true => format!("`{weights}`"),
            false if architecture.is_siglip && !says_logits => "ONNX, scores are a softmax".to_owned(),
            false => "ONNX".to_owned(),
        };
        (taken, if row.whole { "whole".to_owned() } else { "in parts".to_owned() })
    };
    let option = row.variant.as_ref().map(|variant| format!(" --onnx-variant {variant}")).unwrap_or_default();
    let pixels = row.pixels.map_or_else(|| architecture.pixels.clone(), |pixels| pixels.to_string());
    let Row { name, repository, .. } = row;
    let floats = &architecture.floats;
    format!("| {name} | {floats} | {pixels} | `{repository}{option}` | {taken} | {list} |\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_to_type_is_what_is_published() {
    let json = std::fs::read_to_string(fixtures().join("hub/repositories.json")).unwrap();
    let known: Known = serde_json::from_str(&json).unwrap();
    let named: BTreeSet<&String> = known.models.iter().flat_map(|row| row.files.keys()).collect();
    assert_eq!(named, known.sources.keys().collect(), "each list has its source");
    let (architectures, unknown) = (architectures(), Architecture::default());
    let mut table = "| model | floats | pixels | `--model` | what is taken | list of files |\n".to_owned();
    table.push_str("|---|---|---|---|---|---|\n");
    for row in &known.models {
        row.repository.parse::<Repository>().unwrap();
        assert!(row.commit.is_empty() || row.commit.len() == 40, "{}", row.repository);
        let architecture = row.configuration.as_ref().map_or(&unknown, |name| &architectures[name]);
        table.push_str(&line(row, architecture).await);
    }
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE)).unwrap();
    assert!(page.contains(&table), "{PAGE} should have this table:\n{table}");
}
