//! `holdfast doctor`, against real proxies that are set up well, and against one wrong line each.

use crate::{
    application::{Application, Manner},
    client::Client,
    findings::{Found, doctor},
    fleet::Fleet,
    gateway::Gateway,
    holdfast::{Holdfast, TempFile, TempFolder},
    nginx::Nginx,
    patience::{eventually, soon},
    stranger::{Stranger, answers},
    tokens::{SECRET, signed},
};
use futures_util::{SinkExt, StreamExt, future::join_all};
use rustix::process::Signal;
use serde_json::{Value, json};
use servers::{Papers, Server, free_port};
use std::{fs, net::SocketAddr};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use tokio_tungstenite::accept_async;

/// What a location needs, by the README, and one line each that something may be wrong with.
const VERSION: &str = "proxy_http_version 1.1;";
const UPGRADE: &str = "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";";
const HOST: &str = "proxy_set_header Host $http_host;";
const FORWARDED: &str = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;";
const CLEARED: &str =
    "proxy_set_header X-User-ID \"\"; proxy_set_header X-Store-ID \"\"; proxy_set_header X-Room-ID \"\";";
const GOOD: [&str; 5] = [VERSION, UPGRADE, HOST, FORWARDED, CLEARED];
const PAGE: &str = "https://app.example.com";

/// A real nginx with several servers, which differ by a line or two.
struct Proxies {
    _nginx: Nginx,
    at: Vec<SocketAddr>,
}

impl Proxies {
    /// One server for each: what it says beside its address.
    async fn of(gateways: &[SocketAddr], servers: &[String], papers: Option<&Papers>) -> Self {
        let folder = TempFolder::new("doctor");
        let (mut ssl, mut certificate) = ("", "");
        if let Some(papers) = papers {
            fs::write(folder.file("server.crt"), &papers.certificate).unwrap();
            fs::write(folder.file("server.key"), &papers.key).unwrap();
            (ssl, certificate) = (" ssl", "ssl_certificate server.crt; ssl_certificate_key server.key;");
        }
        let at: Vec<SocketAddr> = servers.iter().map(|_| ([127, 0, 0, 1], free_port()).into()).collect();
        let servers: String =
            servers.iter().zip(&at).map(|(lines, at)| format!("server {{ listen {at}{ssl}; {lines} }}\n")).collect();
        let upstream: String = gateways.iter().map(|gateway| format!("server {gateway} max_fails=0; ")).collect();
        let upstream = format!("upstream holdfast {{ zone holdfast 64k; least_conn; {upstream} }}");
        fs::write(folder.file("kit.conf"), format!("{certificate}\n{upstream}\n{servers}")).unwrap();
        // It begins with the first; so that where it listens last it does everywhere.
        Self { _nginx: Nginx::of(folder, *at.last().unwrap()).await, at }
    }

    fn url(&self, nth: usize) -> String {
        format!("http://{}", self.at[nth])
    }
}

/// All of it passed on, with these lines.
fn passing(lines: &[&str]) -> String {
    format!("location / {{ proxy_pass http://holdfast; {} }}", lines.join(" "))
}

/// A good location without one of its lines, and with others.
fn but(without: &str, with: &str) -> String {
    let lines: Vec<_> = GOOD.into_iter().filter(|line| *line != without).chain([with]).collect();
    passing(&lines)
}

