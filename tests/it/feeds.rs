//! The feed: what happens on an instance, for whoever looks.

use crate::{
    fleet::{Fleet, MENDED, within},
    gateway::Gateway,
    patience::soon,
    stream::{Event, Stream},
};
use rustix::process::Signal;
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

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

#[tokio::test]
async fn one_instance_alone_is_its_whole_fleet() {
    let gateway = Gateway::with([("INSTANCE", "web1")]).await;
    for target in ["/api/events", "/api/events?scope=fleet"] {
        let mut feed = gateway.get(target).streams().await;
        let standing = feed.hears("instances").await;
        assert_eq!(
            (&standing["whole"], &standing["heard"], &standing["unheard"]),
            (&json!(true), &json!(["web1"]), &json!([]))
        );
        let client = gateway.greeted("/ws").await;
        assert_eq!(feed.hears("connected").await["socketId"], client.id);
        client.leaves().await;
        feed.hears("disconnected").await;
    }
}

#[tokio::test]
async fn the_feed_is_for_admins_and_knows_two_scopes() {
    let gateway = Gateway::with([("API_TOKEN", "t"), ("ADMIN_TOKEN", "a")]).await;
    let asks = |target: &str, token: &str| gateway.get(target).with("Authorization", &format!("Bearer {token}"));
    asks("/api/events?scope=world", "a").await.refuses(400, "No such scope");
    for target in ["/api/events", "/api/events?scope=local"] {
        assert_eq!(asks(target, "t").await.status, 401);
        let head = asks(target, "a").method("HEAD").await;
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    }
}

/// Reads on to an event of which this holds; all of them to there.
async fn hears_until(feed: &mut Stream, what: &str, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
    let mut heard = Vec::new();
    soon(what, async {
        loop {
            heard.push(feed.event().await.unwrap_or_else(|| panic!("ended before {what}: {heard:?}")));
            if wanted(&heard[heard.len() - 1]) {
                return;
            }
        }
    })
    .await;
    heard
}

/// Reads on until these are heard, and these are not; all to there.
async fn stands(feed: &mut Stream, heard: &[&str], unheard: &[&str]) -> Vec<Event> {
    let what = format!("{heard:?} are heard and {unheard:?} are not");
    let as_wanted = |event: &Event| {
        event.name == "instances" && event.data["heard"] == json!(heard) && event.data["unheard"] == json!(unheard)
    };
    let events = hears_until(feed, &what, as_wanted).await;
    assert_eq!(events[events.len() - 1].data["whole"], unheard.is_empty());
    events
}

const ALL: [&str; 3] = ["web1", "web2", "web3"];

