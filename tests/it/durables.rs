//! Durable deliveries: kept until their client has them, in order, each once; or said to be lost.

use crate::{client::Client, comebacks::Page, fleet::Fleet, gateway::Gateway, http::Answer, patience::eventually};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::sleep;

fn durable(to: &Value, data: impl Into<Value>) -> Value {
    json!({"to": to, "event": "order", "data": data.into(), "durable": true})
}

async fn sends(gateway: &Gateway, to: &Value, data: impl Into<Value>) -> Answer {
    gateway.post("/api/send", &durable(to, data)).await
}

fn is_queued(answer: &Answer, status: &str) -> Value {
    let body = answer.json();
    assert_eq!((answer.status, &body["status"]), (202, &json!(status)), "{}", answer.text());
    assert_eq!(body["durability"], "memory", "{body}");
    body
}

/// The next delivery: its number, and what it says.
async fn hears(client: &mut Client) -> (u64, Value) {
    let frame = client.hears().await;
    assert_eq!(frame["type"], "order", "{frame}");
    (frame["seq"].as_u64().unwrap_or_else(|| panic!("{frame}")), frame["data"].clone())
}

async fn acks(client: &mut Client, seq: u64) {
    client.says(json!({"type": "ack", "seq": seq}).to_string()).await;
}

