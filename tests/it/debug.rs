//! `/api/debug/sockets`, in the form that other people's scripts rely on.

use crate::{
    asking::{keys, open_more_files, texts},
    gateway::Gateway,
    patience::eventually,
};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// `2024-01-01T00:00:00.000Z`.
fn is_timestamp(text: &str) -> bool {
    let form = "dddd-dd-ddTdd:dd:dd.dddZ";
    let fits = |(c, form): (char, char)| if form == 'd' { c.is_ascii_digit() } else { c == form };
    text.len() == form.len() && text.chars().zip(form.chars()).all(fits)
}

/// Checks the shape, which is the same for every page; returns the ids.
fn shape(body: &Value, entry: &[&str], more: &[&str]) -> Vec<String> {
    let top = ["timestamp", "server", "sockets"].iter().chain(more).copied().collect();
    assert_eq!(keys(body), top, "{body}");
    assert!(is_timestamp(body["timestamp"].as_str().unwrap()), "{body}");
    assert_eq!(keys(&body["server"]), ["pid", "uptime", "platform"].into());
    assert!(body["server"]["pid"].is_u64() && body["server"]["uptime"].is_u64(), "{body}");
    assert_eq!(body["server"]["platform"], "linux");
    let sockets = &body["sockets"];
    assert_eq!(keys(sockets), ["total", "ids", "states", "metadata"].into());
    assert!(sockets["total"].is_u64(), "{body}");
    let ids = texts(&sockets["ids"]);
    assert_eq!(keys(&sockets["states"]), ids.iter().copied().collect());
    assert_eq!(keys(&sockets["metadata"]), ids.iter().copied().collect());
    for id in &ids {
        let metadata = &sockets["metadata"][id];
        assert_eq!(keys(metadata), entry.iter().copied().collect(), "{metadata}");
        assert!(metadata["connectedAt"].is_u64() && (metadata["storeId"].is_string() || metadata["storeId"].is_null()));
        assert_eq!((&metadata["readyState"], &sockets["states"][id]), (&json!(1), &json!(1)));
    }
    ids.into_iter().map(str::to_owned).collect()
}

const ENTRY: [&str; 3] = ["connectedAt", "storeId", "readyState"];