/// Checklist 140, 218, 220, 222, 223, 224: a fleet behind a proxy that is set up as it should be. What a proxy keeps to
/// itself is asked of an instance.
#[tokio::test]
async fn a_doctor_finds_nothing_wrong_where_nothing_is() {
    let fleet = Fleet::with(&[("CORS_ORIGINS", PAGE)]).await;
    let gateways: Vec<_> = (0..3).map(|at| fleet[at].address()).collect();
    let one_alone = passing(&GOOD).replace("http://holdfast", &format!("http://{}", gateways[1]));
    let proxies = Proxies::of(&gateways, &[passing(&GOOD), one_alone], None).await;
    let (url, direct) = (proxies.url(0), [0, 1].map(|at| format!("http://{}", gateways[at])));
    let args = [
        &*url,
        "--origin",
        PAGE,
        "--idle",
        "500ms",
        "--instances",
        "3",
        "--direct",
        &direct[0],
        "--direct",
        &direct[1],
    ];
    let found = doctor(&args).await;
    assert_eq!(
        (found.finished.code, &found.report["ok"], found.report["url"].as_str()),
        (0, &json!(true), Some(&*url))
    );
    assert!(found.ill().is_empty() && found.unseen().is_empty(), "{found:?}");
    let (handshake, _) = found.check("handshake");
    for part in ["> Upgrade: websocket", "< HTTP/1.1 101", "x-holdfast-instance: web", "x-request-id: r_"] {
        assert!(handshake.contains(part), "{part} in {handshake}");
    }
    assert!(found.check("instances").0.contains("web1, web2, web3"), "{found:?}");
    assert!(found.check("call").0.contains("answered by a socket on web"), "{found:?}");
    assert!(found.check("redis").0.contains("noeviction"), "{found:?}");
    // A proxy that knows one of them alone keeps the others from their work.
    let found = doctor(&[&proxies.url(1), "--quick", "--direct", &direct[0]]).await;
    assert_eq!((found.finished.code, found.ill()), (1, vec!["instances"]), "{found:?}");
    let (seen, fix) = found.check("instances");
    assert!(seen.contains("never by web1, web3") && fix.contains("upstream holdfast"), "{found:?}");
    // The same for people, who get signs.
    let told = Holdfast::command(&["doctor", &url, "--quick"]).run().await;
    assert!(told.code == 0 && told.stdout.contains("✓ handshake") && told.stdout.contains("– cors"), "{told:?}");
}

/// Checklist 220: after a restart an instance holds fewer sockets than the others, and least_conn sends all that is new
/// to it. A few more are outweighed by sockets that the doctor holds himself; of many it says that nothing can be told.
#[tokio::test]
async fn an_instance_that_came_back_does_not_make_the_others_look_missed() {
    let fleet = Fleet::with(&[]).await;
    let gateways: Vec<_> = (0..3).map(|at| fleet[at].address()).collect();
    let proxies = Proxies::of(&gateways, &[passing(&GOOD)], None).await;
    let (url, direct) = (proxies.url(0), format!("http://{}", gateways[0]));
    let mut here = Vec::new();
    for (many, ok, part) in [(4, json!(true), "all 3 are reached"), (20, Value::Null, "least_conn")] {
        while here.len() < 3 * many {
            let mut client = Client::open(proxies.at[0], "/ws", &[]).await;
            let hi = client.is_greeted().await;
            here.push((client, hi["instance"] == "web3"));
        }
        let (of_web3, others): (Vec<_>, Vec<_>) = here.into_iter().partition(|(_, is_of_web3)| *is_of_web3);
        join_all(of_web3.into_iter().map(|(client, _)| client.leaves())).await;
        here = others;
        eventually("the fleet has heard of it", async || {
            let told = fleet[0].get("/api/instances").await.json();
            let of = |name: &str| {
                told["instances"].as_array()?.iter().find(|one| one["instance"] == name)?["sockets"].as_u64()
            };
            (of("web3")? == 0 && of("web1")? + of("web2")? == here.len() as u64).then_some(())
        })
        .await;
        let looked = doctor(&[&url, "--quick", "--direct", &direct]).await;
        assert_eq!((looked.finished.code, looked.ill()), (0, vec![]), "{looked:?}");
        assert!(looked.named(&ok).contains(&"instances"), "{looked:?}");
        assert!(looked.check("instances").0.contains(part), "{looked:?}");
        assert!(many == 20 || looked.named(&ok).contains(&"call"), "{looked:?}");
    }
}

