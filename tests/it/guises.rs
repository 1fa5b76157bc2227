//! Names: whatever is written in them means nothing to Redis, and to nobody else's fleet.

use crate::{asking::encoded, client::Client, fleet::Fleet, gateway::Gateway, patience::eventually};
use serde_json::{Value, json};
use servers::Server;

/// Good names that would mean something else if they stood in a key, a field, a pattern or a list.
const ODD: [&str; 11] =
    ["a|b|c", "{x}y", "}{", "ns:{p0}:live", "*?[a-z]", "a.b:c", "\"quoted\\", "ü🎲", "a/b?c=d&e#f%20", "#n", "web1"];

#[tokio::test]
async fn any_name_is_found_from_everywhere() {
    let fleet = Fleet::with(&[]).await;
    let long = "ß".repeat(128);
    for (turn, name) in ODD.into_iter().chain([long.as_str()]).enumerate() {
        let (at, elsewhere, third) = (turn % 3, (turn + 1) % 3, (turn + 2) % 3);
        let written = encoded(name);
        let target =
            format!("/ws?user_id={written}&store_id={written}&room_id={written}&room_id=r&client_id={written}");
        let mut client = fleet[at].greeted(&target).await;
        for to in ["userId", "storeId", "roomId"] {
            let sent = fleet.sends(elsewhere, json!({ to: name }), to).await.json();
            assert_eq!((&sent["matched"], &sent["delivered"]), (&json!(1), &json!(1)), "{to} {name}: {sent}");
            assert_eq!(client.hears().await["data"], to);
        }
        let shown = fleet.lookup(third, &client.id).await.json();
        let carried = ["userId", "storeId", "clientId", "rooms"].map(|key| &shown[key]);
        assert_eq!(json!(carried), json!([name, name, name, [name, "r"]]), "{shown}");
        for kind in ["users", "stores", "rooms"] {
            let told = fleet[third].get(&format!("/api/{kind}/{written}")).await.json();
            assert_eq!((&told["sockets"][0]["socketId"], &told["count"]), (&json!(client.id), &json!(1)), "{told}");
        }
        let listed = fleet[elsewhere].get(&format!("/api/sockets?user={written}&room={written}")).await.json();
        assert_eq!(listed["count"], 1, "{name}: {listed}");
        let mut member = fleet[elsewhere].greeted(&format!("/ws?room_id={written}")).await;
        client.says(json!({"type": "publish", "room": name, "data": turn}).to_string()).await;
        let heard = member.hears().await;
        assert_eq!((&heard["room"], &heard["data"]), (&json!(name), &json!(turn)));
        // It replaces itself, so the same text is the same client everywhere.
        let mut after = fleet[third].greeted(&target).await;
        assert_eq!(client.closed().await.0, 4409, "{name}");
        assert_eq!(fleet[elsewhere].delete(&format!("/api/users/{written}")).await.json()["closed"], 1, "{name}");
        assert_eq!(after.closed().await.0, 4403, "{name}");
    }
    fleet.is_sound().await;
}

/// A name that differs in one character is another one, though it may look the same.
#[tokio::test]
async fn names_that_look_alike_are_not_the_same() {
    let fleet = Fleet::with(&[("MAX_SOCKETS_PER_USER", "1")]).await;
    let names = ["é", "e\u{301}", "É", "a", "A", "a ", " a", "a\u{200b}"];
    let mut clients = Vec::new();
    for (nth, name) in names.iter().enumerate() {
        clients.push(fleet[nth % 3].greeted(&format!("/ws?user_id={0}&room_id={0}", encoded(name))).await);
    }
    for (nth, name) in names.iter().enumerate() {
        let shown = fleet.lookup((nth + 1) % 3, &clients[nth].id).await.json();
        let alike: Vec<_> = names.iter().filter(|other| **other == shown["userId"]).collect();
        let sent = fleet.sends((nth + 1) % 3, json!({ "roomId": name }), nth).await.json();
        assert_eq!((sent["matched"].as_u64(), alike.len()), (Some(1), 1), "{name:?}: {sent} {shown}");
        assert_eq!(clients[nth].hears().await["data"], nth, "{name:?}");
    }
    for client in &mut clients {
        client.heard_all().await;
    }
    fleet.is_sound().await;
}

async fn instance(url: &str, name: &str, namespace: &str) -> Gateway {
    Gateway::with([("REDIS_URL", url), ("INSTANCE", name), ("NAMESPACE", namespace), ("MAX_SOCKETS_PER_USER", "1")])
        .await
}

