//! Keys and messages of somebody else, under our names. None of them makes an instance panic, say that a
//! living socket is not there, or write to a socket what was not meant for it.

use crate::{client::Client, fleet::Fleet, patience::eventually};
use futures_util::future::join_all;
use redis::Value as Said;
use registry::{
    Cause, Ending, Envelope, Group, Incarnation, RoomName, Session, SocketId,
    envelope::{Answer, Message, To, VERSION},
};
use serde_json::{Value, json};
use servers::Server;

/// Holes in made-up numbers are counted, and that is no fault.
const HOLES: [&str; 1] = ["inbox_gap_unfilled"];

async fn bell(fleet: &Fleet, at: usize) -> String {
    format!("holdfast:{{i:{}}}:bell", fleet.mark(0, at).await)
}

/// One client on each, known by all.
async fn one_each(fleet: &Fleet) -> Vec<Client> {
    join_all((0..3).map(|at| fleet[at].greeted("/ws?user_id=ann&store_id=s&room_id=r"))).await
}

/// Everybody reaches everybody, and nobody has heard anything else.
async fn all_reach_all(fleet: &Fleet, clients: &mut [Client], what: &str) {
    for from in 0..3 {
        for client in clients.iter_mut() {
            let sent = fleet.sends(from, json!({ "socketId": client.id }), what).await;
            assert_eq!((sent.status, &sent.json()["delivered"]), (200, &json!(1)), "{what}: {}", sent.text());
            assert_eq!(client.hears().await["data"], what);
        }
    }
    for client in clients {
        client.heard_all().await;
    }
}

/// The numbers on the bell are Redis' own; made-up ones are no reason to stumble.
#[tokio::test]
async fn numbers_that_nobody_counted_do_no_harm() {
    let fleet = Fleet::with(&[]).await;
    let mut clients = one_each(&fleet).await;
    let bells = [bell(&fleet, 0).await, bell(&fleet, 1).await, bell(&fleet, 2).await];
    for number in ["0", "1", "18446744073709551615", "18446744073709551614", "9223372036854775807", "00", "+5"] {
        for bell in &bells {
            for body in ["", "!", "{}", "@x", "\n"] {
                fleet.redis().ask(&["PUBLISH", bell, &format!("{number}\n{body}")]);
            }
        }
        all_reach_all(&fleet, &mut clients, number).await;
    }
    for at in 0..3 {
        assert!(fleet[at].metric("holdfast_bell_foreign_total").await > 0.0);
        assert!(!fleet[at].output().contains("panicked"), "{}", fleet[at].output());
    }
    fleet.hears().await;
    fleet.is_sound_but(&HOLES).await;
}

/// Bytes of any kind, as large as anybody may send them.
#[tokio::test]
async fn bytes_that_are_no_letter_do_no_harm() {
    let fleet = Fleet::with(&[]).await;
    let mut clients = one_each(&fleet).await;
    let publish = |bell: &str, lua: &str| {
        let script = format!("return redis.call('PUBLISH', KEYS[1], {lua})");
        fleet.redis().ask(&["EVAL", &script, "1", bell]);
    };
    let before = fleet[1].metric("holdfast_bell_foreign_total").await;
    let bell = bell(&fleet, 1).await;
    let begun = |rest: &str| format!(r"'5\n' .. string.char({VERSION}) .. {rest}");
    let all = [
        r"'\255\254\0'",
        r"'5\n\255\254\0'",
        r"'5\n@\255\254'",
        r"'5\n' .. string.rep('[', 200000) .. '\n'",
        r#"'5\n{"v":1,"id":' .. string.rep('9', 1000) .. '}\n'"#,
        r"string.rep('7', 3000000)",
        r"'5\n' .. string.rep('x', 5000000)",
        r"string.rep('\n', 1000)",
        r#"'5\n{"v":1,"id":1,"from":"a","until":1,"message":{"send":{"to":"all","except":null,"ack":true}}}\n'"#,
        &begun("''"),
        &begun(r"string.rep('\0', 1000)"),
        &begun(r"string.rep('\1', 1000)"),
        &begun(r"string.rep('\255', 3000000)"),
    ];
    for lua in all {
        publish(&bell, lua);
    }
    // Letters behind them: when those have come, all of it was read.
    all_reach_all(&fleet, &mut clients, "afterwards").await;
    let counted = fleet[1].metric("holdfast_bell_foreign_total").await - before;
    assert_eq!(counted, all.len() as f64, "each is counted and dropped");
    fleet.is_sound_but(&HOLES).await;
}

