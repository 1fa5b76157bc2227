//! Starting, and not starting: settings, exit codes, and what is said about them.

use crate::{
    gateway::Gateway,
    holdfast::{Holdfast, TempFile},
    patience::{eventually, soon},
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{fs, net::TcpListener};
use tokio::net::UnixDatagram;

async fn ping_interval(gateway: &Gateway) -> Value {
    gateway.connect("/ws").await.is_greeted().await["pingInterval"].clone()
}

/// Checklist 8, 258.
#[tokio::test]
async fn it_prints_where_everything_is_and_then_ready() {
    let gateway = Gateway::start().await;
    let output = gateway.output();
    let (before, _) = output.split_once("ready").unwrap();
    assert!(before.contains(&format!("http://127.0.0.1:{}", gateway.port())), "{output}");
    let before = before.to_lowercase();
    for word in ["registry", "memory", "auth", "api_token"] {
        assert!(before.contains(word), "{word} in {output}");
    }
}

#[tokio::test]
async fn it_prints_where_the_application_is_asked_and_no_secret() {
    let at = |name: &str| format!("http://me:hush@127.0.0.1:1/{name}?token=hush");
    let asked = [
        ("SESSION_URL", at("session")),
        ("JWKS_URL", at("keys")),
        ("CONNECT_URL", at("connect")),
        ("MESSAGE_URL", at("message")),
        ("EVENTS_URL", at("events")),
    ];
    let settings = asked.iter().map(|(name, url)| (*name, url.as_str()));
    let gateway = Gateway::with(settings.chain([("AUTH", "jwt,session")])).await;
    let output = gateway.stop().await;
    for name in ["session", "keys", "connect", "message", "events"] {
        let line = output.lines().find(|line| line.contains(&format!("http://127.0.0.1:1/{name}?***")));
        assert!(line.is_some_and(|line| line.starts_with("  ")), "{name} in {output}");
    }
    assert!(!output.contains("hush"), "{output}");
}

/// What it tells to try is what its doors take.
#[tokio::test]
async fn the_line_to_try_shows_what_the_doors_want() {
    let session = [("AUTH", "session"), ("SESSION_URL", "http://127.0.0.1:1/")];
    let cookie = [session[0], session[1], ("SESSION_COOKIE", "connect.sid")];
    let near = [("AUTH", "proxy"), ("TRUSTED_PROXIES", "10.0.0.0/8,127.0.0.1")];
    let far = [("AUTH", "proxy"), ("TRUSTED_PROXIES", "10.0.0.0/8")];
    for (settings, wanted) in [
        (&[][..], Some("/ws?user_id=test123\"")),
        (&session, Some("/ws -H \"Cookie: $COOKIE\"")),
        (&cookie, Some("/ws -H \"Cookie: connect.sid=$SID\"")),
        (&near, Some("/ws -H \"X-User-ID: test123\"")),
        (&far, None),
    ] {
        let output = Gateway::with(settings.iter().copied()).await.output();
        let line = output.lines().find(|line| line.contains("npx wscat"));
        assert_eq!(line.is_some(), wanted.is_some(), "{settings:?}: {output}");
        assert!(line.is_none_or(|line| line.ends_with(wanted.unwrap_or_default())), "{settings:?}: {line:?}");
        assert!(output.contains("curl -X POST"), "{output}");
    }
}

/// Checklist 29: also for those who read nothing but the log.
#[tokio::test]
async fn the_log_begins_with_which_process_this_is() {
    let mut gateway = Gateway::with([("LOG_FORMAT", "json"), ("INSTANCE", "web1")]).await;
    let line: Value = serde_json::from_str(&gateway.logs(&["instance starts"]).await).unwrap();
    assert_eq!((&line["instance"], &line["pid"]), (&json!("web1"), &json!(gateway.pid())), "{line}");
    assert_eq!(line["version"], gateway.get("/health").await.json()["version"]);
}

/// However little is logged, this is said.
#[tokio::test]
async fn it_says_ready_at_every_level_and_in_every_format() {
    for (name, value) in
        [("LOG_LEVEL", "CRITICAL"), ("LOG_LEVEL", "warning"), ("LOG_FORMAT", "json"), ("DEBUG", "true")]
    {
        Gateway::with([(name, value)]).await.is_unharmed().await;
    }
}

/// Checklist 272: all of them, with setting, value and fix; no secret; before a port is bound.
#[tokio::test]
async fn bad_settings_are_all_named_before_a_port_is_bound() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let start = Gateway::command(&[])
        .env("PORT", &port)
        .env("WS_PING_INTERVAL", "often")
        .env("CORS_ORIGINS", "localhost,invalid-url,https://good.example")
        .env("MAX_ROOMS", "-3")
        .env("API_TOKEN", "s3cret");
    let finished = start.run().await;
    assert_eq!(finished.code, 78, "{finished:?}");
    let said = finished.said();
    for part in ["WS_PING_INTERVAL", "often", "CORS_ORIGINS", "localhost", "invalid-url", "MAX_ROOMS", "-3"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    assert!(!said.contains("s3cret") && !said.contains("Address already in use"), "{said}");
}

/// Checklist 274.
#[tokio::test]
async fn a_taken_port_is_told_with_its_holder_and_a_free_one() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let finished = Gateway::command(&[]).env("PORT", &port.to_string()).run().await;
    assert_eq!(finished.code, 1, "{finished:?}");
    let said = finished.said();
    let own_name = fs::read_to_string("/proc/self/comm").unwrap();
    for part in ["Address already in use", &port.to_string(), &std::process::id().to_string(), own_name.trim()] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let (_, free) = said.split_once("PORT=").expect(&said);
    let free: u16 = free[..free.find(|c: char| !c.is_ascii_digit()).unwrap_or(free.len())].parse().unwrap();
    assert_ne!(free, port);
    TcpListener::bind(("127.0.0.1", free)).unwrap();
}

