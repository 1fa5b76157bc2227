//! The files of `nginx/`, each with a real nginx and real gateways behind it: what goes through, what is kept out, whom
//! a client meets.

use crate::{
    client::Client,
    fleet::Fleet,
    gateway::Gateway,
    http::{Answer, Request},
    nginx::{MAIN, Nginx, TOKEN, kit, own, tried},
    patience::{eventually, soon},
    raw::Raw,
};
use futures_util::{StreamExt, future::join_all};
use rustix::process::Signal;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::client_async;

/// What may stand in no log.
const SECRET: &str = "s3cret-in-a-query";

/// Checklist 278: the server takes each of them as it is.
#[test]
fn nginx_takes_every_file() {
    let files = kit(".conf");
    assert!(files.len() >= 7, "{files:?}");
    for (name, _) in files {
        let said = tried(&name);
        let words = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success() && words.contains("test is successful"), "{name}: {words}");
        assert!(!words.contains("[warn]"), "{name}: {words}");
    }
}

/// Who reads one has read the other.
#[test]
fn the_main_file_is_in_one_piece_what_the_others_include() {
    fn directives(text: &str) -> Vec<&str> {
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
    }
    let files = kit("");
    let main = &files.iter().find(|(name, _)| name == MAIN).unwrap().1;
    let main = directives(main);
    for (name, text) in files.iter().filter(|(name, _)| name.ends_with(".inc")) {
        let text = text.replace("$holdfast_pool", "holdfast");
        let included = directives(&text);
        let is_there = main.windows(included.len()).any(|window| window == included);
        assert!(is_there, "holdfast.conf does not have the lines of {name} as they are");
    }
    // Nor does the one that has places of its own say anything else in them.
    let text = |name: &str| &files.iter().find(|(known, _)| known == name).unwrap().1;
    let below =
        text("subpath.conf").replace("location ~ ^/gw", "location ~ ^").replace("location /gw/ {", "location / {");
    let below: Vec<_> = directives(&below).into_iter().filter(|line| !line.starts_with("rewrite ^/gw")).collect();
    let included = text("holdfast-locations.inc").replace("$holdfast_pool", "holdfast");
    let included = directives(&included);
    let is_there = below.windows(included.len()).any(|window| window == included);
    assert!(is_there, "subpath.conf does not have the lines of holdfast-locations.inc below /gw");
}

/// Somebody outside: at an address that nothing is allowed to.
pub async fn stranger(at: SocketAddr, request: Request) -> Answer {
    let mut raw = Raw::connect_from([127, 0, 0, 2], at).await;
    raw.write(&request.bytes()).await;
    raw.answer().await
}

/// The instance that lets a client in.
async fn lets_in(at: SocketAddr, target: &str) -> String {
    lets_in_from([127, 0, 0, 1], at, target).await
}

/// The same, for one who comes from this address.
async fn lets_in_from(from: [u8; 4], at: SocketAddr, target: &str) -> String {
    let mut raw = Raw::connect_from(from, at).await;
    raw.write(&Request::knock(at, target).bytes()).await;
    let answer = raw.answer().await;
    assert_eq!(answer.status, 101, "{target}: {}", answer.text());
    answer.header("X-Holdfast-Instance").unwrap().to_owned()
}

async fn answers(client: &mut Client, at: SocketAddr, prefix: &str, call: &Value) {
    let asking = tokio::spawn(own(at, "POST", &format!("{prefix}/api/call")).json(call).into_future());
    let asked = client.hears().await;
    client.says(json!({"type": "reply", "callId": asked["callId"], "data": 7}).to_string()).await;
    let answer = asking.await.unwrap();
    assert_eq!((answer.status, &answer.json()["result"]), (200, &json!(7)), "{}", answer.text());
}

