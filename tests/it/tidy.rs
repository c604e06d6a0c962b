//! Rules of the source tree that the compiler does not know: who may import whom, and what appears nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// What each module may use of the others. Anything not listed is forbidden.
const MAY_USE: [(&str, &[&str]); 24] = [
    (
        "app",
        &[
            "admission",
            "batcher",
            "cli",
            "clip",
            "clock",
            "config",
            "engine",
            "grpc",
            "http",
            "metrics_port",
            "model",
            "pipeline",
            "readiness",
            "shutdown",
            "telemetry",
        ],
    ),
    // A client, and for the ceiling a server without its edges.
    (
        "bench",
        &[
            "app",
            "batcher",
            "cli",
            "clip",
            "clock",
            "code",
            "config",
            "cpu_time",
            "engine",
            "grpc",
            "modality",
            "shutdown",
            "telemetry",
        ],
    ),
    // Plain structs owned by the modules they configure.
    (
        "config",
        &[
            "admission",
            "cli",
            "clip",
            "connections",
            "engine",
            "grpc",
            "http",
            "modality",
            "model",
            "pipeline",
            "scheduler",
        ],
    ),
    // The generated client alone, what a download from the hub tells, and the names of picture files.
    ("cli", &["clip", "grpc", "model"]),
    // `clip` for the types of answers, `batcher` and `scheduler` for what `GetModel` says of devices and batches.
    (
        "grpc",
        &[
            "admission",
            "batcher",
            "class",
            "clip",
            "clock",
            "code",
            "connections",
            "long_work",
            "pipeline",
            "readiness",
            "scheduler",
            "shutdown",
            "telemetry",
        ],
    ),
    ("metrics_port", &["clock", "connections", "readiness", "shutdown", "telemetry"]),
    (
        "http",
        &[
            "admission",
            "batcher",
            "class",
            "clip",
            "code",
            "connections",
            "long_work",
            "pipeline",
            "readiness",
            "telemetry",
        ],
    ),
    ("long_work", &[]),
    (
        "pipeline",
        &["admission", "batcher", "class", "clip", "clock", "code", "modality", "scheduler", "telemetry"],
    ),
    ("batcher", &["class", "clip", "clock", "engine", "modality", "scheduler", "telemetry"]),
    ("engine", &["clip", "clock", "cpu_time", "modality", "model"]),
    ("model", &["clip"]),
    ("clip", &[]),
    ("scheduler", &["class", "clock", "modality"]),
    ("telemetry", &["modality"]),
    ("admission", &["class", "clock", "code", "connections", "shutdown", "telemetry"]),
    ("connections", &["clock", "shutdown", "telemetry"]),
    ("class", &[]),
    ("code", &[]),
    ("clock", &[]),
    ("cpu_time", &[]),
    ("modality", &[]),
    ("readiness", &["batcher", "shutdown"]),
    ("shutdown", &[]),
];

/// A library and the one module that may know it.
const HOMES: [(&str, &[&str]); 14] = [
    ("hf_hub", &["model"]),
    ("ureq", &["model"]),
    ("tonic", &["bench", "cli", "grpc"]),
    ("tonic_health", &["grpc"]),
    ("hyper", &["connections"]),
    ("tonic_reflection", &["grpc"]),
    ("axum", &["http", "metrics_port"]),
    ("ort", &["engine"]),
    ("safetensors", &["model"]),
    ("prost", &["grpc", "model"]),
    ("tokenizers", &["clip"]),
    ("metrics_exporter_prometheus", &["telemetry"]),
    ("clap", &["cli", "config", "main"]),
    ("crossbeam_channel", &["batcher"]),
];

/// What a pure module must not name.
const IMPURE: [&str; 8] = [
    "tokio",
    "crossbeam_channel",
    "tracing",
    "metrics",
    "std::thread",
    "std::time::Instant",
    "std::fs",
    "std::env",
];

struct Source {
    /// `grpc` for `src/grpc/admission.rs`.
    module: String,
    path: PathBuf,
    /// Without comments.
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(&root).unwrap();
                // Tests may know more than what they test.
                if relative
                    .components()
                    .any(|part| ["tests", "tests.rs"].map(OsStr::new).contains(&part.as_os_str()))
                {
                    continue;
                }
                let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
                let module = first.trim_end_matches(".rs").to_owned();
                let text = std::fs::read_to_string(&path).unwrap();
                let code: Vec<&str> =
                    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
                found.push(Source { module, path: relative.to_owned(), code: code.join("\n") });
            }
        }
    }
    assert!(found.len() > 30, "the source tree was found");
    found
}

