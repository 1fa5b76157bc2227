//! API keys: who comes in with one, under which names, and for how long.

use crate::{
    client::Client,
    fleet::Fleet,
    gateway::Gateway,
    holdfast::{Finished, Holdfast, TempFile},
    http::{Answer, Request},
    patience::eventually,
};
use serde_json::{Value, json};
use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
};

/// A place for keys, and how `holdfast keys` is told of it.
struct Place<'a> {
    setting: (&'a str, &'a str),
}

impl Place<'_> {
    async fn keys(&self, args: &[&str]) -> Finished {
        Holdfast::command(&[&["keys"], args].concat()).env(self.setting.0, self.setting.1).run().await
    }

    /// A new key, and its id.
    async fn add(&self, args: &[&str]) -> (String, String) {
        let finished = self.keys(&[&["add", "--json"], args].concat()).await;
        assert_eq!(finished.code, 0, "{finished:?}");
        let said: Value = serde_json::from_str(&finished.stdout).unwrap();
        (said["key"].as_str().unwrap().to_owned(), said["id"].as_str().unwrap().to_owned())
    }
}

async fn opens(at: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Client {
    let mut client = Client::open(at, target, headers).await;
    client.is_greeted().await;
    client
}

async fn user_of(gateway: &Gateway, client: &Client) -> Value {
    gateway.get(&format!("/api/sockets/{}", client.id)).await.json()["userId"].clone()
}

/// Every door asks the same; so do those that only tell. Each time from another address: whoever is refused too often is
/// not looked at.
async fn refuses_everywhere(gateway: &Gateway, query: &str, header: Option<(&str, &str)>, status: u16, title: &str) {
    static ADDRESS: AtomicU8 = AtomicU8::new(1);
    let address = format!("10.0.0.{}", ADDRESS.fetch_add(1, Ordering::Relaxed));
    let with = |request: Request| {
        let request = request.with("X-Forwarded-For", &address);
        match header {
            Some((name, value)) => request.with(name, value),
            None => request,
        }
    };
    let doors = [
        gateway.knock(&format!("/ws?{query}")),
        gateway.knock(&format!("/connect?{query}")),
        gateway.knock(&format!("/ws/ABC12?{query}")),
        gateway.get(&format!("/api/handshake?path=/ws&{query}")),
        gateway.get(&format!("/api/auth/session?{query}")),
        gateway.get(&format!("/sse/stream?{query}")),
    ];
    for door in doors {
        let answer: Answer = with(door).await;
        answer.refuses(status, title);
        assert_eq!(answer.header("WWW-Authenticate").is_some(), status == 401, "{:?}", answer.headers);
    }
}

/// Checklist 62, 72, 77, 89, 90, 91, 100, 121 to 124, 126.
#[tokio::test]
async fn a_key_says_who_comes_wherever_it_stands() {
    let file = TempFile::holding(r#"{"keys": {}}"#);
    let place = Place { setting: ("API_KEYS_FILE", file.path()) };
    let (key, _) = place.add(&["--user", "ann", "--store", "s"]).await;
    let (old, _) = place.add(&["--user", "old", "--expires", "1ms"]).await;
    let theirs = "nk_0123456789abcdefghij";
    let command =
        Holdfast::command(&["keys", "add", "--user", "bob", "--import"]).env(place.setting.0, place.setting.1);
    assert_eq!(command.typing(theirs).await.code, 0);
    let gateway = Gateway::with([("AUTH", "keys"), place.setting, ("RATE_CONNECT", "off")]).await;
    let bearer = format!("Bearer {key}");
    let offered = format!("chat, bearer.{key}");
    let places = [
        ("X-Nano-Key", key.as_str()),
        ("X-API-Key", &key),
        ("Authorization", &bearer),
        ("Sec-WebSocket-Protocol", &offered),
    ];
    for (name, value) in places {
        let client = opens(gateway.address(), "/ws?user_id=ann&store_id=s&room_id=r", &[(name, value)]).await;
        assert_eq!(user_of(&gateway, &client).await, "ann", "{name}");
        client.leaves().await;
    }
    for (key, user) in [(key.as_str(), "ann"), (theirs, "bob")] {
        // Whoever says to be somebody else is not believed.
        let forged = [("X-User-ID", "root"), ("X-Nano-Key", key)];
        let client = opens(gateway.address(), &format!("/websocket?key={key}&room_id=test"), &forged).await;
        assert_eq!(user_of(&gateway, &client).await, user);
        client.leaves().await;
        // Whoever only listens need not say it either.
        let mut stream = gateway.get(&format!("/sse/stream?key={key}")).streams().await;
        let id = stream.hears("hi").await["socketId"].as_str().unwrap().to_owned();
        assert_eq!(gateway.get(&format!("/api/sockets/{id}")).await.json()["userId"], user);
        drop(stream);
        let told = gateway.get(&format!("/api/auth/session?key={key}")).await.json();
        assert_eq!(
            (&told["authenticated"], &told["auth"], &told["userId"]),
            (&json!(true), &json!("keys"), &json!(user))
        );
    }
    refuses_everywhere(&gateway, "", None, 401, "Unauthorized. Please log in.").await;
    refuses_everywhere(&gateway, "", Some(("X-User-ID", "ann")), 401, "Unauthorized. Please log in.").await;
    refuses_everywhere(&gateway, "key=nk_unknown0123456789", None, 401, "Invalid API key").await;
    refuses_everywhere(&gateway, &format!("key={old}"), None, 401, "API key expired").await;
    // A bad one never falls through to the next.
    refuses_everywhere(&gateway, "key=hf_x&ticket=ht_y", None, 401, "Invalid API key").await;
    refuses_everywhere(&gateway, &format!("key={theirs}"), Some(("X-Nano-Key", &key)), 400, "Conflicting credentials")
        .await;
    for (query, title) in [("user_id=bob", "Not your user_id"), ("store_id=t", "Not your store")] {
        let answer = gateway.knock(&format!("/ws?{query}")).with("X-API-Key", &key).await;
        answer.refuses(403, title);
    }
    let mut told = Client::open(gateway.address(), "/ws?key=hf_x&reject=close", &[]).await;
    assert_eq!(told.closed().await, (1008, "Invalid API key".to_owned()));
    // Nothing of a key stands anywhere.
    let output = gateway.stop().await;
    for secret in [&key, &old, theirs] {
        assert!(!output.contains(&secret[3..15]), "{secret} in {output}");
    }
    assert!(output.contains("Unauthorized access attempt to room: ABC12"), "{output}");
}

#[tokio::test]
async fn a_key_bounds_stores_and_rooms_for_as_long_as_its_socket_lives() {
    let file = TempFile::holding(r#"{"keys": {}}"#);
    let place = Place { setting: ("API_KEYS_FILE", file.path()) };
    let (key, _) = place.add(&["--user", "ann", "--store", "s", "--store", "t", "--room", "a", "--room", "b"]).await;
    let gateway = Gateway::with([("AUTH", "keys"), place.setting]).await;
    gateway.knock(&format!("/ws?key={key}&room_id=a&room_id=c")).await.refuses(403, "Not your room");
    let mut client = opens(gateway.address(), &format!("/ws?key={key}&store_id=s&room_id=a"), &[]).await;
    for (frame, is_allowed) in [
        (json!({"type": "selectStore", "data": {"storeId": "t"}}), true),
        (json!({"type": "selectStore", "data": {"storeId": "u"}}), false),
        (json!({"type": "join", "room": "b"}), true),
        (json!({"type": "join", "room": "c"}), false),
        (json!({"type": "publish", "room": "c", "data": 1}), false),
    ] {
        let said: Value = serde_json::from_str(&client.asks(frame.to_string()).await).unwrap();
        let code = said["code"].as_str();
        assert_eq!(code, (!is_allowed).then_some("forbidden"), "{frame}: {said}");
    }
    let record = gateway.get(&format!("/api/sockets/{}", client.id)).await.json();
    assert_eq!((&record["storeId"], &record["rooms"]), (&json!("t"), &json!(["a", "b"])));
}

/// Checklist 70, 71: on every instance, and nobody else's.
#[tokio::test]
async fn a_key_that_is_revoked_or_over_ends_its_sockets_everywhere() {
    let fleet = Fleet::with(&[("AUTH", "keys"), ("MAX_SOCKETS_PER_USER", "0")]).await;
    let url = fleet.redis().url();
    let place = Place { setting: ("REDIS_URL", &url) };
    let (first, id) = place.add(&["--user", "ann"]).await;
    let (second, other) = place.add(&["--user", "ann", "--expires", "1h"]).await;
    let mut of_first = Vec::new();
    let mut of_second = Vec::new();
    for nth in 0..3 {
        of_first.push(opens(fleet[nth].address(), &format!("/ws?key={first}"), &[]).await);
        of_second.push(opens(fleet[nth].address(), &format!("/ws?key={second}"), &[]).await);
    }
    let revoked = place.keys(&["revoke", &id]).await;
    assert_eq!(revoked.code, 0, "{revoked:?}");
    for mut client in of_first {
        assert_eq!(client.closed().await, (4401, "API key revoked".to_owned()));
        let verdict = fleet[0].verdict(&client.id).await;
        assert_eq!(
            (&verdict["cause"], &verdict["closeCode"]),
            (&json!("credential_expired"), &json!(4401)),
            "{verdict}"
        );
    }
    for nth in 0..3 {
        fleet[nth].knock(&format!("/ws?key={first}")).await.refuses(401, "Invalid API key");
    }
    // Its successor counts at once, and the old one until its time.
    let rotated = place.keys(&["rotate", &other, "--grace", "3s", "--json"]).await;
    let said: Value = serde_json::from_str(&rotated.stdout).expect(&rotated.stderr);
    let mut successor = opens(fleet[1].address(), &format!("/ws?key={}", said["key"].as_str().unwrap()), &[]).await;
    for mut client in of_second {
        assert_eq!(client.closed().await, (4401, "API key expired".to_owned()));
    }
    fleet[2].knock(&format!("/ws?key={second}")).await.refuses(401, "API key expired");
    assert!(successor.asks(r#"{"type":"ping"}"#).await.contains("pong"));
    // What is kept of keys is no key.
    let book = format!("{:?}", fleet.redis().ask(&["HGETALL", "holdfast:{m}:keys"]));
    assert!(!book.contains("hf_") && book.contains("ann"), "{book}");
    fleet.is_sound().await;
}

/// Redis may lose what it holds; that is nobody's decision.
#[tokio::test]
async fn keys_that_redis_has_lost_end_nobody_who_is_here() {
    let mut fleet = Fleet::with(&[("AUTH", "keys")]).await;
    let url = fleet.redis().url();
    let place = Place { setting: ("REDIS_URL", &url) };
    let (key, _) = place.add(&["--user", "ann"]).await;
    let (revoked, id) = place.add(&["--user", "bob"]).await;
    let target = format!("/ws?key={key}");
    let mut client = opens(fleet[0].address(), &target, &[]).await;
    let mut other = opens(fleet[0].address(), &format!("/ws?key={revoked}"), &[]).await;
    assert_eq!(place.keys(&["revoke", &id]).await.code, 0);
    assert_eq!(other.closed().await.0, 4401);
    fleet.redis().ask(&["FLUSHALL"]);
    fleet.gateway_mut(0).logs(&["Redis has lost 1 API keys"]).await;
    eventually("nobody new comes in", async || (fleet[0].knock(&target).await.status == 401).then_some(())).await;
    // What is added later does not end it either.
    for user in ["eve", "kim", "lou"] {
        place.add(&["--user", user]).await;
    }
    fleet.gateway_mut(0).logs(&["3 API keys count"]).await;
    assert!(client.asks(r#"{"type":"ping"}"#).await.contains("pong"));
}

#[tokio::test]
async fn a_file_of_keys_is_read_again_when_it_changes() {
    let file = TempFile::holding(r#"{"keys": {}}"#);
    let place = Place { setting: ("API_KEYS_FILE", file.path()) };
    let mut gateway = Gateway::with([("AUTH", "keys"), place.setting]).await;
    let (key, id) = place.add(&["--user", "ann"]).await;
    eventually("the key counts", async || {
        let answer = gateway.get(&format!("/api/handshake?key={key}")).await;
        (answer.status == 200).then_some(())
    })
    .await;
    let mut client = opens(gateway.address(), &format!("/ws?key={key}"), &[]).await;
    // What cannot be read changes nothing.
    file.rewrite("{");
    gateway.logs(&["the API keys before stay in force"]).await;
    assert!(client.asks(r#"{"type":"ping"}"#).await.contains("pong"));
    file.rewrite(r#"{"keys": {}}"#);
    assert_eq!(client.closed().await, (4401, "API key revoked".to_owned()));
    let revoked = place.keys(&["revoke", &id]).await;
    assert_eq!(revoked.code, 3, "{revoked:?}");
}

#[tokio::test]
async fn a_scope_opens_its_plane_and_no_other() {
    let file = TempFile::holding(r#"{"keys": {}}"#);
    let place = Place { setting: ("API_KEYS_FILE", file.path()) };
    let (connect, _) = place.add(&["--user", "ann"]).await;
    let (call, _) = place.add(&["--user", "shop", "--scope", "call"]).await;
    let (admin, _) = place.add(&["--user", "ops", "--scope", "admin"]).await;
    let gateway =
        Gateway::with([("AUTH", "keys"), place.setting, ("API_TOKEN", "s3cret"), ("ADMIN_TOKEN", "t0psecret")]).await;
    for (key, server, plane) in [(&connect, 401, 401), (&call, 200, 401), (&admin, 200, 200)] {
        for name in ["X-API-Key", "X-Nano-Key"] {
            assert_eq!(gateway.get("/api/sockets").with(name, key).await.status, server, "{name} {key}");
            assert_eq!(gateway.get("/api/debug/sockets").with(name, key).await.status, plane, "{name} {key}");
        }
        // In a header, not in an address that others may see.
        assert_eq!(gateway.get(&format!("/api/sockets?key={key}")).await.status, 401);
    }
    gateway.knock("/ws").with("X-API-Key", &call).await.refuses(403, "Credential without scope connect");
}

#[tokio::test]
async fn a_ticket_lets_one_in_on_any_instance() {
    let fleet = Fleet::with(&[("AUTH", "keys")]).await;
    let wanted = json!({"userId": "ann", "stores": ["s"], "rooms": ["r"]});
    let made = fleet[0].post("/api/tickets", &wanted).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let ticket = made.json()["ticket"].as_str().unwrap().to_owned();
    let target = format!("/ws?ticket={ticket}&store_id=s&room_id=r");
    // Asking about it, and being refused for something else, does not use it up.
    let told = fleet[2].get(&format!("/api/handshake?path=/ws&{}", &target[4..])).await;
    assert_eq!((told.status, &told.json()["userId"]), (200, &json!("ann")), "{}", told.text());
    fleet[0].get(&target).await.refuses(426, "Expected Upgrade: websocket");
    let client = opens(fleet[1].address(), &target, &[]).await;
    assert_eq!(user_of(&fleet[2], &client).await, "ann");
    for nth in 0..3 {
        fleet[nth].knock(&target).await.refuses(401, "Unauthorized. Please log in.");
    }
    let unfit = fleet[0].post("/api/tickets", &json!({"stores": "s"})).await;
    assert_eq!(unfit.status, 422, "{}", unfit.text());
    let open = Gateway::start().await;
    open.post("/api/tickets", &wanted).await.refuses(409, "Nobody wants a ticket");
}

/// Checklist 91.
#[tokio::test]
async fn whoever_tries_keys_is_not_looked_at_for_long() {
    let gateway = Gateway::with([
        ("AUTH", "keys"),
        ("API_KEYS_FILE", "/nonexistent/keys.json"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
    ])
    .await;
    let knocks = |from: &'static str| {
        let gateway = &gateway;
        async move { gateway.knock("/ws?key=nk_guess").with("X-Forwarded-For", from).await }
    };
    eventually("it is too much", async || (knocks("10.0.0.1").await.status == 429).then_some(())).await;
    knocks("10.0.0.2").await.refuses(401, "Invalid API key");
}

#[tokio::test]
async fn what_makes_no_sense_is_said_before_anything_runs() {
    for (settings, part) in [
        (&[("AUTH", "keys")][..], "API_KEYS_FILE"),
        (&[("AUTH", "none,keys")], "none stands alone"),
        (&[("AUTH", "cookies")], "cookies is unknown"),
        (&[("AUTH", ",")], "names nothing"),
        (&[("AUTH", "session")], "session"),
        (&[("AUTH", "jwt")], "JWT_SECRET"),
        (&[("AUTH", "proxy")], "TRUSTED_PROXIES"),
    ] {
        let command = settings.iter().fold(Gateway::command(&[]), |command, (name, value)| command.env(name, value));
        let finished = command.run().await;
        assert_eq!(finished.code, 78, "{settings:?}: {finished:?}");
        assert!(finished.stderr.contains(part), "{settings:?}: {finished:?}");
    }
    let file = TempFile::holding(r#"{"keys": {"nk_plain_key_by_mistake": {"user": "ann"}}}"#);
    let finished = Gateway::command(&[]).env("AUTH", "keys").env("API_KEYS_FILE", file.path()).run().await;
    assert_eq!(finished.code, 78, "{finished:?}");
    assert!(finished.stderr.contains("SHA-256") && !finished.said().contains("nk_plain"), "{finished:?}");
    let nowhere = Holdfast::command(&["keys", "list"]).run().await;
    assert_eq!(nowhere.code, 78, "{nowhere:?}");
    let place = Place { setting: ("API_KEYS_FILE", "/nonexistent/keys.json") };
    for (args, code) in [
        (&["list"][..], 3),
        (&["revoke", "abc"], 3),
        (&["add", "--user", ""], 2),
        (&["add"], 2),
        (&["add", "--user", "u", "--scope", "root"], 2),
        (&["add", "--user", "u"], 1),
    ] {
        let finished = place.keys(args).await;
        assert_eq!(finished.code, code, "{args:?}: {finished:?}");
        assert!(!finished.stderr.is_empty(), "{args:?}: {finished:?}");
    }
}

/// A pipe is a file whose disk answers when it likes.
#[tokio::test]
async fn a_disk_that_does_not_answer_holds_up_neither_clients_nor_the_end() {
    const WITHOUT_WAITING: i32 = 0o4000;
    let file = TempFile::holding(r#"{"keys": {}}"#);
    let place = Place { setting: ("API_KEYS_FILE", file.path()) };
    let (key, _) = place.add(&["--user", "ann"]).await;
    let gateway = Gateway::with([("AUTH", "keys"), place.setting]).await;
    let pipe = format!("{}.pipe", file.path());
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::rename(pipe, file.path()).unwrap();
    // Opens only when somebody reads there, and whoever does waits for as long as it is held.
    let _held = eventually("the gateway reads the file anew", async || {
        fs::OpenOptions::new().write(true).custom_flags(WITHOUT_WAITING).open(file.path()).ok()
    })
    .await;
    let mut client = opens(gateway.address(), "/ws", &[("X-API-Key", &key)]).await;
    assert!(client.asks(r#"{"type":"ping"}"#).await.contains("pong"));
    gateway.stop().await;
}

/// From however many addresses it is shown; and only those that are good count.
#[tokio::test]
async fn a_key_that_knocks_too_often_has_to_wait() {
    let file = TempFile::holding(r#"{"keys": {}}"#);
    let place = Place { setting: ("API_KEYS_FILE", file.path()) };
    let (one, _) = place.add(&["--user", "ann"]).await;
    let (other, _) = place.add(&["--user", "bob"]).await;
    let gateway = Gateway::with([("AUTH", "keys"), place.setting, ("RATE_CONNECT", "1/s")]).await;
    let address = AtomicU8::new(1);
    let check = |key: &str| {
        let from = format!("192.0.2.{}", address.fetch_add(1, Ordering::Relaxed));
        gateway.get("/api/handshake?path=/ws").with("X-API-Key", key).with("X-Forwarded-For", &from)
    };
    let refused = eventually("it is too fast", async || {
        let answer = check(&one).await;
        (answer.status != 200).then_some(answer)
    });
    let refused = refused.await.refuses(429, "Too many connection attempts");
    assert!(refused["hint"].to_string().contains("RATE_CONNECT"), "{refused}");
    assert!(refused["code"] == "too_fast" && !refused.to_string().contains(&one), "{refused}");
    assert_eq!(check(&other).await.status, 200);
    for _ in 0..10 {
        check("nk_0123456789abcdefghij").await.refuses(401, "Invalid API key");
    }
    eventually("it has waited", async || (check(&one).await.status == 200).then_some(())).await;
}
