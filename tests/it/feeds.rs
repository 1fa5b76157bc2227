//! The feed: what happens on an instance, for whoever looks.

use crate::gateway::Gateway;
use rustix::process::Signal;
use serde_json::json;

#[tokio::test]
async fn the_feed_tells_who_comes_and_goes_and_what_comes_of_calls() {
    let mut gateway = Gateway::with([("INSTANCE", "web1")]).await;
    let mut feed = gateway.get("/api/events?scope=local").streams().await;
    let mut client = gateway.greeted("/ws?user_id=u").await;
    let connected = feed.hears("connected").await;
    assert_eq!(
        (&connected["socketId"], &connected["userId"], &connected["storeId"], &connected["instance"]),
        (&json!(client.id), &json!("u"), &json!(null), &json!("web1"))
    );
    client.asks(json!({"type": "selectStore", "data": {"storeId": "s"}}).to_string()).await;
    assert_eq!(feed.hears("store_selected").await["storeId"], "s");
    let answer = gateway.post("/api/call", &json!({"storeId": "nobody", "event": "x"})).await;
    let call = feed.hears("call").await;
    assert_eq!((&call["outcome"], &call["callId"]), (&json!("absent"), &answer.json()["callId"]));
    let id = client.id.clone();
    client.leaves().await;
    let gone = feed.hears("disconnected").await;
    assert_eq!(
        (&gone["socketId"], &gone["cause"], &gone["storeId"]),
        (&json!(id), &json!("client_closed"), &json!("s"))
    );
    // The end of those who are parted with is still told.
    let client = gateway.greeted("/ws").await;
    feed.hears("connected").await;
    gateway.signal(Signal::TERM);
    let gone = feed.hears("disconnected").await;
    assert_eq!((&gone["socketId"], &gone["cause"]), (&json!(client.id), &json!("instance_restart")));
    feed.ends().await;
    drop(client);
    assert_eq!(gateway.exits().await, 0);
}

/// What it cannot do it says.
#[tokio::test]
async fn there_is_no_feed_of_the_fleet_yet() {
    let gateway = Gateway::with([("API_TOKEN", "t"), ("ADMIN_TOKEN", "a")]).await;
    let asks = |target: &str, token: &str| gateway.get(target).with("Authorization", &format!("Bearer {token}"));
    for target in ["/api/events", "/api/events?scope=fleet"] {
        asks(target, "a").await.refuses(501, "No feed of the fleet");
    }
    assert_eq!(asks("/api/events?scope=local", "t").await.status, 401);
    let head = asks("/api/events?scope=local", "a").method("HEAD").await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
}
