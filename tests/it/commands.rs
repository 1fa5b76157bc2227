//! The commands that look: `why`, `sockets`, `instances`. They ask a running gateway over HTTP.

use crate::{
    asking::open_more_files,
    gateway::Gateway,
    holdfast::{Holdfast, TempFile},
    patience::soon,
    terminal::{NEVER, command, run},
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// The words of each line.
fn table(text: &str) -> Vec<Vec<String>> {
    let columns =
        |line: &str| line.split("  ").map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    text.lines().map(columns).collect()
}

/// Checklist 114.
#[tokio::test]
async fn why_says_where_a_live_socket_is() {
    let gateway = Gateway::with([("INSTANCE", "web1:5000")]).await;
    let client = gateway.greeted("/ws?user_id=test123&store_id=meonutrition&room_id=b&room_id=a").await;
    let finished = run(&gateway, &["why", &client.id]).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    for part in [&client.id, "connected to web1:5000", "since 20", "meonutrition", "test123", "b, a"] {
        assert!(finished.stdout.contains(part), "{part} in {finished:?}");
    }
    let finished = run(&gateway, &["why", "--json", &client.id]).await;
    let shown: Value = serde_json::from_str(&finished.stdout).expect(&finished.stdout);
    assert_eq!((finished.code, &shown["userId"]), (0, &json!("test123")));
}

#[tokio::test]
async fn why_says_what_became_of_the_others() {
    let gateway = Gateway::with([("INSTANCE", "web1:5000")]).await;
    let client = gateway.greeted("/ws").await;
    let id = client.id.clone();
    gateway.delete(&format!("/api/sockets/{id}?reason=too+loud")).await;
    let verdict = gateway.verdict(&id).await;
    let kicked = run(&gateway, &["why", &id]).await;
    assert_eq!((kicked.code, kicked.stderr.as_str()), (3, ""), "{kicked:?}");
    for part in [&id, "was on web1:5000", "4403", "too loud"] {
        assert!(kicked.stdout.contains(part), "{part} in {kicked:?}");
    }
    let as_json = run(&gateway, &["why", &id, "--json"]).await;
    let shown: Value = serde_json::from_str(&as_json.stdout).expect(&as_json.stdout);
    assert_eq!((as_json.code, &shown["verdict"]["cause"]), (3, &verdict["cause"]));
    for never in [NEVER, "ws_123", "../sockets", "a b?c=d&e#f", "ü", ".", "-x"] {
        let finished = run(&gateway, &["why", "--", never]).await;
        assert_eq!(finished.code, 3, "{finished:?}");
        assert!(finished.stdout.contains(never), "{finished:?}");
    }
}

/// What a client says of its own end may hold anything.
#[tokio::test]
async fn why_hands_no_terminal_codes_on() {
    let gateway = Gateway::start().await;
    let finished = run(&gateway, &["why", "\u{1b}]0;title\u{7}"]).await;
    assert_eq!(finished.code, 3, "{finished:?}");
    assert!(!finished.said().contains(['\u{1b}', '\u{7}']), "{finished:?}");
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_69_and_named() {
    let mut gateway = Gateway::start().await;
    gateway.signal(Signal::TERM);
    gateway.exits().await;
    let address = gateway.address().to_string();
    let url = format!("http://{address}");
    for args in [&["why", NEVER][..], &["sockets"], &["instances"], &["healthcheck"]] {
        let configured = run(&gateway, args).await;
        let named = Holdfast::command(&[args, &["--url", &url]].concat()).run().await;
        for finished in [configured, named] {
            assert_eq!((finished.code, finished.stdout.as_str()), (69, ""), "{args:?}: {finished:?}");
            for part in [address.as_str(), "holdfast serve", "--url"] {
                assert!(finished.stderr.contains(part), "{part} in {finished:?}");
            }
        }
    }
}

#[tokio::test]
async fn whoever_never_answers_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let finished = Holdfast::command(&["instances", "--url", &url]).run().await;
    assert_eq!(finished.code, 69, "{finished:?}");
    assert!(finished.stderr.contains("5 s"), "{finished:?}");
}

/// Something else may listen on that port.
#[tokio::test]
async fn what_is_no_gateway_is_told_from_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serve = async |answer: &str| {
        let mut stream = soon("it asks", listener.accept()).await.unwrap().0;
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            assert_ne!(soon("it asks", stream.read_buf(&mut asked)).await.unwrap(), 0);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
    };
    for (answer, code) in [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nlost", 1),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 1),
        ("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", 1),
        ("HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{", 69),
        ("220 mail.example.com ESMTP\r\n", 69),
    ] {
        for args in [&["why", NEVER][..], &["sockets"], &["instances"]] {
            let args = [args, &["--url", &url]].concat();
            let (finished, ()) = tokio::join!(Holdfast::command(&args).run(), serve(answer));
            assert_eq!((finished.code, finished.stdout.as_str()), (code, ""), "{answer}: {finished:?}");
            assert!(finished.stderr.contains(&url["http://".len()..]), "{finished:?}");
        }
    }
}

