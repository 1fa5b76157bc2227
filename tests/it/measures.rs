//! `holdfast bench`: it counts what came of each thing, and what did not is no figure of what did.

use crate::{
    fleet::Fleet,
    gateway::Gateway,
    holdfast::{Finished, Holdfast, TempFile, signal},
    nginx::{Nginx, TOKEN},
    patience::{eventually, soon},
};
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use tokio::process::Child;

fn bench(url: &str, args: &[&str]) -> Holdfast {
    Holdfast::command(&[&["bench", url, "--for", "1s", "--json"], args].concat())
}

fn report(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:?}"))
}

/// How many sockets a process has open, of whatever kind.
fn sockets_of(child: &Child) -> usize {
    let files = fs::read_dir(format!("/proc/{}/fd", child.id().expect("it runs"))).unwrap().flatten();
    let links = files.filter_map(|file| fs::read_link(file.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// Checklist 292: the whole way, proxy and all.
#[tokio::test]
async fn a_fleet_behind_nginx_is_measured_and_nothing_is_left_of_it() {
    let fleet = Fleet::with(&[TOKEN]).await;
    let nginx = Nginx::before(&[0, 1, 2].map(|at| fleet[at].address())).await;
    let mut bystander = fleet[0].greeted("/ws?user_id=ann").await;
    let url = format!("http://{}", nginx.address);
    let measured = bench(&url, &["--sockets", "30", "--callers", "4"]).env(TOKEN.0, TOKEN.1).run().await;
    let told = report(&measured);
    assert_eq!((measured.code, &told["ok"], &told["url"]), (0, &json!(true), &json!(url)), "{measured:?}");
    assert_eq!(told["sockets"]["opened"], 30);
    let instances = told["sockets"]["instances"].as_object().unwrap();
    assert_eq!(instances.values().filter_map(Value::as_u64).sum::<u64>(), 30, "{told}");
    assert!(instances.keys().eq(["web1", "web2", "web3"]), "{told}");
    let count = |of: &str, what: &str| told[of][what].as_u64().unwrap_or_else(|| panic!("{of}.{what}: {told}"));
    assert!(count("calls", "answered") > 0 && count("sends", "count") > 0, "{told}");
    assert_eq!(
        (count("sends", "matched"), count("sends", "heard")),
        (30 * count("sends", "count"), count("sends", "matched"))
    );
    for of in ["sockets", "floor", "calls", "sends"] {
        let ms = ["p50", "p95", "p99", "max"].map(|share| told[of]["ms"][share].as_f64().unwrap());
        assert!(ms.is_sorted() && ms[0] > 0.0, "{of}: {told}");
    }
    eventually("its sockets have left", async || {
        let told = fleet[0].get("/api/sockets").with("Authorization", "Bearer t0ken").await.json();
        (told["sockets"].as_array()?.len() == 1).then_some(())
    })
    .await;
    bystander.heard_all().await;
    fleet.is_sound().await;
}

/// Its sockets come back as clients do, and its calls wait for them, so that whatever a deployment costs is its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_measured_too() {
    let mut fleet = Fleet::at_ports(&[TOKEN, ("DRAIN_TIMEOUT", "4s")]).await;
    let nginx = Nginx::before(&[0, 1, 2].map(|at| fleet[at].address())).await;
    let url = format!("http://{}", nginx.address);
    let args = ["bench", &url, "--restarts", "--sockets", "30", "--callers", "4", "--for", "1h", "--json"];
    let measuring = Holdfast::command(&args).env(TOKEN.0, TOKEN.1).begins();
    let replied = "holdfast_calls_total{outcome=\"replied\"}";
    eventually("it is measured", async || (fleet[0].metric(replied).await > 0.0).then_some(())).await;
    fleet[0].signal(Signal::TERM);
    fleet.ends(0).await;
    fleet.restart(0).await;
    eventually("it calls there again", async || (fleet[0].metric(replied).await > 0.0).then_some(())).await;
    eventually("all are back", async || {
        let here = join_all([0, 1, 2].map(|at| fleet[at].sockets())).await;
        (here.iter().sum::<u64>() == 30).then_some(())
    })
    .await;
    signal(&measuring, Signal::INT);
    let output = soon("it ends", measuring.wait_with_output()).await.unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &told["sockets"]["away"]), (Some(0), &json!(0)), "{told}");
    let ended = told["sockets"]["ended"]["1012 restart"].as_u64().unwrap();
    assert!(ended > 0 && told["sockets"]["cameBack"] == ended, "{told}");
    fleet.is_sound().await;
}

#[tokio::test]
async fn people_read_lines() {
    let gateway = Gateway::start().await;
    let url = format!("ws://{}/ws", gateway.address());
    let measured = Holdfast::command(&["bench", &url, "--for", "1s", "--sockets", "5"]).run().await;
    assert_eq!((measured.code, &*measured.stderr), (0, ""), "{measured:?}");
    let first: Vec<_> = measured.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(first, ["gateway", "sockets", "floor", "calls", "sends", "this"], "{measured:?}");
    for part in ["5 of 5 opened", " × floor", "of one core"] {
        assert!(measured.stdout.contains(part), "{part}: {measured:?}");
    }
}