#[tokio::test]
async fn an_unknown_variable_is_a_warning_with_the_nearest_name() {
    let mut gateway = Gateway::with([("HOLDFAST_PROT", "1"), ("PROT", "nobody's business")]).await;
    gateway.logs(&["WARN", "HOLDFAST_PROT", "HOLDFAST_PORT"]).await;
    assert!(!gateway.output().contains("nobody's business"));
}

#[tokio::test]
async fn a_debug_that_is_no_boolean_is_ignored_with_a_warning() {
    let mut gateway = Gateway::with([("DEBUG", "express:*"), ("LOG_LEVEL", "info")]).await;
    gateway.logs(&["WARN", "DEBUG", "express:*"]).await;
    gateway.greeted("/ws").await.leaves().await;
    assert!(!gateway.stop().await.contains("Active socket IDs"));
}

/// Checklist 247, 254, 255.
#[tokio::test]
async fn values_are_read_as_people_write_them() {
    let gateway = Gateway::with([("WS_PING_INTERVAL", "60   # seconds"), ("WS_PING_TIMEOUT", "15 # too")]).await;
    assert_eq!(ping_interval(&gateway).await, 60);
    for (value, seconds) in [("2m", 120.0), ("1500ms", 1.5), ("7s", 7.0), ("", 30.0), (" # unset", 30.0)] {
        let gateway = Gateway::with([("WS_PING_INTERVAL", value)]).await;
        assert_eq!(ping_interval(&gateway).await.as_f64(), Some(seconds), "{value}");
    }
    for debug in ["1", "yes", "ON", "true"] {
        let mut gateway = Gateway::with([("DEBUG", debug), ("LOG_LEVEL", "info")]).await;
        gateway.greeted("/ws").await;
        gateway.logs(&["Active socket IDs"]).await;
    }
}

/// Checklist 258, 276.
#[tokio::test]
async fn flag_beats_environment_beats_file_beats_default() {
    let file = TempFile::holding("ws_ping_interval = \"11s\"\nport = 1\nws_require = [\"user_id\"]\n");
    let start = |args: &[&str]| Gateway::command(args);
    let by_file = start(&["--config", file.path()]).serve().await;
    assert_eq!(by_file.connect("/ws?user_id=u").await.is_greeted().await["pingInterval"], 11);
    by_file.knock("/ws").await.refuses(400, "Missing user_id query parameter");

    let by_variable =
        start(&["serve"]).env("CONFIG", file.path()).env("WS_PING_INTERVAL", "12").env("WS_REQUIRE", "none");
    assert_eq!(ping_interval(&by_variable.serve().await).await, 12);
    let prefixed = start(&[])
        .env("WS_PING_INTERVAL", "12")
        .env("HOLDFAST_WS_PING_INTERVAL", "13")
        .env("PORT", "1")
        .env("HOLDFAST_PORT", "0");
    assert_eq!(ping_interval(&prefixed.serve().await).await, 13);
    let flag = start(&["serve", "--ws-ping-interval", "14s", "--port=0"])
        .env("HOLDFAST_WS_PING_INTERVAL", "13")
        .env("PORT", "1");
    assert_eq!(ping_interval(&flag.serve().await).await, 14);
}

