//! Calls that are kept until somebody comes: one socket has each at a time, and what came of it can be asked for.

use crate::{
    client::Client,
    fleet::{Fleet, MENDED, within},
    gateway::Gateway,
    http::Answer,
    patience::{eventually, soon},
};
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    future::IntoFuture,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};

fn asked(store: &str, more: &Value) -> Value {
    let mut asked = json!({"storeId": store, "event": "x", "whenOffline": "queue", "timeoutMs": 30_000});
    asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    asked
}

fn is(answer: &Answer, status: u16, code: &str) -> Value {
    let body = answer.json();
    assert_eq!((answer.status, &body["code"]), (status, &json!(code)), "{}", answer.text());
    body
}

/// The id under which a call is kept.
async fn queues(gateway: &Gateway, asked: &Value) -> String {
    let answer = gateway.post("/api/call", asked).await;
    let body = answer.json();
    assert_eq!((answer.status, &body["status"]), (202, &json!("queued")), "{}", answer.text());
    assert_eq!(body["durability"], "memory");
    let id = body["callId"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("Location"), Some(&*format!("/api/calls/{id}")));
    id
}

async fn call(gateway: &Gateway, id: &str) -> Answer {
    gateway.get(&format!("/api/calls/{id}")).await
}

async fn stands(gateway: &Gateway, id: &str, status: &str) -> Value {
    eventually(&format!("{id} is {status}"), async || {
        let answer = call(gateway, id).await;
        Some(answer.json()).filter(|body| body["status"] == status)
    })
    .await
}

async fn replies(client: &mut Client, call: &Value, result: impl Into<Value>) {
    client.says(json!({"type": "reply", "callId": call["callId"], "data": result.into()}).to_string()).await;
}

#[tokio::test]
async fn the_first_who_comes_takes_it_and_its_answer_is_kept() {
    let fleet = Fleet::with(&[]).await;
    for (at, whom) in [(0, json!({"storeId": "s"})), (2, json!({"userId": "u"}))] {
        let id = queues(&fleet[1], &asked("s", &json!({"storeId": null, "to": whom, "data": at}))).await;
        let queued = stands(&fleet[2], &id, "queued").await;
        assert_eq!((&queued["callId"], &queued["attempt"]), (&json!(id), &json!(0)));
        let mut client = fleet[at].greeted("/ws?user_id=u&store_id=s").await;
        let frame = client.hears().await;
        assert_eq!((&frame["type"], &frame["callId"], &frame["data"]), (&json!("x"), &json!(id), &json!(at)));
        assert_eq!((&frame["attempt"], frame["deadline"].is_u64()), (&json!(1), true), "{frame}");
        let given = stands(&fleet[1], &id, "given").await;
        assert_eq!((&given["socketId"], &given["attempt"]), (&json!(client.id), &json!(1)));
        assert_eq!(given["instance"], json!(Fleet::name(at)));
        replies(&mut client, &frame, "done").await;
        for asked in 0..3 {
            let body = stands(&fleet[asked], &id, "replied").await;
            assert_eq!((&body["result"], &body["socketId"]), (&json!("done"), &json!(client.id)), "{body}");
            assert_eq!((&body["instance"], &body["fallback"]), (&json!(Fleet::name(at)), &json!(false)), "{body}");
        }
        is(&fleet[0].delete(&format!("/api/calls/{id}")).await, 409, "call_done");
        let gone = client.id.clone();
        client.leaves().await;
        fleet[1].verdict(&gone).await;
    }
    // Nothing of it is left but what came of it.
    let lists: Vec<_> = fleet.redis().keys().into_iter().filter(|key| key.ends_with(":wait")).collect();
    assert!(lists.is_empty(), "{lists:?}");
    eventually("nobody has one", async || {
        (!fleet.redis().keys().iter().any(|key| key.ends_with(":given"))).then_some(())
    })
    .await;
    fleet.is_sound().await;
}

/// Whoever looks sees it kept, and what came of it in the end.
#[tokio::test]
async fn the_feed_tells_what_came_of_it() {
    let fleet = Fleet::with(&[]).await;
    let mut feed = fleet[0].get("/api/events?scope=local").streams().await;
    let id = queues(&fleet[0], &asked("s", &json!({}))).await;
    assert_eq!(feed.hears("call").await["outcome"], "queued");
    let mut client = fleet[0].greeted("/ws?store_id=s").await;
    let frame = client.hears().await;
    replies(&mut client, &frame, 1).await;
    feed.hears("connected").await;
    let told = feed.hears("call").await;
    assert_eq!((&told["callId"], &told["outcome"], &told["attempt"]), (&json!(id), &json!("replied"), &json!(1)));
    fleet.is_sound().await;
}

