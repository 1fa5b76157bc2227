//! `EVENTS_URL`: what the application hears of sockets, that each came and how it ended, whatever fails meanwhile.

use crate::{
    application::{Application, Manner},
    client::Client,
    comebacks::Page,
    fleet::within,
    gateway::Gateway,
    hooks::{SECRET, is_signed},
    patience::eventually,
};
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};
use servers::Server;
use std::{collections::BTreeMap, time::Duration};

const PATH: &str = "/events";
/// A dead instance is noticed after a third of it.
const NOTICED: Duration = Duration::from_secs(90);

async fn telling(application: &Application, more: &[(&str, &str)]) -> Gateway {
    let url = application.url(PATH);
    Gateway::with([("EVENTS_URL", &*url)].into_iter().chain(more.iter().copied())).await
}

/// How often it was asked so far.
fn now(application: &Application) -> usize {
    application.asked(PATH).len()
}

/// The ids of what it was asked to take so far, however often.
fn asked(application: &Application) -> Vec<String> {
    application.asked(PATH).iter().map(|asked| asked.json()["id"].as_str().unwrap().to_owned()).collect()
}

/// What it was told since then, by id.
fn told(application: &Application, since: usize) -> BTreeMap<String, Value> {
    let asked = application.asked(PATH).into_iter().skip(since).map(|asked| asked.json());
    asked.map(|event| (event["id"].as_str().unwrap().to_owned(), event)).collect()
}

/// Hears of a socket that it came or ended, and returns that.
async fn hears(application: &Application, since: usize, id: &str, kind: &str) -> Value {
    let wanted = format!("{id}.{kind}");
    let mut found = Value::Null;
    within(NOTICED, &format!("the application hears {wanted}"), async || {
        found = told(application, since).remove(&wanted).ok_or("not yet")?;
        Ok(())
    })
    .await;
    assert_eq!((&found["type"], &found["data"]["socketId"]), (&json!(kind), &json!(id)));
    found
}

async fn greeted(gateway: &Gateway, count: usize) -> Vec<Client> {
    join_all((0..count).map(|_| gateway.greeted("/ws"))).await
}

fn logs(server: &Server) -> Vec<String> {
    server.keys().into_iter().filter(|key| key.ends_with(":events")).collect()
}

