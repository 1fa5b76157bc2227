//! Calls that wait until somebody comes: on whichever instance they wait, and wherever that is.

use crate::{
    client::Client,
    comebacks::Page,
    fleet::{Fleet, within},
    gateway::Gateway,
    http::Answer,
    patience::eventually,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use servers::Cluster;
use std::{future::IntoFuture, time::Duration};
use tokio::task::{JoinHandle, block_in_place};

fn problem(answer: &Answer, status: u16, code: &str) -> Value {
    let body = answer.json();
    assert_eq!((answer.status, &body["code"]), (status, &json!(code)), "{}", answer.text());
    body
}

/// A call that waits, of which it is known that it does.
async fn waits(gateway: &Gateway, whom: Value, more: Value) -> JoinHandle<Answer> {
    let mut asked = json!({"to": whom, "event": "x", "whenOffline": "wait", "timeoutMs": 30_000});
    asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let before = gateway.metric("holdfast_calls_waiting").await;
    let asking = tokio::spawn(gateway.post("/api/call", &asked).into_future());
    eventually("it waits", async || (gateway.metric("holdfast_calls_waiting").await > before).then_some(())).await;
    asking
}

async fn answers(client: &mut Client, result: impl Into<Value>) -> Value {
    let call = client.hears().await;
    client.says(json!({"type": "reply", "callId": call["callId"], "data": result.into()}).to_string()).await;
    call
}

fn is_answered(answer: &Answer, client: &Client, result: &Value) -> Value {
    let body = answer.json();
    assert_eq!((answer.status, &body["result"]), (200, result), "{}", answer.text());
    assert_eq!(body["socketId"], json!(client.id), "{body}");
    body
}

#[tokio::test]
async fn a_call_waits_for_a_socket_that_comes_on_any_instance() {
    let fleet = Fleet::with(&[]).await;
    for (at, whom) in [(0, json!({"storeId": "s"})), (1, json!({"userId": "u"})), (2, json!({"storeId": "s"}))] {
        let asking = waits(&fleet[1], whom, json!({"data": at})).await;
        let mut client = fleet[at].greeted("/ws?user_id=u&store_id=s").await;
        let call = answers(&mut client, at).await;
        let body = is_answered(&asking.await.unwrap(), &client, &json!(at));
        assert_eq!((&call["callId"], &call["data"]), (&body["callId"], &json!(at)));
        assert_eq!(body["hop"], if at == 1 { "local" } else { "remote" });
        let id = client.id.clone();
        client.leaves().await;
        fleet[1].verdict(&id).await;
    }
    // They were told, and did not only look.
    for at in [0, 2] {
        assert!(fleet[at].metric(r#"holdfast_letters_sent_total{kind="came"}"#).await >= 1.0);
    }
    for gateway in [&fleet[0], &fleet[1], &fleet[2]] {
        assert_eq!(gateway.metric("holdfast_calls_waiting").await, 0.0);
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn calls_of_several_instances_wait_for_the_same_and_each_is_written_once() {
    let fleet = Fleet::with(&[]).await;
    let mut asking = Vec::new();
    for n in 0..6 {
        asking.push(waits(&fleet[n % 2], json!({"storeId": "s"}), json!({"data": n})).await);
    }
    let mut client = fleet[2].greeted("/ws?store_id=s").await;
    let mut seen = Vec::new();
    for _ in 0..6 {
        let call = client.hears().await;
        client.says(json!({"type": "reply", "callId": call["callId"], "data": call["data"]}).to_string()).await;
        seen.push(call["data"].as_u64().unwrap());
    }
    for (n, asking) in asking.into_iter().enumerate() {
        is_answered(&asking.await.unwrap(), &client, &json!(n));
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
    client.heard_all().await;
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_call_whose_socket_is_gone_waits_for_another_of_its_store_or_user() {
    let fleet = Fleet::with(&[]).await;
    let client = fleet[0].greeted("/ws?user_id=u&store_id=s").await;
    let gone = client.id.clone();
    client.leaves().await;
    let verdict = fleet[1].verdict(&gone).await;
    for fallback in ["store", "user"] {
        let asking = waits(&fleet[1], json!({"socketId": gone}), json!({"fallback": fallback})).await;
        let mut client = fleet[2].greeted("/ws?user_id=u&store_id=s").await;
        answers(&mut client, "instead").await;
        let body = is_answered(&asking.await.unwrap(), &client, &json!("instead"));
        assert_eq!(body["fallback"], true);
        let id = client.id.clone();
        client.leaves().await;
        fleet[1].verdict(&id).await;
    }
    // Nobody else may have it, and it never comes back.
    let asked = json!({"socketId": gone, "event": "x", "whenOffline": "wait", "timeoutMs": 60_000});
    let body = problem(&fleet[1].post("/api/call", &asked).await, 410, "socket_gone");
    assert_eq!(body["verdict"]["closedAt"], verdict["closedAt"]);
    let asked = json!({"socketId": "ws_123", "event": "x", "whenOffline": "wait", "timeoutMs": 60_000});
    problem(&fleet[1].post("/api/call", &asked).await, 404, "socket_never_seen");
    // Nobody comes.
    let asked = json!({"socketId": gone, "event": "x", "whenOffline": "wait", "fallback": "store", "timeoutMs": 300});
    let body = problem(&fleet[1].post("/api/call", &asked).await, 504, "no_reply");
    assert_eq!((&body["delivered"], &body["verdict"]["state"]), (&json!(false), &json!("closed")), "{body}");
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains("store s was waited for") && detail.contains(&gone), "{detail}");
    fleet.is_sound().await;
}

#[tokio::test]
async fn at_the_end_of_its_time_it_says_for_whom_it_waited_and_what_is_known() {
    let fleet = Fleet::with(&[]).await;
    let asked = json!({"userId": "u", "event": "x", "whenOffline": "wait", "timeoutMs": 500});
    let answer = fleet[0].post("/api/call", &asked).await;
    let body = problem(&answer, 504, "no_reply");
    assert_eq!(body["delivered"], false);
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains("a socket of user u was waited for") && detail.contains("is connected"), "{detail}");
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_caller_that_hangs_up_waits_no_longer() {
    let fleet = Fleet::with(&[]).await;
    let mut raw = fleet[0].raw().await;
    let asked = json!({"storeId": "s", "event": "x", "whenOffline": "wait", "timeoutMs": 60_000});
    raw.write(&fleet[0].post("/api/call", &asked).bytes()).await;
    let waiting = async |wanted: f64| {
        eventually("calls wait", async || (fleet[0].metric("holdfast_calls_waiting").await == wanted).then_some(()))
            .await;
    };
    waiting(1.0).await;
    drop(raw);
    waiting(0.0).await;
    let mut client = fleet[0].greeted("/ws?store_id=s").await;
    let (answer, _) = tokio::join!(
        fleet[1].post("/api/call", &json!({"storeId": "s", "event": "y"})).into_future(),
        answers(&mut client, 1)
    );
    is_answered(&answer, &client, &json!(1));
    client.heard_all().await;
    fleet.is_sound().await;
}

/// Redis forgets who waits, so that nobody is told that somebody came.
#[tokio::test]
async fn a_call_looks_by_itself_where_no_bell_rings() {
    let fleet = Fleet::with(&[]).await;
    let asking = waits(&fleet[0], json!({"storeId": "s"}), json!({})).await;
    let waiters = eventually("Redis knows that it waits", async || {
        fleet.redis().keys().into_iter().find(|key| key.ends_with(":waiters"))
    })
    .await;
    fleet.redis().ask(&["DEL", &waiters]);
    let mut client = fleet[1].greeted("/ws?store_id=s").await;
    answers(&mut client, "seen").await;
    is_answered(&asking.await.unwrap(), &client, &json!("seen"));
    fleet.is_sound().await;
}

/// Who only listens can be asked nothing; the first behind it that can is told of all the same.
#[tokio::test]
async fn a_call_does_not_wait_in_vain_behind_those_who_only_listen() {
    let fleet = Fleet::with(&[]).await;
    let _listener = fleet[1].get("/sse/stream?user_id=u").streams().await;
    let asking = waits(&fleet[0], json!({"userId": "u"}), json!({})).await;
    let mut client = fleet[1].greeted("/ws?user_id=u").await;
    answers(&mut client, "both").await;
    is_answered(&asking.await.unwrap(), &client, &json!("both"));
    assert!(fleet[1].metric(r#"holdfast_letters_sent_total{kind="came"}"#).await >= 1.0);
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_socket_that_chooses_the_store_is_one_that_comes() {
    let fleet = Fleet::with(&[]).await;
    let asking = waits(&fleet[0], json!({"storeId": "s"}), json!({})).await;
    let mut client = fleet[1].greeted("/ws").await;
    client.says(r#"{"type":"selectStore","data":{"storeId":"s"}}"#).await;
    let (first, second) = (client.hears().await, client.hears().await);
    let call = if first["callId"].is_string() { first } else { second };
    client.says(json!({"type": "reply", "callId": call["callId"], "data": 1}).to_string()).await;
    is_answered(&asking.await.unwrap(), &client, &json!(1));
    fleet.is_sound().await;
}

/// A drain hands out nothing more, and takes what it holds with it; a call for the store waits for who comes elsewhere.
#[tokio::test]
async fn a_call_outlives_the_drain_of_the_instance_that_held_the_store() {
    let mut fleet = Fleet::with(&[("DRAIN_TIMEOUT", "5s")]).await;
    let mut busy = fleet[0].greeted("/ws?store_id=s").await;
    let held = json!({"socketId": busy.id, "event": "x", "timeoutMs": 20_000});
    let holding = tokio::spawn(fleet[1].post("/api/call", &held).into_future());
    let call = busy.hears().await;
    fleet[0].signal(Signal::TERM);
    within(Duration::from_secs(20), "it drains", async || {
        let ready = fleet[0].get("/health/ready").await;
        if ready.status == 503 { Ok(()) } else { Err(ready.text()) }
    })
    .await;
    let asking = waits(&fleet[1], json!({"storeId": "s"}), json!({})).await;
    busy.says(json!({"type": "reply", "callId": call["callId"], "data": 1}).to_string()).await;
    assert_eq!(holding.await.unwrap().status, 200);
    fleet.ends(0).await;
    let mut client = fleet[2].greeted("/ws?store_id=s").await;
    answers(&mut client, "new").await;
    is_answered(&asking.await.unwrap(), &client, &json!("new"));
    fleet.is_sound().await;
}

/// Its own instance ends: nobody can answer it there.
#[tokio::test]
async fn what_still_waits_where_an_instance_ends_is_told_so() {
    let mut fleet = Fleet::with(&[("DRAIN_TIMEOUT", "5s")]).await;
    let asking = waits(&fleet[0], json!({"storeId": "s"}), json!({})).await;
    fleet[0].signal(Signal::TERM);
    problem(&asking.await.unwrap(), 503, "draining");
    fleet.ends(0).await;
}

/// What happens on its way is told as ever.
#[tokio::test]
async fn a_call_that_waits_may_be_heard_in_pieces() {
    let fleet = Fleet::with(&[]).await;
    let asked = json!({"storeId": "s", "event": "x", "whenOffline": "wait", "timeoutMs": 30_000});
    let request = fleet[0].post("/api/call", &asked).with("Accept", "text/event-stream");
    let mut events = request.streams().await;
    eventually("it waits", async || (fleet[0].metric("holdfast_calls_waiting").await > 0.0).then_some(())).await;
    let mut client = fleet[1].greeted("/ws?store_id=s").await;
    let call = client.hears().await;
    client.says(json!({"type": "progress", "callId": call["callId"], "data": 50}).to_string()).await;
    client.says(json!({"type": "reply", "callId": call["callId"], "data": 100}).to_string()).await;
    assert_eq!(events.hears("accepted").await["socketId"], json!(client.id));
    assert_eq!(events.hears("progress").await, 50);
    assert_eq!(events.hears("result").await["result"], 100);
    fleet.is_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_cluster_calls_wait_and_are_kept_as_well() {
    let cluster = block_in_place(|| Cluster::of(3, 0));
    let fleet = Fleet::on(&cluster.url(), &[]).await;
    for n in 0..8 {
        let store = format!("s{n}");
        let asking = waits(&fleet[0], json!({"storeId": store}), json!({})).await;
        let mut client = fleet[1].greeted(&format!("/ws?store_id={store}")).await;
        answers(&mut client, n).await;
        is_answered(&asking.await.unwrap(), &client, &json!(n));
        let kept = json!({"userId": format!("u{n}"), "event": "x", "whenOffline": "queue"});
        let answer = fleet[0].post("/api/call", &kept).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        let path = format!("/api/calls/{}", answer.json()["callId"].as_str().unwrap());
        let mut other = fleet[2].greeted(&format!("/ws?user_id=u{n}")).await;
        answers(&mut other, n).await;
        eventually("it is over", async || (fleet[1].get(&path).await.json()["result"] == json!(n)).then_some(())).await;
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn without_redis_a_call_waits_as_well() {
    let gateway = Gateway::start().await;
    let asking = waits(&gateway, json!({"storeId": "s"}), json!({})).await;
    let mut client = gateway.greeted("/ws?store_id=s").await;
    answers(&mut client, 7).await;
    is_answered(&asking.await.unwrap(), &client, &json!(7));
    let asked = json!({"storeId": "t", "event": "x", "whenOffline": "wait", "timeoutMs": 300});
    let body = problem(&gateway.post("/api/call", &asked).await, 504, "no_reply");
    assert_eq!(body["delivered"], false);
    let asked = json!({"socketId": client.id, "event": "x", "whenOffline": "later"});
    assert_eq!(gateway.post("/api/call", &asked).await.pointers(), ["/whenOffline"]);
}

/// Redis is away while the call is made: nobody is called offline, and when it is back the socket is found.
#[tokio::test]
async fn a_call_waits_for_the_registry_as_well() {
    let fleet = Fleet::with(&[]).await;
    let mut client = fleet[1].greeted("/ws?store_id=s").await;
    fleet.redis().kill();
    let failed = json!({"storeId": "s", "event": "x", "timeoutMs": 10_000});
    eventually("it is known to be away", async || {
        (fleet[0].post("/api/call", &failed).await.status == 503).then_some(())
    })
    .await;
    let asking = waits(&fleet[0], json!({"storeId": "s"}), json!({})).await;
    fleet.redis().restart();
    answers(&mut client, "back").await;
    is_answered(&asking.await.unwrap(), &client, &json!("back"));
    fleet.is_sound().await;
}

/// Here, elsewhere, and after the instance that had it was told to stop.
#[tokio::test]
async fn a_call_to_who_is_away_waits_until_it_is_back() {
    let mut fleet = Fleet::with(&[("DRAIN_TIMEOUT", "3s")]).await;
    for (owner, asker, next) in [(0, 1, 2), (0, 0, 0), (1, 2, 2), (0, 1, 1), (2, 1, 0)] {
        let mut page = Page::opens(&fleet[owner], "user_id=ann").await;
        if owner == 2 {
            fleet[owner].signal(Signal::TERM);
            assert_eq!(page.hears_close().await, 1012);
        }
        let (id, token) = page.breaks();
        fleet[asker].verdict(&id).await;
        let asking = waits(&fleet[asker], json!({"socketId": id}), json!({})).await;
        let mut page = Page::comes(&fleet[next], "user_id=ann", &token, 0).await;
        answers(&mut page.client, "back").await;
        is_answered(&asking.await.unwrap(), &page.client, &json!("back"));
        assert_eq!(page.id(), id);
        page.client.leaves().await;
    }
    fleet.ends(2).await;
    fleet.is_sound().await;
}
