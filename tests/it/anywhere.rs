//! What works with one instance works from any of three: they share a registry on Redis.

use crate::{client::Client, fleet::Fleet, holdfast::Holdfast, http::Answer, patience::eventually};
use futures_util::future::join_all;
use serde_json::{Value, json};
use servers::Server;
use std::{collections::BTreeSet, time::Duration};

async fn fleet(server: &Server) -> Fleet {
    Fleet::on(&server.url(), &[]).await
}

/// One client on each instance, with the same target.
async fn one_each(fleet: &Fleet, target: &str) -> Vec<Client> {
    join_all((0..3).map(|at| fleet.gateway(at).greeted(target))).await
}

fn ids(list: &Value) -> BTreeSet<String> {
    let text = |socket: &Value| socket["socketId"].as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(text).collect()
}

#[track_caller]
fn ok(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn a_socket_is_found_from_every_instance() {
    let server = Server::start();
    let fleet = fleet(&server).await;
    let client = fleet.gateway(0).greeted("/ws?user_id=ann&store_id=s&room_id=r&client_id=tab").await;
    for at in 0..3 {
        let found = ok(&fleet.lookup(at, &client.id).await);
        let expected = json!(["web1", "ann", "s", ["r"], "tab", 1]);
        let shown = ["instance", "userId", "storeId", "rooms", "clientId", "readyState"].map(|key| &found[key]);
        assert_eq!(json!(shown), expected, "asked at web{}", at + 1);
        assert_eq!(found["lastActivity"].is_null(), at != 0, "only its own instance has heard it: {found}");
        let url = format!("http://{}", fleet.gateway(at).address());
        let why = Holdfast::command(&["why", &client.id, "--url", &url]).run().await;
        assert_eq!(why.code, 0, "{}", why.said());
        assert!(why.stdout.contains("web1"), "{}", why.said());
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn the_whole_fleet_is_shown_in_order_of_connection() {
    let server = Server::start();
    let fleet = fleet(&server).await;
    let mut clients = Vec::new();
    for turn in 0..9 {
        clients.push(fleet.gateway(turn % 3).greeted("/ws?store_id=s").await);
        // Within one millisecond, ids of two processes have no order.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let order: Vec<_> = clients.iter().map(|client| client.id.clone()).collect();
    for at in 0..3 {
        let shown = ok(&fleet.gateway(at).get("/api/debug/sockets?verbose=1").await);
        assert_eq!(shown["sockets"]["ids"], json!(order));
        assert_eq!((&shown["sockets"]["total"], &shown["instances"]), (&json!(9), &json!(["web1", "web2", "web3"])));
        assert_eq!(shown["sockets"]["metadata"][&order[at]]["instance"], Fleet::name(at));
        let local = ok(&fleet.gateway(at).get("/api/debug/sockets?scope=local").await);
        let here: Vec<_> = order.iter().skip(at).step_by(3).collect();
        assert_eq!((&local["sockets"]["ids"], &local["sockets"]["total"]), (&json!(here), &json!(3)));
        let pages = fleet.gateway(at).pages("/api/debug/sockets?limit=2").await;
        let paged: Vec<_> = pages.iter().flat_map(|page| page["sockets"]["ids"].as_array().unwrap()).collect();
        assert_eq!(paged, order.iter().collect::<Vec<_>>());
        let listed = ok(&fleet.gateway(at).get("/api/sockets?store=s").await);
        assert_eq!(ids(&listed["sockets"]), order.iter().cloned().collect());
        let of_web2 = ok(&fleet.gateway(at).get("/api/sockets?instance=web2").await);
        assert_eq!(ids(&of_web2["sockets"]), order.iter().skip(1).step_by(3).cloned().collect());
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_send_reaches_its_target_wherever_it_is() {
    let server = Server::start();
    let fleet = fleet(&server).await;
    let mut clients = one_each(&fleet, "/ws?user_id=ann&store_id=s&room_id=r").await;
    let far = clients[2].id.clone();
    let sent = ok(&fleet.sends(0, json!({ "socketId": far }), 1).await);
    assert_eq!((&sent["status"], &sent["matched"], &sent["instances"]), (&json!("delivered"), &json!(1), &json!(1)));
    assert_eq!(clients[2].hears().await["data"], 1);
    for (number, to) in
        [json!({"userId": "ann"}), json!({"storeId": "s"}), json!({"roomId": "r"}), json!({"all": true})]
            .into_iter()
            .enumerate()
    {
        let sent = ok(&fleet.sends(number % 3, to, number).await);
        let counts = ["matched", "delivered", "unknown", "instances"].map(|key| sent[key].as_u64().unwrap());
        assert_eq!(counts, [3, 3, 0, 3], "{sent}");
        for client in &mut clients {
            assert_eq!(client.hears().await["data"], number);
        }
    }
    let body = json!({ "roomId": "r", "data": "x", "exceptSocketId": far });
    assert_eq!(ok(&fleet.gateway(1).post("/api/send", &body).await)["delivered"], 2);
    let body = json!({ "user_id": "ann", "data": 7 });
    assert_eq!(ok(&fleet.gateway(1).post("/sse/push", &body).await)["message"], "Message delivered");
    let large = "x".repeat(200_000);
    ok(&fleet.sends(0, json!({ "socketId": far }), large.clone()).await);
    assert_eq!(clients[2].hears().await["data"], 7, "the excepted one heard nothing else");
    assert_eq!(clients[2].hears().await["data"], large);
    let batch = json!({ "messages": [
        { "socketId": far, "data": 8 }, { "socketId": "ws_123", "data": 9 }, { "roomId": "r", "data": 10 },
    ]});
    let results = ok(&fleet.gateway(0).post("/api/send/batch", &batch).await)["results"].clone();
    let states: Vec<_> = results.as_array().unwrap().iter().map(|result| &result["status"]).collect();
    assert_eq!(states, ["delivered", "failed", "delivered"]);
    assert_eq!((&clients[2].hears().await["data"], &clients[2].hears().await["data"]), (&json!(8), &json!(10)));
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_kick_from_elsewhere_says_what_was_asked() {
    let server = Server::start();
    let fleet = fleet(&server).await;
    let mut clients = one_each(&fleet, "/ws?user_id=ann").await;
    let id = clients[0].id.clone();
    ok(&fleet.gateway(1).delete(&format!("/api/sockets/{id}?code=4999&reason=enough")).await);
    assert_eq!(clients[0].closed().await, (4999, "enough".to_owned()));
    for at in 0..3 {
        let verdict = fleet.gateway(at).verdict(&id).await;
        let shown = ["instance", "cause", "closeCode", "reason"].map(|key| &verdict[key]);
        assert_eq!(json!(shown), json!(["web1", "kicked", 4999, "enough"]));
    }
    let gone = ok(&fleet.gateway(0).delete("/api/users/ann").await);
    assert_eq!(gone["closed"], 2);
    assert_eq!(clients[1].closed().await.0, 4403);
    assert_eq!(clients[2].closed().await.0, 4403);
    fleet.is_sound().await;
}

#[tokio::test]
async fn who_is_there_is_told_over_the_fleet() {
    let server = Server::start();
    let fleet = fleet(&server).await;
    let clients = one_each(&fleet, "/ws?user_id=ann&store_id=s&room_id=r").await;
    let all: BTreeSet<_> = clients.iter().map(|client| client.id.clone()).collect();
    for (at, path) in ["/api/users/ann", "/api/stores/s", "/api/rooms/r"].into_iter().enumerate() {
        let told = ok(&fleet.gateway(at).get(path).await);
        assert_eq!((ids(&told["sockets"]), &told["missing"]), (all.clone(), &json!([])), "{path}");
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn rooms_are_changed_from_elsewhere() {
    let server = Server::start();
    let fleet = Fleet::on(&server.url(), &[("MAX_ROOMS", "2")]).await;
    let mut client = fleet.gateway(0).greeted("/ws").await;
    let room = |name: &str| format!("/api/sockets/{}/rooms/{name}", client.id);
    let (a, b, c) = (room("a"), room("b"), room("c"));
    ok(&fleet.gateway(1).request("PUT", &a).await);
    ok(&fleet.gateway(2).request("PUT", &b).await);
    assert_eq!(fleet.gateway(1).request("PUT", &c).await.status, 422);
    ok(&fleet.gateway(2).request("DELETE", &a).await);
    assert_eq!(ok(&fleet.sends(1, json!({ "roomId": "a" }), 1).await)["matched"], 0);
    assert_eq!(ok(&fleet.sends(1, json!({ "roomId": "b" }), 2).await)["matched"], 1);
    assert_eq!(client.hears().await["data"], 2);
    fleet.is_sound().await;
}

#[tokio::test]
async fn what_was_answered_holds_everywhere_at_once() {
    let server = Server::start();
    let fleet = fleet(&server).await;
    let mut member = fleet.gateway(0).greeted("/ws").await;
    let mut other = fleet.gateway(1).greeted("/ws?room_id=r").await;
    for round in 0..20 {
        member.asks(r#"{"type":"join","room":"r"}"#).await;
        other.says(json!({"type": "publish", "room": "r", "data": round}).to_string()).await;
        assert_eq!(member.hears().await["data"], round);
        member.asks(r#"{"type":"leave","room":"r"}"#).await;
        assert_eq!(ok(&fleet.sends(2, json!({ "roomId": "r" }), "x").await)["matched"], 1);
        assert_eq!(other.hears().await["data"], "x");
        let store = format!("s{round}");
        member.asks(json!({"type": "selectStore", "data": {"storeId": store}}).to_string()).await;
        assert_eq!(ok(&fleet.sends(2, json!({ "storeId": store }), round).await)["delivered"], 1);
        assert_eq!(member.hears().await["data"], round);
    }
    fleet.is_sound().await;
}

#[tokio::test]
async fn two_instances_of_one_name_both_work_and_say_so() {
    let server = Server::start();
    let url = server.url();
    let settings = [("REDIS_URL", url.as_str()), ("INSTANCE", "twin")];
    let mut twins = [crate::gateway::Gateway::with(settings).await, crate::gateway::Gateway::with(settings).await];
    let mut client = twins[0].greeted("/ws").await;
    let sent = twins[1].post("/api/send", &json!({ "socketId": client.id, "data": 1 })).await;
    assert_eq!(ok(&sent)["status"], "delivered");
    assert_eq!(client.hears().await["data"], 1);
    let listed = ok(&twins[0].get("/api/instances").await)["instances"].clone();
    let lives: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["incarnation"].as_str().unwrap()).collect();
    assert_eq!(lives.len(), 2, "{listed}");
    for twin in &mut twins {
        let warning = twin.logs(&["another instance is called twin"]).await;
        assert!(lives.iter().all(|life| warning.contains(life)), "{warning}");
    }
}

#[tokio::test]
async fn verdicts_are_counted_over_the_fleet() {
    let server = Server::start();
    let fleet = fleet(&server).await;
    let mut clients = one_each(&fleet, "/ws?store_id=s").await;
    let first = clients.remove(0);
    let id = first.id.clone();
    first.leaves().await;
    let verdict = eventually("the number of the others is known", async || {
        let verdict = fleet.gateway(1).verdict(&id).await;
        (verdict["storeSockets"] == 2).then_some(verdict)
    })
    .await;
    assert_eq!((&verdict["cause"], &verdict["instance"]), (&json!("client_closed"), &json!("web1")));
    fleet.is_sound().await;
}