/// What every proxy has to do. `refuses`: what it says to whoever is kept out.
pub async fn carries(gateway: &Gateway, at: SocketAddr, prefix: &str, refuses: &[u16]) {
    let own = |method: &str, target: &str| own(at, method, &format!("{prefix}{target}"));

    // Who somebody is, no client says by a header.
    let target = format!("{prefix}/ws?user_id=ann&store_id=shop&ticket={SECRET}");
    let headers = [("X-User-ID", "boss"), ("X-Store-ID", "bank"), ("X-Room-ID", "vault")];
    let mut client = Client::open(at, &target, &headers).await;
    client.is_greeted().await;
    let known = gateway.get(&format!("/api/sockets/{}", client.id)).await.json();
    assert_eq!((&known["userId"], &known["storeId"], &known["rooms"]), (&json!("ann"), &json!("shop"), &json!([])));
    answers(&mut client, at, prefix, &json!({"storeId": "shop", "event": "x"})).await;

    // Each event is here before the next is sent.
    let mut stream = own("GET", "/sse/stream?user_id=listener").streams().await;
    let id = stream.hears("hi").await["socketId"].clone();
    stream.hears("reset").await;
    for n in 0..3 {
        let sent = own("POST", "/api/send").json(&json!({"socketId": id, "event": "news", "data": n})).await;
        assert_eq!(sent.json()["status"], "delivered", "{}", sent.text());
        assert_eq!(stream.hears("news").await["data"], n);
    }

    // What is for the team's own servers is for nobody else, not even with the token.
    for target in [
        "/api/call",
        "/api/sockets",
        "/api/debug/sockets",
        "/sse/push",
        "/metrics",
        "/__ws/api/call",
        "/__ws/metrics",
        "//api/call",
        "/%61pi/call",
        "/x/../api/call",
        "/api/handshake/x",
        "/api/users/..%2f..%2fws",
        "/api/users/..%2f..%2fhealth",
        "/api/sockets/x/..%2F%2e%2e/../ws",
    ] {
        let answer = stranger(at, own("GET", target)).await;
        assert!(refuses.contains(&answer.status), "{target}: {answer:?}");
    }
    for target in ["/api/handshake?path=/ws", "/api/auth/session", "/health", "/health/live", "/openapi.json", "/"] {
        let answer = stranger(at, Request::new(at, "GET", &format!("{prefix}{target}"))).await;
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    }
    assert_eq!(stranger(at, Request::knock(at, &format!("{prefix}/ws/AB12C?key={SECRET}"))).await.status, 101);
    client.leaves().await;
}

/// What nginx writes down of that, when the connections have ended.
async fn writes_no_secrets(nginx: &Nginx) {
    eventually("the log has both", async || (nginx.logs().matches("HTTP/1.1\" 101 ").count() >= 2).then_some(())).await;
    let logs = nginx.logs();
    assert!(!logs.contains(SECRET) && !logs.contains("user_id"), "{logs}");
    assert!(logs.contains("/ws HTTP/1.1\" 101 ") && logs.contains(" r_"), "{logs}");
}

/// Checklist 169 (headers that name somebody are not forwarded), 212, 225, 278, 280.
#[tokio::test]
async fn every_file_lets_in_calls_and_streams_and_keeps_out_strangers() {
    let fleet = Fleet::with(&[TOKEN]).await;
    let gateways = [0, 1, 2].map(|at| fleet[at].address());
    for (file, prefix) in [
        (MAIN, ""),
        ("ip_hash.conf", ""),
        ("room_hash.conf", ""),
        ("canary.conf", ""),
        ("cloudflare.conf", ""),
        ("subpath.conf", "/gw"),
    ] {
        let nginx = Nginx::with(file, &gateways).await;
        carries(&fleet[0], nginx.address, prefix, &[400, 403]).await;
        let kept_out = stranger(nginx.address, own(nginx.address, "GET", &format!("{prefix}/api/call"))).await;
        assert_eq!((kept_out.status, &kept_out.json()["error"]), (403, &json!("Closed to the outside")));
        writes_no_secrets(&nginx).await;
    }
    fleet.is_sound().await;
}