#[tokio::test]
async fn a_file_with_an_unknown_key_or_no_file_at_all_is_a_problem() {
    let file = TempFile::holding("prot = 8080\nws_ping_intervall = 3\nws_ping_timeout = \"never\"\n");
    let finished = Gateway::command(&["--config", file.path()]).run().await;
    assert_eq!(finished.code, 78, "{finished:?}");
    for part in ["prot", "ws_ping_intervall", "never"] {
        assert!(finished.said().contains(part), "{part} in {finished:?}");
    }
    let broken = TempFile::holding("port = = 1");
    for path in [broken.path(), "/nowhere/holdfast.toml"] {
        let finished = Gateway::command(&["--config", path]).run().await;
        assert_eq!(finished.code, 78, "{finished:?}");
        assert!(finished.said().contains(path), "{finished:?}");
    }
}

#[tokio::test]
async fn a_secret_may_stand_in_a_file_of_its_own() {
    let file = TempFile::holding("s3cret\n");
    let gateway = Gateway::with([("API_TOKEN_FILE", file.path())]).await;
    let ask = gateway.get("/api/debug/sockets");
    assert_eq!(ask.clone().await.status, 401);
    assert_eq!(ask.with("Authorization", "Bearer s3cret").await.status, 200);
    assert!(!gateway.stop().await.contains("s3cret"));
}

#[tokio::test]
async fn a_wrong_command_line_is_2() {
    for args in
        [&["--no-such-flag"][..], &["dance"], &["serve", "extra"], &["--port"], &["version", "--port", "1", "--nope"]]
    {
        let finished = Gateway::command(args).run().await;
        assert_eq!(finished.code, 2, "{args:?}: {finished:?}");
        assert!(!finished.stderr.is_empty(), "{args:?}");
    }
    let help = Holdfast::command(&["--help"]).run().await;
    assert_eq!(help.code, 0, "{help:?}");
    assert!(help.stdout.contains("--ws-ping-interval") && help.stdout.contains("healthcheck"), "{help:?}");
}

/// Checklist 45, 163, 258, 293.
#[tokio::test]
async fn check_shows_every_value_its_source_and_every_problem() {
    let command = |args| Holdfast::command(args).env("WS_PING_INTERVAL", "17s").env("API_TOKEN", "s3cret");
    let good = command(&["check"]).run().await;
    assert_eq!(good.code, 0, "{good:?}");
    let line = good.stdout.lines().find(|line| line.contains("WS_PING_INTERVAL")).expect(&good.stdout);
    assert!(line.contains("17s") && line.contains("environment"), "{line}");
    let line = good.stdout.lines().find(|line| line.contains("PORT")).expect(&good.stdout);
    assert!(line.contains("8080") && line.contains("default"), "{line}");
    assert!(good.stdout.contains("API_TOKEN") && !good.said().contains("s3cret"), "{good:?}");

    let bad = command(&["check", "--json"]).env("PORT", "eighty").env("LOG_FORMAT", "xml").run().await;
    assert_eq!(bad.code, 78, "{bad:?}");
    let shown: Value = serde_json::from_str(&bad.stdout).expect(&bad.stdout);
    let shown = shown.to_string();
    for part in ["WS_PING_INTERVAL", "17s", "PORT", "eighty", "LOG_FORMAT", "xml"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(!bad.said().contains("s3cret"), "{bad:?}");
}

/// Checklist 168: which way a request goes, what stands in it, and whom each path is for.
#[tokio::test]
async fn check_shows_every_route_and_who_may_ask_it() {
    let gateway = Gateway::start().await;
    let document = gateway.get("/openapi.json").await.json();
    let check = |args: &[&str]| {
        Holdfast::command(&[&["check", "--routes"], args].concat())
            .env("AUTH", "proxy")
            .env("TRUSTED_PROXIES", "127.0.0.1")
    };
    let open = check(&[]).run().await;
    let stages =
        "names (WS_CODE_PATTERN=^[A-Za-z0-9]{5}$) → origin → rate → credentials (AUTH=proxy) → upgrade → place";
    assert!(open.code == 0 && open.stdout.contains(stages), "{open:?}");
    let line = |method: &str, path: &str| {
        let lines = open.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        lines.into_iter().find(|words| words.starts_with(&[method, path])).unwrap_or_else(|| panic!("{method} {path}"))
    };
    let mut count = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            line(&method.to_uppercase(), path);
            count += 1;
        }
    }
    assert!(count > 30, "{count}");
    assert_eq!(line("POST", "/api/call")[2..7], ["this", "machine;", "key", "of", "scope"]);
    assert_eq!(line("GET", "/ws")[2], "anybody");
    let shut = check(&["--json"]).env("API_TOKEN", "s3cret").env("CORS_ORIGINS", "https://a.example").run().await;
    assert!(!shut.said().contains("s3cret"), "{shut:?}");
    let way = serde_json::from_str::<Value>(&shut.stdout).unwrap()["way"].take();
    assert_eq!(way["stages"][1], "origin (CORS_ORIGINS=https://a.example)");
    let who = |path: &str| {
        way["routes"].as_array().unwrap().iter().find(|route| route["path"] == path).unwrap()["who"].clone()
    };
    assert_eq!(who("/api/call"), "API_TOKEN; key of scope call or admin");
    assert_eq!(who("/api/events"), "API_TOKEN; key of scope admin");
}