/// Checklist 140, 141, 223, 225: each fault is named, with the line that mends it, and nothing else is.
#[tokio::test]
async fn each_fault_of_a_proxy_is_named_with_what_mends_it() {
    let gateway = Gateway::with([("INSTANCE", "web1")]).await;
    let address = gateway.address();
    let faults: [(&str, &[&str], &[&str], String); 9] = [
        (
            "handshake",
            &["--quick"],
            &[
                "strips the Upgrade header",
                "proxy_set_header Upgrade $http_upgrade;",
                "proxy_set_header Connection \"upgrade\";",
            ],
            but(UPGRADE, ""),
        ),
        (
            "idle",
            &["--idle", "5s"],
            &["1006", "something in between ends what rests for", "proxy_read_timeout 75s;"],
            but("", "proxy_read_timeout 2s;"),
        ),
        (
            "events",
            &["--quick"],
            &["proxy_buffering off;"],
            format!(
                "location /sse/ {{ proxy_pass http://holdfast; proxy_ignore_headers X-Accel-Buffering; {HOST} {FORWARDED} }} {}",
                passing(&GOOD)
            ),
        ),
        (
            "events",
            &["--quick"],
            &["gzip off;"],
            but("", "gzip on; gzip_types *; gzip_min_length 0; gzip_proxied any;"),
        ),
        (
            "host",
            &["--quick"],
            &["changes Host", "holdfast arrives", "proxy_set_header Host $http_host;"],
            but(HOST, ""),
        ),
        (
            "strangers",
            &["--quick"],
            &["does not hear its Origin", "no proxy_set_header Origin"],
            but("", "proxy_set_header Origin \"\";"),
        ),
        ("identity", &["--quick"], &["X-User-ID", "proxy_set_header X-User-ID \"\";"], but(CLEARED, "")),
        (
            "closed",
            &["--quick"],
            &["/metrics", "API_TOKEN", "X-Forwarded-For"],
            passing(&[
                VERSION,
                "proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $http_connection;",
                HOST,
                CLEARED,
            ]),
        ),
        (
            "holdfast",
            &["--quick"],
            &["web1 answers at /ws", "location / "],
            format!("location /ws {{ proxy_pass http://holdfast; {} }}", GOOD.join(" ")),
        ),
    ];
    let servers: Vec<_> = faults.iter().map(|(.., lines)| lines.clone()).collect();
    let proxies = Proxies::of(&[address], &servers, None).await;
    let looks = faults.iter().enumerate().map(|(nth, (name, args, ..))| {
        let url = proxies.url(nth);
        async move { (*name, doctor(&[&[&*url], *args].concat()).await) }
    });
    for ((name, found), (.., parts, lines)) in join_all(looks).await.into_iter().zip(&faults) {
        assert_eq!(found.finished.code, 1, "{lines}: {found:?}");
        let (seen, fix) = found.check(name);
        for part in *parts {
            assert!(seen.contains(part) || fix.contains(part), "{part} for {lines}: {found:?}");
        }
        if name == "idle" {
            let after = seen.split_once("after ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok());
            assert!(after.is_some_and(|after| (1.0..4.9).contains(&after)), "{found:?}");
        }
        // Where only the door is passed on, the rest is not there to be looked at.
        if name != "holdfast" {
            assert_eq!(found.ill(), [name], "{lines}: {found:?}");
        }
    }
    gateway.is_unharmed().await;
}

/// Checklist 225: the lines that close the server plane close every way to it; a location that names some of its paths
/// leaves the others open, and that is seen.
#[tokio::test]
async fn what_mends_an_open_server_plane_closes_all_of_it() {
    let gateway = Gateway::start().await;
    // Nobody says where a request comes from, so that the gateway takes everybody for its neighbour.
    let upgrade = UPGRADE.replace("\"upgrade\"", "$http_connection");
    let open = [VERSION, &upgrade, HOST, CLEARED].join(" ");
    let of = |lines: &str| format!("{open} {lines} location / {{ proxy_pass http://holdfast; }}");
    let some = "location ~ ^/(metrics|api/(instances|debug|events)) { return 403; }";
    let proxies = Proxies::of(&[gateway.address()], &[of(some)], None).await;
    let found = doctor(&[&proxies.url(0), "--quick"]).await;
    assert_eq!(found.ill(), ["closed"], "{found:?}");
    let (seen, fix) = found.check("closed");
    for path in ["/api/sockets", "/api/users/", "/api/call", "/__ws/api/instances", "/__ws/metrics"] {
        assert!(seen.contains(path), "{path}: {found:?}");
    }
    let lines: String = fix.lines().filter(|line| line.starts_with("location ")).collect();
    let mended = Proxies::of(&[gateway.address()], &[of(&lines.replace("; …", ";"))], None).await;
    let found = doctor(&[&mended.url(0), "--quick"]).await;
    assert_eq!((found.finished.code, found.ill()), (0, vec![]), "{found:?}");
    assert!(found.check("closed").0.contains("/__ws/metrics 403"), "{found:?}");
}

/// Checklist 142: under a path, with names that a door requires, and where somebody may not knock often.
#[tokio::test]
async fn a_gateway_is_asked_as_its_clients_ask_it() {
    let gateway = Gateway::with([("WS_REQUIRE", "user_id"), ("RATE_CONNECT", "2/s")]).await;
    let under = format!("location /gw/ {{ proxy_pass http://holdfast/; {} }}", GOOD.join(" "));
    let proxies = Proxies::of(&[gateway.address()], &[under], None).await;
    let url = format!("ws://{}/gw/ws", proxies.at[0]);
    let found = doctor(&[&format!("{url}?user_id=u&key=hush"), "--quick"]).await;
    assert_eq!((found.finished.code, found.ill()), (0, vec![]), "{found:?}");
    assert!(found.check("handshake").0.contains("> GET /gw/ws?user_id=u&key=*** HTTP/1.1"), "{found:?}");
    assert!(!found.finished.said().contains("hush"), "{found:?}");
    let found = doctor(&[&url, "--quick"]).await;
    assert_eq!((found.finished.code, found.ill()), (1, vec!["handshake"]), "{found:?}");
    let (seen, fix) = found.check("handshake");
    assert!(seen.contains("400, Missing user_id") && fix.contains("?user_id="), "{found:?}");
}

/// Checklist 223: whose instance is restarted under a socket that rests has not met a proxy that cuts it.
#[tokio::test]
async fn a_restart_while_a_socket_rests_is_no_fault_of_a_proxy() {
    let mut fleet = Fleet::at_ports(&[]).await;
    let gateways: Vec<_> = (0..3).map(|at| fleet[at].address()).collect();
    let proxies = Proxies::of(&gateways, &[passing(&GOOD)], None).await;
    let url = proxies.url(0);
    let mut looks = Holdfast::command(&["doctor", &url, "--idle", "4s"]).begins();
    // Said when all else has been looked at, so that whoever holds a socket now holds the one that rests.
    let mut said = BufReader::new(looks.stderr.take().unwrap()).lines();
    while !soon("it says what it waits for", said.next_line()).await.unwrap().unwrap().contains("held silent") {}
    let mut holder = None;
    for at in 0..3 {
        if fleet[at].sockets().await > 0 {
            holder = Some(at);
        }
    }
    let holder = holder.expect("somebody holds the socket");
    fleet[holder].signal(Signal::TERM);
    fleet.ends(holder).await;
    let ended = soon("it ends", looks.wait_with_output()).await.unwrap();
    let told = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success() && told.contains("rested for 4s still answers"), "{told}");
}

