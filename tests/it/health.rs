//! How it is: for people, for load balancers, and for Prometheus.

use crate::{asking::keys, gateway::Gateway, patience::eventually};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What Prometheus sends.
const SCRAPE: &str = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";

/// Checklist 117, 256.
#[tokio::test]
async fn health_has_exactly_these_members() {
    let gateway = Gateway::with([("INSTANCE", "web1")]).await;
    let _clients = [gateway.greeted("/ws").await, gateway.greeted("/ws").await];
    let answer = gateway.get("/health").await;
    let body = answer.json();
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/json")));
    let members = ["status", "timestamp", "version", "connections", "uptime", "instance", "redis"];
    assert_eq!(keys(&body), members.into());
    for (member, value) in [("status", "healthy"), ("instance", "web1"), ("redis", "none")] {
        assert_eq!(body[member], value);
    }
    assert_eq!(body["connections"], 2);
    assert!(body["uptime"].is_number() && body["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{body}");
    let version: Value = serde_json::from_str(&Gateway::command(&["version", "--json"]).run().await.stdout).unwrap();
    assert_eq!(body["version"], version["version"]);
}

#[tokio::test]
async fn whoever_balances_the_load_may_ask_in_any_way() {
    let gateway = Gateway::start().await;
    for target in ["/health", "/health/live", "/health/ready", "/__ws/health"] {
        assert_eq!(gateway.get(target).await.status, 200, "{target}");
        assert_eq!(gateway.request("HEAD", target).await.status, 200, "{target}");
        let through_a_proxy =
            gateway.get(target).but("Host", "gateway.example.com").with("X-Forwarded-For", "192.0.2.1");
        assert_eq!(through_a_proxy.await.status, 200, "{target}");
        let mut raw = gateway.raw().await;
        raw.write(format!("GET {target} HTTP/1.0\r\n\r\n").as_bytes()).await;
        assert_eq!(raw.answer().await.status, 200, "{target} by HTTP/1.0");
    }
}

/// A sample of the text: its name with labels, and its value.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
    });
    samples.collect()
}

fn sum(samples: &BTreeMap<String, f64>, family: &str) -> f64 {
    let of_it = samples.iter().filter(|(name, _)| name.split('{').next() == Some(family));
    of_it.map(|(_, value)| value).sum()
}

/// Checklist 39, 246, 257.
#[tokio::test]
async fn metrics_are_text_that_prometheus_reads() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws").await;
    client.asks(r#"{"evt":"ping"}"#).await;
    gateway.get("/nowhere").await;
    for accept in ["*/*", SCRAPE, "text/plain", "text/html,application/xhtml+xml,*/*;q=0.8"] {
        let answer = gateway.get("/metrics").with("Accept", accept).await;
        let text = answer.text();
        let media = answer.header("Content-Type").unwrap();
        assert!(media.starts_with("application/openmetrics-text;") || media.starts_with("text/plain;"), "{media}");
        assert!(text.ends_with("\n# EOF\n"), "{text}");
        assert_eq!(text.matches("# EOF").count(), 1);
        let families: Vec<_> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert_eq!(families.iter().collect::<BTreeSet<_>>().len(), families.len(), "a family stands there twice");
        for name in samples(&text).keys() {
            let known = families.iter().any(|family| name.starts_with(family));
            let ours = name.starts_with("holdfast_") || name.starts_with("process_");
            assert!(known && ours, "{name}");
        }
    }
}

/// Each bucket holds those before it, and the last one holds all.
#[tokio::test]
async fn histograms_add_up() {
    let gateway = Gateway::start().await;
    for _ in 0..20 {
        gateway.greeted("/ws").await.leaves().await;
    }
    let text = gateway.get("/metrics").await.text();
    let samples = samples(&text);
    let mut last: BTreeMap<String, f64> = BTreeMap::new();
    // The text keeps the buckets in order; the map does not.
    for line in text.lines().filter(|line| line.contains("_bucket{le=\"")) {
        let (head, rest) = line.split_once("le=\"").unwrap();
        let (bound, rest) = rest.split_once('"').unwrap();
        let (labels, value) = rest.trim_start_matches(',').rsplit_once(' ').unwrap();
        let count = format!("{head}{labels}").replace("_bucket{", "_count{").replace("{}", "");
        let value: f64 = value.parse().unwrap();
        if bound == "+Inf" {
            assert_eq!(samples[&count], value, "{line}");
        }
        let before = last.insert(count, value).unwrap_or(0.0);
        assert!(value >= before, "{line}");
    }
    assert!(last.len() >= 3, "{text}");
    assert_eq!(samples["holdfast_hello_seconds_count"], 20.0);
}

/// Checklist 239, 285.
#[tokio::test]
async fn metrics_are_json_for_those_who_ask_for_it() {
    let gateway = Gateway::start().await;
    let _clients = [gateway.greeted("/ws").await, gateway.greeted("/ws").await];
    let answer = gateway.get("/metrics").with("Accept", "application/json").await;
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    assert_eq!(answer.json()["active_connections"], 2);
    assert_eq!(samples(&gateway.get("/metrics").await.text())["holdfast_active_connections"], 2.0);
}

