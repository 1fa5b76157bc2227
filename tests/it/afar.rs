//! Calls to clients of other instances: the same answers, whichever instance is asked, and the truth when an
//! instance is killed, stopped or about to end.

use crate::{
    client::Client,
    fleet::{Fleet, within},
    http::Answer,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use servers::Server;
use std::time::{Duration, Instant};

/// Three seconds after a kill, says the contract; two busy cores may take some more.
const OWNER_LOST: Duration = Duration::from_secs(6);

async fn fleet() -> (Server, Fleet) {
    let server = Server::start();
    let fleet = Fleet::on(&server.url(), &[]).await;
    (server, fleet)
}

async fn answers(client: &mut Client, result: impl Into<Value>) -> Value {
    let call = client.hears().await;
    client.says(json!({"type": "reply", "callId": call["callId"], "data": result.into()}).to_string()).await;
    call
}

fn problem(answer: &Answer, status: u16, code: &str) -> Value {
    let body = answer.json();
    assert_eq!((answer.status, &body["code"]), (status, &json!(code)), "{}", answer.text());
    body
}

#[tokio::test]
async fn a_call_goes_from_each_instance_to_each_other() {
    let (_server, fleet) = fleet().await;
    for owner in 0..3 {
        let mut client = fleet.gateway(owner).greeted("/ws?user_id=u&store_id=s").await;
        for asker in 0..3 {
            for target in [json!({"socketId": client.id}), json!({"userId": "u"}), json!({"storeId": "s"})] {
                let asked = json!({"to": target, "event": "x", "data": [owner, asker]});
                let asking = fleet.gateway(asker).post("/api/call", &asked).with("X-Request-Id", "req-1");
                let (answer, call) = tokio::join!(asking, answers(&mut client, "yes"));
                let body = answer.json();
                assert_eq!(answer.status, 200, "{}", answer.text());
                let hop = if owner == asker { "local" } else { "remote" };
                assert_eq!(
                    (&body["result"], &body["hop"], &body["instance"], &body["socketId"], &body["fallback"]),
                    (&json!("yes"), &json!(hop), &json!(Fleet::name(owner)), &json!(client.id), &json!(false)),
                );
                assert_eq!((&call["data"], &call["requestId"]), (&json!([owner, asker]), &json!("req-1")));
            }
        }
        client.leaves().await;
    }
    fleet.is_sound().await;
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// By the id of its request a call is found in the log of each instance that had to do with it, and at the client.
#[tokio::test]
async fn a_request_keeps_its_id_and_trace_from_the_caller_to_the_client() {
    let server = Server::start();
    let mut fleet = Fleet::on(&server.url(), &[("LOG_FORMAT", "json"), ("LOG_LEVEL", "debug")]).await;
    let mut client = fleet[0].greeted("/ws?user_id=u").await;
    for (asker, id, target) in [
        (1, "req-there", json!({"socketId": client.id})),
        (2, "req-group", json!({"userId": "u"})),
        (0, "req-here", json!({"userId": "u"})),
    ] {
        let asked = json!({"to": target, "event": "x"});
        let asking = fleet[asker].post("/api/call", &asked).with("X-Request-Id", id).with("traceparent", TRACE);
        let (answer, call) = tokio::join!(asking, answers(&mut client, 1));
        assert_eq!((answer.status, answer.header("X-Request-Id")), (200, Some(id)), "{}", answer.text());
        assert_eq!((&call["requestId"], &call["traceparent"]), (&json!(id), &json!(TRACE)));
        let call = call["callId"].as_str().unwrap();
        for at in [asker, 0] {
            let line = fleet.gateway_mut(at).logs(&[id, call]).await;
            let line: Value = serde_json::from_str(&line).expect(&line);
            assert_eq!(line["request_id"], id, "{line}");
        }
    }
    fleet.is_sound().await;
}

/// For whoever wonders where the time went: what it took to find the socket, the way there and back, and the client.
#[tokio::test]
async fn an_answer_tells_where_its_time_went() {
    let (_server, fleet) = fleet().await;
    let mut client = fleet[0].greeted("/ws").await;
    let asked = json!({"socketId": client.id, "event": "x"});
    for asker in 0..3 {
        let thinks = async {
            let call = client.hears().await;
            // What is measured has to last for a while.
            tokio::time::sleep(Duration::from_millis(300)).await;
            client.says(json!({"type": "reply", "callId": call["callId"], "data": 1}).to_string()).await;
        };
        let (answer, ()) = tokio::join!(fleet[asker].post("/api/call", &asked), thinks);
        let timing = answer.header("Server-Timing").unwrap_or_else(|| panic!("{}", answer.text()));
        let part =
            |part: &str| part.split_once(";dur=").map(|(name, ms)| (name.to_owned(), ms.parse::<f64>().unwrap()));
        let parts: Vec<_> = timing.split(", ").filter_map(part).collect();
        let [(lookup, found), (bus, moved), (of_client, thought)] = &parts[..] else { panic!("{timing}") };
        assert_eq!((&**lookup, &**bus, &**of_client), ("lookup", "bus", "client"), "{timing}");
        let elapsed = answer.json()["elapsedMs"].as_f64().unwrap();
        let sum = found + moved + thought;
        assert!((elapsed - 2.0..elapsed + 2.0).contains(&sum), "{timing} of {elapsed} ms");
        // Nobody's clock but the owner's says how long the client took.
        assert!(*thought >= 299.0, "{asker}: {timing}");
        assert!(asker == 0 || *moved > 0.0, "{asker}: {timing}");
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn bodies_and_replies_of_any_size_arrive_whole() {
    let server = Server::start();
    let big = [("MAX_MESSAGE_BYTES", "2MiB"), ("MAX_BODY_BYTES", "2MiB"), ("MAX_QUEUE_BYTES", "4MiB")];
    let fleet = Fleet::on(&server.url(), &big).await;
    let mut client = fleet.gateway(0).greeted("/ws").await;
    for size in [1, 100, 3900, 4096, 5000, 65_536, 1_048_576] {
        let (there, back) = ("a".repeat(size), "b".repeat(size));
        let asked = json!({"socketId": client.id, "event": "x", "data": there, "timeoutMs": 20_000});
        let (answer, call) =
            tokio::join!(fleet.gateway(1).post("/api/call", &asked), answers(&mut client, back.clone()));
        assert!(call["data"] == json!(there), "{size} bytes");
        assert!(answer.json()["result"] == json!(back), "{size} bytes");
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_thousand_calls_to_one_socket_keep_their_order() {
    let (_server, fleet) = fleet().await;
    let mut client = fleet.gateway(0).greeted("/ws").await;
    // One caller who does not wait hears the answers in the order of the questions.
    let mut raw = fleet.gateway(1).raw().await;
    let id = client.id.clone();
    for n in 0..1000 {
        let asked = json!({"socketId": id, "event": "x", "data": n});
        let request = fleet.gateway(1).post("/api/call", &asked).but("Connection", "keep-alive");
        raw.write(&request.bytes()).await;
        let call = answers(&mut client, n).await;
        assert_eq!(call["data"], n);
        assert_eq!(raw.answer().await.json()["result"], n);
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn the_store_is_asked_where_it_was_active_last() {
    let (_server, fleet) = fleet().await;
    let mut clients = Vec::new();
    for at in 0..3 {
        clients.push(fleet.gateway(at).greeted("/ws?store_id=s").await);
    }
    for speaker in [2, 0, 1] {
        let id = clients[speaker].id.clone();
        let (spoken, asked) = (json!({"type": "getSocketId"}).to_string(), json!({"storeId": "s", "event": "x"}));
        // Known within ten seconds.
        within(Duration::from_secs(30), "the last to speak is asked", async || {
            clients[speaker].asks(spoken.clone()).await;
            let asking = fleet.gateway(0).post("/api/call", &asked).into_future();
            tokio::pin!(asking);
            let answer = loop {
                let [one, two, three] = clients.get_disjoint_mut([0, 1, 2]).unwrap();
                tokio::select! {
                    answer = &mut asking => break answer,
                    _ = answers(one, 1) => {}
                    _ = answers(two, 1) => {}
                    _ = answers(three, 1) => {}
                }
            };
            let asked = answer.json()["socketId"].clone();
            if asked == json!(id) { Ok(()) } else { Err(answer.text()) }
        })
        .await;
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_killed_owner_is_told_long_before_the_deadline() {
    let (_server, mut fleet) = fleet().await;
    let mut told = fleet.gateway(0).greeted("/ws").await;
    let asked = json!({"socketId": told.id, "event": "x", "timeoutMs": 60_000});
    let progress = async {
        let call = told.hears().await;
        told.says(json!({"type": "progress", "callId": call["callId"], "data": 1}).to_string()).await;
        told.asks(r#"{"type":"getSocketId"}"#).await;
        Instant::now()
    };
    let asking = fleet.gateway(1).post("/api/call", &asked);
    let asking = tokio::spawn(asking.into_future());
    let _ = progress.await;
    fleet.kill(0);
    let killed = Instant::now();
    let answer = asking.await.unwrap();
    let body = problem(&answer, 502, "owner_lost");
    assert_eq!(body["delivered"], true);
    assert!(killed.elapsed() < OWNER_LOST, "{:?}", killed.elapsed());
    crate::patience::note(&format!("owner_lost {:?} after the kill", killed.elapsed()));
    fleet.is_sound().await;
}

/// As after a failover that lost it: the next beat brings it back.
#[tokio::test]
async fn a_reply_outlives_a_moment_in_which_its_askers_lease_is_lost() {
    let (server, fleet) = fleet().await;
    let mut client = fleet.gateway(0).greeted("/ws").await;
    let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": 20_000});
    let asking = tokio::spawn(fleet.gateway(1).post("/api/call", &asked).into_future());
    let call = client.hears().await;
    let lease = format!("holdfast:{{i:{}}}:lease", fleet.mark(0, 1).await);
    server.ask(&["DEL", &lease]);
    client.says(json!({"type": "reply", "callId": call["callId"], "data": 7}).to_string()).await;
    let answer = asking.await.unwrap();
    assert_eq!((answer.status, &answer.json()["result"]), (200, &json!(7)), "{}", answer.text());
}

#[tokio::test]
async fn a_remote_socket_that_ends_during_its_call_is_told_at_once() {
    let (_server, fleet) = fleet().await;
    let mut client = fleet.gateway(0).greeted("/ws?store_id=s").await;
    let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": 60_000});
    let leaves = async {
        client.hears().await;
        client.leaves().await;
    };
    let (answer, ()) = tokio::join!(fleet.gateway(2).post("/api/call", &asked), leaves);
    let body = problem(&answer, 502, "socket_lost");
    assert_eq!(
        (&body["delivered"], &body["verdict"]["cause"], &body["verdict"]["instance"]),
        (&json!(true), &json!("client_closed"), &json!("web1"))
    );
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_remote_call_is_withdrawn_at_its_deadline_and_when_its_caller_hangs_up() {
    let (_server, fleet) = fleet().await;
    let mut client = fleet.gateway(0).greeted("/ws").await;
    let cancel = |call: &Value| json!({"type": "cancel", "callId": call["callId"]});
    let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": 500});
    let (answer, call) = tokio::join!(fleet.gateway(1).post("/api/call", &asked), client.hears());
    // The client had it for longer than it takes to say so.
    assert_eq!(problem(&answer, 504, "no_reply")["delivered"], true);
    assert_eq!(client.hears().await, cancel(&call));
    let mut raw = fleet.gateway(1).raw().await;
    raw.write(&fleet.gateway(1).post("/api/call", &json!({"socketId": client.id, "event": "x"})).bytes()).await;
    let call = client.hears().await;
    drop(raw);
    assert_eq!(client.hears().await, cancel(&call));
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_drain_waits_for_calls_in_flight_and_takes_on_no_more() {
    let (_server, mut fleet) = fleet().await;
    let mut client = fleet.gateway(0).greeted("/ws?store_id=s").await;
    let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": 20_000});
    let asking = tokio::spawn(fleet.gateway(1).post("/api/call", &asked).into_future());
    let call = client.hears().await;
    fleet.gateway(0).signal(Signal::TERM);
    within(Duration::from_secs(20), "it drains", async || {
        let ready = fleet.gateway(0).get("/health/ready").await;
        if ready.status == 503 { Ok(()) } else { Err(ready.text()) }
    })
    .await;
    let late = fleet.gateway(1).post("/api/call", &json!({"storeId": "s", "event": "y", "timeoutMs": 5000})).await;
    problem(&late, 503, "draining");
    client.says(json!({"type": "reply", "callId": call["callId"], "data": "in time"}).to_string()).await;
    let answer = asking.await.unwrap();
    assert_eq!((answer.status, &answer.json()["result"]), (200, &json!("in time")), "{}", answer.text());
    assert_eq!(client.hears().await["type"], "retry");
    assert_eq!(client.closed().await.0, 1012);
    assert_eq!(fleet.gateway_mut(0).exits().await, 0);
}

/// Its asker's lease is lost for a moment, so that the first try comes back.
#[tokio::test]
async fn a_drain_waits_for_a_reply_that_finds_no_way_at_first() {
    let (server, mut fleet) = fleet().await;
    let mut client = fleet.gateway(0).greeted("/ws").await;
    let asked = json!({"socketId": client.id, "event": "x", "timeoutMs": 20_000});
    let asking = tokio::spawn(fleet.gateway(1).post("/api/call", &asked).into_future());
    let call = client.hears().await;
    let lease = format!("holdfast:{{i:{}}}:lease", fleet.mark(0, 1).await);
    fleet.gateway(0).signal(Signal::TERM);
    server.ask(&["DEL", &lease]);
    client.says(json!({"type": "reply", "callId": call["callId"], "data": 7}).to_string()).await;
    assert_eq!(client.hears().await["type"], "retry");
    assert_eq!(client.closed().await.0, 1012);
    drop(client);
    let answer = asking.await.unwrap();
    assert_eq!((answer.status, &answer.json()["result"]), (200, &json!(7)), "{}", answer.text());
    assert_eq!(fleet.gateway_mut(0).exits().await, 0);
}