/// As Node's `ws` does: 426 for whoever wants no socket, and for all others an echo.
async fn echoes(stream: TcpStream) {
    let mut head = [0; 1024];
    let length = stream.peek(&mut head).await.unwrap_or(0);
    if !String::from_utf8_lossy(&head[..length]).to_lowercase().contains("upgrade: websocket") {
        return answers(stream, "426 Upgrade Required", "Upgrade Required").await;
    }
    let Ok(mut socket) = accept_async(stream).await else { return };
    let _ = socket.send("welcome".into()).await;
    while let Some(Ok(message)) = socket.next().await {
        let _ = socket.send(message).await;
    }
}

/// Checklist 47: nobody, and whoever is there instead, is named; exit 69.
#[tokio::test]
async fn what_is_no_holdfast_is_told_from_one() {
    let servers = [
        "location / { return 200 'a web site'; }".to_owned(),
        "location / { return 404; }".to_owned(),
        passing(&GOOD),
        "location / { return 301 https://example.com$request_uri; }".to_owned(),
    ];
    let nobody: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let proxies = Proxies::of(&[nobody], &servers, None).await;
    let node = Stranger::who(echoes).await;
    let mail = Stranger::who(async |mut stream: TcpStream| {
        let _ = stream.write_all(b"220 mail.example.com ESMTP\r\n").await;
        let _ = stream.read(&mut [0; 64]).await;
    })
    .await;
    let cases = [
        (format!("http://{nobody}"), "port", "refused"),
        ("http://holdfast-doctor.invalid".to_owned(), "name", "not known"),
        ("notaurl".to_owned(), "name", "write http://host:port"),
        (proxies.url(0), "holdfast", "nginx"),
        (proxies.url(1), "holdfast", "404"),
        (proxies.url(2), "holdfast", "nobody behind it"),
        (proxies.url(3), "holdfast", "https://example.com/health"),
        (format!("https://{}", proxies.at[0]), "tls", "write http://"),
        (format!("ws://{}/ws", node.address), "holdfast", "welcome"),
        (mail.url(), "http", "no HTTP"),
    ];
    let looks = join_all(cases.iter().map(|(url, ..)| async move { doctor(&[url]).await })).await;
    for (found, (url, name, part)) in looks.into_iter().zip(&cases) {
        assert_eq!((found.finished.code, found.ill()), (69, vec![*name]), "{url}: {found:?}");
        let (seen, fix) = found.check(name);
        assert!((seen.contains(part) || fix.contains(part)) && !fix.is_empty(), "{part} for {url}: {found:?}");
    }
}

