//! `clipd eval`, the real program: the figures of clip_benchmark on the same data, and what it says of bad data.
//!
//! `fixtures/eval/suite.json` has what clip_benchmark 1.6.2 gives with open_clip on the weights of the embedded model,
//! on the CPU and without autocast; tests/eval/run makes it, with the data sets of tests/eval/make_data.py, which are
//! the ones that are made here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::*;

const TEMPLATES: &str = "an emoji of {c}\na picture of a {c}\n{c}\n";

/// Pictures of a shard.
const SHARD: usize = 120;

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    json: Value,
    lines: Vec<Value>,
    classes: Vec<Value>,
    html: String,
}

/// Runs it on a thread of its own: the server of the test needs this one.
async fn eval(arguments: &[&str]) -> Ran {
    let home = tempfile::tempdir().unwrap();
    let (json, lines) = (home.path().join("figures.json"), home.path().join("lines.jsonl"));
    let html = home.path().join("page.html");
    let mut command = Command::new(env!("CARGO_BIN_EXE_clipd"));
    // Configuration of the machine that runs the tests must not leak in.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CLIPD_")) {
        command.env_remove(name);
    }
    command
        .arg("eval")
        .args(&arguments[..1])
        .arg("--json")
        .arg(&json)
        .arg("--lines")
        .arg(&lines)
        .arg("--html")
        .arg(&html);
    command.args(&arguments[1..]).current_dir(fixtures()).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let Output { status, stdout, stderr } = output;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let lines = std::fs::read_to_string(&lines).unwrap_or_default();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let (classes, lines) = lines.partition(|line| line["class"].is_string());
    Ran {
        code: status.code(),
        stdout: text(stdout),
        stderr: text(stderr),
        json: std::fs::read(&json).map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap()),
        html: std::fs::read_to_string(&html).unwrap_or_default(),
        classes,
        lines,
    }
}

fn of(server: &Server) -> String {
    format!("--addr={}", server.running.grpc_address)
}

fn member(name: &str, content: &[u8]) -> Vec<u8> {
    member_of_kind(b'0', name, content)
}

