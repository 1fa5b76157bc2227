//! What arrives elsewhere: in the order in which it was said, once, and whole.

use crate::{
    client::Client,
    fleet::Fleet,
    raw::{PING, TEXT},
};
use futures_util::future::{join_all, try_join_all};
use serde_json::{Value, json};
use std::convert::Infallible;

/// More than one letter may carry by itself, and still one frame of a client.
const LARGE: usize = 40_000;

fn padded(number: usize) -> Value {
    let length = [0, LARGE, 10, 5_000, 0][number % 5];
    json!([number, "x".repeat(length)])
}

/// Hears messages until there are so many; the numbers in them, by sender and in order.
async fn numbers(client: &mut Client, count: usize) -> Vec<usize> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        let heard = client.hears().await;
        let number = usize::try_from(heard["data"][0].as_u64().unwrap_or_else(|| panic!("{heard}"))).unwrap();
        assert_eq!(heard["data"], padded(number));
        numbers.push(number);
    }
    numbers
}

/// Small letters do not overtake large ones, which travel another way.
#[tokio::test]
async fn large_and_small_messages_keep_their_order() {
    const COUNT: usize = 60;
    let fleet = Fleet::with(&[("RATE_MESSAGES", "off"), ("MAX_QUEUE_BYTES", "8MiB")]).await;
    let mut publisher = fleet[0].greeted("/ws?room_id=r").await;
    let mut members = join_all((0..3).map(|at| fleet[at].greeted("/ws?room_id=r"))).await;
    for number in 0..COUNT {
        publisher.says(json!({"type": "publish", "room": "r", "data": padded(number)}).to_string()).await;
    }
    for member in &mut members {
        assert_eq!(numbers(member, COUNT).await, (0..COUNT).collect::<Vec<_>>());
        member.heard_all().await;
    }
    publisher.heard_all().await;
    fleet.is_sound().await;
}

/// One caller's sends, one after the other, from the same instance or from another each time.
#[tokio::test]
async fn a_callers_sends_come_in_the_order_of_their_answers() {
    const EACH: usize = 40;
    let fleet = Fleet::with(&[("MAX_QUEUE_BYTES", "8MiB")]).await;
    let mut client = fleet[2].greeted("/ws?room_id=r").await;
    let id = client.id.clone();
    let to = [json!({ "socketId": id }), json!({ "roomId": "r" })];
    let callers = (0..4).map(|caller| {
        let (fleet, to) = (&fleet, &to);
        async move {
            for nth in 0..EACH {
                let from = if caller == 3 { nth % 3 } else { caller };
                let data = padded(caller * EACH + nth);
                let sent = fleet.sends(from, to[nth % 2].clone(), data).await;
                assert_eq!((sent.status, &sent.json()["delivered"]), (200, &json!(1)), "{}", sent.text());
            }
            Ok::<_, Infallible>(())
        }
    });
    let (sent, heard) = tokio::join!(try_join_all(callers), numbers(&mut client, 4 * EACH));
    sent.unwrap();
    for caller in 0..4 {
        let own: Vec<_> = heard.iter().copied().filter(|number| number / EACH == caller).collect();
        assert_eq!(own, (caller * EACH..(caller + 1) * EACH).collect::<Vec<_>>());
    }
    client.heard_all().await;
    fleet.is_sound().await;
}

/// A publisher that leaves, or is gone, has said what it said.
#[tokio::test]
async fn what_was_said_before_leaving_is_heard() {
    const COUNT: usize = 50;
    let fleet = Fleet::with(&[("RATE_MESSAGES", "off")]).await;
    let mut member = fleet[1].greeted("/ws?room_id=r").await;
    for leaving in [r#"{"type":"leave","room":"r"}"#, ""] {
        let mut publisher = fleet[0].greeted("/ws?room_id=r").await;
        for number in 0..COUNT {
            publisher.says(json!({"type": "publish", "room": "r", "data": [number, ""]}).to_string()).await;
        }
        match leaving {
            "" => publisher.leaves().await,
            leave => drop(publisher.asks(leave).await),
        }
        for number in 0..COUNT {
            assert_eq!(member.hears().await["data"][0], number);
        }
        member.heard_all().await;
    }
    fleet.is_sound().await;
}