/// Checklist 281, 283: whoever came is here or has gone, whichever way.
#[tokio::test]
async fn what_was_opened_and_not_closed_is_active() {
    let gateway = Gateway::with([("MAX_SOCKETS_PER_USER", "2")]).await;
    let mut clients = Vec::new();
    for n in 0..12 {
        clients.push(gateway.greeted(if n < 3 { "/ws?user_id=u" } else { "/ws" }).await);
    }
    clients.pop().unwrap().leaves().await;
    drop(clients.pop());
    let mut kicked = clients.pop().unwrap();
    gateway.delete(&format!("/api/sockets/{}", kicked.id)).await;
    kicked.closed().await;
    let mut loud = clients.pop().unwrap();
    loud.says("x".repeat(70_000)).await;
    loud.closed().await;
    gateway.knock("/websocket").await;
    gateway.connect("/websocket?reject=close").await.closed().await;
    let quiet = eventually("it is quiet", async || {
        let samples = samples(&gateway.get("/metrics").await.text());
        (samples["holdfast_active_connections"] == 7.0).then_some(samples)
    })
    .await;
    let opened = quiet["holdfast_sockets_opened_total"];
    assert_eq!((opened, sum(&quiet, "holdfast_sockets_closed_total")), (12.0, 5.0));
    for cause in ["client_closed", "connection_lost", "kicked", "protocol_error", "evicted"] {
        let name = format!("holdfast_sockets_closed_total{{cause=\"{cause}\"}}");
        assert_eq!(quiet.get(&name), Some(&1.0), "{name}");
    }
    assert_eq!(gateway.sockets().await, 7);
    assert_eq!(gateway.metric("holdfast_registry_drift").await, 0.0);
    drop(clients);
    eventually("all have gone", async || {
        let samples = samples(&gateway.get("/metrics").await.text());
        (sum(&samples, "holdfast_sockets_closed_total") == opened).then_some(())
    })
    .await;
}

/// Checklist 39, 40, 41, 83.
#[tokio::test]
async fn nobodys_name_is_in_the_metrics() {
    let gateway = Gateway::with([("PUBLIC_ACCOUNTS", "zq-account")]).await;
    let mut client = gateway.greeted("/ws?user_id=zq-user&store_id=zq-store&room_id=zq-room&client_id=zq-client").await;
    let id = client.id.clone();
    client.asks(r#"{"type":"zq-verb"}"#).await;
    client.asks(r#"{"type":"selectStore","data":{"storeId":"zq-other"}}"#).await;
    for target in ["/zq-path", "/api/users/zq-user", "/api/sockets/zq-id", "/ws/zq-code?room_id=", "/health?zq-query=1"]
    {
        gateway.get(target).with("User-Agent", "zq-agent").with("X-Request-Id", "zq-request").await;
    }
    gateway.request("ZQ-METHOD", "/health").await;
    gateway.knock("/ws").with("Origin", "https://zq-origin.example").await;
    gateway.post("/sse/push", &json!({ "user_id": "zq-user", "event_type": "zq-event", "data": "@zq-account" })).await;
    gateway.delete(&format!("/api/sockets/{id}?reason=zq-reason")).await;
    for accept in ["text/plain", "application/json"] {
        let text = gateway.get("/metrics").with("Accept", accept).await.text();
        assert!(!text.to_lowercase().contains("zq-") && !text.contains("ws_"), "{text}");
    }
    let samples = samples(&gateway.get("/metrics").await.text());
    assert_eq!(samples[r#"holdfast_http_requests_total{route="/api/users/{name}",code="200"}"#], 1.0);
    assert!(sum(&samples, "holdfast_client_messages_total") >= 2.0);
    assert!(sum(&samples, "holdfast_handshake_rejected_total") >= 1.0);
}

/// Checklist 40: what was asked is counted, also when nobody knows the way.
#[tokio::test]
async fn every_request_is_counted_with_its_status() {
    let gateway = Gateway::start().await;
    let ask = async |name: &str| gateway.metric(name).await;
    gateway.get("/nowhere").await;
    gateway.post("/api/send", &json!({ "socketId": "ws_123" })).await;
    gateway.post("/api/send", &json!({ "all": true })).await;
    gateway.post("/api/send", &json!({ "messages": [] })).await;
    for (code, count) in [(404, 1.0), (200, 1.0), (422, 1.0)] {
        let name = format!(r#"holdfast_http_requests_total{{route="/api/send",code="{code}"}}"#);
        assert_eq!(ask(&name).await, count, "{code}");
    }
    assert_eq!(ask(r#"holdfast_http_requests_total{route="none",code="404"}"#).await, 1.0);
}

/// A send is counted once, by whichever door it came.
#[tokio::test]
async fn every_send_is_counted_with_its_outcome() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?user_id=u&room_id=r").await;
    let messages = json!({ "messages": [{ "userId": "u" }, { "userId": "x" }] });
    for (target, body, delivered) in [
        ("/api/send", json!({ "userId": "u" }), 1.0),
        ("/api/rooms/r/send", json!({}), 2.0),
        ("/sse/push", json!({ "user_id": "u", "data": 1 }), 3.0),
        ("/sse/push/batch", json!([{ "user_id": "u", "data": 1 }]), 4.0),
        ("/api/send/batch", messages, 5.0),
    ] {
        gateway.post(target, &body).await;
        client.hears().await;
        assert_eq!(gateway.metric(r#"holdfast_sends_total{outcome="delivered"}"#).await, delivered, "{target}");
    }
    assert_eq!(gateway.metric(r#"holdfast_sends_total{outcome="undelivered"}"#).await, 1.0);
}

/// Checklist 42.
#[tokio::test]
async fn a_canary_can_be_told_from_the_others() {
    let gateway = Gateway::with([("CANARY", "true")]).await;
    assert!(gateway.get("/metrics").await.text().contains(r#"canary="true""#));
}
