use clap::Parser;

use super::flags::{Cli, Command};
use super::*;

fn config(arguments: &[&str]) -> Result<Config, Vec<String>> {
    let command = Cli::try_parse_from(["clipd", "serve"].iter().chain(arguments)).unwrap().command;
    let Command::Serve(flags) = command else { panic!("the subcommand is serve") };
    Config::from_flags(&flags)
}

#[test]
fn the_defaults_are_valid() {
    let config = config(&[]).unwrap();
    assert_eq!(config.model, ModelSource::Builtin);
    assert_eq!(config.scheduling.max_queue_delay, Duration::ZERO);
    assert_eq!(config.grpc.connections.clocks.max_age, Some(Duration::from_secs(1800)));
}

#[test]
fn every_bad_flag_is_reported() {
    let problems = config(&[
        "--listen=nowhere",
        "--device=gpu",
        "--max-batch-size=0",
        "--max-queue-delay=soon",
        "--max-image-bytes=-1",
        "--stream-window-bytes=4294967296",
        "--timeout=0s",
    ])
    .unwrap_err();
    let named = [
        "--listen",
        "--device",
        "--max-batch-size",
        "--max-queue-delay",
        "--max-image-bytes",
        "--stream-window-bytes",
        "--timeout",
    ];
    assert_eq!(problems.len(), named.len(), "{problems:#?}");
    for flag in named {
        assert!(problems.iter().any(|problem| problem.starts_with(flag)), "{flag}: {problems:#?}");
    }
}

#[test]
fn contradictions_are_reported() {
    let problems = config(&["--max-queue-size=8", "--max-request-bytes-in-flight=1000", "--drain-delay=30s"])
        .unwrap_err();
    let named = ["--max-inputs", "--max-batch-size", "--max-message-bytes", "--drain-delay"];
    assert_eq!(problems.len(), named.len(), "{problems:#?}");
    for flag in named {
        assert!(problems.iter().any(|problem| problem.contains(flag)), "{flag}: {problems:#?}");
    }
}

#[test]
fn zero_age_means_never() {
    assert_eq!(config(&["--max-connection-age=0s"]).unwrap().grpc.connections.clocks.max_age, None);
}