async fn names(gateway: &Gateway) -> Vec<String> {
    let shown = gateway.get("/api/instances").await.json();
    let text = |one: &Value| one["instance"].as_str().unwrap().to_owned();
    shown["instances"].as_array().unwrap().iter().map(text).collect()
}

#[tokio::test]
async fn an_instance_may_be_called_as_hosts_are() {
    let server = Server::start();
    for name in ["web1.example.com:5000", "[2001:db8::1]:8080", "büro 3", "a.b.c", "pod-7f9c|{x}"] {
        let mut odd = instance(&server.url(), name, "holdfast").await;
        let plain = instance(&server.url(), "plain", "holdfast").await;
        let mut known = names(&plain).await;
        known.sort();
        let mut expected = vec![name.to_owned(), "plain".to_owned()];
        expected.sort();
        assert_eq!(known, expected);
        let mut client = odd.greeted("/ws").await;
        let sent = plain.post("/api/send", &json!({ "socketId": client.id, "data": 1 })).await;
        assert_eq!(sent.json()["delivered"], 1, "{name}: {}", sent.text());
        assert_eq!(client.hears().await["data"], 1);
        let listed = plain.get(&format!("/api/sockets?instance={}", encoded(name))).await.json();
        assert_eq!(listed["count"], 1, "{name}: {listed}");
        odd.signal(rustix::process::Signal::TERM);
        assert_eq!(odd.exits().await, 0);
        let verdict = plain.verdict(&client.id).await;
        assert_eq!((&verdict["instance"], &verdict["cause"]), (&json!(name), &json!("instance_restart")));
        plain.stop().await;
    }
}

/// The same names and the same Redis, and still two fleets.
async fn are_strangers(one: &Gateway, other: &Gateway) {
    let target = "/ws?user_id=ann&store_id=s&room_id=r&client_id=tab";
    let mut clients: [Client; 2] = [one.greeted(target).await, other.greeted(target).await];
    for (nth, gateway) in [one, other].into_iter().enumerate() {
        let stranger = &clients[1 - nth].id;
        // One that has just begun does not know for a while what was before.
        eventually("it says that it never saw the stranger", async || {
            let status = gateway.get(&format!("/api/sockets/{stranger}")).await.status;
            assert!([404, 503].contains(&status), "{status}");
            (status == 404).then_some(())
        })
        .await;
        assert_eq!(gateway.delete(&format!("/api/sockets/{stranger}")).await.status, 404);
        assert_eq!(gateway.post("/api/send", &json!({ "socketId": stranger, "data": 9 })).await.status, 404);
        assert_eq!(gateway.get("/api/debug/sockets").await.json()["sockets"]["ids"], json!([clients[nth].id]));
        for to in [json!({"userId": "ann"}), json!({"storeId": "s"}), json!({"roomId": "r"}), json!({"all": true})] {
            let sent = gateway.post("/api/send", &json!({ "to": to, "data": nth })).await.json();
            assert_eq!((&sent["matched"], &sent["instances"]), (&json!(1), &json!(1)), "{sent}");
            assert_eq!(clients[nth].hears().await["data"], nth);
        }
        assert_eq!(names(gateway).await.len(), 1);
    }
    for client in &mut clients {
        client.says(r#"{"type":"publish","room":"r","data":5}"#).await;
        client.heard_all().await;
    }
    for gateway in [one, other] {
        eventually("only its own are counted", async || {
            (gateway.metric("holdfast_fleet_connections").await == 1.0).then_some(())
        })
        .await;
        assert_eq!(gateway.metric("holdfast_registry_drift").await, 0.0);
        assert_eq!(gateway.metric("holdfast_bell_foreign_total").await, 0.0);
        gateway.is_unharmed().await;
    }
}

#[tokio::test]
async fn fleets_of_two_namespaces_do_not_meet() {
    let server = Server::start();
    let (one, other) = (instance(&server.url(), "web1", "a").await, instance(&server.url(), "web1", "a:b").await);
    are_strangers(&one, &other).await;
    assert!(server.keys().iter().all(|key| key.starts_with("a:{") || key.starts_with("a:b:{")), "{:?}", server.keys());
}

#[tokio::test]
async fn fleets_of_two_databases_do_not_meet() {
    let server = Server::start();
    let [one, other] = [1, 2].map(|db| format!("{}/{db}", server.url()));
    let (one, other) = (instance(&one, "web1", "holdfast").await, instance(&other, "web1", "holdfast").await);
    are_strangers(&one, &other).await;
    assert!(server.keys().is_empty(), "the first database stays as it is: {:?}", server.keys());
}