#[tokio::test]
async fn whoever_is_refused_is_counted_with_the_reason() {
    let gateway = Gateway::with([("RATE_CONNECT", "1/s")]).await;
    let url = format!("http://{}", gateway.address());
    let measured = bench(&url, &["--sockets", "20", "--callers", "0"]).run().await;
    let told = report(&measured);
    let (opened, refused) = (told["sockets"]["opened"].as_u64(), told["sockets"]["refused"]["429 too_fast"].as_u64());
    assert_eq!((measured.code, opened.zip(refused).map(|(here, not)| here + not)), (1, Some(20)), "{told}");
    assert!(opened.is_some_and(|opened| opened > 0), "{told}");
}

#[tokio::test]
async fn whoever_may_not_call_is_told_what_lets_them() {
    let gateway = Gateway::with([("API_TOKEN", "hush")]).await;
    let url = format!("http://{}", gateway.address());
    let measured = bench(&url, &["--sockets", "3"]).run().await;
    let told = report(&measured);
    assert_eq!((measured.code, &told["sockets"]["opened"], &told["calls"]["answered"]), (1, &json!(3), &json!(0)));
    assert!(told["calls"]["forbidden"].as_str().unwrap().contains("API_TOKEN"), "{told}");
}

/// With a key all sockets are one user's, whose names the bench does not choose.
#[tokio::test]
async fn whoever_shows_a_key_is_whom_it_names() {
    let keys = TempFile::holding(r#"{"keys": {}}"#);
    let add = ["keys", "add", "--user", "ann"];
    let key = Holdfast::command(&add).env("API_KEYS_FILE", keys.path()).run().await.stdout.trim().to_owned();
    let gateway = Gateway::with([("AUTH", "keys"), ("API_KEYS_FILE", keys.path())]).await;
    let url = format!("http://{}", gateway.address());
    let measured = bench(&url, &["--sockets", "4", "--key", &key]).run().await;
    let told = report(&measured);
    assert_eq!(
        (measured.code, &told["sockets"]["opened"], &told["sends"]["count"]),
        (0, &json!(4), &json!(0)),
        "{told}"
    );
    assert!(told["calls"]["answered"].as_u64().unwrap() > 0 && !measured.said().contains(&key), "{told}");
}

/// The same for a URL that says who comes.
#[tokio::test]
async fn whoever_names_somebody_is_that() {
    let gateway = Gateway::start().await;
    let url = format!("ws://{}/ws?user_id=ann", gateway.address());
    let measured = bench(&url, &["--sockets", "4"]).run().await;
    assert_eq!((measured.code, &report(&measured)["sockets"]["opened"]), (0, &json!(4)), "{measured:?}");
}

/// Somebody has seen enough while they still come: not all came, and nobody was asked.
#[tokio::test]
async fn what_was_broken_off_is_no_success() {
    let gateway = Gateway::start().await;
    let url = format!("http://{}", gateway.address());
    let measuring = Holdfast::command(&["bench", &url, "--sockets", "9000", "--json"]).begins();
    eventually("some have come", async || (gateway.sockets().await > 0).then_some(())).await;
    signal(&measuring, Signal::INT);
    let output = soon("it ends", measuring.wait_with_output()).await.unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &told["ok"]), (Some(1), &json!(false)), "{told}");
    let opened = told["sockets"]["opened"].as_u64().unwrap();
    assert!((1..9000).contains(&opened) && told["sockets"]["refused"] == json!({}), "{told}");
}

#[tokio::test]
async fn a_gateway_that_dies_meanwhile_is_no_good_figure() {
    let gateway = Gateway::start().await;
    let url = format!("http://{}", gateway.address());
    let args = ["bench", &url, "--for", "1h", "--json", "--sockets", "10"];
    let measuring = Holdfast::command(&args).begins();
    let replied = "holdfast_calls_total{outcome=\"replied\"}";
    eventually("it is measured", async || (gateway.metric(replied).await > 0.0).then_some(())).await;
    // Killed.
    drop(gateway);
    eventually("the bench has lost its sockets", async || (sockets_of(&measuring) < 10).then_some(())).await;
    // Somebody has seen enough: what was seen until then is told.
    signal(&measuring, Signal::INT);
    let output = soon("it ends", measuring.wait_with_output()).await.unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &told["sockets"]["opened"]), (Some(1), &json!(10)), "{told}");
    let ended = told["sockets"]["ended"].as_object().unwrap();
    assert_eq!(ended.values().filter_map(Value::as_u64).sum::<u64>(), 10, "{told}");
    assert!(told["calls"]["answered"].as_u64().unwrap() > 0, "{told}");
}

#[tokio::test]
async fn a_bench_that_cannot_begin_says_so() {
    for (args, code, part) in [
        (&["http://127.0.0.1:1"][..], 69, "holdfast doctor"),
        (&["ftp://example.com"], 2, "http://host:port"),
        (&["http://127.0.0.1:1", "--for", "0"], 2, "1s to 1h"),
        (&["http://127.0.0.1:1", "--sockets", "0"], 2, "1..=50000"),
        (&["http://127.0.0.1:1", "--key", "@/no/such/file"], 2, "/no/such/file"),
        (&["http://127.0.0.1:1", "--key", "k", "--restarts"], 2, "--restarts"),
        (&["ws://127.0.0.1:1/ws?key=k", "--restarts"], 2, "names of its own"),
    ] {
        let finished = Holdfast::command(&[&["bench"], args].concat()).run().await;
        assert!(finished.code == code && finished.stderr.contains(part), "{args:?}: {finished:?}");
    }
}