/// Modules of ours that the code names: `crate::x::...`, and `crate::{x, y::...}` with its groups.
fn used_modules(code: &str) -> BTreeSet<String> {
    let name = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut used = BTreeSet::new();
    for (position, _) in code.match_indices("crate::") {
        if code[..position].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[position + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => {
                used.insert(name(rest));
            }
            Some(group) => {
                let mut depth = 0;
                let mut start = 0;
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => {
                            used.insert(name(&group[start..at]));
                            break;
                        }
                        '}' => depth -= 1,
                        ',' if depth == 0 => {
                            used.insert(name(&group[start..at]));
                            start = at + 1;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    used.remove("");
    used
}

/// Whether the code names `library` as a crate: `library::` that is not part of a longer path or name.
fn names(code: &str, library: &str) -> bool {
    let path = format!("{library}::");
    code.match_indices(&path).any(|(position, _)| {
        let before = &code[..position];
        !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

#[test]
fn imports_follow_the_architecture() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_USE.into_iter().collect();
    let mut seen = BTreeSet::new();
    for Source { module, path, code } in sources() {
        if module == "lib" || module == "main" {
            continue;
        }
        let allowed =
            allowed.get(module.as_str()).unwrap_or_else(|| panic!("{module} is not in the architecture"));
        for used in used_modules(&code) {
            seen.insert((module.clone(), used.clone()));
            assert!(
                used == module || allowed.contains(&used.as_str()),
                "{}: {module} must not use {used}",
                path.display()
            );
        }
    }
    for (module, used) in
        MAY_USE.iter().flat_map(|(module, used)| used.iter().map(move |used| (module, used)))
    {
        let edge = ((*module).to_owned(), (*used).to_owned());
        assert!(seen.contains(&edge), "{module} may use {used}, but does not: shorten the list");
    }
}

#[test]
fn the_architecture_has_no_cycle() {
    let mut left: BTreeMap<&str, Vec<&str>> =
        MAY_USE.into_iter().map(|(module, used)| (module, used.to_vec())).collect();
    while !left.is_empty() {
        let free: Vec<&str> = left
            .iter()
            .filter(|(_, used)| used.iter().all(|used| !left.contains_key(used)))
            .map(|(m, _)| *m)
            .collect();
        assert!(!free.is_empty(), "a cycle among {:?}", left.keys());
        left.retain(|module, _| !free.contains(module));
    }
}

#[test]
fn libraries_stay_at_home() {
    for Source { module, path, code } in sources() {
        for (library, homes) in HOMES {
            let here = names(&code, library);
            assert!(
                !here || homes.contains(&module.as_str()),
                "{}: {library} belongs to {homes:?}",
                path.display()
            );
        }
    }
}

#[test]
fn the_pure_modules_are_pure() {
    for Source { module, path, code } in sources() {
        if module == "scheduler" || module == "clip" {
            for impure in IMPURE {
                assert!(
                    !names(&code, impure),
                    "{}: {module} is pure and must not use {impure}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn metrics_are_named_in_one_place() {
    for Source { module, path, code } in sources() {
        assert!(
            module == "telemetry" || !code.contains("\"clip_"),
            "{}: metric names belong to telemetry/metrics.rs",
            path.display()
        );
    }
}

#[test]
fn no_channel_or_queue_is_unbounded() {
    for Source { path, code, .. } in sources() {
        assert!(!code.contains("unbounded"), "{}: every channel has a bound", path.display());
    }
}

#[test]
fn the_import_scanner_sees_what_it_should() {
    let check = |code: &str, expected: &[&str]| {
        assert_eq!(used_modules(code), expected.iter().map(|each| (*each).to_owned()).collect(), "{code}");
    };
    check("use crate::grpc::Options;", &["grpc"]);
    check("use crate::{grpc, pipeline::{a, b}, clock};", &["grpc", "pipeline", "clock"]);
    check("let x = crate::model::NAME;", &["model"]);
    check("use super::thing; use mycrate::thing;", &[]);
    assert!(names("use tonic::Code;", "tonic"));
    assert!(!names("use crate::http::metrics::X;", "metrics"));
    assert!(!names("use supertonic::Code;", "tonic"));
}
