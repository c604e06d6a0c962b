//! Rules of the source tree that the compiler does not know: who may import whom, and what appears nowhere else.

mod siblings;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// What each module may use of the others. Anything not listed is forbidden.
const MAY_USE: [(&str, &[&str]); 30] = [
    (
        "app",
        &[
            "admission",
            "auth",
            "batcher",
            "cli",
            "clip",
            "clock",
            "config",
            "connections",
            "engine",
            "grpc",
            "http",
            "metrics_port",
            "model",
            "pipeline",
            "readiness",
            "shutdown",
            "telemetry",
            "trace",
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
    // It looks into a model as a server has it, without one; of `cli` it has the pictures of a directory.
    ("calibrate", &["app", "cli", "clip", "clock", "config", "engine", "modality", "model"]),
    // A client too: `bench` for the server that it starts and for tables, `clip` for arithmetic and small pictures.
    ("eval", &["bench", "cli", "clip", "config", "grpc", "model", "shutdown"]),
    // Plain structs owned by the modules they configure.
    (
        "config",
        &[
            "admission",
            "auth",
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
            "trace",
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
            "auth",
            "batcher",
            "class",
            "clip",
            "clock",
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
        &[
            "admission",
            "batcher",
            "class",
            "clip",
            "clock",
            "code",
            "modality",
            "scheduler",
            "telemetry",
            "trace",
        ],
    ),
    ("batcher", &["class", "clip", "clock", "engine", "modality", "scheduler", "telemetry", "trace"]),
    ("engine", &["clip", "clock", "cpu_time", "modality", "model"]),
    ("model", &["clip"]),
    ("clip", &[]),
    ("scheduler", &["class", "clock", "modality"]),
    ("telemetry", &["modality"]),
    (
        "admission",
        &["auth", "class", "clock", "code", "connections", "random", "shutdown", "telemetry", "trace"],
    ),
    ("auth", &["clock", "follow", "telemetry"]),
    ("connections", &["clock", "follow", "random", "shutdown", "telemetry"]),
    ("trace", &["clock", "random", "telemetry"]),
    ("random", &[]),
    ("class", &[]),
    ("follow", &[]),
    ("code", &[]),
    ("clock", &[]),
    ("cpu_time", &[]),
    ("modality", &[]),
    ("readiness", &["batcher", "shutdown"]),
    ("shutdown", &[]),
];

/// A library and the one module that may know it.
const HOMES: [(&str, &[&str]); 19] = [
    ("hf_hub", &["model"]),
    ("ureq", &["http", "model"]),
    ("tonic", &["bench", "cli", "eval", "grpc", "trace"]),
    ("opentelemetry_proto", &["trace"]),
    ("tonic_health", &["grpc"]),
    ("hyper", &["connections"]),
    ("tokio_rustls", &["connections"]),
    ("x509_parser", &["connections"]),
    ("governor", &["auth"]),
    ("tonic_reflection", &["grpc"]),
    ("axum", &["http", "metrics_port"]),
    ("ort", &["engine"]),
    ("safetensors", &["model"]),
    ("prost", &["grpc", "model"]),
    ("tokenizers", &["clip"]),
    ("metrics_exporter_prometheus", &["telemetry"]),
    ("clap", &["cli", "config", "main"]),
    ("csv", &["eval"]),
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

/// Columns of a source line: rustfmt breaks neither comments nor strings.
const WIDTH: usize = 120;

struct Source {
    /// `grpc` for `src/grpc/admission.rs`.
    module: String,
    /// `grpc` and `admission`.
    names: Vec<String>,
    path: PathBuf,
    /// Without comments.
    code: String,
}

impl Source {
    /// `path` is that below `src`.
    fn new(path: PathBuf, text: String) -> Source {
        let names = path.with_extension("");
        let mut names: Vec<String> = names.iter().map(|name| name.to_str().unwrap().to_owned()).collect();
        names.pop_if(|last| last == "mod");
        let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
        Source { module: names[0].clone(), names, path, code: code.join("\n") }
    }
}

/// All below a folder of the repository.
fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    for path in rust_files("src") {
        let relative = path.strip_prefix(&root).unwrap();
        // Tests may know more than what they test.
        let tests = ["tests", "tests.rs"].map(OsStr::new);
        if relative.components().any(|part| tests.contains(&part.as_os_str())) {
            continue;
        }
        found.push(Source::new(relative.to_owned(), std::fs::read_to_string(&path).unwrap()));
    }
    assert!(found.len() > 30, "the source tree was found");
    found
}

fn is_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Every path that begins with `crate` or `super`; those of a group, as in `crate::{x, y::{z}}`, one by one.
fn paths(code: &str) -> Vec<Vec<&str>> {
    let mut found = Vec::new();
    for root in ["crate::", "super::"] {
        for (position, _) in code.match_indices(root) {
            if !code[..position].ends_with(|c| is_of_a_name(c) || c == ':') {
                follow(&code[position..], &[], &mut found);
            }
        }
    }
    found
}

/// Reads what follows `before` in a path, and returns the text behind it.
fn follow<'a>(text: &'a str, before: &[&'a str], found: &mut Vec<Vec<&'a str>>) -> &'a str {
    if let Some(mut group) = text.strip_prefix('{') {
        loop {
            group = group.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
            match group.strip_prefix('}') {
                Some(rest) => return rest,
                None => group = follow(group, before, found),
            }
            // What is left of an entry is a star, or another name for it.
            group = group.find([',', '}']).map_or("}", |end| &group[end..]);
        }
    }
    let (name, rest) = text.split_at(text.find(|c| !is_of_a_name(c)).unwrap_or(text.len()));
    let path = [before, &[name]].concat();
    match rest.strip_prefix("::") {
        Some(rest) => follow(rest, &path, found),
        None => {
            found.push(path);
            rest
        }
    }
}

/// Modules of ours that the code names.
fn used_modules(code: &str) -> BTreeSet<&str> {
    paths(code).into_iter().filter(|path| path[0] == "crate").map(|path| path[1]).collect()
}

/// Those who use each other in a circle, and who is between two of them.
fn circles<'a>(mut uses: Vec<(&'a str, &'a str)>) -> BTreeSet<&'a str> {
    loop {
        let before = uses.len();
        let users: BTreeSet<&str> = uses.iter().map(|(user, _)| *user).collect();
        let used: BTreeSet<&str> = uses.iter().map(|(_, used)| *used).collect();
        // Nobody is in a circle who uses nobody, or whom nobody uses.
        uses.retain(|(one, other)| used.contains(one) && users.contains(other));
        if uses.len() == before {
            return users;
        }
    }
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
    for Source { module, path, code, .. } in sources() {
        if module == "lib" || module == "main" {
            continue;
        }
        let allowed =
            allowed.get(module.as_str()).unwrap_or_else(|| panic!("{module} is not in the architecture"));
        for used in used_modules(&code) {
            seen.insert((module.clone(), used.to_owned()));
            assert!(
                used == module || allowed.contains(&used),
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
    let uses = MAY_USE.iter().flat_map(|(module, used)| used.iter().map(|used| (*module, *used)));
    assert_eq!(circles(uses.collect()), BTreeSet::new());
}

#[test]
fn libraries_stay_at_home() {
    for Source { module, path, code, .. } in sources() {
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
    for Source { module, path, code, .. } in sources() {
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
    for Source { module, path, code, .. } in sources() {
        assert!(
            module == "telemetry" || !code.contains("\"clip_"),
            "{}: metric names belong to telemetry/names.rs",
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
fn lines_are_not_wider_than_a_page() {
    for path in ["src", "tests"].into_iter().flat_map(rust_files) {
        let text = std::fs::read_to_string(&path).unwrap();
        let place = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap();
        for (index, line) in text.lines().enumerate() {
            let columns = line.chars().count();
            assert!(columns <= WIDTH, "{}:{} has {columns} columns", place.display(), index + 1);
        }
    }
}

#[test]
fn the_import_scanner_sees_what_it_should() {
    let check = |code: &str, expected: &[&str]| {
        assert_eq!(used_modules(code), expected.iter().copied().collect(), "{code}");
    };
    check("use crate::grpc::Options;", &["grpc"]);
    check("use crate::{grpc, pipeline::{a, b}, clock};", &["grpc", "pipeline", "clock"]);
    check("use crate::{clip::{row::*, image as picture}, model};", &["clip", "model"]);
    check("let x = crate::model::NAME;", &["model"]);
    check("use super::thing; use mycrate::thing;", &[]);
    assert!(names("use tonic::Code;", "tonic"));
    assert!(!names("use crate::http::metrics::X;", "metrics"));
    assert!(!names("use supertonic::Code;", "tonic"));
}