/// A member of an archive, as ustar has it.
fn member_of_kind(kind: u8, name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    bytes[148..156].fill(b' ');
    bytes[156] = kind;
    bytes[257..263].copy_from_slice(b"ustar\0");
    let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
    bytes[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

const END: [u8; 1024] = [0; 1024];

/// A data set in clip_benchmark's layout.
pub(crate) struct Shards(TempDir);

impl Shards {
    /// Samples are a picture and its label; `ending` is that of labels.
    fn write(samples: &[(Vec<u8>, Vec<u8>)], ending: &str, lists: &[(&str, &str)]) -> Shards {
        let shards = Shards(tempfile::tempdir().unwrap());
        std::fs::create_dir(shards.0.path().join("test")).unwrap();
        for (name, text) in lists {
            std::fs::write(shards.0.path().join(name), text).unwrap();
        }
        let mut archives = Vec::new();
        for (number, shard) in samples.chunks(SHARD).enumerate() {
            let mut archive = Vec::new();
            for (index, (picture, label)) in shard.iter().enumerate() {
                let key = format!("s{:07}", number * SHARD + index);
                archive.extend(member(&format!("{key}.png"), picture));
                archive.extend(member(&format!("{key}.{ending}"), label));
            }
            archive.extend(END);
            archives.push(archive);
        }
        shards.put(&archives);
        shards
    }

    fn put(&self, archives: &[Vec<u8>]) {
        let split = self.0.path().join("test");
        std::fs::write(split.join("nshards.txt"), archives.len().to_string()).unwrap();
        for (number, archive) in archives.iter().enumerate() {
            std::fs::write(split.join(format!("{number}.tar")), archive).unwrap();
        }
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// A picture of the sample, as two vendors draw it.
struct Emoji {
    vendor: &'static str,
    class: usize,
    name: String,
    picture: Vec<u8>,
}

fn emoji() -> Vec<Emoji> {
    let samples = String::from_utf8(fixture("zeroshot/samples.tsv")).unwrap();
    let of = |vendor: &'static str| {
        samples.lines().skip(1).map(move |line| {
            let [code, class, name] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
            let picture = fixture(&format!("zeroshot/{vendor}/{code}.png"));
            Emoji { vendor, class: class.parse().unwrap(), name: name.to_owned(), picture }
        })
    };
    of("noto").chain(of("openmoji")).collect()
}

fn classes() -> Shards {
    let samples: Vec<_> =
        emoji().into_iter().map(|emoji| (emoji.picture, emoji.class.to_string().into_bytes())).collect();
    let names = String::from_utf8(fixture("zeroshot/labels.txt")).unwrap();
    let lists = [("classnames.txt", names.as_str()), ("zeroshot_classification_templates.txt", TEMPLATES)];
    Shards::write(&samples, "cls", &lists)
}

/// The same pictures with several labels each: the words that three of the names have.
fn words() -> Shards {
    let emoji = emoji();
    let mut count = BTreeMap::<&str, usize>::new();
    for one in emoji.iter().filter(|one| one.vendor == "noto") {
        for word in one.name.split_whitespace().collect::<BTreeSet<_>>() {
            *count.entry(word).or_default() += 1;
        }
    }
    let words: Vec<&str> = count.into_iter().filter(|(_, names)| *names >= 3).map(|(word, _)| word).collect();
    let label = |one: &Emoji| {
        let header = format!("{{'descr': '|b1', 'fortran_order': False, 'shape': ({},), }}\n", words.len());
        let mut npy = b"\x93NUMPY\x01\x00".to_vec();
        npy.extend((header.len() as u16).to_le_bytes());
        npy.extend(header.into_bytes());
        npy.extend(
            words.iter().map(|word| u8::from(one.name.split_whitespace().any(|other| other == *word))),
        );
        npy
    };
    let samples: Vec<_> = emoji.iter().map(|one| (one.picture.clone(), label(one))).collect();
    let lists = [
        ("classnames.txt", words.join("\n")),
        ("dataset_type.txt", "multilabel\n".to_owned()),
        ("zeroshot_classification_templates.txt", TEMPLATES.to_owned()),
    ];
    let lists: Vec<(&str, &str)> = lists.iter().map(|(name, text)| (*name, text.as_str())).collect();
    Shards::write(&samples, "npy", &lists)
}

fn captions() -> Shards {
    let caption = |one: &Emoji| match one.vendor {
        "noto" => format!("an emoji of {0}\n{0}", one.name),
        _ => format!("a drawing of {0}\na picture of a {0}", one.name),
    };
    let samples: Vec<_> =
        emoji().into_iter().map(|one| (one.picture.clone(), caption(&one).into_bytes())).collect();
    Shards::write(&samples, "txt", &[("dataset_type.txt", "retrieval\n")])
}

/// What the suite gives, to the last digit.
fn assert_as_the_suite(ran: &Ran, data: &str) {
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let suite: Value = serde_json::from_slice(&fixture("eval/suite.json")).unwrap();
    let expected = suite[data].as_object().unwrap();
    assert!(!expected.is_empty());
    assert_eq!(ran.json["metrics"].as_object().unwrap(), expected, "{data}");
    assert_eq!(ran.json["clipd"]["close"], 0, "no answer is chance");
}

/// No script, and nothing from elsewhere.
fn assert_needs_nothing(page: &str) {
    assert!(page.starts_with("<!DOCTYPE html>") && !page.contains("<script") && !page.contains("http"));
    assert_eq!(page.matches("src=").count(), page.matches("src=\"data:").count());
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_classes_are_those_of_the_suite() {
    let server = Server::start(&[]).await;
    let data = classes();
    let ran = eval(&["zeroshot", data.path(), &of(&server)]).await;
    assert_as_the_suite(&ran, "emoji");
    // One cell of the suite's table, which Python reads only up to so many characters.
    assert!(ran.json["clipd"].to_string().len() < 100_000);
    for key in ["dataset", "model", "pretrained", "task", "language"] {
        assert!(ran.json[key].is_string(), "{key} of {}", ran.json);
    }
    assert_eq!(ran.json["task"], "zeroshot_classification");
    // A line for each picture, and the figures are made of them.
    assert_eq!(ran.lines.len(), 240);
    let share = |within: u64| {
        ran.lines.iter().filter(|line| line["rank"].as_u64().unwrap() <= within).count() as f64 / 240.0
    };
    assert_eq!(ran.json["metrics"]["acc1"], share(1));
    assert_eq!(ran.json["metrics"]["acc5"], share(5));
    assert_eq!(ran.lines[0]["input"], "test/0.tar:s0000000");
    assert_eq!(ran.lines[0]["right"], serde_json::json!(["keycap: 5"]));
    assert_eq!(ran.classes.len(), 1644);
    assert_eq!(ran.classes.iter().map(|class| class["pictures"].as_u64().unwrap()).sum::<u64>(), 240);
    assert!(ran.stdout.contains("acc1                   0.6917  0.6306 to 0.7467"), "{}", ran.stdout);
    assert_needs_nothing(&ran.html);
    assert_eq!(
        ran.html.matches("<img src=\"data:image/png;base64,").count(),
        48,
        "wrong ones and uncertain ones"
    );
    for part in ["Classes that are taken for others", "Calibration", "an emoji of {c}"] {
        assert!(ran.html.contains(part), "{part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_several_classes_and_of_captions_are_those_of_the_suite() {
    let server = Server::start(&[]).await;
    let addr = of(&server);
    let data = words();
    assert_as_the_suite(&eval(&["zeroshot", data.path(), &addr]).await, "words");
    let data = captions();
    let ran = eval(&["retrieval", data.path(), &addr]).await;
    assert_as_the_suite(&ran, "captions");
    assert_eq!(ran.lines.len(), 240 + 480);
    assert_needs_nothing(&ran.html);
    assert!(ran.html.contains("Captions whose picture came last"), "{}", ran.html);
    assert_eq!(ran.lines[240]["input"], "an emoji of keycap: 5");
    let wrong = eval(&["zeroshot", data.path(), &addr]).await;
    assert!(wrong.code == Some(1) && wrong.stderr.contains("the data set is retrieval"), "{}", wrong.stderr);
    let too_many = eval(&["retrieval", data.path(), &addr, "--recall-k=241"]).await;
    assert!(too_many.code == Some(1) && too_many.stderr.contains("--recall-k"), "{}", too_many.stderr);
}

/// Pictures of the fixtures, and their classes.
const EVERYDAY: [&str; 8] = ["airplane", "apple", "car", "cat", "dog", "guitar", "pizza", "umbrella"];

fn everyday(name: &str) -> Vec<u8> {
    fixture(&format!("images/{name}.png"))
}

/// Eight pictures, and the bad ones.
pub(crate) fn with_bad_ones() -> Shards {
    let mut samples: Vec<(Vec<u8>, Vec<u8>)> = EVERYDAY
        .iter()
        .enumerate()
        .map(|(class, name)| (everyday(name), class.to_string().into_bytes()))
        .collect();
    samples.extend([
        (b"no picture".to_vec(), b"0".to_vec()),
        (everyday("dog"), b"8".to_vec()),
        (everyday("dog"), b"dog".to_vec()),
        (Vec::new(), b"0".to_vec()),
    ]);
    Shards::write(&samples, "cls", &[("classnames.txt", &EVERYDAY.join("\n"))])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_bad_is_named_and_left_out_only_if_asked() {
    let server = Server::start(&[]).await;
    let (data, addr) = (with_bad_ones(), of(&server));
    let ran = eval(&["zeroshot", data.path(), &addr]).await;
    assert_eq!((ran.code, &ran.json), (Some(1), &Value::Null), "{}", ran.stderr);
    // What is known before the server is asked.
    for reason in [
        "test/0.tar:s0000009: label 8 is out of range: there are 8 classes",
        "test/0.tar:s0000010: the label \"dog\" is no class's position",
        "test/0.tar:s0000011: the picture is empty",
        "3 inputs have no place in the figures; --skip-errors",
    ] {
        assert!(ran.stderr.contains(reason), "{reason}: {}", ran.stderr);
    }
    let record = data.at("record").display().to_string();
    let ran = eval(&["zeroshot", data.path(), &addr, "--skip-errors", "--record", &record]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.json["metrics"]["acc1"], 1.0);
    assert_eq!(
        (&ran.json["clipd"]["pictures"], &ran.json["clipd"]["left_out"]["count"]),
        (&8.into(), &4.into())
    );
    assert!(ran.stdout.contains("8 pictures, 4 LEFT OUT"), "{}", ran.stdout);
    assert_eq!(ran.lines.iter().filter(|line| line["error"].is_string()).count(), 4);
    // One of them is known once it was sent. Each is named once, whoever else has no answer to it.
    let templates = data.at("templates.txt");
    std::fs::write(&templates, "an emoji of {c}\n").unwrap();
    let templates = format!("--against={}", templates.display());
    let (server_again, record) =
        (format!("--against={}", server.running.grpc_address), format!("--against={record}"));
    for against in [&[][..], &[templates.as_str()], &[server_again.as_str()], &[record.as_str()]] {
        let ran = eval(&[&["zeroshot", data.path(), &addr, "--skip-errors"], against].concat()).await;
        assert_eq!(
            (ran.code, &ran.json["clipd"]["left_out"]["count"]),
            (Some(0), &4.into()),
            "{}",
            ran.stderr
        );
        for input in ["s0000008", "s0000009", "s0000010", "s0000011"] {
            assert_eq!(ran.stderr.matches(&format!("test/0.tar:{input}: ")).count(), 1, "{}", ran.stderr);
        }
    }
    // Classes are made of all their prompts: what one of them lacks is no fault of a picture.
    let long = data.at("long.txt");
    std::fs::write(&long, format!("{{c}}\n{{c}} {}\n", "of old ".repeat(10_000))).unwrap();
    let long = format!("--templates={}", long.display());
    let ran = eval(&["zeroshot", data.path(), &addr, "--skip-errors", &long]).await;
    assert!(ran.code == Some(1) && ran.stderr.contains("8 prompts have no embedding"), "{:.999}", ran.stderr);
    assert_eq!(ran.stderr.matches("dog of old").count(), 1, "{:.999}", ran.stderr);
    // Nor is another server asked in vain.
    let broken =
        Shards::write(&[(b"no picture".to_vec(), b"0".to_vec())], "cls", &[("classnames.txt", "dog\n")]);
    let ran = eval(&["zeroshot", broken.path(), &addr, "--against=127.0.0.1:1"]).await;
    assert!(ran.code == Some(1) && ran.stderr.contains("1 inputs have no place"), "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("s0000000").count(), 1, "{}", ran.stderr);

    // A shard that ends too early: the last key is not counted, and what is missing is told.
    let archive = std::fs::read(data.at("test/0.tar")).unwrap();
    data.put(&[archive[..archive.len() / 3].to_vec()]);
    let ran = eval(&["zeroshot", data.path(), &addr]).await;
    assert!(ran.code == Some(1) && ran.stderr.contains("test/0.tar: it is cut at byte"), "{}", ran.stderr);
    let ran = eval(&["zeroshot", data.path(), &addr, "--skip-errors"]).await;
    assert!(ran.code == Some(0) && ran.json["clipd"]["left_out"]["count"] == 1, "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_archives_are_refused_before_a_server_is_asked() {
    let data = Shards::write(&[], "cls", &[("classnames.txt", "dog\ncat\n")]);
    let many: Vec<u8> =
        (0..100_000).flat_map(|index| member(&format!("{index}.png"), b"")).chain(END).collect();
    for (archive, reason) in [
        ([member("../../dog.png", &everyday("dog")), END.to_vec()].concat(), "a name that leads elsewhere"),
        ([member_of_kind(b'2', "a.png", b""), END.to_vec()].concat(), "a link"),
        (many, "100000 inputs have no place in the figures"),
        ([member("a.cls", b"0"), member("a.cls", b"1"), END.to_vec()].concat(), "a.cls is there twice"),
        ([member("a.cls", b"0"), END.to_vec()].concat(), "there is no picture beside its label"),
        ([member("notes.md", b"0"), END.to_vec()].concat(), "there is no picture"),
        (b"no archive".repeat(200), "checksum"),
    ] {
        data.put(&[archive]);
        let ran = eval(&["zeroshot", data.path(), "--addr=127.0.0.1:1"]).await;
        assert!(ran.code == Some(1) && ran.stderr.contains(reason), "{reason}: {}", ran.stderr);
        assert!(ran.stderr.len() < 10_000, "what is wrong with many is told of the first");
    }
}

fn folders() -> TempDir {
    let home = tempfile::tempdir().unwrap();
    for name in EVERYDAY {
        std::fs::create_dir(home.path().join(name)).unwrap();
        std::fs::write(home.path().join(name).join("1.png"), everyday(name)).unwrap();
    }
    home
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_and_lists_are_data_too() {
    let server = Server::start(&[]).await;
    let addr = of(&server);
    let home = folders();
    let at = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, text: &str| std::fs::write(at(name), text).unwrap();
    let lists = tempfile::tempdir().unwrap();
    let list = |name: &str, text: String| -> PathBuf {
        let path = lists.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let images = format!("--images={}", home.path().display());
    let rows = |row: fn(&str) -> String| EVERYDAY.map(row).concat();
    let csv = list("a.csv", format!("image,class\n{}", rows(|name| format!("{name}/1.png,{name}\n"))));
    let jsonl =
        list("a.jsonl", rows(|name| format!("{{\"path\": \"{name}/1.png\", \"label\": \"{name}\"}}\n")));
    let folder = at("");
    for data in [folder.as_str(), csv.to_str().unwrap(), jsonl.to_str().unwrap()] {
        let ran = eval(&["zeroshot", data, &images, &addr, "--expect=acc1=0.5", "--expect=acc2=0.5"]).await;
        assert_eq!(
            (ran.code, &ran.json["metrics"]["acc1"]),
            (Some(0), &1.0.into()),
            "{data}: {}",
            ran.stderr
        );
        assert!(ran.stdout.contains("0.5000     +0.5000"), "{}", ran.stdout);
        assert!(
            ran.stderr.contains("--expect: there is no figure acc2, only acc1, acc5, mean"),
            "{}",
            ran.stderr
        );
    }
    // Other names for the folders, and prompts for each.
    write("names.txt", &EVERYDAY.map(|name| format!("{name} of old\n")).concat());
    let prompts: BTreeMap<String, Vec<String>> = EVERYDAY
        .iter()
        .map(|name| (format!("{name} of old"), vec![format!("an emoji of {name}"), format!("a {name}")]))
        .collect();
    write("prompts.json", &serde_json::to_string(&prompts).unwrap());
    let (names, prompts) =
        (format!("--classes={}", at("names.txt")), format!("--templates={}", at("prompts.json")));
    let ran = eval(&["zeroshot", &folder, &names, &prompts, &addr]).await;
    assert_eq!(ran.json["metrics"]["acc1"], 1.0, "{}", ran.stderr);
    assert_eq!(ran.lines[0]["prediction"], "airplane of old");
    write("templates.txt", "a photo of nothing\n");
    let ran = eval(&["zeroshot", &folder, &format!("--templates={}", at("templates.txt")), &addr]).await;
    assert!(ran.code == Some(1) && ran.stderr.contains("has no {c}"), "{}", ran.stderr);

    let flickr = list("b.csv", {
        let row = |name| format!("{name}/1.png| 0| an emoji of {name}\n{name}/1.png| 1| \"a {name}\n");
        format!("image_name| comment_number| comment\n{}", EVERYDAY.map(row).concat())
    });
    let coco = list("b.json", {
        let images: Vec<Value> = EVERYDAY
            .iter()
            .enumerate()
            .map(|(id, name)| serde_json::json!({"id": id, "file_name": format!("{name}/1.png")}))
            .collect();
        let annotations: Vec<Value> = EVERYDAY
            .iter()
            .enumerate()
            .map(|(id, name)| serde_json::json!({"image_id": id, "caption": format!("an emoji of {name}")}))
            .collect();
        serde_json::json!({"images": images, "annotations": annotations}).to_string()
    });
    for (data, captions) in [(flickr, 16), (coco, 8)] {
        let data = data.to_str().unwrap();
        let ran = eval(&["retrieval", data, &images, &addr, "--recall-k=1,5"]).await;
        assert_eq!(ran.json["metrics"]["text_retrieval_recall@1"], 1.0, "{data}: {}", ran.stderr);
        assert_eq!(ran.json["clipd"]["captions"], captions, "{data}");
    }
}

/// The same classes and template, on the server and in the client.
#[tokio::test(flavor = "multi_thread")]
async fn a_classifier_of_the_server_is_scored() {
    let classifiers = tempfile::tempdir().unwrap();
    let labels = serde_json::json!({"labels": EVERYDAY, "templates": ["an emoji of {}"], "top_k": 1});
    std::fs::write(classifiers.path().join("everyday.json"), labels.to_string()).unwrap();
    let server = Server::start(&[&format!("--classifiers={}", classifiers.path().display())]).await;
    let (home, addr) = (folders(), of(&server));
    // A picture that shows something else, and one that shows nothing.
    std::fs::write(home.path().join("cat/2.png"), everyday("dog")).unwrap();
    std::fs::write(home.path().join("dog/2.png"), "nothing").unwrap();
    let path = home.path().to_str().unwrap();
    let templates = home.path().join("templates.txt");
    std::fs::write(&templates, "an emoji of {c}\n").unwrap();
    let named = eval(&["zeroshot", path, &addr, "--skip-errors", "--classifier=everyday"]).await;
    let templates = format!("--templates={}", templates.display());
    let own = eval(&["zeroshot", path, &addr, "--skip-errors", &templates]).await;
    assert_eq!((named.code, own.code), (Some(0), Some(0)), "{}", named.stderr);
    assert_eq!(named.json["metrics"], own.json["metrics"]);
    assert_eq!(named.json["clipd"]["left_out"]["count"], 1);
    let answers = |ran: &Ran| {
        let answer = |line: &Value| (line["prediction"].to_string(), line["rank"].to_string());
        ran.lines.iter().map(answer).collect::<Vec<_>>()
    };
    assert_eq!(answers(&named), answers(&own));
    std::fs::create_dir(home.path().join("zebra")).unwrap();
    std::fs::rename(home.path().join("cat"), home.path().join("feline")).unwrap();
    let ran = eval(&["zeroshot", path, &addr, "--skip-errors", "--classifier=everyday"]).await;
    assert!(
        ran.code == Some(1) && ran.stderr.contains("label \"cat\" is none of the classes"),
        "{}",
        ran.stderr
    );
    let ran = eval(&["zeroshot", path, &addr, "--classifier=nothing"]).await;
    assert!(ran.code == Some(1) && ran.stderr.contains("nothing"), "{}", ran.stderr);
}

/// Answers of the server are the reference: softmax over all labels, or the sigmoid of scale and bias of each.
#[tokio::test(flavor = "multi_thread")]
async fn probabilities_are_those_that_the_model_was_trained_for() {
    let classifiers = tempfile::tempdir().unwrap();
    let labels = serde_json::json!({"labels": EVERYDAY, "templates": ["a {}", "an emoji of {}"]});
    std::fs::write(classifiers.path().join("everyday.json"), labels.to_string()).unwrap();
    let classifiers = format!("--classifiers={}", classifiers.path().display());
    let home = folders();
    let path = home.path().to_str().unwrap();
    let templates = home.path().join("templates.txt");
    std::fs::write(&templates, "a {c}\nan emoji of {c}\n").unwrap();
    let templates = format!("--templates={}", templates.display());
    for (model, function) in [("../../src/model/builtin", "softmax"), ("golden/siglip-patch8", "sigmoid")] {
        let model = format!("--model={}", fixtures().join(model).display());
        let server = Server::start(&[&model, &classifiers]).await;
        let addr = of(&server);
        let named = eval(&["zeroshot", path, &addr, "--classifier=everyday"]).await;
        let own = eval(&["zeroshot", path, &addr, &templates]).await;
        assert_eq!((named.code, own.code), (Some(0), Some(0)), "{}", named.stderr);
        assert_eq!(own.json["clipd"]["server"]["score_function"], function);
        assert_eq!(own.lines.len(), EVERYDAY.len());
        for (named, own) in named.lines.iter().zip(&own.lines) {
            assert_eq!((&named["input"], &named["prediction"]), (&own["input"], &own["prediction"]));
            let [named, own] = [named, own].map(|line| line["score"].as_f64().unwrap());
            assert!((named - own).abs() <= 1e-4 * named, "{function}: {named} {own}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_run_is_compared_input_by_input() {
    let server = Server::start(&[]).await;
    let (data, addr, home) = (classes(), of(&server), tempfile::tempdir().unwrap());
    let record = home.path().join("run").to_str().unwrap().to_owned();
    let ran = eval(&["zeroshot", data.path(), &addr, "--record", &record]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let images = Path::new(&record).join("images.f32");
    assert_eq!(std::fs::metadata(&images).unwrap().len(), 240 * 128 * 4);

    // The run was cut off in a row: the rest is embedded, and the same comes out.
    std::fs::OpenOptions::new().write(true).open(&images).unwrap().set_len(100 * 128 * 4 + 7).unwrap();
    let again = eval(&["zeroshot", data.path(), &addr, "--record", &record]).await;
    assert!(again.stderr.contains("140 of 140") && !again.stderr.contains("of 240"), "{}", again.stderr);
    assert_eq!(again.json["metrics"], ran.json["metrics"]);

    // Against itself, and against other templates.
    let same = eval(&["zeroshot", data.path(), &addr, "--against", &record, "--max-loss=0"]).await;
    assert_eq!(same.code, Some(0), "{}", same.stderr);
    let against = &same.json["clipd"]["against"];
    assert_eq!(
        (&against["changed"], &against["figures"][0]["difference"]),
        (&0.into(), &0.0.into()),
        "{against}"
    );
    assert!(against["picture_cosines"]["min"].as_f64().unwrap() > 0.999_999, "{against}");
    let templates = home.path().join("templates.txt");
    std::fs::write(&templates, "an emoji of {c}\n").unwrap();
    let worse = home.path().join("worse.txt");
    std::fs::write(&worse, "not {c}, and nothing like it at all\n").unwrap();
    let (templates, worse) = (templates.to_str().unwrap(), format!("--templates={}", worse.display()));
    let lost =
        eval(&["zeroshot", data.path(), &addr, &worse, "--against", templates, "--max-loss=0.3"]).await;
    assert_eq!(lost.code, Some(2), "{}{}", lost.stdout, lost.stderr);
    let against = &lost.json["clipd"]["against"];
    let first = &against["figures"][0];
    let number = |value: &Value| value.as_f64().unwrap();
    assert_eq!(number(&first["difference"]), number(&first["here"]) - number(&first["there"]));
    assert!(number(&first["interval"][1]) < 0.0 && number(&first["discordant"]["p"]) < 0.05, "{first}");
    assert!(
        against["changed"].as_u64().unwrap() > 0 && !against["most_changed"].as_array().unwrap().is_empty()
    );

    // Nor is a record of fewer classes a whole one.
    let texts = Path::new(&record).join("texts.f32");
    std::fs::OpenOptions::new().write(true).open(&texts).unwrap().set_len(100 * 128 * 4).unwrap();
    let ran = eval(&["zeroshot", data.path(), &addr, "--against", &record]).await;
    assert!(ran.code == Some(1) && ran.stderr.contains("did not end"), "{}", ran.stderr);

    // A record of other data is none to compare with, and is not written over.
    let other = folders();
    let path = other.path().to_str().unwrap();
    for flag in ["--against", "--record"] {
        let ran = eval(&["zeroshot", path, &addr, flag, &record]).await;
        assert!(ran.code == Some(1) && ran.stderr.contains("other data"), "{flag}: {}", ran.stderr);
    }
}

/// The embedded model and eight pictures under the names of others: only the look-up is of interest.
#[tokio::test(flavor = "multi_thread")]
async fn published_figures_stand_beside_ones_own() {
    let home = tempfile::tempdir().unwrap();
    let model = home.path().join("CLIP-ViT-B-16-laion2B-s34B-b88K");
    let builtin = fixtures().join("../../src/model/builtin");
    std::fs::create_dir(&model).unwrap();
    for file in std::fs::read_dir(builtin).unwrap().map(|file| file.unwrap()) {
        std::fs::copy(file.path(), model.join(file.file_name())).unwrap();
    }
    let server = Server::start(&[&format!("--model={}", model.display())]).await;
    let (data, addr) = (folders(), of(&server));
    let named = home.path().join("wds_imagenet1k");
    std::fs::rename(data.path(), &named).unwrap();
    let ran = eval(&["zeroshot", named.to_str().unwrap(), &addr, "--expect=published"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stdout.contains("0.7023     +0.2977") && ran.html.contains("+0.2977"), "{}", ran.stdout);
    // Without figures nothing is embedded.
    let data = folders();
    let ran = eval(&["zeroshot", data.path().to_str().unwrap(), &addr, "--expect=published"]).await;
    assert!(ran.code == Some(1) && ran.stderr.contains("only of wds_cars, "), "{}", ran.stderr);
    assert!(!ran.stderr.contains("pictures and"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_servers_of_its_own() {
    let home = folders();
    let path = home.path().to_str().unwrap();
    let serve = ["--", "--device=cpu", "--precision=fp32"];
    let ran = eval(&[&["zeroshot", path, "--against=fp32", "--max-loss=0"], &serve[..]].concat()).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("starting the server").count(), 2, "{}", ran.stderr);
    assert_eq!(ran.json["clipd"]["against"]["changed"], 0);
    for (arguments, message) in [
        (&["zeroshot", path, "--", "--no-such-flag"][..], "after --: unexpected argument"),
        (&["zeroshot", path, "--max-loss=1"], "--against"),
        (&["zeroshot", path, "--against=int7"], "neither a precision"),
        (&["retrieval", path, "--against=images/README.md"], "only classes have templates"),
    ] {
        let ran = eval(arguments).await;
        assert!(ran.code == Some(64) && ran.stderr.contains(message), "{message}: {}", ran.stderr);
    }
}