/// What nobody was told yet.
fn untold(server: &Server) -> u64 {
    logs(server).iter().map(|key| server.text(&["XLEN", key]).parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn the_application_hears_who_came_and_why_each_one_left() {
    let application = Application::start().await;
    application.at(PATH, Manner::status(204));
    // An answer that is late on a busy machine would have everything told again.
    let more = [("HOOK_SECRET", SECRET), ("INSTANCE", "web1"), ("HOOK_TIMEOUT", "10s")];
    let gateway = telling(&application, &more).await;
    let client = gateway.greeted("/ws?user_id=ann&store_id=shop&room_id=lobby").await;
    let (id, before) = (client.id.clone(), now(&application));
    let came = hears(&application, 0, &id, "connected").await;
    let data = &came["data"];
    assert_eq!((&data["instance"], &data["rooms"]), (&json!("web1"), &json!(["lobby"])));
    assert_eq!((&data["userId"], &data["storeId"]), (&json!("ann"), &json!("shop")));
    assert!(came["timestamp"].as_str().unwrap().ends_with('Z') && data["connectedAt"].is_u64(), "{came}");
    assert!(data.get("cause").is_none(), "{came}");
    let asked = &application.asked(PATH)[0];
    let header = |name| asked.header(name);
    assert_eq!((asked.method.as_str(), header("webhook-id")), ("POST", came["id"].as_str()));
    assert_eq!(
        (header("x-user-id"), header("x-store-id"), header("x-room-id")),
        (Some("ann"), Some("shop"), Some("lobby"))
    );
    assert!(is_signed(asked) && header("traceparent").is_some(), "{}", asked.head());

    client.leaves().await;
    let left = hears(&application, before, &id, "disconnected").await;
    assert_eq!((&left["data"]["cause"], &left["data"]["closeCode"]), (&json!("client_closed"), &json!(1005)));
    let at = |member: &str| left["data"][member].as_u64().unwrap_or_else(|| panic!("{member} of {left}"));
    assert!(at("closedAt") >= at("connectedAt") && left["data"]["connectedAt"] == data["connectedAt"], "{left}");

    let kicked = gateway.greeted("/ws").await;
    gateway.delete(&format!("/api/sockets/{}?reason=spam", kicked.id)).await;
    let left = hears(&application, before, &kicked.id, "disconnected").await;
    let data = &left["data"];
    assert_eq!((&data["cause"], &data["closeCode"]), (&json!("kicked"), &json!(4403)));
    assert!(data["reason"].as_str().unwrap().contains("spam") && data["userId"].is_null(), "{left}");
    for kind in ["connected", "disconnected"] {
        let metric = format!(r#"holdfast_events_total{{type="{kind}",outcome="told"}}"#);
        // It is counted when the application has answered.
        eventually(&metric, async || (gateway.metric(&metric).await == 2.0).then_some(())).await;
    }
    assert_eq!(now(&application), 4, "once each");

    // Who is there at the end is told to have ended with it.
    let rest = greeted(&gateway, 20).await;
    gateway.stop().await;
    let all = told(&application, 0);
    for client in rest {
        assert_eq!(all[&format!("{}.disconnected", client.id)]["data"]["cause"], "instance_restart");
    }
    assert_eq!(now(&application), 44, "once each");
}

/// In order, and under the same id.
#[tokio::test]
async fn what_the_application_did_not_take_is_told_again_before_what_came_later() {
    let application = Application::start().await;
    application.at(PATH, Manner::Breaks);
    let gateway = telling(&application, &[]).await;
    let client = gateway.greeted("/ws").await;
    let id = client.id.clone();
    client.leaves().await;
    eventually("the application is asked again", async || (now(&application) > 1).then_some(())).await;
    let before = now(&application);
    application.at(PATH, Manner::status(200));
    hears(&application, 0, &id, "disconnected").await;
    let mut asked = asked(&application);
    assert_eq!(asked.pop(), Some(format!("{id}.disconnected")));
    assert!(asked.iter().all(|it| *it == format!("{id}.connected")), "{asked:?}");
    assert!(asked.len() > before, "it did not take that until now: {asked:?}");
}

async fn hears_all_when_it_can_again(redis: Option<&Server>) {
    let mut application = Application::start().await;
    application.at(PATH, Manner::status(500));
    let url = redis.map(Server::url);
    let mut more = vec![("HOOK_TIMEOUT", "300ms")];
    more.extend(url.as_deref().map(|url| ("REDIS_URL", url)));
    let mut gateway = telling(&application, &more).await;
    let mut ids = Vec::new();
    let refused = greeted(&gateway, 10).await;
    gateway.logs(&["WARN", "/events fails: status 500"]).await;
    for client in refused {
        ids.push(client.id.clone());
        client.leaves().await;
    }
    application.at(PATH, Manner::Hangs);
    for client in greeted(&gateway, 10).await {
        ids.push(client.id.clone());
        client.leaves().await;
    }
    application.stops().await;
    for client in greeted(&gateway, 10).await {
        ids.push(client.id.clone());
        client.leaves().await;
    }
    // Nobody has waited for the application, and all of it is to be seen.
    within(NOTICED, "the backlog is seen", async || match gateway.metric("holdfast_events_backlog").await {
        60.0 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    if let Some(redis) = redis {
        assert_eq!(untold(redis), 60);
    }
    let before = now(&application);
    application.at(PATH, Manner::status(200));
    application.returns().await;
    for id in &ids {
        hears(&application, before, id, "connected").await;
        hears(&application, before, id, "disconnected").await;
    }
    within(NOTICED, "the backlog is gone", async || match gateway.metric("holdfast_events_backlog").await {
        0.0 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    gateway.logs(&["/events answers as it should again"]).await;
    let metrics = gateway.get("/metrics").await.text();
    assert!(metrics.contains("\nholdfast_events_dropped_total 0\n"), "{metrics}");
    gateway.is_unharmed().await;
}

#[tokio::test]
async fn an_application_that_was_away_hears_all_of_it_later() {
    let server = Server::start();
    tokio::join!(hears_all_when_it_can_again(None), hears_all_when_it_can_again(Some(&server)));
}

/// What waits for too long goes into other hands, and is not told by both.
#[tokio::test]
async fn a_slow_application_hears_everything_once() {
    let server = Server::start();
    let application = Application::start().await;
    application.at(PATH, Manner::Slowly(Duration::from_secs(1), 200, String::new()));
    let url = server.url();
    let at = |name| [("REDIS_URL", &*url), ("INSTANCE", name), ("LOG_LEVEL", "info"), ("HOOK_TIMEOUT", "10s")];
    let (web1, web2) = (telling(&application, &at("web1")).await, telling(&application, &at("web2")).await);
    for gateway in [&web1, &web2] {
        let clients = greeted(gateway, 75).await;
        join_all(clients.into_iter().map(Client::leaves)).await;
    }
    within(NOTICED, "all of it is heard", async || match told(&application, 0).len() {
        300 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    within(NOTICED, "nothing is left in the log", async || match untold(&server) {
        0 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    assert_eq!(now(&application), 300, "each once");
}

#[tokio::test]
async fn what_a_killed_instance_cannot_tell_is_told_by_another() {
    let server = Server::start();
    let mut application = Application::start().await;
    application.at(PATH, Manner::status(200));
    let url = server.url();
    let at = |name| [("REDIS_URL", &*url), ("INSTANCE", name), ("LOG_LEVEL", "info")];
    let web1 = telling(&application, &at("web1")).await;
    let web2 = telling(&application, &at("web2")).await;
    let (lost, page) = (greeted(&web1, 5).await, Page::opens(&web1, "user_id=ann").await);
    let (away, token) = (page.id().to_owned(), page.token().to_owned());
    let left = web1.greeted("/ws").await;
    for id in lost.iter().map(|client| &client.id).chain([&away, &left.id]) {
        hears(&application, 0, id, "connected").await;
    }
    // Its end stands, and nobody can be told before the kill.
    application.stops().await;
    let before = now(&application);
    let id = left.id.clone();
    left.leaves().await;
    assert_eq!(web2.verdict(&id).await["cause"], "client_closed");
    web1.signal(Signal::KILL);
    application.returns().await;
    assert_eq!(hears(&application, before, &id, "disconnected").await["data"]["cause"], "client_closed");
    for client in &lost {
        let data = hears(&application, before, &client.id, "disconnected").await["data"].clone();
        assert_eq!((&data["cause"], &data["instance"]), (&json!("instance_crash"), &json!("web1")), "{data}");
        assert!(data["connectedAt"].as_u64() > Some(0), "{data}");
    }
    // It may come back, and has not ended.
    assert_eq!(web2.verdict(&away).await["state"], "away");
    let end = format!("{away}.disconnected");
    assert!(!asked(&application).contains(&end));
    Page::comes(&web2, "user_id=ann", &token, 0).await.client.leaves().await;
    assert_eq!(hears(&application, before, &away, "disconnected").await["data"]["cause"], "client_closed");
    web2.is_unharmed().await;
}

#[tokio::test]
async fn who_comes_back_has_neither_left_nor_come_again() {
    let server = Server::start();
    let application = Application::start().await;
    application.at(PATH, Manner::status(200));
    let url = server.url();
    let at = |name| [("REDIS_URL", &*url), ("INSTANCE", name), ("HOOK_TIMEOUT", "10s")];
    let (web1, web2) = (telling(&application, &at("web1")).await, telling(&application, &at("web2")).await);
    let (id, token) = Page::opens(&web1, "user_id=ann").await.breaks();
    assert_eq!(web2.verdict(&id).await["state"], "away");
    let page = Page::comes(&web2, "user_id=ann", &token, 0).await;
    assert_eq!((page.id(), page.reset), (&*id, false));
    page.client.leaves().await;
    let left = hears(&application, 0, &id, "disconnected").await;
    assert_eq!((&left["data"]["cause"], &left["data"]["instance"]), (&json!("client_closed"), &json!("web2")));
    eventually("nothing is left in the log", async || (untold(&server) == 0).then_some(())).await;
    // By their ids they would be the same if they were told once more.
    assert_eq!(asked(&application), ["connected", "disconnected"].map(|kind| format!("{id}.{kind}")));
}

/// Whoever comes is told from memory, and who left is told when Redis is back, even if it is empty.
#[tokio::test]
async fn without_redis_nobody_is_forgotten() {
    let server = Server::start();
    let application = Application::start().await;
    application.at(PATH, Manner::status(200));
    let url = server.url();
    let gateway = telling(&application, &[("REDIS_URL", &*url)]).await;
    let before = gateway.greeted("/ws").await;
    hears(&application, 0, &before.id, "connected").await;
    server.kill();
    eventually("Redis is missed", async || (gateway.get("/health").await.json()["redis"] == "down").then_some(()))
        .await;
    let meanwhile = gateway.greeted("/ws").await;
    hears(&application, 0, &meanwhile.id, "connected").await;
    let ids = [before.id.clone(), meanwhile.id.clone()];
    before.leaves().await;
    meanwhile.leaves().await;
    server.restart();
    for id in ids {
        let left = hears(&application, 0, &id, "disconnected").await;
        assert_eq!(left["data"]["cause"], "client_closed");
    }
    let is_healthy = async || (gateway.get("/health").await.json()["status"] == "healthy").then_some(());
    eventually("what Redis lost is there again", is_healthy).await;
    gateway.is_unharmed().await;
}

#[tokio::test]
async fn the_one_more_right_that_it_needs_is_tried_at_the_start() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/redis/holdfast.acl");
    let text = std::fs::read_to_string(path).unwrap();
    let rule = text.lines().find_map(|line| line.strip_prefix("user holdfast ")).unwrap();
    let rule: Vec<_> = rule.split(' ').filter(|word| !word.starts_with('#')).collect();
    let (server, application) = (Server::start(), Application::start().await);
    application.at(PATH, Manner::status(200));
    let with_rights = |but: &str| {
        let words = ["ACL", "SETUSER", "holdfast", "reset", ">secret"].into_iter().chain(rule.iter().copied());
        server.ask(&words.filter(|word| *word != but).collect::<Vec<_>>());
        format!("redis://holdfast:secret@127.0.0.1:{}", server.port())
    };
    let url = with_rights("");
    let gateway = telling(&application, &[("REDIS_URL", &*url)]).await;
    let client = gateway.greeted("/ws").await;
    let id = client.id.clone();
    client.leaves().await;
    hears(&application, 0, &id, "disconnected").await;
    gateway.stop().await;
    assert_eq!(server.ask(&["ACL", "LOG"]), redis::Value::Array(Vec::new()), "nothing was denied");
    let url = with_rights("+xdel");
    let command = Gateway::command(&[]).env("REDIS_URL", &url).env("EVENTS_URL", &application.url(PATH));
    let finished = command.run().await;
    assert!(finished.code == 1 && finished.said().contains("XDEL"), "{}", finished.said());
    // Who tells nobody needs it not.
    Gateway::with([("REDIS_URL", &*url)]).await.is_unharmed().await;
}

#[tokio::test]
async fn where_nobody_is_told_nothing_is_kept() {
    let server = Server::start();
    let url = server.url();
    let gateway = Gateway::with([("REDIS_URL", &*url)]).await;
    for client in greeted(&gateway, 5).await {
        let id = client.id.clone();
        client.leaves().await;
        gateway.verdict(&id).await;
    }
    assert_eq!(logs(&server), [""; 0]);
}