/// Letters in good form from an instance that never was, for sockets it only heard of.
#[tokio::test]
async fn a_letter_for_another_session_changes_nothing() {
    let fleet = Fleet::with(&[]).await;
    let mut clients = one_each(&fleet).await;
    let (text, bell) = (clients[1].id.clone(), bell(&fleet, 1).await);
    let (id, session) = (SocketId::parse(&text).unwrap(), Session::fresh());
    let (from, until) = (Incarnation::fresh("web9"), 9_999_999_999_999_u64);
    let to = To::Socket { id, session };
    let ending = Ending { cause: Cause::Kicked, code: Some(4403), reason: "forged".into() };
    let [group, room] = ["r", "forged"].map(|name| RoomName::parse(name).unwrap());
    for (number, message) in [
        Message::Send { to: to.clone(), except: None, ack: true },
        Message::Send { to: to.clone(), except: None, ack: false },
        Message::Close { to, ending },
        Message::Room { id, session, room, join: true },
        Message::Probe { sockets: vec![(id, session)] },
        Message::Answer { re: 1, answer: Answer::Sent { matched: 9, delivered: 9, full: 0 } },
        Message::Who { group: Group::Room(group), after: None, limit: usize::MAX },
    ]
    .into_iter()
    .enumerate()
    {
        // Over its time, and far in the future.
        for until in [1, until, u64::MAX] {
            let id = number as u64 ^ until;
            let letter = Envelope::new(id, from.clone(), until, message.clone(), "\u{81}\u{3}abc".into());
            let rung = [format!("{}\n", 5 + number).as_bytes(), &letter.encode()].concat();
            fleet.redis().ask(&[b"PUBLISH", bell.as_bytes(), &rung]);
        }
    }
    all_reach_all(&fleet, &mut clients, "afterwards").await;
    let shown = fleet.lookup(0, &text).await.json();
    assert_eq!((&shown["rooms"], &shown["instance"]), (&json!(["r"]), &json!("web2")));
    fleet.is_sound_but(&HOLES).await;
}

/// The letters that lie in the mailbox of an instance.
fn mail(server: &Server, bell: &str) -> Vec<(String, Vec<u8>)> {
    let mail = bell.replace(":bell", ":mail");
    let Said::Array(entries) = server.ask(&["XRANGE", &mail, "-", "+"]) else { return Vec::new() };
    let bytes = |value: &Said| match value {
        Said::BulkString(bytes) => bytes.clone(),
        _ => Vec::new(),
    };
    let entry = |entry: &Said| match entry {
        Said::Array(parts) => match &parts[..] {
            [id, Said::Array(fields)] => Some((String::from_utf8(bytes(id)).ok()?, bytes(fields.last()?))),
            _ => None,
        },
        _ => None,
    };
    entries.iter().filter_map(entry).collect()
}

fn holds(letter: &[u8], text: &str) -> bool {
    letter.windows(text.len()).any(|part| part == text.as_bytes())
}

