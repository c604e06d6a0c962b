//! The pages name what the program has: every flag with its default, every metric. README.md stays short, and every
//! link of the pages leads somewhere.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clipd::clip::image::ImageFormat;
use clipd::config::flags::Cli;
use clipd::engine::kinds;

const START: &str = "README.md";
const API: &str = "proto/README.md";
const OPERATING: &str = "deploy/README.md";
const PAGES: [&str; 6] =
    [START, API, OPERATING, "deploy/models.md", "tests/bench/README.md", "tests/eval/README.md"];

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

#[test]
fn the_first_page_is_short() {
    let bytes = read(START).len();
    assert!(bytes <= 15_000, "{START} has {bytes} bytes: what is not for newcomers belongs on another page");
}

#[test]
fn every_flag_is_listed_with_its_default() {
    let (page, cli) = (read(OPERATING), Cli::command());
    let serve = cli.find_subcommand("serve").unwrap();
    for argument in serve.get_arguments().chain(cli.get_arguments()) {
        let Some(name) =
            argument.get_long().filter(|name| !["help", "version", "check-config"].contains(name))
        else {
            continue;
        };
        let row = format!("| `--{name}` | ");
        let rest = page.split(&row).nth(1).unwrap_or_else(|| panic!("--{name} is not in the table"));
        if let [default] = argument.get_default_values() {
            let default = format!("`{}` |", default.to_str().unwrap());
            assert!(rest.starts_with(&default), "--{name}: the default is {default}");
        }
    }
}

#[test]
fn every_kind_of_device_is_named() {
    let help = Cli::command().find_subcommand_mut("serve").unwrap().render_long_help().to_string();
    for kind in kinds::names() {
        assert!(help.contains(kind) && read(OPERATING).contains(&format!("`{kind}")), "{kind}");
    }
}

#[test]
fn the_formats_of_pictures_are_the_same_everywhere() {
    let list = ImageFormat::listed("or");
    let help = |command: &str| {
        Cli::command().find_subcommand_mut(command).unwrap().render_long_help().to_string().replace('\n', " ")
    };
    let mut texts = vec![read(API), read("proto/clip/v1/clip.proto"), help("classify"), help("embed")];
    if cfg!(feature = "bench") {
        texts.push(help("bench"));
    }
    for text in texts {
        let words: Vec<&str> = text.split_whitespace().collect();
        assert!(words.join(" ").contains(&list), "{list} is not in {text}");
    }
}

#[test]
fn every_metric_is_listed() {
    // Not those of a rendering, where most appear when something was measured.
    let (page, names) = (read(OPERATING), read("src/telemetry/names.rs"));
    let names: Vec<&str> = names.split('"').filter(|text| text.starts_with("clip_")).collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn the_first_client_is_the_one_that_is_tested() {
    let page = read(START);
    let shown = page.split("```python\n").skip(1).filter_map(|rest| rest.split("```").next());
    let example = read("tests/clients/example.py");
    let mut same = shown.filter(|shown| example.ends_with(&format!("\"\"\"\n\n{shown}")));
    assert!(same.next().is_some(), "{START} has another tests/clients/example.py");
}

/// Lines outside of code blocks.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    page.lines().filter(move |line| {
        let fence = line.starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
}

/// Anchors of the headings that begin with `mark`, such as `## `.
fn anchors(page: &str, mark: &str) -> BTreeSet<String> {
    prose(page).filter_map(|line| line.strip_prefix(mark)).map(anchor).collect()
}

fn all_anchors(page: &str) -> BTreeSet<String> {
    ["# ", "## ", "### "].iter().flat_map(|mark| anchors(page, mark)).collect()
}

/// Where `[...](here)` points to.
fn links(page: &str) -> Vec<String> {
    let text: Vec<&str> = prose(page).collect();
    let text = text.join("\n");
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.map(str::to_owned).collect()
}

#[test]
fn every_link_leads_somewhere() {
    for page in PAGES {
        let text = read(page);
        for link in links(&text) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, fragment) = link.split_once('#').map_or((&*link, None), |(file, at)| (file, Some(at)));
            let target = if file.is_empty() { path(page) } else { path(page).parent().unwrap().join(file) };
            assert!(target.exists(), "{page}: {link}: there is no {}", target.display());
            if let Some(fragment) = fragment {
                let there = all_anchors(&std::fs::read_to_string(&target).unwrap());
                assert!(there.contains(fragment), "{page}: {link}: only {there:?} are there");
            }
        }
    }
}

#[test]
fn every_page_begins_with_its_contents() {
    for page in PAGES {
        let text = read(page);
        let (beginning, _) = text.split_once("\n## ").unwrap_or_else(|| panic!("{page} has no headings"));
        let listed: BTreeSet<String> =
            links(beginning).iter().filter_map(|link| link.strip_prefix('#')).map(str::to_owned).collect();
        assert_eq!(listed, anchors(&text, "## "), "{page}: its contents and its headings");
    }
}

#[test]
fn anchors_are_those_of_github() {
    assert_eq!(anchor("Run it in 60 seconds"), "run-it-in-60-seconds");
    assert_eq!(anchor("ViT-B/16"), "vit-b16");
    assert_eq!(anchor("How close to open_clip"), "how-close-to-open_clip");
}
