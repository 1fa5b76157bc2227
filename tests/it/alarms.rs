//! `MIN_SOCKETS`: told once when too few are left, once when nobody is, and once when they are back.

use crate::{
    application::{Application, Manner},
    gateway::Gateway,
    patience::eventually,
};
use serde_json::json;
use servers::Server;

const BELOW: &str = "🚨 Socket count below threshold!";
const NOBODY: &str = "🚨 No healthy sockets found!";

fn count(gateway: &Gateway, words: &str) -> usize {
    gateway.output().lines().filter(|line| line.contains(words)).count()
}

/// The gateway has looked at its sockets since, and found so many.
async fn sees(gateway: &Gateway, sockets: f64) {
    eventually(&format!("{sockets} sockets are seen"), async || {
        (gateway.metric("holdfast_fleet_connections").await == sockets).then_some(())
    })
    .await;
}

async fn is_below(gateway: &Gateway, value: f64) {
    eventually(&format!("the metric says {value}"), async || {
        (gateway.metric("holdfast_sockets_below_minimum").await == value).then_some(())
    })
    .await;
}

/// Checklist 215, 217: a number that swings around the threshold is one alarm, not many.
#[tokio::test]
async fn too_few_sockets_are_told_once_until_they_are_back() {
    let mut gateway = Gateway::with([("MIN_SOCKETS", "2")]).await;
    let mut clients = vec![gateway.greeted("/ws").await];
    sees(&gateway, 1.0).await;
    assert_eq!(count(&gateway, BELOW), 0, "they may still be coming back from a restart");
    clients.push(gateway.greeted("/ws").await);
    is_below(&gateway, 0.0).await;

    clients.pop().unwrap().leaves().await;
    gateway.logs(&["ERROR", BELOW]).await;
    is_below(&gateway, 1.0).await;
    for _ in 0..2 {
        clients.push(gateway.greeted("/ws").await);
        is_below(&gateway, 0.0).await;
        clients.pop().unwrap().leaves().await;
        is_below(&gateway, 1.0).await;
    }
    assert_eq!((count(&gateway, BELOW), count(&gateway, NOBODY)), (1, 0), "{}", gateway.output());

    clients.pop().unwrap().leaves().await;
    gateway.logs(&["ERROR", NOBODY]).await;
    eventually("none is healthy", async || (gateway.metric("holdfast_healthy_connections").await == 0.0).then_some(()))
        .await;

    // Well above it, and then below again, is another alarm.
    for _ in 0..4 {
        clients.push(gateway.greeted("/ws").await);
    }
    gateway.logs(&["INFO", "socket count is back"]).await;
    clients.clear();
    eventually("it is told again", async || (count(&gateway, BELOW) == 2).then_some(())).await;
    eventually("and that nobody is left", async || (count(&gateway, NOBODY) == 2).then_some(())).await;
}

/// Checklist 215: the application hears of it as it hears of sockets; what it does not take is told again, under the same id.
#[tokio::test]
async fn the_application_is_told_that_too_few_are_connected_and_that_they_are_back() {
    let application = Application::start().await;
    application.at("/events", Manner::status(204));
    let url = application.url("/events");
    let gateway = Gateway::with([("MIN_SOCKETS", "1"), ("EVENTS_URL", &url), ("INSTANCE", "web1")]).await;
    let told = |kind: &str| {
        let told = application.asked("/events").into_iter().map(|asked| asked.json());
        told.filter(|event| event["type"] == kind).collect::<Vec<_>>()
    };
    let client = gateway.greeted("/ws").await;
    sees(&gateway, 1.0).await;
    eventually("its coming is told", async || (told("connected").len() == 1).then_some(())).await;
    application.at("/events", Manner::status(503));
    client.leaves().await;
    let of = |outcome: &str| format!("holdfast_events_total{{type=\"sockets.below_threshold\",outcome=\"{outcome}\"}}");
    // Counted once it was answered, so that the answer was none that takes it.
    eventually("it is tried", async || (gateway.metric(&of("failed")).await > 0.0).then_some(())).await;
    application.at("/events", Manner::status(204));
    eventually("it is told", async || (gateway.metric(&of("told")).await == 1.0).then_some(())).await;
    let below = told("sockets.below_threshold");
    assert!(below.len() > 1 && below.iter().all(|again| *again == below[0]), "{below:?}");
    assert_eq!(below[0]["data"], json!({ "instance": "web1", "sockets": 0, "minimum": 1 }));
    let _here = gateway.greeted("/ws").await;
    let back = eventually("that they are back", async || told("sockets.back").pop()).await;
    assert_eq!(back["data"], json!({ "instance": "web1", "sockets": 1, "minimum": 1 }));
    assert_ne!(back["id"], below[0]["id"]);
}

/// Checklist 215, 217.
#[tokio::test]
async fn machines_read_the_alarm_without_its_sign() {
    let mut gateway = Gateway::with([("MIN_SOCKETS", "1"), ("LOG_FORMAT", "json")]).await;
    let client = gateway.greeted("/ws").await;
    is_below(&gateway, 0.0).await;
    client.leaves().await;
    gateway.logs(&[r#""level":"error""#, r#""message":"Socket count below threshold!"#]).await;
    gateway.logs(&[r#""level":"error""#, r#""message":"No healthy sockets found!""#]).await;
}

/// Whoever set no threshold is not alarmed, and a gateway that ends parts with its sockets on purpose.
#[tokio::test]
async fn nobody_is_alarmed_without_a_reason() {
    let gateway = Gateway::start().await;
    gateway.greeted("/ws").await.leaves().await;
    sees(&gateway, 0.0).await;
    assert!(!gateway.stop().await.contains("🚨"));

    let gateway = Gateway::with([("MIN_SOCKETS", "1")]).await;
    let mut client = gateway.greeted("/ws").await;
    is_below(&gateway, 0.0).await;
    let (printed, _) = tokio::join!(gateway.stop(), async { while client.next().await.is_some() {} });
    assert!(!printed.contains("🚨"), "{printed}");
}

/// Checklist 216.
#[tokio::test]
async fn the_healthy_ones_are_counted_all_the_time() {
    let gateway = Gateway::start().await;
    let mut clients = Vec::new();
    for sockets in 1..=3 {
        clients.push(gateway.greeted("/ws").await);
        eventually("it is counted", async || {
            (gateway.metric("holdfast_healthy_connections").await == f64::from(sockets)).then_some(())
        })
        .await;
    }
}

/// A fleet that cannot be counted is neither small nor as large as it was.
#[tokio::test]
async fn without_redis_there_is_no_figure_of_the_fleet() {
    let server = Server::start();
    let gateway = Gateway::with([("REDIS_URL", server.url().as_str()), ("MIN_SOCKETS", "2")]).await;
    let _client = gateway.greeted("/ws").await;
    let figures = async || {
        let json = gateway.get("/metrics").with("Accept", "application/json").await.json();
        let text = gateway.get("/metrics").await.text();
        let shown = ["holdfast_fleet_connections ", "holdfast_sockets_below_minimum "].map(|name| text.contains(name));
        (json["fleet_connections"].is_u64(), shown)
    };
    eventually("it is counted", async || (figures().await == (true, [true, true])).then_some(())).await;
    server.kill();
    eventually("nothing is said of it", async || (figures().await == (false, [false, false])).then_some(())).await;
    server.restart();
    eventually("it is counted again", async || (figures().await == (true, [true, true])).then_some(())).await;
}