/// A true letter that is rung again, with its number or another, is written once.
#[tokio::test]
async fn a_letter_that_comes_twice_is_written_once() {
    let fleet = Fleet::with(&[]).await;
    let mut clients = one_each(&fleet).await;
    let bell = bell(&fleet, 1).await;
    for turn in 0..5 {
        let data = format!("turn {turn}");
        // The mailbox is swept each second, so it may have to be sent again.
        let (id, letter) = eventually("a letter lies in the mailbox", async || {
            let sent = fleet.sends(0, json!({ "socketId": clients[1].id }), data.as_str()).await;
            assert_eq!(sent.json()["delivered"], 1, "{}", sent.text());
            assert_eq!(clients[1].hears().await["data"], data);
            mail(fleet.redis(), &bell).into_iter().rfind(|(_, letter)| holds(letter, &data))
        })
        .await;
        let number: u64 = id.split('-').next().unwrap().parse().unwrap();
        for number in [number, number, number + 1, number - 1, 1] {
            let rung = [format!("{number}\n").as_bytes(), &letter].concat();
            fleet.redis().ask(&[b"PUBLISH", bell.as_bytes(), &rung]);
        }
        all_reach_all(&fleet, &mut clients, "afterwards").await;
    }
    assert!(fleet[1].metric("holdfast_letters_repeated_total").await > 0.0);
    fleet.is_sound_but(&HOLES).await;
}

fn keys_with(server: &Server, part: &str) -> Vec<String> {
    server.keys().into_iter().filter(|key| key.contains(part)).collect()
}

/// The keys of a kind, also of those kinds that mostly are not there.
async fn keys_like(fleet: &Fleet, part: &str) -> Vec<String> {
    match part {
        ":mail" => {
            join_all((0..3).map(|at| bell(fleet, at))).await.iter().map(|it| it.replace(":bell", part)).collect()
        }
        ":cooling" => keys_with(fleet.redis(), "{u:").iter().map(|it| it.replace(":sockets", part)).collect(),
        _ => {
            eventually("there are such keys", async || {
                Some(keys_with(fleet.redis(), part)).filter(|keys| !keys.is_empty())
            })
            .await
        }
    }
}

/// Nobody is told that a living socket is not there, and nobody is disconnected, while a key of ours holds
/// something else; when it is taken away everything is as it was.
#[tokio::test]
async fn keys_of_a_foreign_type_are_worked_around() {
    for part in [":live", ":owned:", ":born", "{g:", "{u:", ":mail", ":cooling", "{m}:instances"] {
        let fleet = Fleet::with(&[]).await;
        let mut clients = one_each(&fleet).await;
        let keys = keys_like(&fleet, part).await;
        // A list is what we have none of.
        for key in &keys {
            fleet.redis().ask(&["EVAL", "redis.call('DEL', KEYS[1]) redis.call('RPUSH', KEYS[1], 'x')", "1", key]);
        }
        let mut late = fleet[2].greeted("/ws?user_id=ann&store_id=s&room_id=r&client_id=late").await;
        clients.push(fleet[0].greeted("/ws?user_id=bob&room_id=q").await);
        for from in 0..3 {
            for client in clients.iter_mut().chain([&mut late]) {
                let found = fleet.lookup(from, &client.id).await;
                assert!([200, 503].contains(&found.status), "{part}: {}", found.text());
                let sent = fleet.sends(from, json!({ "socketId": client.id }), part).await;
                assert!([200, 503].contains(&sent.status), "{part}: {}", sent.text());
                if sent.status == 200 {
                    assert_eq!(client.hears().await["data"], part);
                }
            }
            for path in ["/api/debug/sockets", "/api/instances", "/api/rooms/r", "/api/users/ann", "/api/sockets"] {
                let answer = fleet[from].get(path).await;
                assert!([200, 503].contains(&answer.status), "{part} {path}: {}", answer.text());
            }
        }
        for key in &keys {
            fleet.redis().ask(&["DEL", key]);
        }
        clients.push(late);
        eventually(&format!("without the foreign {part} all is as it was"), async || {
            let sent = fleet.sends(1, json!({ "all": true }), "all").await.json();
            (sent["delivered"] == 5 && fleet[1].get("/health").await.json()["redis"] == "ok").then_some(())
        })
        .await;
        for client in &mut clients {
            while client.hears().await["data"] != "all" {}
        }
        fleet.is_sound_but(&HOLES).await;
    }
}

