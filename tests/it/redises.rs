//! The Redis that a gateway is given: good, bad, locked, absent, and full of other people's keys.

use crate::{
    client::Client,
    fleet::Fleet,
    gateway::Gateway,
    holdfast::{Finished, TempFile},
    patience::{eventually, soon},
};
use registry::{
    Envelope, Incarnation, Session, SocketId,
    envelope::{Message, To},
};
use serde_json::json;
use servers::{Cluster, Server};
use tokio::task::block_in_place;

async fn refused(url: &str) -> Finished {
    Gateway::command(&[]).env("REDIS_URL", url).run().await
}

#[tokio::test]
async fn a_url_that_cannot_be_read_is_78_and_tells_no_secret() {
    for url in ["localhost:6379", "redis://:hush@", "redis+sentinel://hush@a:1", "mysql://hush@a", "redis://a:hush"] {
        let finished = refused(url).await;
        assert_eq!(finished.code, 78, "{url}: {}", finished.said());
        assert!(finished.said().contains("REDIS_URL"), "{}", finished.said());
        assert!(!finished.said().contains("hush"), "{}", finished.said());
    }
}

#[tokio::test]
async fn a_wrong_password_is_a_sentence_and_1() {
    let server = Server::with(&[("requirepass", "right")]);
    for url in [format!("redis://:hush@127.0.0.1:{}", server.port()), format!("redis://127.0.0.1:{}", server.port())] {
        let finished = refused(&url).await;
        assert_eq!(finished.code, 1, "{}", finished.said());
        assert!(finished.said().contains("REDIS_URL") && finished.said().contains("login"), "{}", finished.said());
        assert!(!finished.said().contains("hush"), "{}", finished.said());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_and_a_single_server_are_not_taken_for_each_other() {
    let (cluster, single) = block_in_place(|| (Cluster::of(3, 0), Server::start()));
    let node = cluster.nodes()[0].url();
    let as_cluster = single.url().replace("redis://", "redis+cluster://");
    for (url, instead) in [(node, "write redis+cluster://"), (as_cluster, "write redis://")] {
        let finished = refused(&url).await;
        assert_eq!(finished.code, 1, "{}", finished.said());
        assert!(finished.said().contains(instead), "{}", finished.said());
    }
}

/// The rights of deploy/redis suffice, and one that is missing is named.
#[tokio::test]
async fn the_rights_that_suffice_and_one_less() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/redis/holdfast.acl");
    let text = std::fs::read_to_string(path).unwrap();
    let rule = text.lines().find_map(|line| line.strip_prefix("user holdfast ")).unwrap();
    let rule: Vec<_> = rule.split(' ').filter(|word| !word.starts_with('#')).collect();
    let server = Server::start();
    let with_rights = |rule: &[&str]| {
        let words: Vec<_> = ["ACL", "SETUSER", "holdfast", "reset", ">secret"].iter().chain(rule).copied().collect();
        server.ask(&words);
        format!("redis://holdfast:secret@127.0.0.1:{}", server.port())
    };
    let fleet = Fleet::on(&with_rights(&rule), &[("MAX_SOCKETS_PER_USER", "1")]).await;
    let mut first = fleet.gateway(0).greeted("/ws?user_id=ann&store_id=s&room_id=r").await;
    let mut second = fleet.gateway(1).greeted("/ws?user_id=ann&store_id=s&room_id=r").await;
    assert_eq!(first.closed().await.0, 4410);
    assert_eq!(fleet.sends(2, json!({ "roomId": "r" }), "x".repeat(9000)).await.json()["delivered"], 1);
    second.hears().await;
    let kept = json!({ "storeId": "t", "event": "x", "whenOffline": "queue" });
    let kept = fleet.gateway(1).post("/api/call", &kept).await;
    assert_eq!(kept.status, 202, "{}", kept.text());
    let path = format!("/api/calls/{}", kept.json()["callId"].as_str().unwrap());
    let mut third = fleet.gateway(2).greeted("/ws?store_id=t").await;
    let call = third.hears().await["callId"].clone();
    third.says(json!({ "type": "reply", "callId": call, "data": 3 }).to_string()).await;
    eventually("it is answered", async || (fleet.gateway(0).get(&path).await.json()["result"] == 3).then_some(()))
        .await;
    fleet.is_sound().await;
    assert_eq!(server.ask(&["ACL", "LOG"]), redis::Value::Array(Vec::new()), "nothing was denied");
    drop(fleet);
    for missing in ["zadd", "evalsha", "publish", "xadd", "hscan", "script|load"] {
        let less: Vec<_> = rule.iter().copied().filter(|word| *word != format!("+{missing}")).collect();
        let finished = refused(&with_rights(&less)).await;
        assert_eq!(finished.code, 1, "{missing}: {}", finished.said());
        let named = finished.said().to_lowercase().contains(missing);
        assert!(named && !finished.said().contains("secret"), "{missing}: {}", finished.said());
    }
}

#[tokio::test]
async fn a_redis_that_evicts_is_warned_of() {
    let server = Server::with(&[("maxmemory-policy", "allkeys-lru")]);
    let url = server.url();
    let mut gateway = Gateway::with([("REDIS_URL", url.as_str())]).await;
    gateway.logs(&["WARN", "allkeys-lru", "noeviction"]).await;
}

#[tokio::test]
async fn without_redis_it_serves_and_catches_up() {
    let server = Server::start();
    let url = server.url();
    server.kill();
    let mut gateway = Gateway::with([("REDIS_URL", url.as_str())]).await;
    gateway.logs(&["WARN", "cannot be reached"]).await;
    let mut client: Client = gateway.greeted("/ws?user_id=ann").await;
    let health = gateway.get("/health").await.json();
    assert_eq!((&health["status"], &health["redis"]), (&json!("degraded"), &json!("down")));
    assert_eq!(gateway.get("/health/ready").await.status, 503);
    assert_eq!(gateway.get("/health/live").await.status, 200);
    let body = json!({ "socketId": client.id, "data": 1 });
    assert_eq!(gateway.post("/api/send", &body).await.status, 200);
    assert_eq!(client.hears().await["data"], 1);
    let elsewhere = json!({ "socketId": "ws_01a1fccb-d0dd-774a-b056-96b15ab63916", "data": 1 });
    let answer = gateway.post("/api/send", &elsewhere).await;
    assert_eq!((answer.status, &answer.json()["code"]), (503, &json!("registry_unavailable")));
    server.restart();
    eventually("it is ready", async || (gateway.get("/health/ready").await.status == 200).then_some(())).await;
    let other = Gateway::with([("REDIS_URL", url.as_str())]).await;
    eventually("the others know the socket", async || {
        (other.get(&format!("/api/sockets/{}", client.id)).await.status == 200).then_some(())
    })
    .await;
    gateway.is_unharmed().await;
}

#[tokio::test]
async fn tls_with_an_authority_of_ones_own() {
    let server = Server::with_tls();
    let (url, authority) = (server.url(), server.ca_file());
    let settings = [("REDIS_URL", url.as_str()), ("SSL_CERT_FILE", authority.to_str().unwrap())];
    let fleet = Fleet::on(&url, &settings).await;
    let mut client = fleet.gateway(0).greeted("/ws").await;
    assert_eq!(fleet.sends(1, json!({ "socketId": client.id }), 1).await.json()["delivered"], 1);
    client.hears().await;
    fleet.is_sound().await;
    let nobody = TempFile::holding("");
    let command = Gateway::command(&[]).env("REDIS_URL", &url).env("SSL_CERT_FILE", nobody.path());
    let mut stranger = command.serve().await;
    stranger.logs(&["WARN", "certificate"]).await;
}

/// What anybody may write under our prefix and on our bell is counted, named, and does no harm.
#[tokio::test]
async fn foreign_keys_and_messages_do_no_harm() {
    let server = Server::start();
    let mut fleet = Fleet::on(&server.url(), &[]).await;
    let mut clients = Vec::new();
    for at in 0..3 {
        clients.push(fleet.gateway(at).greeted("/ws?room_id=r").await);
    }
    let marks = [fleet.mark(0, 0).await, fleet.mark(0, 1).await, fleet.mark(0, 2).await];
    for mark in &marks {
        let bell = format!("holdfast:{{i:{mark}}}:bell");
        let to = To::Socket { id: SocketId::parse(&clients[0].id).unwrap(), session: Session::fresh() };
        let message = Message::Send { to, except: None, ack: false };
        let (web9, until) = (Incarnation::fresh("web9"), 9_999_999_999_999);
        let letter = Envelope::new(1, web9, until, message, "".into()).encode();
        let later = [&[letter[0] + 1], &letter[1..]].concat();
        for (number, message) in [
            ("", &b""[..]),
            ("", b"x"),
            ("", b"12"),
            ("-1\n", b"{}"),
            ("99999999999999999999999\n", b"{}"),
            ("1\n", b"{\"v\":1}"),
            ("2\n", b"@nothing"),
            ("3\n", &later),
            ("4\n", &letter[..40]),
            ("5\n", &letter),
            ("9999999999999\n", b""),
            ("1\n", b""),
        ] {
            server.ask(&[b"PUBLISH", bell.as_bytes(), &[number.as_bytes(), message].concat()]);
        }
    }
    server.ask(&["ZADD", "holdfast:{m}:instances", "1", "garbage", "2", "web9.x"]);
    server.ask(&["HSET", &format!("holdfast:{{i:{}}}:lease", "x".repeat(22)), "n", "what"]);
    let live = server.keys().into_iter().find(|key| key.ends_with(":live")).unwrap();
    let tag = live.strip_suffix(":live").unwrap();
    server.ask(&["SET", &format!("{tag}:ended"), "not a set"]);
    server.ask(&["SET", "holdfast:{g:----------------------}:instances", "not a hash"]);
    for at in 0..3 {
        let gateway = fleet.gateway(at);
        eventually("what is foreign is counted", async || {
            (gateway.metric("holdfast_bell_foreign_total").await >= 8.0).then_some(())
        })
        .await;
        assert_eq!(fleet.sends(at, json!({ "roomId": "r" }), at).await.json()["delivered"], 3);
        for client in &mut clients {
            assert_eq!(soon("the send comes", client.hears()).await["data"], at);
        }
    }
    assert_eq!(fleet.incarnations(0).await.len(), 3);
    // A row of another type is named, and its socket is served all the same.
    let rows: Vec<_> = server.keys().into_iter().filter(|key| key.contains(":socket:")).collect();
    let row = rows.first().unwrap();
    let owner = server.text(&["HGET", row, "owner"]);
    let another = (0..3).find(|at| !owner.starts_with(&format!("{}.", Fleet::name(*at)))).unwrap();
    server.ask(&["DEL", row]);
    server.ask(&["SET", row, "not a hash"]);
    for at in 0..3 {
        for client in &clients {
            let status = fleet.lookup(at, &client.id).await.status;
            assert!([200, 503].contains(&status), "{status}");
        }
    }
    fleet.gateway_mut(another).logs(&["WARN", "Redis refused", row, "WRONGTYPE"]).await;
    fleet.is_sound_but(&["inbox_gap_unfilled"]).await;
}
