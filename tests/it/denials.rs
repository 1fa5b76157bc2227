//! A Redis that will not, or not any more, or is not what its URL says. What `redises.rs` begins with the
//! start, this goes on with.

use crate::{
    fleet::Fleet,
    gateway::Gateway,
    holdfast::{Holdfast, TempFile, TempFolder},
    patience::{eventually, soon},
};
use serde_json::json;
use servers::Server;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Something listens there, and says this to whoever comes; then it waits.
async fn listener(says: &'static [u8], stays: bool) -> (SocketAddr, impl Future<Output = ()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answering = async move {
        let mut kept = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            // It may hang up on what it takes for an error.
            let _ = stream.write_all(says).await;
            if stays {
                kept.push(stream);
            }
        }
    };
    (address, answering)
}

/// It serves as one alone does, and says that the registry is not there.
async fn serves_degraded(gateway: &Gateway) {
    let mut client = gateway.greeted("/ws?user_id=ann&room_id=r").await;
    let health = gateway.get("/health").await.json();
    assert_eq!((&health["status"], &health["redis"]), (&json!("degraded"), &json!("down")), "{health}");
    assert_eq!(gateway.get("/health/ready").await.status, 503);
    assert_eq!(gateway.get("/health/live").await.status, 200);
    let sent = gateway.post("/api/send", &json!({ "socketId": client.id, "data": 1 })).await;
    assert_eq!(sent.status, 200, "{}", sent.text());
    assert_eq!(client.hears().await["data"], 1);
    let elsewhere = gateway.get("/api/sockets/ws_01a1fccb-d0dd-774a-b056-96b15ab63916").await;
    assert_eq!((elsewhere.status, &elsewhere.json()["code"]), (503, &json!("registry_unavailable")));
    elsewhere.is_problem();
}

#[tokio::test]
async fn whoever_says_nothing_or_hangs_up_is_no_reason_to_end() {
    for stays in [true, false] {
        let (address, answering) = listener(b"", stays).await;
        let url = format!("redis://:hush@{address}");
        let serving = async {
            let mut gateway = Gateway::with([("REDIS_URL", url.as_str())]).await;
            gateway.logs(&["WARN", &address.to_string(), "cannot be reached"]).await;
            serves_degraded(&gateway).await;
            assert!(!gateway.stop().await.contains("hush"));
        };
        tokio::select! {
            () = serving => {}
            () = answering => unreachable!(),
        }
    }
}

#[tokio::test]
async fn whatever_is_no_redis_is_named_and_ends_it() {
    for says in [
        &b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"[..],
        b"220 mail.example.com ESMTP\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\x01\x02\xff\xfe\r\n\r\n",
        b"J\x00\x00\x00\n8.0.36\x00",
    ] {
        let (address, answering) = listener(says, true).await;
        let command = Gateway::command(&[]).env("REDIS_URL", &format!("redis://:hush@{address}"));
        let finished = tokio::select! {
            finished = command.run() => finished,
            () = answering => unreachable!(),
        };
        let text = finished.said();
        assert_eq!(finished.code, 1, "{says:?}: {text}");
        assert!(text.contains(&address.to_string()) && text.contains("no Redis"), "{text}");
        assert!(!text.contains("hush") && !text.contains("panicked"), "{text}");
    }
}

/// Relays to a server, and puts one text of the same length for another in what it answers.
async fn disguise(port: u16, from: &'static str, to: &'static str) -> (SocketAddr, impl Future<Output = ()>) {
    assert_eq!(from.len(), to.len());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let relaying = async move {
        let mut links = tokio::task::JoinSet::new();
        loop {
            let (client, _) = listener.accept().await.unwrap();
            links.spawn(async move {
                let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (mut asks, mut hears) = client.into_split();
                let (mut answers, mut asked) = server.into_split();
                let there = tokio::io::copy(&mut asks, &mut asked);
                let back = async {
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(length @ 1..) = answers.read(&mut buffer).await {
                        let mut bytes = buffer[..length].to_vec();
                        let places = 0..length.saturating_sub(from.len() - 1);
                        for at in places {
                            if bytes[at..].starts_with(from.as_bytes()) {
                                bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
                            }
                        }
                        if hears.write_all(&bytes).await.is_err() {
                            break;
                        }
                    }
                };
                let _ = tokio::join!(there, back);
            });
        }
    };
    (address, relaying)
}

#[tokio::test]
async fn a_redis_before_6_2_is_named_and_ends_it() {
    let server = Server::start();
    for (version, code) in [("redis_version:6.0.", 1), ("redis_version:6.2.", 0)] {
        let (address, relaying) = disguise(server.port(), "redis_version:7.0.", version).await;
        let url = format!("redis://{address}");
        let running = async {
            if code == 0 {
                let gateway = Gateway::with([("REDIS_URL", url.as_str())]).await;
                assert_eq!(gateway.get("/health/ready").await.status, 200, "{}", gateway.output());
                return drop(gateway.stop().await);
            }
            let finished = Gateway::command(&[]).env("REDIS_URL", &url).run().await;
            let text = finished.said();
            assert_eq!(finished.code, 1, "{text}");
            assert!(text.contains(&address.to_string()) && text.contains("6.0.") && text.contains("6.2"), "{text}");
        };
        tokio::select! {
            () = running => {}
            () = relaying => unreachable!(),
        }
    }
}

