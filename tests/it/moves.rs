//! Sockets that a caller puts into rooms and takes out again.

use crate::{asking::texts, fleet::Fleet, gateway::Gateway, http::Request, patience::eventually, raw::Raw};
use serde_json::json;
use servers::Server;
use std::time::Duration;
use tokio::time::sleep;

fn moves(gateway: &Gateway, method: &str, id: &str, room: &str) -> Request {
    gateway.request(method, &format!("/api/sockets/{id}/rooms/{room}"))
}

async fn done(ask: Request) {
    let answer = ask.await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// The rooms that a socket is shown in, which are those whose messages it gets.
async fn rooms(gateway: &Gateway, id: &str) -> Vec<String> {
    let shown = gateway.get(&format!("/api/sockets/{id}")).await.json();
    texts(&shown["rooms"]).into_iter().map(str::to_owned).collect()
}

async fn reached(gateway: &Gateway, room: &str) -> u64 {
    let receipt = gateway.post("/api/send", &json!({ "roomId": room, "data": room })).await.json();
    receipt["delivered"].as_u64().unwrap()
}

#[tokio::test]
async fn whoever_is_put_into_a_room_is_reached_there_until_it_is_taken_out() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?room_id=first").await;
    let id = client.id.clone();
    for _ in 0..2 {
        done(moves(&gateway, "PUT", &id, "a%2Fb")).await;
        assert_eq!(rooms(&gateway, &id).await, ["first", "a/b"]);
    }
    let shown = gateway.get("/api/rooms/a%2Fb").await.json();
    assert_eq!((&shown["sockets"][0]["socketId"], shown["sockets"].as_array().map(Vec::len)), (&json!(id), Some(1)));
    assert_eq!(reached(&gateway, "a/b").await, 1);
    assert_eq!(client.hears_text().await, r#"{"type":"message","data":"a/b"}"#);
    for room in ["a%2Fb", "a%2Fb", "never"] {
        done(moves(&gateway, "DELETE", &id, room)).await;
        assert_eq!(rooms(&gateway, &id).await, ["first"]);
    }
    assert_eq!((reached(&gateway, "a/b").await, reached(&gateway, "first").await), (0, 1));
    assert_eq!(client.hears_text().await, r#"{"type":"message","data":"first"}"#);
}

/// In a room it was put into, a client is a member like any other.
#[tokio::test]
async fn whoever_is_put_into_a_room_may_publish_there() {
    let gateway = Gateway::start().await;
    let mut member = gateway.greeted("/ws?room_id=r").await;
    let mut moved = gateway.greeted("/ws").await;
    done(moves(&gateway, "PUT", &moved.id, "r")).await;
    moved.says(r#"{"type":"publish","room":"r","data":1}"#).await;
    assert_eq!(member.hears().await["from"], moved.id.as_str());
    done(moves(&gateway, "DELETE", &moved.id, "r")).await;
    moved.says(r#"{"type":"publish","room":"r","data":2}"#).await;
    assert_eq!(moved.hears().await["code"], "not_in_room");
    member.heard_all().await;
}

#[tokio::test]
async fn callers_do_not_get_around_the_end_of_rooms() {
    let gateway = Gateway::with([("MAX_ROOMS", "2")]).await;
    let client = gateway.greeted("/ws?room_id=a&room_id=b").await;
    let refused = moves(&gateway, "PUT", &client.id, "c").await;
    assert!((400..500).contains(&refused.status) && refused.text().contains("MAX_ROOMS"), "{}", refused.text());
    refused.is_problem();
    done(moves(&gateway, "PUT", &client.id, "a")).await;
    done(moves(&gateway, "DELETE", &client.id, "a")).await;
    done(moves(&gateway, "PUT", &client.id, "c")).await;
    assert_eq!(rooms(&gateway, &client.id).await, ["b", "c"]);
}

#[tokio::test]
async fn what_is_no_room_is_refused_by_name() {
    let gateway = Gateway::start().await;
    let client = gateway.greeted("/ws").await;
    for method in ["PUT", "DELETE"] {
        for bad in ["%20", "%00", "%7Broom%7D", "undefined", &"x".repeat(257)] {
            let answer = moves(&gateway, method, &client.id, bad).await;
            assert_eq!(answer.status, 400, "{method} {bad}: {}", answer.text());
            answer.is_problem();
        }
    }
    assert!(rooms(&gateway, &client.id).await.is_empty());
}

/// Checklist 206.
#[tokio::test]
async fn a_socket_that_is_not_there_is_moved_nowhere_and_the_verdict_says_why() {
    let gateway = Gateway::start().await;
    let client = gateway.greeted("/ws").await;
    let id = client.id.clone();
    client.leaves().await;
    gateway.verdict(&id).await;
    for method in ["PUT", "DELETE"] {
        let never = moves(&gateway, method, "ws_123", "r").await;
        assert_eq!((never.status, &never.json()["code"]), (404, &json!("socket_never_seen")));
        let gone = moves(&gateway, method, &id, "r").await;
        assert_eq!((gone.status, &gone.json()["verdict"]["cause"]), (410, &json!("client_closed")));
        assert_eq!(gone.json()["action"], "reconnect");
    }
    assert_eq!(gateway.get("/api/rooms/r").await.json()["sockets"], json!([]));
}

/// Hyper forgets a request whose caller is gone. What the socket says of itself is the same everywhere all the same.
#[tokio::test]
async fn a_caller_who_hangs_up_leaves_a_move_whole_or_undone() {
    let server = Server::start();
    let fleet = Fleet::on(&server.url(), &[("MAX_ROOMS", "1000"), ("RATE_MESSAGES", "off")]).await;
    let mut client = fleet.gateway(0).greeted("/ws").await;
    for round in 0..150 {
        let path = format!("/api/sockets/{}/rooms/r{}", client.id, round % 10);
        let verb = if round % 3 == 0 { "DELETE" } else { "PUT" };
        let mut caller = Raw::connect(fleet.gateway(round % 2).address()).await;
        caller.write(format!("{verb} {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await;
        client.says(json!({ "type": "join", "room": format!("own{round}") }).to_string()).await;
        sleep(Duration::from_micros(10 * round as u64)).await;
        drop(caller);
    }
    for _ in 0..150 {
        assert_eq!(client.hears().await["type"], "joined");
    }
    let here = eventually("all say the same", async || {
        let mut seen = [Vec::new(), Vec::new(), Vec::new()];
        for (at, rooms_seen) in seen.iter_mut().enumerate() {
            *rooms_seen = rooms(fleet.gateway(at), &client.id).await;
        }
        (seen[0] == seen[1] && seen[1] == seen[2]).then(|| seen[0].clone())
    })
    .await;
    assert_eq!(here.iter().filter(|room| room.starts_with("own")).count(), 150, "{here:?}");
    for room in (0..10).map(|nth| format!("r{nth}")) {
        let members = u64::from(here.contains(&room));
        assert_eq!(reached(fleet.gateway(2), &room).await, members, "{room} of {here:?}");
    }
    fleet.is_sound().await;
}
