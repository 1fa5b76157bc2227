//! Whatever Redis is made of, it may be locked: by TLS, and by users with no more rights than are needed.

use crate::{fleet::Fleet, gateway::Gateway};
use serde_json::json;
use servers::{Cluster, Sentinels, Server};
use std::path::PathBuf;
use tokio::task::block_in_place;

/// Three instances start, and what is on one is found and reached from the others; one is told to go.
async fn is_one_fleet(url: &str, authority: Option<PathBuf>) {
    let authority = authority.map(|path| path.display().to_string());
    let settings: Vec<_> = authority.iter().map(|path| ("SSL_CERT_FILE", path.as_str())).collect();
    let mut fleet = Fleet::on(url, &settings).await;
    let mut client = fleet[0].greeted("/ws?user_id=ann&store_id=s&room_id=r").await;
    for at in 0..3 {
        let found = fleet.lookup(at, &client.id).await;
        assert_eq!((found.status, &found.json()["instance"]), (200, &json!("web1")), "{}", found.text());
        for to in [json!({ "socketId": client.id }), json!({ "userId": "ann" }), json!({ "roomId": "r" })] {
            let sent = fleet.sends(at, to, at).await;
            assert_eq!((sent.status, &sent.json()["delivered"]), (200, &json!(1)), "{}", sent.text());
            assert_eq!(client.hears().await["data"], at);
        }
    }
    client.leaves().await;
    assert_eq!(fleet[2].get("/api/users/ann").await.json()["count"], 0);
    let drained = fleet[0].request("POST", "/api/instances/web2/drain").await;
    assert_eq!(drained.status, 202, "{}", drained.text());
    fleet.ends(1).await;
    fleet.is_sound().await;
    for at in 0..3 {
        assert!(!fleet[at].output().contains("secret"), "{}", fleet[at].output());
    }
}

/// The user of deploy/redis, on each of them; the URL with its name and password.
fn with_user<'a>(url: &str, servers: impl IntoIterator<Item = &'a Server>) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/redis/holdfast.acl");
    let text = std::fs::read_to_string(path).unwrap();
    let rule = text.lines().find_map(|line| line.strip_prefix("user holdfast ")).unwrap();
    for server in servers {
        let rule = rule.split(' ').filter(|word| !word.starts_with('#'));
        let words: Vec<_> = ["ACL", "SETUSER", "holdfast", "reset", ">secret"].into_iter().chain(rule).collect();
        server.ask(&words);
        // Whoever forgets the user is nobody.
        server.ask(&["ACL", "SETUSER", "default", "resetpass", ">another"]);
    }
    url.replace("://", "://holdfast:secret@")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_and_their_servers_by_tls() {
    let sentinels = block_in_place(Sentinels::with_tls);
    is_one_fleet(&sentinels.url(), Some(sentinels.nodes()[0].ca_file())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_by_tls() {
    let cluster = block_in_place(|| Cluster::with_tls(3));
    is_one_fleet(&cluster.url(), Some(cluster.nodes()[0].ca_file())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_users_have_the_rights_that_suffice() {
    let cluster = block_in_place(|| Cluster::of(3, 0));
    let url = with_user(&cluster.url(), cluster.nodes());
    is_one_fleet(&url, None).await;
}

/// One password for all: the servers and the sentinels who watch them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_that_want_a_password_are_asked_with_it() {
    let sentinels = block_in_place(Sentinels::start);
    for node in sentinels.nodes() {
        node.ask(&["CONFIG", "SET", "masterauth", "secret", "requirepass", "secret"]);
    }
    for sentinel in sentinels.sentinels() {
        sentinel.ask(&["SENTINEL", "SET", "holdfast", "auth-pass", "secret"]);
        sentinel.ask(&["ACL", "SETUSER", "default", "resetpass", ">secret"]);
    }
    let url = sentinels.url().replace("://", "://:secret@");
    is_one_fleet(&url, None).await;
    let wrong = Gateway::command(&[]).env("REDIS_URL", &url.replace("secret", "wrong")).run().await;
    assert_eq!(wrong.code, 1, "{}", wrong.said());
    assert!(wrong.said().contains("REDIS_URL") && !wrong.said().contains("wrong@"), "{}", wrong.said());
}