/// A replica takes no writes; a fleet on it would be none.
#[tokio::test]
async fn a_replica_is_not_taken_for_the_registry() {
    let (master, replica) = (Server::start(), Server::start());
    replica.ask(&["REPLICAOF", "127.0.0.1", &master.port().to_string()]);
    let url = replica.url();
    let mut gateway = Gateway::with([("REDIS_URL", url.as_str())]).await;
    gateway.logs(&["WARN", &format!("127.0.0.1:{}", replica.port()), "master"]).await;
    serves_degraded(&gateway).await;
    replica.ask(&["REPLICAOF", "NO", "ONE"]);
    eventually("it is ready", async || (gateway.get("/health/ready").await.status == 200).then_some(())).await;
    gateway.is_unharmed().await;
}

/// TLS where there is none, and none where there is: neither hangs, and both are told.
#[tokio::test]
async fn tls_and_no_tls_are_told_apart() {
    let (plain, tls) = (Server::start(), Server::with_tls());
    let authority = tls.ca_file();
    for url in [format!("rediss://127.0.0.1:{}", plain.port()), format!("redis://127.0.0.1:{}", tls.port())] {
        let settings = [("REDIS_URL", url.as_str()), ("SSL_CERT_FILE", authority.to_str().unwrap())];
        let mut gateway = Gateway::with(settings).await;
        gateway.logs(&["WARN", &url]).await;
        serves_degraded(&gateway).await;
    }
}

/// Wherever a password may slip out: the log, in good times and bad ones, and everything one may ask for.
#[tokio::test]
async fn the_password_of_redis_is_shown_nowhere() {
    let server = Server::with(&[("requirepass", "hush-hush")]);
    let file = TempFile::holding(&server.url());
    let mut gateway = Gateway::command(&[]).env("REDIS_URL_FILE", file.path()).env("LOG_LEVEL", "debug").serve().await;
    let mut client = gateway.greeted("/ws?user_id=ann").await;
    let secret = |text: &str| text.contains("hush");
    server.kill();
    gateway.logs(&["WARN", "Redis at", "does not answer"]).await;
    serves_degraded(&gateway).await;
    server.restart();
    eventually("it is ready", async || (gateway.get("/health/ready").await.status == 200).then_some(())).await;
    // The password is changed under it.
    server.ask(&["CONFIG", "SET", "requirepass", "another"]);
    server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    server.cut_subscribers();
    gateway.logs(&["WARN", "refused our login", "REDIS_URL"]).await;
    eventually("it is degraded", async || (gateway.get("/health").await.json()["redis"] == "down").then_some(())).await;
    client.heard_all().await;
    server.ask(&["CONFIG", "SET", "requirepass", "hush-hush"]);
    eventually("it is ready again", async || (gateway.get("/health/ready").await.status == 200).then_some(())).await;
    for path in ["/health", "/metrics", "/api/instances", "/api/debug/sockets?verbose=1", "/openapi.json", "/"] {
        let answer = gateway.get(path).await;
        assert!(answer.status == 200 && !secret(&answer.text()), "{path}: {}", answer.text());
    }
    for command in ["check", "serve"] {
        let finished = Holdfast::command(&[command]).env("REDIS_URL_FILE", file.path()).env("PORT", "x").run().await;
        assert!(finished.code == 78 && !secret(&finished.said()), "{command}: {finished:?}");
    }
    gateway.is_unharmed().await;
    let printed = gateway.stop().await;
    assert!(!secret(&printed), "{printed}");
}