#[tokio::test]
async fn an_old_gateway_is_told_to_be_old() {
    let old = json!({ "status": "healthy", "version": "0.0.1", "instance": "old", "redis": "none", "connections": 0, "uptime": 1 });
    let old = Stranger::who(move |stream| {
        let body = old.to_string();
        async move { answers(stream, "200 OK", &body).await }
    })
    .await;
    let found = doctor(&[&old.url(), "--quick"]).await;
    assert_eq!(found.finished.code, 1, "{found:?}");
    let (seen, fix) = found.check("holdfast");
    assert!(seen.contains("0.0.1") && seen.contains("older") && fix.contains("install"), "{found:?}");
}

#[tokio::test]
async fn a_certificate_that_nobody_trusts_is_named_and_can_be_passed_over() {
    let gateway = Gateway::with([("INSTANCE", "web1")]).await;
    let papers = Papers::issue();
    let proxies = Proxies::of(&[gateway.address()], &[passing(&GOOD)], Some(&papers)).await;
    let port = proxies.at[0].port();
    let (url, socket) = (format!("https://localhost:{port}"), format!("wss://localhost:{port}/ws"));
    let plain = doctor(&[&url.replace("https:", "http:"), "--quick"]).await;
    assert_eq!((plain.finished.code, plain.ill()), (69, vec!["holdfast"]), "{plain:?}");
    assert!(plain.check("holdfast").1.contains("write https://"), "{plain:?}");
    let refused = doctor(&[&url]).await;
    assert_eq!((refused.finished.code, refused.ill()), (1, vec!["tls"]), "{refused:?}");
    let (seen, fix) = refused.check("tls");
    assert!(seen.contains("self-signed") && fix.contains("--insecure") && fix.contains("fullchain"), "{refused:?}");
    let passed = doctor(&[&socket, "--insecure", "--quick"]).await;
    assert_eq!((passed.finished.code, passed.ill()), (0, vec![]), "{passed:?}");
    assert!(passed.check("reach").0.contains("TLS 1."), "{passed:?}");
    let authority = TempFile::holding(&papers.authority);
    let trusted = |args: &[&str]| Holdfast::command(args).env("SSL_CERT_FILE", authority.path());
    let found = Found::of(trusted(&["doctor", "--json", "--quick", &url]).run().await);
    assert_eq!(found.finished.code, 0, "{found:?}");
    // A name that is not in it is another name.
    let other = trusted(&["healthcheck", "--url", &format!("https://127.0.0.2:{port}")]).run().await;
    assert_eq!(other.code, 69, "{other:?}");
    // Every other command goes the same way.
    let healthy = trusted(&["healthcheck", "--url", &url]).run().await;
    assert_eq!(healthy.code, 0, "{healthy:?}");
    let why = Holdfast::command(&["healthcheck", "--url", &url]).run().await;
    assert!(why.code == 69 && why.stderr.contains("certificate") && why.stderr.contains("SSL_CERT_FILE"), "{why:?}");
}