/// Just seated it reads its log, and what comes meanwhile is queued; from then on it is told at once.
async fn settles(gateway: &Gateway, page: &mut Page) {
    let to = json!({"socketId": page.id()});
    eventually("it has read its log", async || {
        let answer = sends(gateway, &to, "warm").await;
        assert_eq!(hears(&mut page.client).await.1, "warm");
        (answer.json()["status"] == "delivered").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_delivery_to_who_is_there_has_a_number_and_is_said_to_be_kept() {
    let fleet = Fleet::with(&[]).await;
    let mut page = Page::opens(&fleet[0], "user_id=ann&store_id=s").await;
    settles(&fleet[0], &mut page).await;
    let mut last = 0;
    for (nth, to) in
        [json!({"socketId": page.id()}), json!({"userId": "ann"}), json!({"storeId": "s"})].iter().enumerate()
    {
        for from in 0..3 {
            let body = is_queued(&sends(&fleet[from], to, nth).await, "delivered");
            assert_eq!(
                (&body["matched"], &body["delivered"], &body["queued"]),
                (&json!(1), &json!(1), &json!(0)),
                "{body}"
            );
            let (seq, data) = hears(&mut page.client).await;
            assert_eq!((seq > last, data), (true, json!(nth)), "{last} {seq}");
            last = seq;
        }
    }
    // Who cannot come back gets it as any other send.
    let mut plain = fleet[1].greeted("/ws?user_id=bob").await;
    let answer = sends(&fleet[2], &json!({"socketId": plain.id}), 1).await;
    assert_eq!((answer.status, &answer.json()["status"]), (200, &json!("delivered")), "{}", answer.text());
    assert_eq!(plain.hears_text().await, r#"{"type":"order","data":1}"#);
    assert_eq!(sends(&fleet[2], &json!({"socketId": "ws_123"}), 1).await.status, 404);
    fleet.is_sound().await;
}

#[tokio::test]
async fn what_came_while_it_was_away_comes_first_and_in_order() {
    let memory = Gateway::start().await;
    let fleet = Fleet::with(&[]).await;
    for (gateways, next) in [([&memory, &memory], &memory), ([&fleet[0], &fleet[1]], &fleet[2])] {
        let mut page = Page::opens(gateways[0], "user_id=ann").await;
        settles(gateways[0], &mut page).await;
        let to = json!({"socketId": page.id()});
        is_queued(&sends(gateways[1], &to, "seen").await, "delivered");
        let (seen, _) = hears(&mut page.client).await;
        let (id, token) = page.breaks();
        gateways[1].verdict(&id).await;
        for n in 0..150 {
            let target = if n % 2 == 0 { to.clone() } else { json!({"userId": "ann"}) };
            let body = is_queued(&sends(gateways[n % 2], &target, n).await, "queued");
            assert_eq!(
                (&body["matched"], &body["delivered"], &body["queued"]),
                (&json!(1), &json!(0), &json!(1)),
                "{body}"
            );
        }
        let mut page = Page::comes(next, "user_id=ann", &token, seen).await;
        assert_eq!((page.id(), page.reset, &page.hi["seq"]), (id.as_str(), false, &json!(seen)));
        assert_eq!(sends(gateways[0], &to, "live").await.status, 202);
        let mut last = seen;
        for n in 0..150 {
            let (seq, data) = hears(&mut page.client).await;
            assert_eq!((seq > last, data), (true, json!(n)));
            last = seq;
        }
        assert_eq!(hears(&mut page.client).await.1, "live");
        page.client.heard_all().await;
        page.client.leaves().await;
    }
    fleet.is_sound().await;
}

/// Acknowledged, and so not there any more; expired; never sent.
#[tokio::test]
async fn whoever_has_missed_something_for_good_is_told_and_goes_on() {
    let fleet = Fleet::with(&[]).await;
    for turn in 0..3 {
        let mut page = Page::opens(&fleet[0], "user_id=ann").await;
        let to = json!({"socketId": page.id()});
        let mut seqs = Vec::new();
        for n in 0..3 {
            let body = json!({"to": to, "event": "order", "data": n, "durable": true, "ttlMs": if turn == 1 { 50 } else { 60_000 }});
            assert_eq!(fleet[1].post("/api/send", &body).await.status, 202);
            seqs.push(hears(&mut page.client).await.0);
        }
        let last_seq = match turn {
            0 => {
                acks(&mut page.client, seqs[2]).await;
                let key =
                    |end: &str| fleet.redis().keys().into_iter().find(|key| key.contains(end) && key.contains("log:"));
                eventually("it is trimmed", async || {
                    let log = key(":log:");
                    log.is_none_or(|log| fleet.redis().text(&["XLEN", &log]) == "0").then_some(())
                })
                .await;
                seqs[0]
            }
            1 => {
                sleep(Duration::from_millis(60)).await;
                seqs[0]
            }
            _ => seqs[2] + 5,
        };
        let (id, token) = page.breaks();
        let mut page = Page::comes(&fleet[2], "user_id=ann", &token, last_seq).await;
        assert_eq!((page.id(), page.reset, &page.hi["seq"]), (id.as_str(), true, &json!(seqs[2])), "{turn}");
        page.client.heard_all().await;
        assert_eq!(sends(&fleet[0], &to, "on").await.status, 202);
        let (seq, data) = hears(&mut page.client).await;
        assert_eq!((seq > seqs[2], data), (true, json!("on")));
        page.client.leaves().await;
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_store_is_reached_live_away_and_without_a_log() {
    let fleet = Fleet::with(&[]).await;
    let mut live = Page::opens(&fleet[0], "user_id=a&store_id=s").await;
    settles(&fleet[0], &mut live).await;
    let (away, token) = Page::opens(&fleet[1], "user_id=b&store_id=s").await.breaks();
    fleet[0].verdict(&away).await;
    let mut plain = fleet[2].greeted("/ws?user_id=c&store_id=s").await;
    let mut excepted = Page::opens(&fleet[2], "user_id=d&store_id=s").await;
    for from in 0..3 {
        let mut body = durable(&json!({"storeId": "s"}), from);
        body["exceptSocketId"] = json!(excepted.id());
        let answer = is_queued(&fleet[from].post("/api/send", &body).await, "partial");
        let counts = ["matched", "delivered", "queued", "instances"].map(|name| answer[name].as_u64().unwrap());
        assert_eq!(counts, [3, 2, 1, 2], "{answer}");
        assert_eq!(hears(&mut live.client).await.1, from);
        assert_eq!(plain.hears().await, json!({"type": "order", "data": from}));
    }
    let mut back = Page::comes(&fleet[0], "user_id=b", &token, 0).await;
    for n in 0..3 {
        assert_eq!(hears(&mut back.client).await.1, n);
    }
    // Another store, another log.
    back.client.asks(r#"{"type":"selectStore","data":{"storeId":"t"}}"#).await;
    for store in ["s", "t"] {
        assert_eq!(sends(&fleet[1], &json!({"storeId": store}), store).await.status, 202);
    }
    assert_eq!(hears(&mut back.client).await.1, "t");
    assert_eq!(hears(&mut excepted.client).await.1, "s");
    fleet.is_sound().await;
}

#[tokio::test]
async fn what_nobody_was_there_for_goes_to_the_first_who_may_come_back() {
    let memory = Gateway::start().await;
    let fleet = Fleet::with(&[]).await;
    for gateways in [[&memory, &memory, &memory], [&fleet[0], &fleet[1], &fleet[2]]] {
        for n in 0..5 {
            let body = is_queued(&sends(gateways[n % 3], &json!({"storeId": "s"}), n).await, "queued");
            assert_eq!((&body["matched"], &body["queued"]), (&json!(0), &json!(1)));
        }
        let mut first = Page::opens(gateways[1], "store_id=s").await;
        for n in 0..5 {
            assert_eq!(hears(&mut first.client).await.1, n);
        }
        let mut second = Page::opens(gateways[2], "store_id=s").await;
        second.client.heard_all().await;
        first.client.heard_all().await;
        // The next is for both.
        assert_eq!(sends(gateways[0], &json!({"storeId": "s"}), "both").await.status, 202);
        assert_eq!(
            (hears(&mut first.client).await.1, hears(&mut second.client).await.1),
            (json!("both"), json!("both"))
        );
        first.client.leaves().await;
        second.client.leaves().await;
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn what_found_no_room_in_a_log_comes_when_something_is_acknowledged() {
    let fleet = Fleet::with(&[("MAX_BODY_BYTES", "1MiB")]).await;
    let large = "x".repeat(100_000);
    for to in [json!({"userId": "ann"}), json!({"storeId": "s"})] {
        for n in 0..8 {
            is_queued(&sends(&fleet[n % 3], &to, format!("{n}{large}")).await, "queued");
        }
    }
    let mut page = Page::opens(&fleet[0], "user_id=ann&store_id=s").await;
    let mut heard = [0; 8];
    for nth in 0..16 {
        let (seq, data) = hears(&mut page.client).await;
        heard[usize::from(data.as_str().unwrap().as_bytes()[0] - b'0')] += 1;
        if nth >= 7 {
            acks(&mut page.client, seq).await;
        }
    }
    assert_eq!(heard, [2; 8]);
    page.client.heard_all().await;
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_full_log_refuses_and_loses_nothing() {
    let fleet = Fleet::with(&[("MAX_BODY_BYTES", "1MiB")]).await;
    let page = Page::opens(&fleet[0], "user_id=ann").await;
    let to = json!({"userId": "ann"});
    let (id, token) = page.breaks();
    fleet[1].verdict(&id).await;
    let large = "x".repeat(100_000);
    let mut kept = 0;
    let refused = loop {
        let answer = sends(&fleet[kept % 3], &to, format!("{kept}{large}")).await;
        if answer.status != 202 {
            break answer;
        }
        kept += 1;
    };
    assert_eq!((refused.status, &refused.json()["code"], kept), (429, &json!("log_full"), 10), "{}", refused.text());
    let named = sends(&fleet[1], &json!({"socketId": id}), large.clone()).await;
    assert_eq!((named.status, &named.json()["code"]), (429, &json!("log_full")));
    let mut page = Page::comes(&fleet[2], "user_id=ann", &token, 0).await;
    let mut last = 0;
    for n in 0..kept {
        let (seq, data) = hears(&mut page.client).await;
        assert!(data.as_str().unwrap().starts_with(&format!("{n}x")));
        last = seq;
    }
    assert_eq!(sends(&fleet[0], &to, large.clone()).await.status, 429);
    acks(&mut page.client, last).await;
    eventually("there is room", async || (sends(&fleet[0], &to, large.clone()).await.status == 202).then_some(()))
        .await;
    assert!(hears(&mut page.client).await.0 > last);
    fleet.is_sound().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let fleet = Fleet::with(&[]).await;
    let mut page = Page::opens(&fleet[0], "user_id=ann&store_id=s").await;
    let send = async |more: Value| {
        let mut body = json!({"event": "order", "data": 1, "durable": true});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = fleet[1].post("/api/send", &body).await;
        (answer.status, answer.text())
    };
    for ttl in [json!(0), json!(-1), json!(31_536_000_000_u64), json!("1"), json!(1.5)] {
        let (status, text) = send(json!({"userId": "ann", "ttlMs": ttl})).await;
        assert!(status == 422 && text.contains("/ttlMs"), "{ttl}: {text}");
    }
    for to in [json!({"roomId": "r"}), json!({"all": true})] {
        let (status, text) = send(to).await;
        assert!(status == 422 && text.contains("/durable"), "{text}");
    }
    page.client.heard_all().await;
    for (ack, part) in [
        (json!({"type": "ack", "seq": 9}), "nothing so late"),
        (json!({"type": "ack"}), "no whole number"),
        (json!({"type": "ack", "seq": -1}), "no whole number"),
        (json!({"type": "ack", "seq": "1"}), "no whole number"),
    ] {
        let error: Value = serde_json::from_str(&page.client.asks(ack.to_string()).await).unwrap();
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("invalid")), "{error}");
        assert!(error["detail"].as_str().unwrap().contains(part), "{error}");
    }
    acks(&mut page.client, 0).await;
    page.client.heard_all().await;
    let mut plain = fleet[0].greeted("/ws?user_id=bob").await;
    acks(&mut plain, 9).await;
    plain.heard_all().await;
    fleet.is_sound().await;
}

/// As many as one delivery is kept for, and one more. Those that were never there do not count.
#[tokio::test]
async fn a_store_of_too_many_that_may_come_back_is_refused_as_a_whole() {
    let fleet = Fleet::with(&[("MAX_SOCKETS_PER_USER", "0")]).await;
    let first = Page::opens(&fleet[0], "store_id=s").await;
    let redis = fleet.redis();
    let key = redis.keys().into_iter().find(|key| key.ends_with(":kept")).unwrap();
    let one = redis.text(&["ZRANDMEMBER", &key]);
    for n in 0..1000 {
        redis.ask(&["ZADD", &key, "0", &format!("{}{n:04}{}", &one[..14], &one[18..])]);
    }
    let to = json!({"storeId": "s"});
    // As soon as it is certain that they were never there.
    eventually("they are forgotten", async || (sends(&fleet[1], &to, 0).await.status == 202).then_some(())).await;
    assert_eq!(redis.text(&["ZCARD", &key]), "1");
    for n in 0..20 {
        let fleet = &fleet;
        join_all((0..50).map(|nth| async move { drop(Page::opens(&fleet[(n + nth) % 3], "store_id=s").await) })).await;
    }
    let refused = sends(&fleet[2], &to, 1).await;
    assert_eq!((refused.status, &refused.json()["code"]), (422, &json!("too_many_sockets")), "{}", refused.text());
    let Page { mut client, .. } = first;
    assert_eq!(hears(&mut client).await.1, 0);
    client.heard_all().await;
    client.leaves().await;
    let body = eventually("it has ended", async || {
        let answer = sends(&fleet[2], &to, 2).await;
        (answer.status == 202).then(|| answer.json())
    })
    .await;
    assert_eq!((&body["matched"], &body["queued"]), (&json!(1000), &json!(1000)), "{body}");
    fleet.is_sound().await;
}

/// What finds no room in its queue comes when there is.
#[tokio::test]
async fn a_slow_reader_gets_all_of_it_in_order() {
    let fleet = Fleet::with(&[("MAX_QUEUE_BYTES", "4KiB"), ("WS_PING_TIMEOUT", "60s")]).await;
    let mut page = Page::opens(&fleet[0], "user_id=ann").await;
    let (to, large) = (json!({"socketId": page.id()}), "x".repeat(20_000));
    // Nobody reads, so that the kernel's buffers fill, and then the queue.
    for n in 0..45 {
        let answer = sends(&fleet[1], &to, format!("{n} {large}")).await;
        assert_eq!(answer.status, 202, "{n}: {}", answer.text());
    }
    let mut last = 0;
    for n in 0..45 {
        let (seq, data) = hears(&mut page.client).await;
        assert!(seq > last && data.as_str().unwrap().starts_with(&format!("{n} ")), "{n}");
        last = seq;
    }
    page.client.heard_all().await;
    fleet.is_sound().await;
}