/// Every instance says that Redis will not, and why; nobody is disconnected, newcomers are let in, and
/// afterwards everything is as it should be.
async fn is_refused(
    fleet: &mut Fleet,
    begin: impl Fn(&Server),
    words: &[&str],
    end: impl Fn(&Server),
    server: &Server,
) {
    let mut before = [fleet[0].greeted("/ws?room_id=r").await, fleet[1].greeted("/ws?room_id=r").await];
    begin(server);
    let mut newcomer = fleet[0].greeted("/ws?room_id=r&user_id=new").await;
    fleet.gateway_mut(0).logs(&[&["WARN"], words].concat()).await;
    let health = fleet[0].get("/health").await.json();
    assert_eq!((&health["status"], &health["redis"]), (&json!("degraded"), &json!("down")), "{health}");
    assert_eq!(fleet[0].get("/health/live").await.status, 200);
    let sent = fleet.sends(0, json!({ "socketId": newcomer.id }), 1).await;
    assert_eq!(sent.status, 200, "{}", sent.text());
    assert_eq!(newcomer.hears().await["data"], 1);
    end(server);
    eventually("the others know the newcomer", async || {
        let found = fleet.lookup(1, &newcomer.id).await;
        assert!([200, 404, 503].contains(&found.status), "{}", found.text());
        (found.status == 200).then_some(())
    })
    .await;
    eventually("all are reached", async || {
        let sent = fleet.sends(2, json!({ "roomId": "r" }), "again").await;
        (sent.status == 200 && sent.json()["delivered"] == 3).then_some(())
    })
    .await;
    for client in before.iter_mut().chain([&mut newcomer]) {
        soon("it was not disconnected", async { while client.hears().await["data"] != "again" {} }).await;
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_right_that_is_taken_away_later_is_named_and_comes_back() {
    let server = Server::start();
    server.ask(&["ACL", "SETUSER", "holdfast", "on", ">hush", "~*", "&*", "+@all"]);
    let url = format!("redis://holdfast:hush@127.0.0.1:{}", server.port());
    let mut fleet = Fleet::on(&url, &[]).await;
    let take = |server: &Server| drop(server.ask(&["ACL", "SETUSER", "holdfast", "-hset"]));
    let give = |server: &Server| drop(server.ask(&["ACL", "SETUSER", "holdfast", "+hset"]));
    is_refused(&mut fleet, take, &["hset"], give, &server).await;
    assert!((0..3).all(|at| !fleet[at].output().contains("hush")));
}

#[tokio::test]
async fn a_redis_that_is_full_disconnects_nobody() {
    let server = Server::start();
    let mut fleet = Fleet::on(&server.url(), &[]).await;
    let fill = |server: &Server| drop(server.ask(&["CONFIG", "SET", "maxmemory", "1"]));
    let empty = |server: &Server| drop(server.ask(&["CONFIG", "SET", "maxmemory", "0"]));
    is_refused(&mut fleet, fill, &["OOM"], empty, &server).await;
}

/// It is to save, and cannot: then it takes no writes.
#[tokio::test]
async fn a_redis_that_cannot_save_disconnects_nobody() {
    let folder = TempFolder::new("unsaved");
    let server = Server::with(&[("dir", folder.name())]);
    let mut fleet = Fleet::on(&server.url(), &[]).await;
    let fail = |server: &Server| {
        // Whom root forbids to write, root may be; a folder that is gone stops everybody.
        std::fs::remove_dir_all(folder.path()).unwrap();
        server.ask(&["CONFIG", "SET", "save", "3600 1"]);
        server.ask(&["BGSAVE"]);
        while !server.text(&["INFO", "persistence"]).contains("rdb_last_bgsave_status:err") {}
    };
    let save = |server: &Server| drop(server.ask(&["CONFIG", "SET", "save", ""]));
    is_refused(&mut fleet, fail, &["MISCONF"], save, &server).await;
}

/// Readiness is whether the others are heard; liveness never asks Redis, and does not wait for it.
#[tokio::test]
async fn who_hears_nothing_is_not_ready_and_alive() {
    let server = Server::start();
    server.ask(&["ACL", "SETUSER", "holdfast", "on", ">hush", "~*", "&*", "+@all"]);
    let url = format!("redis://holdfast:hush@127.0.0.1:{}", server.port());
    let fleet = Fleet::on(&url, &[]).await;
    let mut client = fleet[0].greeted("/ws?room_id=r").await;
    let all_live = async || {
        for at in 0..3 {
            assert_eq!(fleet[at].get("/health/live").await.status, 200);
        }
    };
    server.ask(&["ACL", "SETUSER", "holdfast", "-subscribe"]);
    server.cut_subscribers();
    for at in 0..3 {
        eventually("who is deaf is not ready", async || {
            (fleet[at].get("/health/ready").await.status == 503).then_some(())
        })
        .await;
    }
    all_live().await;
    server.ask(&["ACL", "SETUSER", "holdfast", "+subscribe"]);
    fleet.hears().await;
    server.stop();
    let began = Instant::now();
    all_live().await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    server.cont();
    fleet.hears().await;
    client.heard_all().await;
    fleet.is_sound().await;
}

/// A script that runs for long makes Redis answer BUSY, and then it goes on.
#[tokio::test]
async fn a_redis_that_is_busy_for_a_while_disconnects_nobody() {
    let fleet = Fleet::with(&[]).await;
    let mut client = fleet[0].greeted("/ws?room_id=r").await;
    let port = fleet.redis().port();
    fleet.redis().ask(&["CONFIG", "SET", "busy-reply-threshold", "100"]);
    let busy = tokio::task::spawn_blocking(move || {
        let mut link = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap().get_connection().unwrap();
        let script = "local t = redis.call('TIME')[1] while redis.call('TIME')[1] - t < 3 do end return 1";
        redis::cmd("EVAL").arg(script).arg(0).query::<i64>(&mut link)
    });
    while !busy.is_finished() {
        let sent = fleet.sends(0, json!({ "socketId": client.id }), 1).await;
        assert_eq!(sent.status, 200, "{}", sent.text());
        assert_eq!(client.hears().await["data"], 1);
        let elsewhere = fleet.lookup(1, &client.id).await;
        assert!([200, 503].contains(&elsewhere.status), "{}", elsewhere.text());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    eventually("it is found again", async || (fleet.lookup(1, &client.id).await.status == 200).then_some(())).await;
    client.heard_all().await;
    fleet.is_sound().await;
}