/// Whoever read the id in `hi` may use it at once, anywhere; and nothing comes before the greeting.
#[tokio::test]
async fn from_its_first_frame_on_a_socket_is_reached_from_everywhere() {
    let fleet = Fleet::with(&[("MAX_SOCKETS_PER_USER", "0")]).await;
    let fleet = &fleet;
    join_all((0..45).map(|nth| async move {
        let mut client = fleet[nth % 3].connect(&format!("/ws?user_id=u{nth}&room_id=r{nth}")).await;
        let hi = client.hears().await;
        assert_eq!(hi["type"], "hi", "{hi}");
        let id = hi["socketId"].clone();
        let to =
            [json!({ "socketId": id }), json!({ "roomId": format!("r{nth}") }), json!({"userId": format!("u{nth}")})];
        let sent = fleet.sends((nth + 1) % 3, to[nth / 3 % 3].clone(), nth).await;
        assert_eq!((sent.status, &sent.json()["delivered"]), (200, &json!(1)), "{}", sent.text());
        assert_eq!(client.hears_text().await, r#"{"type":"reset"}"#);
        assert_eq!(client.hears().await["data"], nth);
        client.heard_all().await;
    }))
    .await;
    fleet.is_sound().await;
}

/// Others send to a room while sockets come and go: nobody hears anything before its greeting.
#[tokio::test]
async fn the_greeting_comes_first_in_a_room_that_is_never_quiet() {
    let fleet = Fleet::with(&[("MAX_SOCKETS_PER_USER", "0")]).await;
    let noise = async {
        loop {
            for at in 0..3 {
                assert_eq!(fleet.sends(at, json!({ "roomId": "r" }), "noise").await.status, 200);
            }
        }
    };
    let visits = async {
        for nth in 0..60 {
            let mut raw = fleet[nth % 3].raw().await;
            raw.upgrade(fleet[nth % 3].address(), "/ws?room_id=r").await;
            raw.is_greeted().await;
            let heard = raw.frame().await;
            assert!([TEXT, PING].contains(&heard.opcode()), "{heard:?}");
        }
    };
    tokio::select! {
        () = visits => {}
        () = noise => unreachable!(),
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn large_data_arrives_whole_on_every_instance() {
    let fleet = Fleet::with(&[("MAX_QUEUE_BYTES", "8MiB")]).await;
    let mut members = join_all((0..3).map(|at| fleet[at].greeted("/ws?user_id=ann&room_id=r"))).await;
    for (round, length) in [4_000, 4_096, 5_000, 70_000, 1_000_000].into_iter().enumerate() {
        let data = format!("{}ü🎲\u{2028}\"\\", "x".repeat(length));
        let body = json!({ "event": "blob", "data": data });
        let sent = fleet[round % 3].post("/api/rooms/r/send", &body).await;
        assert_eq!((sent.status, &sent.json()["delivered"]), (200, &json!(3)), "{length}: {}", sent.text());
        for member in &mut members {
            let heard = member.hears().await;
            assert_eq!((&heard["type"], &heard["data"]), (&json!("blob"), &json!(data)), "{length}");
        }
    }
    let bytes: Vec<_> = (0..60_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    members[0].says_bytes(bytes.clone()).await;
    for member in &mut members[1..] {
        assert_eq!(member.hears_bytes().await, bytes);
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn pushes_and_room_sends_reach_whoever_is_elsewhere() {
    let fleet = Fleet::with(&[]).await;
    let mut ann = fleet[0].greeted("/ws?user_id=ann&room_id=a%20b").await;
    let mut bob = fleet[1].greeted("/ws?user_id=bob&room_id=a%20b").await;
    let push = |user: &str| json!({ "user_id": user, "data": { "n": 1 }, "event_type": "note" });
    let batch = fleet[2].post("/sse/push/batch", &json!([push("ann"), push("nobody"), push("bob")])).await;
    let results = batch.json()["results"].clone();
    let shown: Vec<_> = results.as_array().unwrap().iter().map(|one| (&one["index"], &one["success"])).collect();
    assert_eq!(json!(shown), json!([[0, true], [1, false], [2, true]]), "{}", batch.text());
    let nobody = fleet[2].post("/sse/push", &push("nobody")).await;
    assert_eq!((nobody.status, &nobody.json()["message"]), (200, &json!("User not connected")));
    let body = json!({ "data": 2, "exceptSocketId": bob.id });
    let sent = fleet[2].post("/api/rooms/a%20b/send", &body).await.json();
    assert_eq!((&sent["status"], &sent["matched"], &sent["delivered"]), (&json!("delivered"), &json!(1), &json!(1)));
    for client in [&mut ann, &mut bob] {
        assert_eq!(client.hears_text().await, r#"{"type":"note","data":{"n":1}}"#);
    }
    assert_eq!(ann.hears_text().await, r#"{"type":"message","data":2}"#);
    ann.heard_all().await;
    bob.heard_all().await;
    fleet.is_sound().await;
}

/// What does not fit is refused and said so, wherever the one is that does not read.
#[tokio::test]
async fn a_socket_elsewhere_that_does_not_read_is_busy() {
    let fleet = Fleet::with(&[("MAX_QUEUE_BYTES", "200KiB"), ("WS_PING_TIMEOUT", "60s")]).await;
    let (mut lazy, id) = fleet[0].lazy("/ws?room_id=r").await;
    let mut eager = fleet[1].greeted("/ws?room_id=r").await;
    let (taken, busy) = fleet[2].fills(&id).await;
    assert_eq!((busy.status, &busy.json()["code"]), (429, &json!("socket_busy")), "{}", busy.text());
    busy.is_problem();
    let sent = fleet.sends(2, json!({ "roomId": "r" }), "x".repeat(100_000)).await.json();
    let shown = ["status", "matched", "delivered", "unknown"].map(|key| &sent[key]);
    assert_eq!(json!(shown), json!(["partial", 2, 1, 0]), "{sent}");
    eager.hears().await;
    for number in 0..taken {
        assert_eq!(lazy.reads().await["data"][0], number, "what was taken is written, and nothing else");
    }
    let sent = fleet.sends(2, json!({ "socketId": id }), "again").await;
    assert_eq!(sent.status, 200, "{}", sent.text());
    assert_eq!(lazy.reads().await["data"], "again");
    fleet.is_sound().await;
}