/// Checklist 296.
#[tokio::test]
async fn version_is_told_to_people_and_machines() {
    let version = Holdfast::command(&["version", "--json"]).run().await;
    let shown: Value = serde_json::from_str(&version.stdout).expect(&version.stdout);
    let number = shown["version"].as_str().unwrap().to_owned();
    let people = Holdfast::command(&["version"]).run().await;
    assert!(people.stdout.contains(&number), "{people:?}");
    assert_eq!(Gateway::start().await.get("/health").await.json()["version"], number.as_str());
}

/// Checklist 256.
#[tokio::test]
async fn healthcheck_asks_the_gateway_that_is_configured() {
    let mut gateway = Gateway::start().await;
    let ask = |port: u16| Holdfast::command(&["healthcheck"]).env("PORT", &port.to_string());
    let healthy = ask(gateway.port()).run().await;
    assert_eq!(healthy.code, 0, "{healthy:?}");
    gateway.signal(Signal::TERM);
    gateway.exits().await;
    let gone = ask(gateway.port()).run().await;
    assert_eq!(gone.code, 69, "{gone:?}");
}

/// Checklist 295: systemd's word for it.
#[tokio::test]
async fn a_service_manager_is_told_when_it_is_ready() {
    let path = TempFile::holding("");
    fs::remove_file(path.path()).unwrap();
    let manager = UnixDatagram::bind(path.path()).unwrap();
    let _gateway = Gateway::with([("NOTIFY_SOCKET", path.path())]).await;
    let mut said = String::new();
    while !said.contains("READY=1") {
        let mut buffer = [0; 4096];
        let length = soon("the manager is told", manager.recv(&mut buffer)).await.unwrap();
        said.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
}

/// Checklist 255: keys, origins, tokens and the level, without a restart.
#[tokio::test]
async fn sighup_reads_the_configuration_again() {
    let file =
        TempFile::holding("cors_origins = \"https://one.example\"\nlog_level = \"info\"\napi_token = \"first\"\n");
    let start = Gateway::command(&["--config", file.path()]).without("LOG_LEVEL");
    let mut gateway = start.serve().await;
    let from = |origin: &str| gateway.knock("/ws").with("Origin", origin);
    assert_eq!(from("https://one.example").await.status, 101);
    assert_eq!(from("https://two.example").await.status, 403);
    file.rewrite("cors_origins = \"https://two.example\"\nlog_level = \"debug\"\napi_token = \"second\"\n");
    gateway.signal(Signal::HUP);
    eventually("the new origin is allowed", async || (from("https://two.example").await.status == 101).then_some(()))
        .await;
    assert_eq!(from("https://one.example").await.status, 403);
    let with = |token: &str| gateway.get("/metrics").with("Authorization", &format!("Bearer {token}"));
    assert_eq!((with("first").await.status, with("second").await.status), (401, 200));
    gateway.greeted("/ws").await;
    gateway.logs(&["Active socket IDs"]).await;
    file.rewrite("cors_origins = \"nonsense\"\n");
    gateway.signal(Signal::HUP);
    gateway.logs(&["CORS_ORIGINS", "nonsense"]).await;
    assert_eq!(gateway.knock("/ws").with("Origin", "https://two.example").await.status, 101);
}