#[tokio::test]
async fn where_somebody_is_there_nothing_is_kept() {
    let fleet = Fleet::with(&[]).await;
    let mut client = fleet[0].greeted("/ws?store_id=s").await;
    let answers = async {
        let frame = client.hears().await;
        assert_eq!(frame["attempt"], Value::Null);
        replies(&mut client, &frame, 1).await;
    };
    let (answer, ()) = tokio::join!(fleet[1].post("/api/call", &asked("s", &json!({}))).into_future(), answers);
    assert_eq!((answer.status, &answer.json()["result"]), (200, &json!(1)), "{}", answer.text());
    // One that is gone and has nobody in its place is not kept.
    let id = client.id.clone();
    client.leaves().await;
    fleet[1].verdict(&id).await;
    let named = json!({"socketId": id, "event": "x", "whenOffline": "queue"});
    is(&fleet[1].post("/api/call", &named).await, 410, "socket_gone");
    // With somebody in its place it is.
    let named = json!({"socketId": id, "event": "x", "whenOffline": "queue", "fallback": "store"});
    let call = queues(&fleet[1], &named).await;
    let mut client = fleet[2].greeted("/ws?store_id=s").await;
    let frame = client.hears().await;
    replies(&mut client, &frame, 2).await;
    assert_eq!(stands(&fleet[0], &call, "replied").await["fallback"], true);
    fleet.is_sound().await;
}