/// Checklist 139: a page that cannot connect is told which setting lets it.
#[tokio::test]
async fn a_page_that_is_not_allowed_is_told_the_setting() {
    let gateway = Gateway::start().await;
    let url = format!("http://{}", gateway.address());
    let found = doctor(&[&url, "--quick", "--origin", PAGE]).await;
    assert_eq!(found.finished.code, 1, "{found:?}");
    let (seen, fix) = found.check("cors");
    assert!(seen.contains("Origin not allowed") && fix.contains(&format!("CORS_ORIGINS={PAGE}")), "{found:?}");
    let open = Gateway::with([("CORS_ORIGINS", "*")]).await;
    let found = doctor(&[&format!("http://{}", open.address()), "--quick", "--origin", PAGE]).await;
    assert_eq!(found.ill(), ["strangers"], "{found:?}");
}

#[tokio::test]
async fn a_redis_that_evicts_and_instances_that_are_missing_are_told() {
    let redis = Server::with(&[("maxmemory-policy", "allkeys-lru")]);
    let url = redis.url();
    let gateway = Gateway::with([("REDIS_URL", url.as_str()), ("INSTANCE", "web1")]).await;
    let at = format!("http://{}", gateway.address());
    eventually("it is ready", async || (gateway.get("/health/ready").await.status == 200).then_some(())).await;
    let found = doctor(&[&at, "--quick", "--instances", "2"]).await;
    assert_eq!((found.finished.code, found.ill()), (1, vec!["instances", "redis"]), "{found:?}");
    let (seen, fix) = found.check("redis");
    assert!(seen.contains("allkeys-lru") && fix.contains("maxmemory-policy noeviction"), "{found:?}");
    assert!(found.check("instances").0.contains("1 of the 2"), "{found:?}");
    redis.kill();
    eventually("it knows", async || (gateway.get("/health").await.json()["redis"] == "down").then_some(())).await;
    let found = doctor(&[&at, "--quick"]).await;
    assert_eq!(found.finished.code, 1, "{found:?}");
    assert!(found.ill().contains(&"health") && found.check("health").1.contains("redis-cli"), "{found:?}");
}