/// The row of a living socket is changed by somebody: that is not its end.
#[tokio::test]
async fn a_row_that_makes_no_sense_is_no_verdict() {
    let fleet = Fleet::with(&[]).await;
    let mut clients = one_each(&fleet).await;
    let rows = keys_with(fleet.redis(), ":socket:");
    assert_eq!(rows.len(), 3);
    for (field, value) in [
        ("owner", "garbage"),
        ("state", "garbage"),
        ("session", "garbage"),
        ("attempt", "-1"),
        ("rooms", "{not json"),
        ("connectedAt", "99999999999999999999999"),
        ("address", "nowhere"),
        ("user", ""),
        ("store", "\u{1}"),
    ] {
        for row in &rows {
            fleet.redis().ask(&["HSET", row, field, value]);
        }
        for at in 0..3 {
            for (nth, client) in clients.iter_mut().enumerate() {
                let found = fleet.lookup(at, &client.id).await;
                assert!(
                    [200, 503].contains(&found.status),
                    "{field} of web{}'s at web{}: {}",
                    nth + 1,
                    at + 1,
                    found.text()
                );
            }
            let page = fleet[at].get("/api/debug/sockets?verbose=1").await;
            assert!([200, 503].contains(&page.status), "{field}: {}", page.text());
            let sent = fleet.sends(at, json!({ "roomId": "r" }), field).await.json();
            assert_eq!(sent["delivered"], 3, "{field}: {sent}");
            for client in &mut clients {
                assert_eq!(client.hears().await["data"], field);
            }
        }
    }
    fleet.is_sound().await;
}

/// What is written into our own indexes by others names nobody, and hides nobody.
#[tokio::test]
async fn members_that_nobody_entered_are_passed_over() {
    let fleet = Fleet::with(&[("MAX_SOCKETS_PER_USER", "2")]).await;
    let mut client = fleet[0].greeted("/ws?user_id=ann&store_id=s&room_id=r").await;
    let redis = fleet.redis();
    let nobody = format!("web9.{}", "A".repeat(22));
    for key in keys_with(redis, "{g:") {
        redis.ask(&["HSET", &key, "garbage", "x", "", "", "web9.x", "5|1", &nobody, "not a number"]);
    }
    for key in keys_with(redis, "{u:") {
        redis.ask(&["ZADD", &key, "1", "garbage", "2", "", "inf", &"x".repeat(64), "-inf", &"é".repeat(40)]);
    }
    for key in keys_with(redis, ":live") {
        redis.ask(&["ZADD", &key, "0", "garbage", "0", &"-".repeat(22), "0", "~", "0", "!"]);
    }
    for key in keys_with(redis, ":owned:") {
        redis.ask(&["HSET", &key, "garbage", "x", "-", "|", "#n", "many", "#d", "1e400"]);
    }
    redis.ask(&["ZADD", "holdfast:{m}:instances", "inf", "garbage", "-inf", "web9.x", "1e300", "", "0", &nobody]);
    for at in 0..3 {
        for to in [json!({"userId": "ann"}), json!({"storeId": "s"}), json!({"roomId": "r"})] {
            let sent = fleet.sends(at, to.clone(), at).await;
            assert_eq!((sent.status, &sent.json()["delivered"]), (200, &json!(1)), "{to}: {}", sent.text());
            assert_eq!(client.hears().await["data"], at);
        }
        let shown = fleet[at].get("/api/debug/sockets").await.json();
        assert_eq!(shown["sockets"]["ids"], json!([client.id]));
        assert_eq!(fleet.incarnations(at).await.len(), 3);
        let listed: Value = fleet[at].get("/api/users/ann").await.json();
        assert_eq!(listed["count"], 1, "{listed}");
    }
    let mut second = fleet[1].greeted("/ws?user_id=ann&client_id=second").await;
    client.heard_all().await;
    second.heard_all().await;
    fleet.is_sound().await;
}