#[tokio::test]
async fn of_several_who_come_at_once_one_takes_each() {
    let fleet = Fleet::with(&[]).await;
    let mut ids = join_all((0..10).map(async |n| queues(&fleet[n % 3], &asked("s", &json!({"data": n}))).await)).await;
    let clients = join_all((0..6).map(async |n| fleet[n % 3].greeted("/ws?store_id=s").await)).await;
    let work = clients.into_iter().map(async |mut client| {
        let mut seen = Vec::new();
        // None comes after so long a silence; all that were taken are answered.
        while let Ok(frame) = timeout(Duration::from_secs(3), client.hears()).await {
            assert_eq!(frame["attempt"], 1, "{frame}");
            replies(&mut client, &frame, frame["data"].clone()).await;
            seen.push(frame["callId"].as_str().unwrap().to_owned());
        }
        seen
    });
    let mut seen = join_all(work).await.concat();
    seen.sort_unstable();
    ids.sort_unstable();
    assert_eq!(seen, ids);
    for id in &ids {
        stands(&fleet[0], id, "replied").await;
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn if_its_socket_ends_before_it_answers_the_next_has_it() {
    let fleet = Fleet::with(&[]).await;
    let id = queues(&fleet[0], &asked("s", &json!({}))).await;
    for (attempt, at) in [(1, 1), (2, 2), (3, 2)] {
        let mut client = fleet[at].greeted("/ws?store_id=s").await;
        let frame = client.hears().await;
        assert_eq!((&frame["callId"], &frame["attempt"]), (&json!(id), &json!(attempt)));
        if attempt < 3 {
            client.leaves().await;
            stands(&fleet[0], &id, "queued").await;
            continue;
        }
        // One who is there already is as good as one who comes.
        let mut other = fleet[0].greeted("/ws?store_id=s").await;
        client.leaves().await;
        let frame = other.hears().await;
        assert_eq!((&frame["callId"], &frame["attempt"]), (&json!(id), &json!(4)));
        other.says(json!({"type": "failed", "callId": id, "error": "no"}).to_string()).await;
    }
    let answer =
        eventually("it is over", async || Some(call(&fleet[1], &id).await).filter(|answer| answer.status != 200)).await;
    assert_eq!(is(&answer, 409, "call_failed")["failure"], "no");
    fleet.is_sound().await;
}

#[tokio::test]
async fn if_its_instance_is_killed_the_next_has_it() {
    let mut fleet = Fleet::with(&[]).await;
    let id = queues(&fleet[1], &asked("s", &json!({"timeoutMs": 300_000}))).await;
    let mut first = fleet[0].greeted("/ws?store_id=s").await;
    assert_eq!(first.hears().await["attempt"], 1);
    // One was there before, and one comes afterwards.
    let mut second = fleet[1].greeted("/ws?store_id=s").await;
    fleet.kill(0);
    let mut frame = Value::Null;
    within(MENDED, "it goes on", async || match timeout(Duration::from_secs(1), second.hears()).await {
        Ok(heard) => {
            frame = heard;
            Ok(())
        }
        Err(_) => Err("nothing came".into()),
    })
    .await;
    assert_eq!((&frame["callId"], &frame["attempt"]), (&json!(id), &json!(2)));
    replies(&mut second, &frame, "alive").await;
    assert_eq!(stands(&fleet[2], &id, "replied").await["result"], "alive");
    fleet.is_sound().await;
}

/// Many come and go with calls in their hands: one has each at a time, every attempt is counted, and what is kept is what
/// the last of them said.
#[tokio::test]
async fn whoever_comes_and_goes_one_has_each_call_at_a_time() {
    const CALLS: usize = 30;
    let fleet = Fleet::with(&[]).await;
    let ids = join_all((0..CALLS).map(async |n| queues(&fleet[n % 3], &asked("s", &json!({"data": n}))).await)).await;
    let began = Instant::now();
    // Of each attempt at each call: when it began, and when its client left or answered.
    let attempts = Mutex::new(BTreeMap::<u64, Vec<(u64, Duration, Duration)>>::new());
    let left = AtomicUsize::new(CALLS);
    let comes_and_goes = async |at: usize| {
        while left.load(Relaxed) > 0 {
            let mut client = fleet[at].greeted("/ws?store_id=s").await;
            let mut held = Vec::new();
            while let Ok(frame) = timeout(Duration::from_millis(200), client.hears()).await {
                let (n, attempt) = (frame["data"].as_u64().unwrap(), frame["attempt"].as_u64().unwrap());
                let came = began.elapsed();
                // Some are answered at their first attempt, some at their fourth.
                if attempt > n % 4 {
                    attempts.lock().unwrap().entry(n).or_default().push((attempt, came, began.elapsed()));
                    replies(&mut client, &frame, attempt).await;
                    left.fetch_sub(1, Relaxed);
                } else {
                    held.push((n, attempt, came));
                }
            }
            let leaving = began.elapsed();
            for (n, attempt, came) in held {
                attempts.lock().unwrap().entry(n).or_default().push((attempt, came, leaving));
            }
            client.leaves().await;
        }
    };
    soon("all are answered", join_all((0..6).map(|n| comes_and_goes(n % 3)))).await;
    for (n, mut attempts) in attempts.into_inner().unwrap() {
        attempts.sort_unstable();
        // One that was written to a client which had just left is counted, and seen by nobody.
        let one_by_one = attempts.is_sorted_by(|(a, _, left), (b, came, _)| a < b && left <= came);
        assert!(one_by_one, "call {n}: {attempts:?}");
        let kept = stands(&fleet[0], &ids[n as usize], "replied").await;
        assert_eq!(Some(&kept["result"]), attempts.last().map(|(attempt, ..)| json!(attempt)).as_ref());
    }
    fleet.is_sound().await;
}

/// Its instance drains: the page is told to come back, and whoever is there meanwhile has the call.
#[tokio::test]
async fn if_its_instance_drains_the_next_has_it() {
    let mut fleet = Fleet::with(&[("DRAIN_TIMEOUT", "4s")]).await;
    let id = queues(&fleet[1], &asked("s", &json!({"timeoutMs": 300_000}))).await;
    let mut first = fleet[0].greeted("/ws?store_id=s").await;
    assert_eq!(first.hears().await["attempt"], 1);
    fleet[0].signal(Signal::TERM);
    assert_eq!(first.hears().await["type"], "retry");
    assert_eq!(first.closed().await.0, 1012);
    let mut second = fleet[2].greeted("/ws?store_id=s").await;
    let frame = second.hears().await;
    assert_eq!((&frame["callId"], &frame["attempt"]), (&json!(id), &json!(2)));
    replies(&mut second, &frame, "there").await;
    assert_eq!(stands(&fleet[1], &id, "replied").await["result"], "there");
    fleet.ends(0).await;
    fleet.is_sound().await;
}

/// Whoever has a call no more is not believed, whatever it says of it.
#[tokio::test]
async fn a_late_answer_of_another_changes_nothing() {
    let fleet = Fleet::with(&[]).await;
    let id = queues(&fleet[0], &asked("s", &json!({}))).await;
    let mut first = fleet[1].greeted("/ws?store_id=s").await;
    // What nobody has seen is no attempt.
    assert_eq!(first.hears().await["attempt"], 1);
    first.leaves().await;
    let mut second = fleet[1].greeted("/ws?store_id=s").await;
    let frame = second.hears().await;
    assert_eq!(frame["attempt"], 2);
    let mut forger = fleet[1].greeted("/ws?store_id=s").await;
    replies(&mut forger, &frame, "forged").await;
    forger.heard_all().await;
    assert_eq!(stands(&fleet[0], &id, "given").await["attempt"], 2);
    replies(&mut second, &frame, "true").await;
    assert_eq!(stands(&fleet[0], &id, "replied").await["result"], "true");
    replies(&mut second, &frame, "again").await;
    second.heard_all().await;
    assert_eq!(stands(&fleet[2], &id, "replied").await["result"], "true");
    fleet.is_sound().await;
}

#[tokio::test]
async fn one_that_is_taken_back_is_taken_by_nobody() {
    let fleet = Fleet::with(&[]).await;
    let id = queues(&fleet[0], &asked("s", &json!({}))).await;
    let path = format!("/api/calls/{id}");
    let taken_back = fleet[1].delete(&path).await;
    assert_eq!((taken_back.status, &taken_back.json()["status"]), (200, &json!("cancelled")));
    for at in 0..3 {
        is(&call(&fleet[at], &id).await, 404, "call_unknown");
    }
    is(&fleet[2].delete(&path).await, 404, "call_unknown");
    let mut client = fleet[2].greeted("/ws?store_id=s").await;
    client.heard_all().await;
    client.leaves().await;

    // In the hands of a client on another instance, and on this one.
    for at in [0, 1] {
        let id = queues(&fleet[0], &asked("t", &json!({}))).await;
        let mut client = fleet[at].greeted("/ws?store_id=t").await;
        let frame = client.hears().await;
        assert_eq!(fleet[0].delete(&format!("/api/calls/{id}")).await.status, 200);
        assert_eq!(client.hears().await, json!({"type": "cancel", "callId": id}));
        replies(&mut client, &frame, "late").await;
        client.heard_all().await;
        is(&call(&fleet[0], &id).await, 404, "call_unknown");
        let gone = client.id.clone();
        client.leaves().await;
        fleet[0].verdict(&gone).await;
    }
    for unknown in ["x", "c_1", "ws_1", &id.replace("c_-", "c_0")] {
        is(&call(&fleet[0], unknown).await, 404, "call_unknown");
        is(&fleet[0].delete(&format!("/api/calls/{unknown}")).await, 404, "call_unknown");
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn what_nobody_takes_or_answers_in_its_time_is_over() {
    let fleet = Fleet::with(&[("QUEUE_TTL", "1s")]).await;
    let id = queues(&fleet[0], &asked("s", &json!({}))).await;
    let over = async |id: &str| {
        let answer =
            eventually("its time is over", async || Some(call(&fleet[1], id).await).filter(|one| one.status != 200))
                .await;
        is(&answer, 504, "no_reply")
    };
    assert_eq!(over(&id).await["delivered"], false);
    let mut client = fleet[2].greeted("/ws?store_id=s").await;
    client.heard_all().await;
    is(&fleet[0].delete(&format!("/api/calls/{id}")).await, 409, "call_done");
    client.leaves().await;

    let id = queues(&fleet[0], &asked("t", &json!({"timeoutMs": 400}))).await;
    let mut client = fleet[2].greeted("/ws?store_id=t").await;
    let frame = client.hears().await;
    assert_eq!(over(&id).await["delivered"], true);
    assert_eq!(client.hears().await, json!({"type": "cancel", "callId": id}));
    replies(&mut client, &frame, "late").await;
    client.heard_all().await;
    assert_eq!(over(&id).await["delivered"], true);
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_thousand_calls_of_a_store_wait_and_no_more() {
    let fleet = Fleet::with(&[]).await;
    for hundred in 0..10 {
        let asking =
            (0..100).map(async |n| queues(&fleet[n % 3], &asked("s", &json!({"data": hundred * 100 + n}))).await);
        join_all(asking).await;
    }
    let full = is(&fleet[0].post("/api/call", &asked("s", &json!({}))).await, 429, "queue_full");
    assert!(full["detail"].as_str().unwrap().contains("store s"), "{full}");
    queues(&fleet[0], &asked("another", &json!({}))).await;
    // They are taken by whoever comes, each once.
    let mut client = fleet[1].greeted("/ws?store_id=s").await;
    let mut seen = Vec::new();
    for _ in 0..1000 {
        let frame = client.hears().await;
        replies(&mut client, &frame, 1).await;
        seen.push(frame["data"].as_u64().unwrap());
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(0..1000));
    client.heard_all().await;
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_repeat_with_the_same_key_is_the_same_call() {
    let fleet = Fleet::with(&[]).await;
    let body = asked("s", &json!({}));
    let ask = async |at: usize| fleet[at].post("/api/call", &body).with("Idempotency-Key", "k").await;
    let first = ask(0).await;
    assert_eq!(first.status, 202, "{}", first.text());
    for at in 0..3 {
        let again = ask(at).await;
        assert_eq!((again.status, again.text()), (202, first.text()));
        assert_eq!(again.header("Location"), first.header("Location"));
        assert_eq!(again.header("Idempotency-Replayed"), Some("true"));
    }
    let mut client = fleet[2].greeted("/ws?store_id=s").await;
    let frame = client.hears().await;
    replies(&mut client, &frame, 1).await;
    client.heard_all().await;
    fleet.is_sound().await;
}

#[tokio::test]
async fn without_redis_calls_are_kept_in_memory() {
    let gateway = Gateway::with([("QUEUE_TTL", "5s")]).await;
    let id = queues(&gateway, &asked("s", &json!({"data": 1}))).await;
    stands(&gateway, &id, "queued").await;
    let mut first = gateway.greeted("/ws?store_id=s").await;
    assert_eq!(first.hears().await["attempt"], 1);
    stands(&gateway, &id, "given").await;
    first.leaves().await;
    stands(&gateway, &id, "queued").await;
    let mut second = gateway.greeted("/ws?store_id=s").await;
    let frame = second.hears().await;
    assert_eq!(frame["attempt"], 2);
    replies(&mut second, &frame, "ok").await;
    assert_eq!(stands(&gateway, &id, "replied").await["result"], "ok");
    is(&gateway.delete(&format!("/api/calls/{id}")).await, 409, "call_done");
    let id = queues(&gateway, &asked("t", &json!({}))).await;
    assert_eq!(gateway.delete(&format!("/api/calls/{id}")).await.status, 200);
    is(&call(&gateway, &id).await, 404, "call_unknown");
    let id = queues(&gateway, &asked("t", &json!({}))).await;
    let over =
        eventually("its time is over", async || Some(call(&gateway, &id).await).filter(|one| one.status != 200)).await;
    assert_eq!(is(&over, 504, "no_reply")["delivered"], false);
    gateway.is_unharmed().await;
}

/// Redis stands still again and again while calls are taken and answered, so that some of its answers are lost.
#[tokio::test]
async fn a_redis_that_stands_still_loses_no_call() {
    let fleet = Fleet::with(&[]).await;
    let ids = join_all((0..20).map(async |n| queues(&fleet[n % 3], &asked("s", &json!({}))).await)).await;
    let mut client = fleet[0].greeted("/ws?store_id=s").await;
    let stands_still = async {
        for _ in 0..3 {
            fleet.redis().stop();
            // Longer than anybody waits for an answer.
            sleep(Duration::from_secs(3)).await;
            fleet.redis().cont();
            sleep(Duration::from_millis(300)).await;
        }
    };
    let answers = async {
        loop {
            // It may hear nothing for as long as Redis takes to come to itself.
            if let Ok(frame) = timeout(Duration::from_secs(1), client.hears()).await {
                replies(&mut client, &frame, frame["attempt"].clone()).await;
            }
        }
    };
    let all_are_over = async {
        stands_still.await;
        for id in &ids {
            within(MENDED, "it is answered", async || {
                let answer = call(&fleet[1], id).await;
                if answer.json()["status"] == "replied" { Ok(()) } else { Err(answer.text()) }
            })
            .await;
        }
    };
    tokio::select! {
        () = answers => unreachable!("it never ends"),
        () = all_are_over => {}
    }
    fleet.is_sound().await;
}

/// It cannot be kept, and is not called offline.
#[tokio::test]
async fn while_the_registry_is_away_nothing_is_kept() {
    let fleet = Fleet::with(&[]).await;
    fleet.redis().kill();
    let answer = eventually("it is known to be away", async || {
        Some(fleet[0].post("/api/call", &asked("s", &json!({"timeoutMs": 5000}))).await).filter(|one| one.status == 503)
    })
    .await;
    is(&answer, 503, "registry_unavailable");
    fleet.redis().restart();
    let id = eventually("it is back", async || {
        let answer = fleet[0].post("/api/call", &asked("s", &json!({"timeoutMs": 5000}))).await;
        (answer.status == 202).then(|| answer.json()["callId"].as_str().unwrap().to_owned())
    })
    .await;
    stands(&fleet[1], &id, "queued").await;
    fleet.is_sound().await;
}
