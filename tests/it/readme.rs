//! README.md names what the program has: every flag with its default, every metric.

use clap::CommandFactory;
use clipd::clip::image::ImageFormat;
use clipd::config::flags::Cli;
use clipd::engine::kinds;
use clipd::telemetry::metrics::Metrics;

fn readme() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap()
}

#[test]
fn every_flag_is_listed_with_its_default() {
    let (readme, cli) = (readme(), Cli::command());
    let serve = cli.find_subcommand("serve").unwrap();
    for argument in serve.get_arguments().chain(cli.get_arguments()) {
        let Some(name) =
            argument.get_long().filter(|name| !["help", "version", "check-config"].contains(name))
        else {
            continue;
        };
        let row = format!("| `--{name}` | ");
        let rest = readme.split(&row).nth(1).unwrap_or_else(|| panic!("--{name} is not in the table"));
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
        assert!(help.contains(kind) && readme().contains(&format!("`{kind}")), "{kind}");
    }
}

#[test]
fn the_formats_of_pictures_are_the_same_everywhere() {
    let list = ImageFormat::listed("or");
    let proto = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/proto/clip/v1/clip.proto"));
    let help = |command: &str| {
        Cli::command().find_subcommand_mut(command).unwrap().render_long_help().to_string().replace('\n', " ")
    };
    let mut texts = vec![readme(), proto.unwrap(), help("classify"), help("embed")];
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
    let (readme, exposition) = (readme(), Metrics::new().render());
    let names: Vec<&str> = exposition
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE clip_"))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert!(!names.is_empty());
    for name in names {
        assert!(readme.contains(&format!("`clip_{name}`")), "clip_{name}");
    }
}
