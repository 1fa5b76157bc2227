//! The application decides who comes in, and answers what the gateway does not understand.

use crate::{
    application::{Application, Asked, Manner},
    client::Client,
    comebacks::Page,
    gateway::Gateway,
    holdfast::{Holdfast, TempFile},
    http::Answer,
    patience::eventually,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;
use rustix::process::Signal;
use serde_json::{Value, json};
use servers::Papers;
use std::time::Duration;

pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

async fn asking(application: &Application, more: &[(&str, &str)]) -> Gateway {
    let (connect, message) = (application.url("/connect"), application.url("/message"));
    let settings = [("CONNECT_URL", connect.as_str()), ("MESSAGE_URL", &message), ("HOOK_SECRET", SECRET)];
    Gateway::with(settings.into_iter().chain(more.iter().copied())).await
}

/// As a library of Standard Webhooks looks at it.
pub fn is_signed(asked: &Asked) -> bool {
    let header = |name| asked.header(name).unwrap_or_default();
    let signed =
        [format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes(), &asked.body].concat();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap());
    let signature = header("webhook-signature").strip_prefix("v1,").and_then(|text| STANDARD.decode(text).ok());
    signature.is_some_and(|signature| hmac::verify(&key, &signed, &signature).is_ok())
}

/// Checklist 23, 25, 75, 76.
#[tokio::test]
async fn the_application_is_asked_before_a_socket_is_opened() {
    let application = Application::start().await;
    let gateway = asking(&application, &[]).await;
    application.at("/connect", Manner::json(&json!({"state": {"cart": [1, 2]}})));
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let headers = [
        ("X-Forwarded-For", "203.0.113.7"),
        ("User-Agent", "page/1"),
        ("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01")),
    ];
    let target = "/ws?user_id=ann&store_id=s&room_id=a&room_id=b&key=planted&lang=de";
    let mut client = Client::open(gateway.address(), target, &headers).await;
    let hi = client.is_greeted().await;
    assert_eq!(hi["state"], json!({"cart": [1, 2]}));
    let again: Value = serde_json::from_str(&client.asks(r#"{"evt":"hi"}"#).await).unwrap();
    assert_eq!(again["state"], hi["state"]);

    let asked = application.asked("/connect");
    let [asked] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(
        asked.json(),
        json!({
            "socketId": client.id, "userId": "ann", "storeId": "s", "rooms": ["a", "b"],
            "remoteAddr": "203.0.113.7", "userAgent": "page/1",
            "query": {"user_id": "ann", "store_id": "s", "room_id": ["a", "b"], "lang": "de"},
        })
    );
    assert_eq!(asked.method, "POST");
    let expected = [("x-user-id", "ann"), ("x-store-id", "s"), ("x-socket-id", &client.id), ("x-room-id", "a")];
    for (name, value) in expected {
        assert_eq!(asked.header(name), Some(value), "{}", asked.head());
    }
    assert!(asked.head().contains("x-room-id: b"), "{}", asked.head());
    let parent = asked.header("traceparent").unwrap();
    assert!(parent.contains(trace) && !parent.contains("00f067aa0ba902b7"), "{parent}");
    assert!(is_signed(asked), "{}", asked.head());
    assert!(!gateway.stop().await.contains("planted"));
}

#[tokio::test]
async fn the_application_may_say_who_it_is_and_where_it_belongs() {
    let application = Application::start().await;
    let keys = TempFile::holding(r#"{"keys": {}}"#);
    let add = ["keys", "add", "--user", "ann", "--room", "r"];
    let key = Holdfast::command(&add).env("API_KEYS_FILE", keys.path()).run().await.stdout.trim().to_owned();
    let gateway = asking(&application, &[("AUTH", "keys"), ("API_KEYS_FILE", keys.path())]).await;
    let open = async |query: &str, says: Value| {
        application.at("/connect", Manner::json(&says));
        Client::open(gateway.address(), &format!("/ws?key={key}{query}"), &[]).await
    };
    let mut client = open("", json!({"userId": 7, "storeId": "s", "stores": ["t"], "rooms": ["lobby", "lobby"]})).await;
    client.is_greeted().await;
    let record = gateway.get(&format!("/api/sockets/{}", client.id)).await.json();
    assert_eq!(
        (&record["userId"], &record["storeId"], &record["rooms"]),
        (&json!("7"), &json!("s"), &json!(["lobby"]))
    );
    let select = |store: &str| json!({"type": "selectStore", "data": {"storeId": store}}).to_string();
    assert!(client.asks(select("t")).await.contains("storeSelected"));
    assert!(client.asks(select("u")).await.contains("forbidden"));
    // What the key grants it still may; that a key says something else than the application is no change of the key.
    assert!(client.asks(r#"{"type":"join","room":"r"}"#).await.contains("joined"));
    assert!(client.asks(r#"{"type":"join","room":"q"}"#).await.contains("forbidden"));
    let keys_of = async |args: &[&str]| Holdfast::command(args).env("API_KEYS_FILE", keys.path()).run().await.stdout;
    let bob = keys_of(&["keys", "add", "--user", "bob"]).await.trim().to_owned();
    application.at("/connect", Manner::status(200));
    let target = format!("/ws?key={bob}");
    eventually("bob's key counts", async || {
        (gateway.get(&format!("/api/auth/session?key={bob}")).await.status == 200).then_some(())
    })
    .await;
    let mut other = Client::open(gateway.address(), &target, &[]).await;
    other.is_greeted().await;
    let id = keys_of(&["keys", "list", "--json"]).await;
    let id = serde_json::from_str::<Value>(&id).unwrap();
    let id = id["keys"].as_array().unwrap().iter().find(|key| key["user"] == "bob").unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    keys_of(&["keys", "revoke", &id]).await;
    assert_eq!(other.closed().await.0, 4401);
    client.heard_all().await;
    // A store that the key does not grant, the application may.
    let mut client = open("&store_id=s", json!({"stores": ["s"]})).await;
    client.is_greeted().await;
    application.at("/connect", Manner::json(&json!({"stores": ["t"]})));
    gateway.knock(&format!("/ws?store_id=s&key={key}")).await.refuses(403, "Not your store");
    application.at("/connect", Manner::status(204));
    gateway.knock(&format!("/ws?store_id=s&key={key}")).await.refuses(403, "Not your store");
}

/// Checklist 22, 26, 28.
#[tokio::test]
async fn a_refusal_and_a_failure_are_told_apart_and_nobody_is_half_in() {
    let application = Application::start().await;
    let gateway = asking(&application, &[("HOOK_TIMEOUT", "500ms"), ("MAX_ROOMS", "3")]).await;
    let json = |text: &str| Manner::Says(200, "", text.into());
    for status in [401, 403] {
        application.at("/connect", Manner::Says(status, "X-Planted: 1\r\n", "planted".into()));
        let answer: Answer = gateway.knock("/ws").await;
        answer.refuses(403, "Refused by the application");
        assert!(!answer.text().contains("planted") && answer.header("X-Planted").is_none());
    }
    let mut client = gateway.connect("/ws?reject=close").await;
    assert_eq!(client.closed().await, (1008, "Refused by the application".to_owned()));
    let failures = [
        Manner::status(500),
        Manner::status(404),
        Manner::Says(307, "Location: /connect\r\n", String::new()),
        Manner::Says(101, "Connection: Upgrade\r\nUpgrade: websocket\r\n", String::new()),
        json("{"),
        json("[]"),
        json(r#"{"state":[]}"#),
        json(r#"{"userId":""}"#),
        json(r#"{"userId":["ann"]}"#),
        json(r#"{"storeId":""}"#),
        json(r#"{"rooms":["a","b","c","d"]}"#),
        json(&format!(r#"{{"state":{{"a":"{}"}}}}"#, "x".repeat(70_000))),
        Manner::Floods(10 << 20),
        Manner::Babbles,
        Manner::Breaks,
        Manner::Hangs,
    ];
    let asked = application.asked("/connect").len();
    let count = failures.len();
    for manner in failures {
        application.at("/connect", manner);
        gateway.knock("/ws").await.refuses(503, "Connect hook failed");
        application.at("/connect", Manner::status(403));
        gateway.knock("/ws").await.refuses(403, "Refused by the application");
    }
    assert_eq!(application.asked("/connect").len(), asked + 2 * count);
    application.at("/connect", Manner::status(500));
    let mut client = gateway.connect("/ws?reject=close").await;
    assert_eq!(client.closed().await, (1013, "Connect hook failed".to_owned()));
    assert_eq!(gateway.sockets().await, 0);
    // It is the last that is asked, and not for a rehearsal.
    let asked = application.asked("/connect").len();
    gateway.knock("/websocket").await.refuses(400, "Missing room_id query parameter");
    gateway.get("/ws").await.refuses(426, "Expected Upgrade: websocket");
    assert_eq!(gateway.get("/api/handshake").await.status, 200);
    assert_eq!(application.asked("/connect").len(), asked);
    application.at("/connect", Manner::status(200));
    gateway.greeted("/ws").await;
    gateway.is_unharmed().await;
}

#[tokio::test]
async fn an_application_is_asked_over_tls_if_its_certificate_is_good() {
    let papers = Papers::issue();
    let application = Application::with_tls(&papers).await;
    application.at("/connect", Manner::json(&json!({"state": {"safe": true}})));
    let url = application.url("/connect");
    let authority = TempFile::holding(&papers.authority);
    let gateway = Gateway::with([("CONNECT_URL", url.as_str()), ("SSL_CERT_FILE", authority.path())]).await;
    let mut client = gateway.connect("/ws").await;
    assert_eq!(client.is_greeted().await["state"], json!({"safe": true}));
    // Whom nobody vouches for is not told anything.
    let another = TempFile::holding(&Papers::issue().authority);
    let gateway = Gateway::with([("CONNECT_URL", url.as_str()), ("SSL_CERT_FILE", another.path())]).await;
    gateway.knock("/ws").await.refuses(503, "Connect hook failed");
    assert_eq!(application.asked("/connect").len(), 1);
    let none = TempFile::holding("");
    for command in ["serve", "check"] {
        let finished = Holdfast::command(&[command])
            .env("CONNECT_URL", &url)
            .env("EVENTS_URL", "https://app.test/events")
            .env("SSL_CERT_FILE", none.path())
            .run()
            .await;
        assert_eq!(finished.code, 78, "before any port is bound: {finished:?}");
        for setting in ["CONNECT_URL", "EVENTS_URL"] {
            let line = finished.said().lines().any(|line| line.contains(setting) && line.contains("ca-certificates"));
            assert!(line, "{finished:?}");
        }
    }
}

/// Whoever listens by events comes through the same door.
#[tokio::test]
async fn a_listener_is_asked_about_as_well() {
    let application = Application::start().await;
    let gateway = asking(&application, &[]).await;
    application.at("/connect", Manner::status(403));
    gateway.get("/sse/stream?user_id=ann").await.refuses(403, "Refused by the application");
    application.at("/connect", Manner::json(&json!({"userId": "bob"})));
    let _stream = gateway.get("/sse/stream?user_id=ann").streams().await;
    eventually("bob is there", async || (gateway.get("/api/users/bob").await.status == 200).then_some(())).await;
}

#[tokio::test]
async fn whoever_comes_back_gets_a_fresh_state() {
    let application = Application::start().await;
    let gateway = asking(&application, &[]).await;
    application.at("/connect", Manner::json(&json!({"state": {"n": 1}})));
    let (id, token) = Page::opens(&gateway, "user_id=ann").await.breaks();
    application.at("/connect", Manner::json(&json!({"state": {"n": 2}})));
    let hi = Page::comes(&gateway, "user_id=ann", &token, 0).await.hi;
    assert_eq!((&hi["socketId"], &hi["resumed"], &hi["state"]), (&json!(id), &json!(true), &json!({"n": 2})));
}

#[tokio::test]
async fn requests_and_strange_frames_go_to_the_application() {
    let application = Application::start().await;
    let gateway = asking(&application, &[]).await;
    application.at("/connect", Manner::status(204));
    application.at("/message", Manner::Says(200, "", "{\"total\":\n 3}".into()));
    let mut client = gateway.greeted("/ws?user_id=ann&store_id=s").await;
    let request = r#"{"type":"request","id":"r1","method":"cart.total","params":{"a":1.50}}"#;
    let answer = client.asks(request).await;
    assert_eq!(
        serde_json::from_str::<Value>(&answer).unwrap(),
        json!({"type": "response", "id": "r1", "result": {"total": 3}})
    );
    let asked = application.asked("/message").pop().unwrap();
    let who = json!({"socketId": client.id, "userId": "ann", "storeId": "s"});
    let mut expected = who.clone();
    (expected["id"], expected["method"], expected["params"]) = (json!("r1"), json!("cart.total"), json!({"a": 1.5}));
    assert_eq!(asked.json(), expected);
    assert!(String::from_utf8_lossy(&asked.body).contains(r#""params":{"a":1.50}"#), "it travels untouched");
    assert!(is_signed(&asked));
    assert_eq!((asked.header("x-user-id"), asked.header("x-store-id")), (Some("ann"), Some("s")));

    // A frame whose verb is not known here goes as it is, and is answered in its key when it has an id.
    let answer = client.asks(r#"{"evt":"jump","id":7,"height":1.50}"#).await;
    assert_eq!(
        serde_json::from_str::<Value>(&answer).unwrap(),
        json!({"evt": "response", "id": 7, "result": {"total": 3}})
    );
    let asked = application.asked("/message").pop().unwrap();
    assert_eq!(asked.json()["frame"], json!({"evt": "jump", "id": 7, "height": 1.5}));
    assert!(asked.json().get("method").is_none());
    client.says(r#"{"evt":"jump"}"#).await;
    client.heard_all().await;
    eventually("it was told all the same", async || (application.asked("/message").len() == 3).then_some(())).await;
    client.heard_all().await;
}

#[tokio::test]
async fn an_application_that_fails_costs_an_error_and_no_socket() {
    let application = Application::start().await;
    let gateway = asking(&application, &[("HOOK_TIMEOUT", "500ms")]).await;
    application.at("/connect", Manner::status(204));
    let mut client = gateway.greeted("/ws").await;
    let mut n = 0;
    let mut asks = async |manner: Manner| {
        n += 1;
        application.at("/message", manner);
        let said: Value =
            serde_json::from_str(&client.asks(format!(r#"{{"type":"request","id":{n},"method":"m"}}"#)).await).unwrap();
        assert_eq!(said["id"], n);
        assert_eq!(said["type"], if said["code"].is_null() { "response" } else { "error" });
        (said["code"].clone(), said["result"].clone())
    };
    for manner in [
        Manner::status(500),
        Manner::Says(302, "Location: /message\r\n", String::new()),
        Manner::Says(101, "Connection: Upgrade\r\nUpgrade: websocket\r\n", String::new()),
        Manner::Says(200, "", "<html>".into()),
        Manner::Floods(10 << 20),
        Manner::Babbles,
        Manner::Breaks,
        Manner::Hangs,
    ] {
        assert_eq!(asks(manner).await.0, "hook_failed");
        assert_eq!(asks(Manner::status(403)).await.0, "forbidden");
    }
    assert_eq!(asks(Manner::status(204)).await, (Value::Null, Value::Null));
    assert_eq!(asks(Manner::json(&json!("ok"))).await, (Value::Null, json!("ok")));
    gateway.is_unharmed().await;
}

/// A slow application holds up nothing but what is asked of it, and keeps the order.
#[tokio::test]
async fn messages_go_one_after_another_and_nothing_waits_for_them() {
    let application = Application::start().await;
    let gateway = asking(&application, &[("HOOK_TIMEOUT", "60s")]).await;
    application.at("/connect", Manner::status(204));
    application.at("/message", Manner::Waits);
    let answers = Manner::json(&json!(1));
    let request = |n: usize| format!(r#"{{"type":"request","id":{n},"method":"m"}}"#);
    let asked = || application.asked("/message").len();
    let mut client = gateway.greeted("/ws").await;
    let mut other = gateway.greeted("/ws").await;
    for n in 0..10 {
        client.says(request(n)).await;
    }
    client.says(r#"{"evt":"ping"}"#).await;
    assert_eq!(client.hears_text().await, r#"{"evt":"pong"}"#, "a pong waits for nobody");
    other.says(request(100)).await;
    eventually("another one's is asked beside it", async || (asked() == 2).then_some(())).await;
    other.heard_all().await;
    assert_eq!(asked(), 2, "one of each");
    application.at("/message", answers.clone());
    assert_eq!(other.hears().await["id"], 100);
    for n in 0..10 {
        assert_eq!(client.hears().await["id"], n);
    }
    let order = application.asked("/message").into_iter().map(|asked| asked.json()["id"].as_u64().unwrap());
    let own: Vec<_> = order.filter(|id| *id != 100).collect();
    assert_eq!(own, (0..10).collect::<Vec<_>>());
    // More than may wait are refused at once; those that were taken on are answered.
    application.at("/message", Manner::Waits);
    let burst: Vec<_> = (0..30).map(request).collect();
    client.says(format!("[{}]", burst.join(","))).await;
    client.says(r#"{"evt":"ping"}"#).await;
    let mut refused = Vec::new();
    loop {
        let said = client.hears().await;
        if said["evt"] == "pong" {
            break;
        }
        assert_eq!(said["code"], "too_many", "{said}");
        refused.push(said["id"].as_u64().unwrap());
    }
    // Sixteen wait, and one is asked, as soon as somebody has come to that.
    assert!((13..=14).contains(&refused.len()), "{refused:?}");
    application.at("/message", answers);
    for n in (0..30).filter(|n| !refused.contains(n)) {
        let said = client.hears().await;
        assert_eq!((&said["id"], &said["result"]), (&json!(n), &json!(1)), "{said}");
    }
    client.heard_all().await;
}

/// Checklist 25. A connection is used for one question after the other, until the application has ended it.
#[tokio::test]
async fn questions_share_a_connection_and_none_is_lost_with_it() {
    let application = Application::start().await;
    let gateway = asking(&application, &[]).await;
    application.at("/connect", Manner::status(204));
    application.at("/message", Manner::status(204));
    let mut client = gateway.greeted("/ws").await;
    let mut is_answered = async |n: usize| {
        let said = client.asks(format!(r#"{{"type":"request","id":{n},"method":"m"}}"#)).await;
        assert!(said.contains(r#""type":"response""#), "{n}: {said}");
        let asked = application.asked("/message");
        assert_eq!(asked.len(), n, "each is asked once");
        asked.last().unwrap().connection
    };
    let one = is_answered(1).await;
    for n in 2..=10 {
        assert_eq!(is_answered(n).await, one);
    }
    for n in 0..5 {
        application.at("/message", Manner::Leaves(204));
        let last = is_answered(11 + 2 * n).await;
        eventually("both have parted", async || (application.parted() == n + 1).then_some(())).await;
        application.at("/message", Manner::status(204));
        assert_ne!(is_answered(12 + 2 * n).await, last);
    }
    gateway.is_unharmed().await;
}

/// What a client said before it left is told, and a drain waits for it.
#[tokio::test]
async fn what_was_said_is_told_even_if_its_client_is_gone() {
    let application = Application::start().await;
    let mut gateway = asking(&application, &[]).await;
    application.at("/connect", Manner::status(204));
    // Longer than last words take otherwise.
    application.at("/message", Manner::Slowly(Duration::from_millis(600), 200, "1".into()));
    let mut client = gateway.greeted("/ws").await;
    for n in 0..5 {
        client.says(format!(r#"{{"type":"save","n":{n}}}"#)).await;
    }
    client.heard_all().await;
    drop(client);
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exits().await, 0);
    let told: Vec<_> = application.asked("/message").iter().map(|asked| asked.json()["frame"]["n"].clone()).collect();
    assert_eq!(told, (0..5).map(Value::from).collect::<Vec<_>>());
}

/// Whoever comes back asks on its new connection, and hears the answer there.
#[tokio::test]
async fn who_comes_back_while_the_application_thinks_is_answered() {
    let application = Application::start().await;
    let gateway = asking(&application, &[]).await;
    application.at("/connect", Manner::status(204));
    application.at("/message", Manner::Slowly(Duration::from_millis(300), 200, "1".into()));
    let mut page = Page::opens(&gateway, "user_id=ann").await;
    for id in ["r0", "r1"] {
        page.client.says(format!(r#"{{"type":"request","id":"{id}","method":"m"}}"#)).await;
    }
    page.client.heard_all().await;
    let token = page.breaks().1;
    let mut page = Page::comes(&gateway, "user_id=ann", &token, 0).await;
    assert_eq!(page.hi["resumed"], true);
    let answer = page.client.asks(r#"{"type":"request","id":"r2","method":"m"}"#).await;
    assert!(answer.contains(r#""id":"r2""#), "{answer}");
    let ids: Vec<_> = application.asked("/message").iter().map(|asked| asked.json()["id"].clone()).collect();
    assert_eq!(ids, ["r0", "r1", "r2"]);
}

/// What one client makes of an application is nothing that others hear of.
#[tokio::test]
async fn a_client_with_many_rooms_or_large_answers_harms_nobody_else() {
    let application = Application::start().await;
    let gateway = asking(&application, &[]).await;
    application.at("/connect", Manner::status(204));
    let rooms: String = (0..90).map(|n| format!("&room_id={n}{}", "r".repeat(150))).collect();
    let mut client = gateway.greeted(&format!("/ws?user_id=ann{rooms}")).await;
    let asked = application.asked("/connect").pop().unwrap();
    assert!(asked.head().len() < 4096 && asked.json()["rooms"].as_array().unwrap().len() == 90);
    application.at("/message", Manner::Floods(2 << 20));
    for n in 0..12 {
        let said = client.asks(format!(r#"{{"type":"request","id":{n},"method":"m"}}"#)).await;
        assert!(said.contains("hook_failed") && said.contains("too large"), "{said}");
    }
    application.at("/message", Manner::json(&json!(1)));
    let mut other = gateway.greeted("/ws").await;
    assert!(other.asks(r#"{"type":"request","id":1,"method":"m"}"#).await.contains(r#""result":1"#));
}