/// A client that trusts the authority of this nginx, over TLS.
#[tokio::test]
async fn tls_ends_at_nginx_and_plain_http_is_sent_there() {
    let gateway = Gateway::with([TOKEN]).await;
    let nginx = Nginx::with("tls.conf", &[gateway.address()]).await;
    let authority = std::fs::read(nginx.file().with_file_name("authority.pem")).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&authority).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let tls: TlsConnector = Arc::new(config.with_no_client_auth()).into();
    let tcp = TcpStream::connect(nginx.address).await.unwrap();
    let stream = tls.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap();
    let opening = client_async(format!("wss://{}/ws?user_id=ann", nginx.address), stream);
    let (mut socket, answer) = soon("it is let in", Box::pin(opening)).await.unwrap();
    assert!(answer.headers().contains_key("x-holdfast-instance"));
    let hi = soon("it is greeted", socket.next()).await.unwrap().unwrap().into_text().unwrap();
    assert!(hi.contains(r#""evt":"hi""#), "{hi}");

    let plain = SocketAddr::from(([127, 0, 0, 2], nginx.address.port()));
    let sent = Request::new(plain, "GET", "/ws?user_id=ann").but("Host", "example.com").await;
    assert_eq!((sent.status, sent.header("Location")), (301, Some("https://example.com/ws?user_id=ann")));
}

/// CF-Connecting-IP counts of Cloudflare's networks, and of nobody else.
#[tokio::test]
async fn behind_cloudflare_the_address_is_the_clients() {
    let mut gateway = Gateway::with([TOKEN]).await;
    let here = |text: &str| text.replace("set_real_ip_from 173.245.48.0/20;", "set_real_ip_from 127.0.0.0/8;");
    for (nginx, named, address) in [
        (Nginx::changed("cloudflare.conf", &[gateway.address()], here).await, "198.51.100.7", "198.51.100.7"),
        (Nginx::with("cloudflare.conf", &[gateway.address()]).await, "198.51.100.8", "127.0.0.1"),
    ] {
        let knock = Request::knock(nginx.address, "/ws?user_id=ann").with("CF-Connecting-IP", named);
        let mut raw = Raw::connect(nginx.address).await;
        raw.write(&knock.bytes()).await;
        assert_eq!(raw.answer().await.status, 101);
        let id = raw.is_greeted().await["socketId"].as_str().unwrap().to_owned();
        let opened = gateway.logs(&["WebSocket opened", &id]).await;
        assert!(opened.contains(&format!("address=\"{address}\"")), "{named}: {opened}");
        // So no visitor passes for one of the team.
        let passes = own(nginx.address, "GET", "/api/sockets").with("CF-Connecting-IP", named).await;
        assert_eq!(passes.status, if address == named { 403 } else { 200 }, "{}", passes.text());
    }
}

/// How often each instance lets in who asks for these targets.
async fn spread(at: SocketAddr, targets: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let targets: Vec<_> = targets.collect();
    let mut counts = BTreeMap::new();
    for instance in join_all(targets.iter().map(|target| lets_in(at, target))).await {
        *counts.entry(instance).or_default() += 1;
    }
    counts
}

/// Checklist 42, 212: whom a client meets is a wish; whoever is gone, or going, keeps nobody out.
#[tokio::test]
async fn addresses_rooms_and_canaries_find_the_same_instance_while_it_is_there() {
    let mut fleet = Fleet::with(&[TOKEN]).await;
    let gateways = [0, 1, 2].map(|at| fleet[at].address());
    let [any, by_address, by_room, canary] =
        [MAIN, "ip_hash.conf", "room_hash.conf", "canary.conf"].map(|file| Nginx::with(file, &gateways));
    let (any, by_address, by_room, canary) = (any.await, by_address.await, by_room.await, canary.await);
    let users = |count: usize| (0..count).map(|n| format!("/ws?user_id=u{n}"));

    assert_eq!(spread(any.address, users(30)).await.len(), 3, "no client is tied to one");
    let mine = spread(by_address.address, users(20)).await;
    assert_eq!(mine.len(), 1, "{mine:?}");

    let rooms: Vec<_> = (0..20).map(|n| format!("R{n:04}")).collect();
    for room in &rooms[..5] {
        let doors =
            [format!("/websocket?room_id={room}"), format!("/ws/{room}"), format!("/ws?user_id=a&room_id={room}")];
        let met = spread(by_room.address, doors.into_iter()).await;
        assert_eq!(met.len(), 1, "{room}: {met:?}");
    }
    assert_eq!(spread(by_room.address, rooms.iter().map(|room| format!("/ws/{room}"))).await.len(), 3);
    assert_eq!(spread(by_room.address, users(30)).await.len(), 3, "who names no room goes anywhere");

    let few = spread(canary.address, users(200)).await.get("web3").copied().unwrap_or_default();
    assert!((2..=24).contains(&few), "{few} of 200 are 5 %, more or less");
    let mut chosen = Vec::new();
    for target in users(200) {
        if lets_in(canary.address, &target).await == "web3" {
            chosen.push(target);
        }
    }
    assert_eq!(chosen.len(), few, "whoever comes back meets the same again");
    let roams: Vec<_> = (3..12).map(|host| [127, 0, 0, host]).collect();
    for from in roams {
        for target in &chosen {
            let met = lets_in_from(from, canary.address, target).await;
            assert_eq!(met, "web3", "{target} meets another version from {from:?}");
        }
        // Where nobody is named, the address stands for its visitor.
        let is_canary = lets_in_from(from, canary.address, "/ws").await == "web3";
        let again = lets_in_from(from, canary.address, "/ws?store_id=s").await == "web3";
        assert_eq!(is_canary, again, "{from:?}");
    }

    // Without the canary, and without the one that all of an address were at, everybody is let in.
    let gone = [2, mine.keys().next().unwrap()[3..].parse::<usize>().unwrap() - 1];
    for at in gone {
        fleet.kill(at);
    }
    for at in [by_address.address, by_room.address] {
        spread(at, users(10)).await;
    }
    let others = spread(canary.address, chosen.into_iter()).await;
    assert!(!others.contains_key("web3"), "{others:?}");
}

/// The first instance while it leaves: it says 503, and stays for a call that is not answered yet.
pub struct Leaving {
    asked: Client,
    call: Value,
    asking: JoinHandle<Answer>,
}

impl Leaving {
    pub async fn begins(fleet: &Fleet) -> Self {
        let mut asked = fleet[0].greeted("/ws?store_id=slow").await;
        let call = json!({"storeId": "slow", "event": "x", "timeoutMs": 60_000});
        let asking = tokio::spawn(fleet[1].post("/api/call", &call).into_future());
        let call = asked.hears().await;
        fleet[0].signal(Signal::TERM);
        eventually("it drains", async || (fleet[0].knock("/ws").await.status == 503).then_some(())).await;
        Self { asked, call, asking }
    }

    /// It answers, and the instance is gone.
    pub async fn ends(mut self, fleet: &mut Fleet) {
        self.asked.says(json!({"type": "reply", "callId": self.call["callId"], "data": 1}).to_string()).await;
        assert_eq!(self.asking.await.unwrap().status, 200);
        fleet.ends(0).await;
    }
}

/// Checklist 225, 279: a client that comes while an instance leaves notices nothing.
#[tokio::test]
async fn a_handshake_that_a_draining_instance_refuses_is_let_in_by_the_next() {
    let mut fleet = Fleet::with(&[TOKEN, ("DRAIN_TIMEOUT", "20s")]).await;
    let gateways = [0, 1, 2].map(|at| fleet[at].address());
    let nginx = Nginx::before(&gateways).await;
    let strict = Nginx::changed(MAIN, &gateways, |text| text.replace("error timeout http_503", "error timeout")).await;
    let leaving = Leaving::begins(&fleet).await;

    let met = spread(nginx.address, (0..30).map(|n| format!("/ws?user_id=u{n}"))).await;
    assert_eq!(met.keys().collect::<Vec<_>>(), ["web2", "web3"]);
    eventually("the log says that one of them was refused first", async || {
        nginx.logs().contains(": 503, 101 ").then_some(())
    })
    .await;
    let refused = eventually("without that line one is refused", async || {
        Some(Request::knock(strict.address, "/ws?user_id=a").await).filter(|answer| answer.status == 503)
    });
    refused.await.is_problem();

    leaving.ends(&mut fleet).await;
    // Nor does a place where nobody listens keep anybody out, or write down what was asked for.
    spread(nginx.address, (0..10).map(|n| format!("/ws?user_id=u{n}&key={SECRET}"))).await;
    assert!(!nginx.logs().contains(SECRET), "{}", nginx.logs());
}

/// Checklist 128: each hears it once, wherever it was said.
#[tokio::test]
async fn tabs_of_one_room_meet_across_instances() {
    let fleet = Fleet::with(&[TOKEN]).await;
    let nginx = Nginx::before(&[0, 1, 2].map(|at| fleet[at].address())).await;
    let mut tabs = Vec::new();
    for _ in 0..6 {
        let mut tab = Client::open(nginx.address, "/websocket?room_id=test-room", &[]).await;
        tab.is_greeted().await;
        tabs.push(tab);
    }
    let mut held = Vec::new();
    for (_, gateway) in fleet.living() {
        held.push(gateway.sockets().await);
    }
    assert!(held.iter().all(|held| *held > 0), "{held:?}");
    let said = json!({"type": "publish", "room": "test-room", "data": "hello"}).to_string();
    tabs[0].says(said).await;
    let (own, others) = tabs.split_first_mut().unwrap();
    for tab in others {
        let heard = tab.hears().await;
        assert_eq!((&heard["from"], &heard["data"]), (&json!(own.id), &json!("hello")));
        tab.heard_all().await;
    }
    own.heard_all().await;
}

/// Checklist 139: a page of an allowed origin is answered, preflight and all; a stranger's is not.
#[tokio::test]
async fn pages_of_other_origins_are_answered_through_nginx() {
    let gateway = Gateway::with([TOKEN, ("CORS_ORIGINS", "https://app.example.com")]).await;
    let nginx = Nginx::before(&[gateway.address()]).await;
    let asks = |method: &str, origin: &str| {
        let request = Request::new(nginx.address, method, "/api/handshake?path=/ws").with("Origin", origin);
        request.with("Access-Control-Request-Method", "GET").with("Access-Control-Request-Headers", "x-api-key")
    };
    for method in ["OPTIONS", "GET"] {
        let answer = asks(method, "https://app.example.com").await;
        assert!(answer.status < 300, "{method}: {}", answer.text());
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("https://app.example.com"), "{method}");
        assert_eq!(asks(method, "https://evil.example").await.status, 403, "{method}");
    }
    let knock = Request::knock(nginx.address, "/ws");
    assert_eq!(knock.clone().with("Origin", "https://app.example.com").await.status, 101);
    assert_eq!(knock.with("Origin", "https://evil.example").await.status, 403);
}