/// Checklist 185, 189, 193, 194, 195, 196, 197, 198.
#[tokio::test]
async fn every_socket_stands_in_one_object_of_a_known_shape() {
    let gateway = Gateway::start().await;
    let nobody = gateway.get("/api/debug/sockets").await.json();
    assert!(shape(&nobody, &ENTRY, &[]).is_empty());
    assert_eq!(nobody["sockets"], json!({ "total": 0, "ids": [], "states": {}, "metadata": {} }));
    let mut clients = Vec::new();
    for target in ["/ws?store_id=meonutrition&user_id=u", "/connect", "/ws/Ab3x9", "/ws?greeting=none&client_id=c"] {
        clients.push(gateway.connect(target).await);
    }
    for client in &mut clients[..3] {
        client.is_greeted().await;
    }
    eventually("the silent one is there, too", async || (gateway.sockets().await == 4).then_some(())).await;
    let answer = gateway.get("/api/debug/sockets").await;
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    let body = answer.json();
    let ids = shape(&body, &ENTRY, &[]);
    assert_eq!((&body["sockets"]["total"], &body["server"]["pid"]), (&json!(4), &json!(gateway.pid())));
    assert_eq!(ids[..3], [0, 1, 2].map(|at: usize| clients[at].id.clone()));
    let stores = ids.iter().map(|id| &body["sockets"]["metadata"][id]["storeId"]);
    assert_eq!(stores.collect::<Vec<_>>(), [&json!("meonutrition"), &json!(null), &json!(null), &json!(null)]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let connected = u128::from(body["sockets"]["metadata"][&ids[0]]["connectedAt"].as_u64().unwrap());
    assert!(connected <= now && now - connected < 60_000, "{connected} {now}");
}

/// Checklist 196.
#[tokio::test]
async fn the_ids_stand_in_the_order_of_connection_whatever_happens_later() {
    let gateway = Gateway::start().await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(gateway.greeted("/ws").await);
    }
    for client in clients.iter_mut().rev() {
        client.asks(r#"{"type":"selectStore","data":{"storeId":"s"}}"#).await;
        client.asks(r#"{"type":"join","room":"r"}"#).await;
    }
    let gone = clients.remove(4);
    let id = gone.id.clone();
    gone.leaves().await;
    gateway.verdict(&id).await;
    let body = gateway.get("/api/debug/sockets").await.json();
    let here: Vec<_> = clients.iter().map(|client| client.id.clone()).collect();
    assert_eq!(shape(&body, &ENTRY, &[]), here);
    assert_eq!(body["sockets"]["total"], 9);
}

#[tokio::test]
async fn a_large_fleet_comes_in_pages() {
    let gateway = Gateway::start().await;
    let mut clients = Vec::new();
    for _ in 0..25 {
        clients.push(gateway.greeted("/ws").await);
    }
    for target in ["/api/debug/sockets?limit=10", "/api/debug/sockets?scope=local&limit=10"] {
        let pages = gateway.pages(target).await;
        let ids: Vec<_> = pages.iter().map(|page| shape(page, &ENTRY, &[])).collect();
        assert_eq!(ids.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 5], "{target}");
        assert_eq!(ids.concat(), clients.iter().map(|client| client.id.clone()).collect::<Vec<_>>());
        assert!(pages.iter().all(|page| page["sockets"]["total"] == 25), "the total is of the fleet, not of the page");
    }
    let verbose = gateway.pages("/api/debug/sockets?limit=20&verbose=1").await;
    assert!(verbose.len() == 2 && verbose.iter().all(|page| page["drift"].is_number()));
    assert!(gateway.get("/api/debug/sockets").await.next_page().is_none());
}

/// Unless somebody asks for fewer or more, a page has 1000.
#[tokio::test]
async fn a_page_has_1000_sockets_unless_said() {
    open_more_files();
    let gateway = Gateway::start().await;
    let mut clients = Vec::new();
    for _ in 0..1001 {
        clients.push(gateway.connect("/ws?greeting=none").await);
    }
    eventually("all are here", async || (gateway.sockets().await == 1001).then_some(())).await;
    for path in ["/api/debug/sockets", "/api/sockets"] {
        let pages = gateway.pages(path).await;
        let count = |page: &Value| page["sockets"]["ids"].as_array().or(page["sockets"].as_array()).map(Vec::len);
        assert_eq!(pages.iter().map(count).collect::<Vec<_>>(), [Some(1000), Some(1)], "{path}");
        assert_eq!(gateway.pages(&format!("{path}?limit=2000")).await.len(), 1, "{path}");
    }
}

#[tokio::test]
async fn a_scope_is_local_or_the_fleet() {
    let gateway = Gateway::start().await;
    let client = gateway.greeted("/ws").await;
    let body = gateway.get("/api/debug/sockets?scope=local").await.json();
    assert_eq!(shape(&body, &ENTRY, &[]), [client.id.as_str()]);
    let answer = gateway.get("/api/debug/sockets?scope=galaxy").await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    answer.is_problem();
}

/// Checklist 210, 211.
#[tokio::test]
async fn verbose_shows_who_it_is_and_when_it_was_heard() {
    let gateway = Gateway::with([("INSTANCE", "web1"), ("WS_PING_INTERVAL", "500ms")]).await;
    let mut client = gateway.greeted("/ws?user_id=u&room_id=a&room_id=b").await;
    let entry: Vec<_> = ENTRY.into_iter().chain(["userId", "rooms", "instance", "lastActivity", "rttMs"]).collect();
    let id = client.id.clone();
    let look = async || {
        let body = gateway.get("/api/debug/sockets?verbose=1").await.json();
        shape(&body, &entry, &["instances", "drift"]);
        assert_eq!((&body["instances"], &body["drift"]), (&json!(["web1"]), &json!(0)));
        body["sockets"]["metadata"][&id].clone()
    };
    let shown = look().await;
    assert_eq!(
        (&shown["userId"], &shown["rooms"], &shown["instance"]),
        (&json!("u"), &json!(["a", "b"]), &json!("web1"))
    );
    let first = shown["lastActivity"].as_u64().unwrap();
    assert!(first >= shown["connectedAt"].as_u64().unwrap() - 1000, "{shown}");
    // Nothing but pongs comes from this client, and they are activity as well.
    let later = eventually("a pong is measured", async || {
        let shown = client.stays_while(look()).await;
        (shown["rttMs"].is_u64() && shown["lastActivity"].as_u64() > Some(first)).then_some(shown)
    })
    .await;
    assert!(later["rttMs"].as_u64().unwrap() < 10_000, "{later}");
    let plain = gateway.get("/api/debug/sockets?verbose=0").await.json();
    shape(&plain, &ENTRY, &[]);
}

#[tokio::test]
async fn a_head_is_answered_without_the_body() {
    let gateway = Gateway::start().await;
    let _client = gateway.greeted("/ws").await;
    let answer = gateway.request("HEAD", "/api/debug/sockets").await;
    let length: usize = answer.header("Content-Length").unwrap().parse().unwrap();
    assert!(answer.status == 200 && answer.body.is_empty() && length > 100, "{answer:?}");
}
