//! Which of the configurations that open_clip lists can be served from weights: the table in
//! `tests/fixtures/open_clip/README.md`.

use serde_json::json;

use super::*;
use crate::model::config::Config;

fn file(name: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/open_clip");
    std::fs::read_to_string(directory.join(name)).unwrap()
}

/// What stands behind a name: `served`, or why not.
fn answer(model: &Value) -> String {
    let width = model["embed_dim"].as_u64().unwrap() as usize;
    // Of SigLIP's image encoders, the checkpoint tells the sizes.
    let shapes = |name: &str| match name {
        "visual.conv1.weight" => Some(vec![width, 3, 16, 16]),
        "visual.transformer.resblocks.0.mlp.c_fc.weight" => Some(vec![4 * width, width]),
        _ => None,
    };
    match Config::from_open_clip(json!({"model_cfg": model}).to_string().as_bytes(), &shapes) {
        Ok(_) => "served".to_owned(),
        Err(ModelError::Config { key, value, .. }) => {
            let key = key.strip_prefix("model_cfg.").unwrap();
            format!("`{key}` is {value}").replace('|', "\\|")
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_table_of_open_clips_configurations_is_right() {
    let configurations: BTreeMap<String, Value> = serde_json::from_str(&file("configurations.json")).unwrap();
    let answers: Vec<(&String, String)> =
        configurations.iter().map(|(name, model)| (name, answer(model))).collect();
    let served = answers.iter().filter(|(_, answer)| answer == "served").count();
    let rows = answers.iter().map(|(name, answer)| format!("| {name} | {answer} |\n"));
    let table: String = ["| configuration | |\n|---|---|\n".to_owned()].into_iter().chain(rows).collect();
    let readme = file("README.md");
    assert!(readme.contains(&table), "tests/fixtures/open_clip/README.md should have this table:\n{table}");
    let count = format!("{served} of the {} configurations", answers.len());
    assert!(readme.contains(&count), "it should say {count}");
    let shown = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    assert!(shown.contains(&count), "README.md should say {count}");
}
