//! The path of a request, and HTTP on one instance about sockets of another: two in one process,
//! over one registry in memory.

use super::*;
use crate::{
    auth::Auth,
    config::{self, LogFormat, sources::Environment},
    courier::{
        Courier,
        tests::{client_of, deaf, enter, memory},
    },
    gateway,
    hooks::Hooks,
    listener::Listener,
    log::Log,
    manager::Manager,
};
use registry::{Errand, Hashed, Memory, Once, Outcome, Registry};
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Checklist 108, 143.
#[tokio::test]
async fn a_panic_is_a_500_with_its_request_id_and_no_more() {
    let answer = caught(async { panic!("as asked") }.boxed(), "r_1").await;
    let problem = answer.err().unwrap();
    assert_eq!((problem.status, &*problem.code), (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"));
    assert!(!problem.clone().json("r_1").to_string().contains("as asked"));
    assert_eq!(problem.json("r_1")["requestId"], "r_1");
}

/// An instance that serves for as long as this lives.
struct Instance {
    address: SocketAddr,
    courier: Courier,
    _running: AbortOnDropHandle<()>,
}

impl Instance {
    fn start(memory: &Arc<Memory>, name: &str) -> Self {
        let flags = [("PORT", "0"), ("INSTANCE", name)].map(|(name, value)| (name.into(), value.into())).into();
        let config = config::read(&flags, None, &Environment::new()).config.unwrap();
        let listener = Listener::bind("127.0.0.1", 0).unwrap();
        let address = listener.address;
        let (registry, inbox) = Registry::in_memory(memory, gateway::about(&config, &listener, &Manager::default()));
        let auth = Auth::new(config.auth, None, None, None, registry.clone());
        let gateway =
            Gateway::new(config, &Log::start(LogFormat::Text, "off"), registry, Arc::default(), auth, Hooks::default());
        let courier = gateway.courier.clone();
        let never = CancellationToken::new();
        let running = tokio::spawn(async move { gateway.run(listener, inbox, never).await.unwrap() });
        Self { address, courier, _running: AbortOnDropHandle::new(running) }
    }

    async fn asks(&self, line: &str, body: &Value) -> (u16, Value) {
        self.asks_with("", line, body).await
    }

    /// With more headers, each with its end.
    async fn asks_with(&self, headers: &str, line: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "{line} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    async fn gets(&self, path: &str) -> (u16, Value) {
        self.asks(&format!("GET {path}"), &Value::Null).await
    }
}

#[tokio::test]
async fn a_socket_is_seen_reached_and_ended_from_every_instance() {
    let memory = memory();
    let (web1, web2) = (Instance::start(&memory, "web1"), Instance::start(&memory, "web2"));
    let (near, far) = (enter(&web1.courier, &["r"]).await, enter(&web2.courier, &["r"]).await);
    let (_client, _serving) = client_of(&far);
    let id = far.socket.id.to_string();

    let (status, shown) = web1.gets(&format!("/api/sockets/{id}")).await;
    assert_eq!((status, &shown["instance"], &shown["lastActivity"]), (200, &json!("web2"), &Value::Null));

    let (status, sent) = web1.asks("POST /api/send", &json!({"socketId": id, "data": 1})).await;
    assert_eq!((status, &sent["status"], &sent["instances"]), (200, &json!("delivered"), &json!(1)), "{sent}");
    let (_, sent) = web1.asks("POST /api/rooms/r/send", &json!({})).await;
    assert_eq!((&sent["delivered"], &sent["unknown"], &sent["instances"]), (&json!(2), &json!(0), &json!(2)), "{sent}");

    let (_, room) = web1.gets("/api/rooms/r").await;
    assert_eq!((&room["count"], &room["missing"]), (&json!(2), &json!([])), "{room}");
    assert!(room["sockets"][1]["socketId"] == id && room["sockets"][1]["lastActivity"].is_u64(), "{room}");
    let (_, list) = web1.gets("/api/sockets?room=r&instance=web2").await;
    assert_eq!((&list["count"], &list["sockets"][0]["socketId"]), (&json!(1), &json!(id)), "{list}");
    let (_, fleet) = web1.gets("/api/debug/sockets").await;
    assert_eq!(fleet["sockets"]["ids"], json!([near.socket.id.to_string(), id]));
    let (_, local) = web1.gets("/api/debug/sockets?scope=local").await;
    assert_eq!(local["sockets"]["ids"], json!([near.socket.id.to_string()]));

    let (status, _) = web1.asks(&format!("PUT /api/sockets/{id}/rooms/q"), &Value::Null).await;
    assert_eq!((status, web1.gets("/api/rooms/q").await.1["count"].as_u64()), (200, Some(1)));
    let (status, closed) = web1.asks(&format!("DELETE /api/sockets/{id}?reason=spam"), &Value::Null).await;
    assert_eq!((status, &closed["reason"]), (200, &json!("kicked: spam")), "{closed}");
    let (status, gone) = web1.gets(&format!("/api/sockets/{id}")).await;
    assert_eq!((status, &gone["verdict"]["cause"]), (410, &json!("kicked")), "{gone}");
}

#[tokio::test]
async fn an_owner_that_says_nothing_is_never_called_offline() {
    let memory = memory();
    let web1 = Instance::start(&memory, "web1");
    let (silent, _unread) = deaf(&memory, "web2");
    let far = enter(&silent.courier, &["r"]).await;
    let to = |id: &str| json!({"socketId": id, "timeoutMs": 100});
    let id = far.socket.id.to_string();

    let (status, problem) = web1.asks("POST /api/send", &to(&id)).await;
    assert_eq!((status, &problem["code"], &problem["delivered"]), (504, &json!("no_reply"), &json!("unknown")));
    let (status, sent) = web1.asks("POST /api/rooms/r/send", &json!({"timeoutMs": 100})).await;
    assert_eq!((status, &sent["status"], &sent["unknown"]), (200, &json!("partial"), &json!(1)), "{sent}");

    let began = Instant::now();
    let (_, batch) = web1.asks("POST /api/send/batch", &json!({"messages": vec![to(&id); 100]})).await;
    assert!(began.elapsed() < Duration::from_secs(3), "each had its own time: {:?}", began.elapsed());
    let delivered = batch["results"].as_array().unwrap().iter().map(|result| &result["delivered"]);
    assert!(delivered.skip(1).all(|delivered| *delivered == false), "what was not sent is known not to be");

    silent.courier.registry.retire().await;
    let (status, problem) = web1.asks("POST /api/send", &to(&id)).await;
    assert_eq!((status, &problem["code"]), (503, &json!("owner_unreachable")), "{problem}");
}

/// What it waits for an earlier one with its key is of its own time.
#[tokio::test]
async fn a_send_with_a_key_takes_its_time_once() {
    let memory = memory();
    let web1 = Instance::start(&memory, "web1");
    let (silent, _unread) = deaf(&memory, "web2");
    let far = enter(&silent.courier, &[]).await;
    let body = json!({"socketId": far.socket.id.to_string(), "timeoutMs": 1000});
    let registry = &silent.courier.registry;
    let (key, hash) = (Hashed::of(&[b"", b"/api/send", b"k"]), Hashed::of(&[body.to_string().as_bytes()]));
    let earlier = Errand::new(key, hash, registry.incarnation(), registry.now_ms() + 60_000);
    assert!(matches!(registry.take_on(&earlier).await, Ok(Once::Ours)));

    let began = Instant::now();
    let refused = async {
        tokio::time::sleep(Duration::from_millis(600)).await;
        registry.settle(&earlier.ticket, &Outcome::Nothing).await
    };
    let sent = web1.asks_with("Idempotency-Key: k\r\n", "POST /api/send", &body);
    let ((status, problem), _) = tokio::join!(sent, refused);
    assert_eq!((status, &problem["delivered"]), (504, &json!("unknown")), "{problem}");
    assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
}