#[tokio::test]
async fn sockets_are_a_table() {
    let gateway = Gateway::with([("INSTANCE", "web1")]).await;
    let none = run(&gateway, &["sockets"]).await;
    assert_eq!((none.code, none.stdout.as_str()), (3, ""), "{none:?}");
    let one = gateway.greeted("/ws?user_id=u&store_id=s&room_id=r").await;
    let two = gateway.greeted("/ws?user_id=v&room_id=r&room_id=q").await;
    let finished = run(&gateway, &["sockets"]).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""), "{finished:?}");
    let rows = table(&finished.stdout);
    assert_eq!(rows[0], ["socket", "instance", "store", "user", "rooms", "age"]);
    assert_eq!(rows[1][..5], [&one.id, "web1", "s", "u", "r"]);
    assert_eq!(rows[2][..5], [&two.id, "web1", "-", "v", "r, q"]);
    let starts: Vec<_> = finished.stdout.lines().map(|line| line.find("web1").or(line.find("instance"))).collect();
    assert!(starts.iter().all(|start| *start == starts[0]), "{}", finished.stdout);
    for (narrowed, ids) in [
        (&["--user", "u"][..], vec![&one.id]),
        (&["--store", "s"], vec![&one.id]),
        (&["--room", "r"], vec![&one.id, &two.id]),
        (&["--room", "r", "--user", "v"], vec![&two.id]),
        (&["--instance", "web1"], vec![&one.id, &two.id]),
        (&["--instance", "web2"], vec![]),
        (&["--user", "u&room=x"], vec![]),
    ] {
        let finished = run(&gateway, &[&["sockets", "--json"], narrowed].concat()).await;
        let shown: Value = serde_json::from_str(&finished.stdout).expect(&finished.stdout);
        let found: Vec<_> = shown["sockets"].as_array().unwrap().iter().map(|socket| &socket["socketId"]).collect();
        assert_eq!(found, ids, "{narrowed:?}");
        assert_eq!(shown["count"], ids.len(), "{narrowed:?}");
        assert_eq!(finished.code, if ids.is_empty() { 3 } else { 0 }, "{narrowed:?}: {finished:?}");
    }
}

#[tokio::test]
async fn as_many_sockets_are_shown_as_were_asked_for() {
    open_more_files();
    let gateway = Gateway::start().await;
    let mut clients = Vec::new();
    for n in 0..1100 {
        let target = if n < 1050 { "/ws?room_id=r" } else { "/ws" };
        clients.push(gateway.connect(target).await);
    }
    for (args, shown, more) in [
        (&["--limit", "3"][..], 3, true),
        (&[], 1000, true),
        (&["--limit", "1100"], 1100, false),
        (&["--limit", "9999"], 1100, false),
        (&["--limit", "7", "--room", "r"], 7, true),
        (&["--limit", "1050", "--room", "r"], 1050, false),
    ] {
        let finished = run(&gateway, &[&["sockets"], args].concat()).await;
        assert_eq!((finished.code, finished.stdout.lines().count()), (0, shown + 1), "{args:?}");
        assert_eq!(finished.stderr.contains("--limit"), more, "{args:?}: {}", finished.stderr);
    }
}

/// Checklist 163, 214.
#[tokio::test]
async fn instances_are_a_table() {
    let gateway = Gateway::with([("INSTANCE", "web1:5000"), ("CANARY", "true")]).await;
    let _client = gateway.greeted("/ws").await;
    let finished = run(&gateway, &["instances"]).await;
    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""), "{finished:?}");
    let rows = table(&finished.stdout);
    assert_eq!(rows[0], ["name", "state", "address", "sockets", "version", "pid", "restarts", "up since", "canary"]);
    let pid = gateway.pid().to_string();
    let address = gateway.address().to_string();
    assert_eq!(rows[1][..3], ["web1:5000".to_owned(), "serving".to_owned(), address], "{rows:?}");
    // Nobody starts it again, so nobody counts.
    assert_eq!((&rows[1][5], rows[1][6].as_str(), rows[1][8].as_str()), (&pid, "-", "yes"));
    assert!(rows[1][7].ends_with('Z'), "{rows:?}");
    let finished = run(&gateway, &["instances", "--json"]).await;
    let shown: Value = serde_json::from_str(&finished.stdout).expect(&finished.stdout);
    assert_eq!(shown["instances"][0]["instance"], "web1:5000");
}

