//! `clipd bench`, the real program, with few requests: that it counts right, not how fast anything is.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::*;

struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    json: Value,
    html: String,
}

/// Runs it on a thread of its own: the server of the test needs this one.
async fn bench(arguments: &[&str]) -> Ran {
    let home = tempfile::tempdir().unwrap();
    let (json, html) = (home.path().join("report.json"), home.path().join("report.html"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_clipd"));
    // Configuration of the machine that runs the tests must not leak in.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CLIPD_")) {
        command.env_remove(name);
    }
    command.arg("bench").arg("--json").arg(&json);
    if !arguments.contains(&"--scenario") {
        command.arg("--html").arg(&html);
    }
    command.args(arguments).current_dir(fixtures()).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let Output { status, stdout, stderr } = output;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran {
        code: status.code(),
        stdout: text(stdout),
        stderr: text(stderr),
        json: std::fs::read(&json).map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap()),
        html: std::fs::read_to_string(&html).unwrap_or_default(),
    }
}

/// The flags that load `server` and read its metrics.
fn of(server: &Server) -> [String; 2] {
    let running = &server.running;
    [format!("--addr={}", running.grpc_address), format!("--metrics-addr={}", running.metrics_address)]
}

fn loads(report: &Value) -> Vec<&Value> {
    let services = report["services"].as_array().unwrap();
    services.iter().flat_map(|service| service["loads"].as_array().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_add_up() {
    let server = Server::start(&[]).await;
    let [addr, metrics] = of(&server);
    // The count ends every load, long before its time.
    let ran = bench(&[
        &addr,
        &metrics,
        "--workload=images,rgb,texts,classify",
        "--images=images",
        "--labels=7",
        "--mode=closed,poisson,ramp",
        "--concurrency=1,3",
        "--rate=500,1000",
        "--requests=20",
        "--duration=1h",
        "--warm-up=1h",
        "--slo=1h",
    ])
    .await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let services = ran.json["services"].as_array().unwrap();
    let names: Vec<_> = services.iter().map(|service| service["workload"].as_str().unwrap()).collect();
    assert_eq!(names, ["images", "rgb", "texts", "classify"]);
    let loads = loads(&ran.json);
    let modes: Vec<_> = loads.iter().take(5).map(|load| load["mode"].as_str().unwrap()).collect();
    assert_eq!(modes, ["closed", "closed", "poisson", "poisson", "ramp"]);
    assert_eq!(loads.len(), 20);
    for load in loads {
        for count in ["sent", "answered", "good"] {
            assert_eq!(load[count], 20, "{count} of {load}");
        }
        for count in ["shed", "expired", "unsent"] {
            assert_eq!(load[count], 0, "{count} of {load}");
        }
        assert_eq!(load["server"]["rows"], 20, "{load}");
        let buckets = load["server"]["batch_rows"].as_array().unwrap();
        let batches: u64 = buckets.iter().map(|bucket| bucket["batches"].as_u64().unwrap()).sum();
        assert_eq!(load["server"]["batches"], batches, "{load}");
        assert!(load["latency_ms"]["p50"].as_f64().unwrap() > 0.0 && load["latency_ms"]["p99"].is_null());
    }
    assert!(ran.json["ceiling"].is_null(), "of the server only its address is known");
    assert!(ran.stdout.contains("CLASSIFY  best"), "{}", ran.stdout);
    assert!(ran.html.starts_with("<!DOCTYPE html>") && !ran.html.contains("<script"), "{}", ran.html);
    assert_eq!(ran.html.matches("<svg viewBox").count(), 4, "a chart per workload");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shed_expires_or_fails_is_told_apart() {
    let gate = clipd::engine::synthetic::Gate::open();
    let server = Server::cold(&["--max-batch-size=1", "--max-inputs=1", "--max-queue-size=1"], &gate).await;
    server.running.ready().await.unwrap();
    let [addr, metrics] = of(&server);
    let home = tempfile::tempdir().unwrap();
    let burst = home.path().join("burst.txt");
    std::fs::write(&burst, "# Eight requests at once.\n".to_owned() + &"0\n".repeat(8)).unwrap();
    gate.close();
    let ran = bench(&[
        &addr,
        &metrics,
        "--workload=texts",
        "--mode=trace",
        "--trace",
        burst.to_str().unwrap(),
        "--warm-up=1ms",
        "--timeout=300ms",
    ])
    .await;
    gate.open_again();
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let loads = loads(&ran.json);
    let [load] = loads.as_slice() else { panic!("one load: {loads:?}") };
    let count = |name: &str| load[name].as_u64().unwrap();
    assert_eq!((count("sent"), count("answered")), (8, 0), "{load}");
    // One waits, or the one in the engine and one; the rest is refused.
    assert_eq!(count("shed") + count("expired"), 8, "{load}");
    assert!(count("shed") >= 6 && count("expired") >= 1, "{load}");
    assert_eq!(load["server"]["rejections"]["queue_full"], count("shed"), "{load}");
    assert!(load["latency_ms"]["p50"].is_null(), "{load}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_its_own_ends_with_it() {
    let ran = bench(&[
        "--workload=texts",
        "--mode=closed",
        "--concurrency=2",
        "--requests=10",
        "--",
        "--device=cpu",
        "--max-batch-size=4",
    ])
    .await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let [load] = loads(&ran.json)[..] else { panic!("one load: {}", ran.json) };
    assert_eq!(load["answered"], 10, "{load}");
    assert!(load["server"]["cpu_seconds"].as_f64().unwrap() >= 0.0, "{load}");
    let ceiling = &ran.json["ceiling"];
    assert_eq!(ceiling["layout"]["workers"], 1);
    let [texts] = ceiling["workloads"].as_array().unwrap().as_slice() else { panic!("{ceiling}") };
    let cost = |name: &str| texts[name]["median"].as_f64().unwrap();
    let row = cost("engine_cpu_seconds_per_row") + cost("preprocess_cpu_seconds_per_row");
    let expected = ceiling["cores"].as_f64().unwrap() / row;
    let found = texts["rows_per_second"].as_f64().unwrap();
    assert!((found / expected - 1.0).abs() < 1e-9, "{ceiling}");
    let flags = ran.json["recommendation"]["flags"].as_str().unwrap();
    assert!(flags.contains("--max-batch-size "), "{flags}");
    assert!(ran.stdout.contains(flags) && ran.html.contains(flags));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_said_before_anything_starts() {
    for (arguments, code, message) in [
        (&["--", "--device=gpu"][..], 64, "--device"),
        (&["--", "--no-such-flag"], 64, "after --: unexpected argument '--no-such-flag'"),
        (&["--mode=poisson"], 64, "--rate is missing"),
        (&["--mode=trace"], 64, "--trace"),
        (&["--addr=127.0.0.1:1"], 1, "is clipd running at"),
        (&["--images=nowhere"], 1, "nowhere"),
    ] {
        let ran = bench(arguments).await;
        assert_eq!(ran.code, Some(code), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(message), "{arguments:?}: {}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scenario_compares_its_arms_in_turns() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("scenario.toml");
    let scenario = r#"
        title = "one thread, and texts three times as long"
        rounds = 3
        concurrency = 2
        duration = "1h"
        [[arms]]
        name = "default"
        [[arms]]
        name = "one thread"
        serve = ["--threads=1"]
        [[arms]]
        name = "texts"
        workload = "texts"
        [[arms]]
        name = "long texts"
        workload = "texts"
        repeat_texts = 3
    "#;
    std::fs::write(&file, scenario).unwrap();
    let file = file.to_str().unwrap();
    let ran = bench(&["--scenario", file, "--requests=20", "--", "--device=cpu"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let arms = ran.json["arms"].as_array().unwrap();
    let names: Vec<_> = arms.iter().map(|arm| arm["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["default", "one thread", "texts", "long texts"]);
    assert!(arms.iter().all(|arm| arm["failed"] == 0 && arm["runs"] == "cpu fp32"), "{}", ran.json);
    assert_eq!(arms[0]["of_first"]["max"], 1.0);
    for same in &arms[..3] {
        assert!(same["fidelity"]["min"].as_f64().unwrap() > 0.9999, "{same}");
    }
    assert_eq!(arms[3]["fidelity"], Value::Null, "other requests have nothing to be compared with");
    // Two servers: the arms with the same flags share one.
    assert_eq!(ran.stderr.matches("starting the server").count(), 2, "{}", ran.stderr);
    assert!(ran.stdout.contains("long texts"), "{}", ran.stdout);

    let ran = bench(&["--scenario", file, "--mode=poisson"]).await;
    assert_eq!(ran.code, Some(64), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_load_goes_over_http() {
    let server = Server::start(&[]).await;
    let [addr, metrics] = of(&server);
    let http = format!("--http-addr={}", server.running.http_address.unwrap());
    let flags = ["--workload=images,texts,classify", "--mode=closed", "--concurrency=4", "--requests=20"];
    let arguments = [&[addr.as_str(), &metrics, &http, "--edge=http", "--warm-up=1ms"], &flags[..]].concat();
    let ran = bench(&arguments).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    for load in loads(&ran.json) {
        assert_eq!(load["answered"], 20, "{load}");
    }
    let without = bench(&[&addr, "--edge=http"]).await;
    assert!(without.code == Some(1) && without.stderr.contains("--http-addr"), "{}", without.stderr);
}
