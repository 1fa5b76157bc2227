//! Looking sockets up: one by one, by the groups they are in, page by page, and after their end.

use crate::{asking::keys, client::Client, gateway::Gateway, patience::eventually};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// The ids that a list shows, in its order.
fn ids(page: &Value) -> Vec<String> {
    let sockets = page["sockets"].as_array().unwrap_or_else(|| panic!("no sockets: {page}"));
    sockets.iter().map(|socket| socket["socketId"].as_str().unwrap().to_owned()).collect()
}

async fn listed(gateway: &Gateway, target: &str) -> Vec<String> {
    let answer = gateway.get(target).await;
    assert_eq!(answer.status, 200, "{target}: {}", answer.text());
    ids(&answer.json())
}

/// Checklist 182, 184.
#[tokio::test]
async fn a_live_socket_is_shown_with_what_it_is() {
    let gateway = Gateway::with([("INSTANCE", "web1")]).await;
    let before = now_ms();
    let client = gateway.greeted("/ws?user_id=u&store_id=s&room_id=a&room_id=b&client_id=tab").await;
    let answer = gateway.get(&format!("/api/sockets/{}", client.id)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let shown = answer.json();
    for (member, value) in [
        ("socketId", json!(client.id)),
        ("instance", json!("web1")),
        ("userId", json!("u")),
        ("storeId", json!("s")),
        ("rooms", json!(["a", "b"])),
        ("readyState", json!(1)),
    ] {
        assert_eq!(shown[member], value, "{shown}");
    }
    let (connected, after) = (shown["connectedAt"].as_u64().unwrap(), now_ms());
    assert!((before..=after).contains(&connected), "{before} {connected} {after}");
    let nameless = gateway.greeted("/connect").await;
    let shown = gateway.get(&format!("/api/sockets/{}", nameless.id)).await.json();
    assert_eq!((&shown["userId"], &shown["storeId"], &shown["rooms"]), (&json!(null), &json!(null), &json!([])));
}

/// Checklist 4: those that are meant, in the order in which they connected.
#[tokio::test]
async fn a_list_is_narrowed_by_what_sockets_carry() {
    let gateway = Gateway::with([("INSTANCE", "web1")]).await;
    let mut clients: Vec<Client> = Vec::new();
    for query in ["user_id=u&store_id=s&room_id=r", "user_id=u&room_id=r", "user_id=v&store_id=s", "room_id=a%20b"] {
        clients.push(gateway.greeted(&format!("/ws?{query}")).await);
    }
    for (query, meant) in [
        ("", &[0, 1, 2, 3][..]),
        ("?user=u", &[0, 1]),
        ("?store=s", &[0, 2]),
        ("?room=r", &[0, 1]),
        ("?room=a+b", &[3]),
        ("?user=u&store=s", &[0]),
        ("?user=v&room=r", &[]),
        ("?user=nobody", &[]),
        ("?user=anonymous", &[]),
        ("?instance=web1", &[0, 1, 2, 3]),
        ("?instance=web1&user=v", &[2]),
        ("?instance=web2", &[]),
        ("?instance=web2&user=v", &[]),
    ] {
        let meant: Vec<_> = meant.iter().map(|at| clients[*at].id.clone()).collect();
        assert_eq!(listed(&gateway, &format!("/api/sockets{query}")).await, meant, "{query}");
    }
}

/// Checklist 196.
#[tokio::test]
async fn pages_hold_every_socket_once_and_in_order() {
    let gateway = Gateway::start().await;
    let mut clients = Vec::new();
    for n in 0..25 {
        clients
            .push(gateway.greeted(if n % 5 == 0 { "/ws?room_id=r%26s&user_id=u" } else { "/ws?room_id=r%26s" }).await);
    }
    let all: Vec<_> = clients.iter().map(|client| client.id.clone()).collect();
    for target in ["/api/sockets?limit=10", "/api/sockets?room=r%26s&limit=10", "/__ws/api/sockets?limit=10&instance="]
    {
        let instance = gateway.get("/health").await.json()["instance"].as_str().unwrap().to_owned();
        let target = target.replace("instance=", &format!("instance={instance}"));
        let pages = gateway.pages(&target).await;
        let sizes: Vec<_> = pages.iter().map(|page| ids(page).len()).collect();
        assert_eq!(sizes, [10, 10, 5], "{target}");
        assert_eq!(pages.iter().flat_map(ids).collect::<Vec<_>>(), all, "{target}");
    }
    let pages = gateway.pages("/api/sockets?limit=2&user=u").await;
    let fifth: Vec<_> = all.iter().step_by(5).cloned().collect();
    assert_eq!(pages.iter().flat_map(ids).collect::<Vec<_>>(), fifth);
    assert!(gateway.get("/api/sockets").await.next_page().is_none(), "they fit one page");
    // Who leaves while the pages are turned takes nobody else along.
    let first = gateway.get("/api/sockets?limit=10").await;
    let last = clients.remove(9);
    let gone = last.id.clone();
    last.leaves().await;
    gateway.verdict(&gone).await;
    let next = gateway.get(&first.next_page().unwrap()).await.json();
    assert_eq!(ids(&next), all[10..20]);
}

#[tokio::test]
async fn a_page_that_cannot_be_asked_for_is_400() {
    let gateway = Gateway::start().await;
    for path in ["/api/sockets", "/api/debug/sockets"] {
        for (name, value) in [
            ("cursor", "nonsense"),
            ("cursor", "ws_123"),
            ("cursor", ""),
            ("cursor", "%00"),
            ("limit", "0"),
            ("limit", "-1"),
            ("limit", "ten"),
            ("limit", "1e3"),
            ("limit", ""),
            ("limit", "99999999999999999999"),
            ("limit", "%zz"),
        ] {
            let answer = gateway.get(&format!("{path}?{name}={value}")).await;
            assert_eq!(answer.status, 400, "{path} {name}={value}: {}", answer.text());
            answer.is_problem();
            assert!(answer.text().contains(name), "{}", answer.text());
        }
    }
    for query in ["user=", "store=%00", "room=undefined", "user=%zz", "room=a&room=b"] {
        assert_eq!(gateway.get(&format!("/api/sockets?{query}")).await.status, 400, "{query}");
    }
}

/// Checklist 237, 240.
#[tokio::test]
async fn a_group_says_who_is_there_and_where() {
    let gateway = Gateway::with([("INSTANCE", "web1")]).await;
    let here = gateway.greeted("/ws?user_id=a%2Fb&store_id=a%2Fb&room_id=a%2Fb").await;
    let other = gateway.greeted("/ws?user_id=c&store_id=c&room_id=c").await;
    for kind in ["users", "stores", "rooms"] {
        let shown = gateway.get(&format!("/api/{kind}/a%2Fb")).await.json();
        assert_eq!(ids(&shown), [here.id.as_str()], "{shown}");
        assert_eq!((&shown["sockets"][0]["instance"], &shown["missing"]), (&json!("web1"), &json!([])), "{shown}");
        assert!(!shown.to_string().contains(&other.id));
        for nobody in ["nobody", "anonymous", "A%2FB"] {
            let shown = gateway.get(&format!("/api/{kind}/{nobody}")).await;
            assert_eq!((shown.status, ids(&shown.json()).len()), (200, 0), "{kind}/{nobody}: {}", shown.text());
        }
        for bad in ["%20", "%00", "undefined", &"x".repeat(257)] {
            let answer = gateway.get(&format!("/api/{kind}/{bad}")).await;
            assert_eq!(answer.status, 400, "{kind}/{bad}: {}", answer.text());
            answer.is_problem();
        }
    }
}

/// Checklist 201.
#[tokio::test]
async fn a_selected_store_is_shown_everywhere_and_the_one_before_is_not() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?store_id=old").await;
    client.asks(r#"{"type":"selectStore","data":{"storeId":"meonutrition"}}"#).await;
    let id = client.id.clone();
    assert_eq!(gateway.get(&format!("/api/sockets/{id}")).await.json()["storeId"], "meonutrition");
    assert_eq!(listed(&gateway, "/api/stores/meonutrition").await, [id.as_str()]);
    assert_eq!(listed(&gateway, "/api/sockets?store=meonutrition").await, [id.as_str()]);
    assert!(listed(&gateway, "/api/stores/old").await.is_empty());
    let debug = gateway.get("/api/debug/sockets").await.json();
    assert_eq!(debug["sockets"]["metadata"][&id]["storeId"], "meonutrition");
    assert_eq!(gateway.post("/api/send", &json!({ "storeId": "old" })).await.json()["matched"], 0);
    assert_eq!(gateway.post("/api/send", &json!({ "storeId": "meonutrition" })).await.json()["delivered"], 1);
    client.hears().await;
    client.leaves().await;
    assert_eq!(gateway.verdict(&id).await["storeId"], "meonutrition");
}

/// Checklist 184, 206: it says how many others of the store could be asked instead.
#[tokio::test]
async fn a_verdict_counts_the_stores_other_sockets() {
    let gateway = Gateway::with([("INSTANCE", "web1")]).await;
    let _others = [gateway.greeted("/ws?store_id=s").await, gateway.greeted("/ws?store_id=s").await];
    let client = gateway.greeted("/ws?store_id=s").await;
    let id = client.id.clone();
    // It breaks off without a word.
    drop(client);
    let verdict = gateway.verdict(&id).await;
    let members =
        ["socketId", "state", "cause", "closeCode", "reason", "instance", "connectedAt", "closedAt", "storeId"];
    let members: Vec<_> = members.into_iter().chain(["storeSockets", "restarts", "sentence"]).collect();
    assert_eq!(keys(&verdict), members.into_iter().collect(), "{verdict}");
    assert_eq!((&verdict["cause"], &verdict["closeCode"]), (&json!("connection_lost"), &json!(null)), "{verdict}");
    assert_eq!((&verdict["storeId"], &verdict["storeSockets"]), (&json!("s"), &json!(2)));
    let sentence = verdict["sentence"].as_str().unwrap();
    assert!(sentence.starts_with(&format!("{id} was on web1 and closed 0 s ago ")), "{sentence}");
    let sent = gateway.post("/api/send", &json!({ "socketId": id })).await;
    assert_eq!((sent.status, &sent.json()["verdict"]["storeSockets"]), (410, &json!(2)));
}

/// Any text may be asked about; none of them is a fault, and none of them floods the answer.
#[tokio::test]
async fn any_text_is_an_id_to_ask_about() {
    let gateway = Gateway::start().await;
    for (written, id) in
        [("ws_123", "ws_123"), ("a%2Fb", "a/b"), ("%00", "\0"), ("%C3%BC", "ü"), (&"x".repeat(5000), &"x".repeat(128))]
    {
        let answer = gateway.get(&format!("/api/sockets/{written}")).await;
        assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("socket_never_seen")), "{written:.20}");
        assert_eq!(answer.json()["verdict"]["socketId"], id);
    }
    gateway.is_unharmed().await;
}

/// Checklist 42, 214.
#[tokio::test]
async fn the_instances_are_shown_with_what_they_hold() {
    for canary in ["true", "false"] {
        let gateway = Gateway::with([("INSTANCE", "web1"), ("CANARY", canary)]).await;
        let _clients = [gateway.greeted("/ws").await, gateway.greeted("/ws").await];
        let shown = eventually("both sockets are counted", async || {
            let shown = gateway.get("/api/instances").await.json()["instances"].clone();
            (shown[0]["sockets"] == 2).then_some(shown)
        })
        .await;
        assert_eq!(shown.as_array().unwrap().len(), 1, "{shown}");
        let own = &shown[0];
        assert_eq!(
            (&own["instance"], &own["pid"], &own["canary"]),
            (&json!("web1"), &json!(gateway.pid()), &json!(canary == "true"))
        );
        assert_eq!(own["version"], gateway.get("/health").await.json()["version"]);
    }
}