/// The token comes from wherever settings come from, and is never shown.
#[tokio::test]
async fn the_token_of_the_configuration_is_sent_and_never_shown() {
    let guarded = Gateway::with([("API_TOKEN", "s3cret"), ("ADMIN_TOKEN", "s3cret-too")]).await;
    let file = TempFile::holding("s3cret\n");
    for args in [&["why", "ws_123"][..], &["sockets"], &["instances"]] {
        let ask = || command(&guarded, args);
        let without = ask().run().await;
        assert_eq!(without.code, 1, "{without:?}");
        assert!(without.stderr.contains("API_TOKEN"), "{without:?}");
        let wrong = ask().env("API_TOKEN", "wr0ng").run().await;
        assert_eq!(wrong.code, 1, "{wrong:?}");
        assert!(wrong.stderr.contains("API_TOKEN") && !wrong.said().contains("wr0ng"), "{wrong:?}");
        for good in [
            ask().env("API_TOKEN", "s3cret"),
            ask().env("API_TOKEN_FILE", file.path()),
            ask().env("ADMIN_TOKEN", "s3cret-too"),
        ] {
            let finished = good.run().await;
            assert!([0, 3].contains(&finished.code), "{finished:?}");
            assert!(!finished.said().contains("s3cret"), "{finished:?}");
        }
    }
    assert!(!guarded.stop().await.contains("s3cret"));
}

#[tokio::test]
async fn what_cannot_be_asked_is_said_before_anything_is_asked() {
    for (args, code) in [
        (&["why"][..], 2),
        (&["why", ""], 2),
        (&["why", "a", "b"], 2),
        (&["sockets", "--limit", "0"], 2),
        (&["sockets", "--limit", "many"], 2),
        (&["instances", "--url", "ftp://web1"], 2),
        (&["instances", "--url", "http://me:hush@web1"], 2),
        (&["healthcheck", "http://web1:port"], 2),
        (&["instances", "--port", "eighty"], 78),
    ] {
        let finished = Holdfast::command(args).run().await;
        assert_eq!((finished.code, finished.stdout.as_str()), (code, ""), "{args:?}: {finished:?}");
        assert!(!finished.stderr.is_empty(), "{args:?}");
    }
    let help = Holdfast::command(&["--help"]).run().await;
    for part in ["why", "sockets", "instances", "call", "sync", "send", "Exit codes", "69", "78"] {
        assert!(help.stdout.contains(part), "{part} in {help:?}");
    }
}

/// What the gateway has to object is said as it says it.
#[tokio::test]
async fn a_refusal_is_the_gateways_own_sentence() {
    let gateway = Gateway::start().await;
    for args in [["sockets", "--user", " "], ["sockets", "--room", "undefined"], ["sockets", "--store", "null"]] {
        let finished = run(&gateway, &args).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (1, ""), "{finished:?}");
        assert!(finished.stderr.contains("400") && finished.stderr.contains(&args[1][2..]), "{finished:?}");
    }
}

/// Checklist 256.
#[tokio::test]
async fn healthcheck_takes_an_address_in_either_place() {
    let gateway = Gateway::start().await;
    let url = format!("http://{}", gateway.address());
    let live = format!("{url}/health/live");
    for args in [&["healthcheck", &url][..], &["healthcheck", &live], &["healthcheck", "--url", &url]] {
        let finished = Holdfast::command(args).env("WS_PING_INTERVAL", "often").run().await;
        assert_eq!(finished.code, 0, "{args:?}: {finished:?}");
    }
}

/// Checklist 272: what a URL may hold is never printed.
#[tokio::test]
async fn a_redis_that_cannot_be_meant_is_78() {
    let finished =
        Gateway::command(&[]).env("REDIS_URL", "redis://me:hush@host:port").env("NAMESPACE", "shop{1}").run().await;
    assert_eq!(finished.code, 78, "{finished:?}");
    assert!(finished.stderr.contains("REDIS_URL") && finished.stderr.contains("NAMESPACE=shop{1}"), "{finished:?}");
    assert!(!finished.said().contains("hush"), "{finished:?}");
    let check = Holdfast::command(&["check"]).env("REDIS_URL", "redis://me:hush@host:6380/2").run().await;
    let line = check.stdout.lines().find(|line| line.contains("REDIS_URL")).expect(&check.stdout);
    assert!(line.contains("redis://host:6380/2") && line.contains("environment"), "{line}");
    assert!(check.code == 0 && !check.said().contains("hush"), "{check:?}");
}
