//! The program itself: exit codes, what it says, and signals.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use crate::support::fixtures;

pub(crate) fn clipd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clipd"));
    // Configuration of the machine that runs the tests must not leak in.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CLIPD_")) {
        command.env_remove(name);
    }
    command
}

fn run(arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = clipd().args(arguments).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn wrong_flags_are_all_listed_with_exit_code_64() {
    let (code, stderr) =
        run(&["serve", "--listen=nowhere", "--device=gpu", "--timeout=never", "--log-format=xml"]);
    assert_eq!(code, Some(64), "{stderr}");
    for flag in ["--listen", "--device", "--timeout", "--log-format"] {
        assert!(stderr.lines().any(|line| line.starts_with(&format!("error: {flag}"))), "{flag}: {stderr}");
    }
}

#[test]
fn a_gpu_that_cannot_be_used_is_an_error_that_names_it() {
    let serve = |device: &str| {
        run(&["serve", "--listen=127.0.0.1:0", "--http-listen=off", "--metrics-listen=127.0.0.1:0", device])
    };
    // No machine has a GPU of this number.
    let (code, stderr) = serve("--device=cuda:999");
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("device cuda:999"), "{stderr}");
    for mixed in ["--device=cpu,cuda:0", "--device=cuda:0,cuda:0"] {
        let (code, stderr) = serve(mixed);
        assert_eq!(code, Some(64), "{stderr}");
    }
}

#[test]
fn an_unknown_flag_is_a_usage_error_and_help_is_not() {
    assert_eq!(run(&["serve", "--no-such-flag"]).0, Some(64));
    assert_eq!(run(&["frobnicate"]).0, Some(64));
    assert_eq!(run(&[]).0, Some(64));
    assert_eq!(run(&["--help"]).0, Some(0));
    assert_eq!(run(&["serve", "--help"]).0, Some(0));
    assert_eq!(run(&["--version"]).0, Some(0));
}

#[test]
fn a_bad_model_directory_says_what_is_missing() {
    let directory = fixtures();
    let (code, stderr) = run(&["serve", "--model", directory.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("open_clip_config.json"), "{stderr}");
}

#[test]
fn check_config_prints_what_would_run_and_serves_nothing() {
    let output = clipd()
        .args(["serve", "--check-config", "--device=cpu", "--max-inputs=7"])
        .env("CLIPD_TIMEOUT", "5s")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let stdout = String::from_utf8(output.stdout).unwrap();
    for line in [
        "--max-inputs 7 (command line)",
        "--timeout 5s (environment)",
        "--max-batch-size 64 (default)",
        "--model the embedded model (default)",
    ] {
        assert!(stdout.lines().any(|each| each == line), "{line}: {stdout}");
    }
    assert!(stdout.contains("memory beside the model, at most: requests 256 MiB"), "{stdout}");
}

#[test]
fn a_port_in_use_names_the_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, stderr) = run(&[
        "serve",
        "--device=cpu",
        "--listen",
        &address,
        "--http-listen=off",
        "--metrics-listen=127.0.0.1:0",
    ]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("--listen") && stderr.contains(&address), "{stderr}");
}

#[test]
fn a_precision_that_the_device_has_not_is_a_clear_error() {
    for precision in ["bf16", "int8"] {
        let (code, stderr) = run(&[
            "serve",
            "--device=cpu",
            &format!("--precision={precision}"),
            "--listen=127.0.0.1:0",
            "--http-listen=off",
            "--metrics-listen=127.0.0.1:0",
        ]);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(&format!("precision {precision} needs device openvino")), "{stderr}");
    }
}

/// Starts a server; returns what it logs until it is ready.
fn serve() -> (Child, Vec<String>) {
    let mut child = clipd()
        .args([
            "serve",
            "--device=cpu",
            "--listen=127.0.0.1:0",
            "--http-listen=off",
            "--metrics-listen=127.0.0.1:0",
            "--log-format=json",
        ])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        let ready = line.contains("\"ready\"");
        lines.push(line);
        if ready {
            return (child, lines);
        }
    }
    panic!("{:?} before it was ready: {lines:#?}", child.wait());
}

#[test]
fn it_logs_what_it_runs_and_ends_with_zero_on_sigterm() {
    let (mut child, lines) = serve();
    let log = lines.join("\n");
    for word in ["model loaded", "emoji-clip", "engine chosen", "asked for", "listening", "fp32"] {
        assert!(log.contains(word), "{word}: {log}");
    }
    let kill = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn sigint_ends_it_too() {
    let (mut child, _) = serve();
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