/// What happened, where, to whom.
fn in_short(Event { name, data, .. }: Event) -> String {
    let id = data["socketId"].as_str().or(data["callId"].as_str()).unwrap_or_default();
    format!("{name} {} {id}", data["instance"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn whoever_looks_at_one_hears_what_happens_on_all_each_once() {
    let fleet = Fleet::with(&[]).await;
    let mut feeds = Vec::new();
    for at in [0, 1] {
        let mut feed = fleet[at].get("/api/events").streams().await;
        stands(&mut feed, &ALL, &[]).await;
        feeds.push(feed);
    }
    let mut expected = Vec::new();
    for (at, name) in ALL.iter().enumerate() {
        let client = fleet[at].greeted("/ws?user_id=u").await;
        for kind in ["connected", "disconnected"] {
            expected.push(format!("{kind} {name} {}", client.id));
        }
        let answer = fleet[at].post("/api/call", &json!({ "storeId": "nobody", "event": "x" })).await;
        expected.push(format!("call {name} {}", answer.json()["callId"].as_str().unwrap()));
        client.leaves().await;
    }
    expected.sort();
    // Each tells in its order, so nothing of before comes behind the last of each.
    let mut lasts = Vec::new();
    for gateway in [&fleet[0], &fleet[1], &fleet[2]] {
        lasts.push(gateway.greeted("/ws?user_id=last").await);
    }
    for feed in &mut feeds {
        let mut heard = Vec::new();
        for _ in &lasts {
            heard.extend(hears_until(feed, "the last of each", |event| event.data["userId"] == "last").await);
        }
        heard.retain(|event| event.data["userId"] != "last");
        let mut heard: Vec<_> = heard.into_iter().map(in_short).collect();
        heard.sort();
        assert_eq!(heard, expected);
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn while_nobody_looks_no_letter_tells_what_happens() {
    let fleet = Fleet::with(&[]).await;
    let sent = async || {
        let mut sent = 0.0;
        for (_, gateway) in fleet.living() {
            for kind in ["follow", "happened"] {
                sent += gateway.metric(&format!("holdfast_letters_sent_total{{kind=\"{kind}\"}}")).await;
            }
        }
        sent
    };
    let happens = async || {
        for (_, gateway) in fleet.living() {
            gateway.greeted("/ws").await.leaves().await;
        }
    };
    happens().await;
    let mut local = fleet[0].get("/api/events?scope=local").streams().await;
    happens().await;
    local.hears("connected").await;
    assert_eq!(sent().await, 0.0);
    let mut feed = fleet[0].get("/api/events").streams().await;
    stands(&mut feed, &ALL, &[]).await;
    happens().await;
    hears_until(&mut feed, "what happens there", |event| event.data["instance"] == "web3").await;
    assert!(sent().await >= 3.0);
    drop(feed);
    within(MENDED, "no letter more", async || {
        let before = sent().await;
        // Longer than anybody waits to write one, and than anybody waits to ask again.
        for _ in 0..3 {
            happens().await;
            sleep(Duration::from_secs(1)).await;
        }
        let after = sent().await;
        if before == after { Ok(()) } else { Err(format!("{before}, then {after}")) }
    })
    .await;
}

#[tokio::test]
async fn who_comes_later_is_heard_and_who_is_killed_is_named_until_it_is_back() {
    let mut fleet = Fleet::with(&[]).await;
    let mut feed = fleet[0].get("/api/events").streams().await;
    stands(&mut feed, &ALL, &[]).await;
    let url = fleet.redis().url();
    let mut late = Gateway::with([("REDIS_URL", &*url), ("INSTANCE", "web4")]).await;
    stands(&mut feed, &["web1", "web2", "web3", "web4"], &[]).await;
    let client = late.greeted("/ws").await;
    assert_eq!(feed.hears("connected").await["socketId"], client.id);
    // What is the last of one that drains is still heard.
    late.signal(Signal::TERM);
    let events = stands(&mut feed, &ALL, &[]).await;
    let gone = events.iter().find(|event| event.name == "disconnected");
    assert_eq!(gone.unwrap_or_else(|| panic!("{events:?}")).data["cause"], "instance_restart");
    assert_eq!(late.exits().await, 0);
    fleet.kill(2);
    stands(&mut feed, &["web1", "web2"], &["web3"]).await;
    fleet.restart(2).await;
    let is_back = |event: &Event| event.name == "instances" && event.data["heard"] == json!(ALL);
    hears_until(&mut feed, "it is back", is_back).await;
    let client = fleet[2].greeted("/ws").await;
    let connected = |event: &Event| event.name == "connected" && event.data["socketId"] == json!(client.id);
    hears_until(&mut feed, "its sockets are heard", connected).await;
}

#[tokio::test]
async fn while_redis_is_away_the_feed_says_that_it_is_not_whole() {
    let fleet = Fleet::with(&[]).await;
    let mut feed = fleet[0].get("/api/events").streams().await;
    stands(&mut feed, &ALL, &[]).await;
    fleet.redis().stop();
    stands(&mut feed, &["web1"], &["web2", "web3"]).await;
    // Nor is who begins to look now told that nobody else is there.
    let mut second = fleet[0].get("/api/events").streams().await;
    assert_eq!(second.hears("instances").await["whole"], false);
    fleet.redis().cont();
    for feed in [&mut feed, &mut second] {
        stands(feed, &ALL, &[]).await;
    }
    let client = fleet[1].greeted("/ws").await;
    let connected = |event: &Event| event.name == "connected" && event.data["socketId"] == json!(client.id);
    for feed in [&mut feed, &mut second] {
        hears_until(feed, "what happens there", connected).await;
    }
}