/// Checklist 103, 137: each credential is tried at every place where somebody could come in, and so is none.
#[tokio::test]
async fn each_way_to_come_in_is_tried() {
    let file = TempFile::holding(r#"{"keys": {}}"#);
    let add = ["keys", "add", "--user", "ann", "--store", "s"];
    let added = Holdfast::command(&add).env("API_KEYS_FILE", file.path()).run().await;
    let secret = added.stdout.trim().to_owned();
    // Whoever writes keys leaves the lock beside them.
    let _ = fs::remove_file(format!("{}.lock", file.path()));
    let gateway = Gateway::with([("AUTH", "keys"), ("API_KEYS_FILE", file.path())]).await;
    let url = format!("http://{}", gateway.address());
    let key = TempFile::holding(&format!("{secret}\n"));
    let (good, bad) = (format!("@{}", key.path()), "hf_Wr0ngWr0ngWr0ngWr0ngWr0ngWr0ngWr0ngWr0ng");
    let found = doctor(&[&url, "--quick", "--auth", "--key", &good]).await;
    assert_eq!((found.finished.code, found.ill()), (0, vec![]), "{found:?}");
    let (taken, _) = found.check("auth key");
    assert!(taken.contains("user ann") && taken.contains("AUTH=keys") && taken.contains("/ws opens"), "{found:?}");
    assert!(found.check("auth none").0.contains("/ws 401") && found.check("auth false").0.contains("401"), "{found:?}");
    assert!(found.check("handshake").0.contains("> X-API-Key: ***"), "{found:?}");
    let wrong = doctor(&[&url, "--quick", "--auth", "--key", bad, "--cookie", "sid=hush"]).await;
    assert_eq!(wrong.finished.code, 1, "{wrong:?}");
    assert!(wrong.ill().contains(&"auth key") && wrong.check("auth key").0.contains("Invalid API key"), "{wrong:?}");
    for said in [found.finished.said(), wrong.finished.said()] {
        assert!(!said.contains(&secret) && !said.contains("Wr0ng") && !said.contains("hush"), "{said}");
    }
    let open = Gateway::start().await;
    let found = doctor(&[&format!("http://{}", open.address()), "--quick", "--auth"]).await;
    assert_eq!(found.ill(), ["auth none"], "{found:?}");
}

/// Checklist 103, 137: tokens, and the application's sessions.
#[tokio::test]
async fn tokens_and_cookies_are_tried_as_well_as_keys() {
    let application = Application::start().await;
    application.at("/session", Manner::json(&json!({ "userId": "carol" })));
    let session = application.url("/session");
    let settings =
        [("AUTH", "jwt,session"), ("JWT_SECRET", SECRET), ("SESSION_URL", &session), ("SESSION_COOKIE", "sid")];
    let gateway = Gateway::with(settings).await;
    let token = signed(&json!({ "sub": "bob", "exp": 4_000_000_000_u64 }));
    let url = format!("http://{}", gateway.address());
    let found = doctor(&[&url, "--quick", "--auth", "--token", &token, "--cookie", "sid=hush"]).await;
    assert_eq!((found.finished.code, found.ill()), (0, vec![]), "{found:?}");
    for (name, parts) in [("auth token", ["user bob", "AUTH=jwt"]), ("auth cookie", ["user carol", "AUTH=session"])] {
        let (seen, _) = found.check(name);
        assert!(parts.iter().all(|part| seen.contains(part)), "{parts:?}: {found:?}");
    }
    assert!(found.unseen().contains(&"auth key"), "{found:?}");
    assert!(!found.finished.said().contains(&token) && !found.finished.said().contains("hush"), "{found:?}");
}

#[tokio::test]
async fn a_doctor_who_cannot_begin_says_so() {
    for args in [
        &["ftp://example.com"][..],
        &["http://me:hush@example.com"],
        &["http://example.com", "--idle", "0"],
        &["http://example.com", "--idle", "1s", "--quick"],
        &["http://example.com", "--origin", "app.example.com"],
        &["http://example.com", "--key", "@/no/such/file"],
        &["http://example.com", "--token", "a\nb"],
        &["ws://example.com/ws?key=hush", "--auth"],
    ] {
        let finished = Holdfast::command(&[&["doctor"], args].concat()).run().await;
        assert_eq!((finished.code, finished.stdout.as_str()), (2, ""), "{args:?}: {finished:?}");
        assert!(!finished.stderr.is_empty() && !finished.stderr.contains("hush"), "{args:?}: {finished:?}");
    }
}
