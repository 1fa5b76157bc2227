//! What every instance can tell of the whole fleet: lists, groups, instances, numbers.

use crate::{
    asking::encoded,
    client::Client,
    fleet::Fleet,
    holdfast::{Finished, Holdfast},
    patience::eventually,
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::sleep;

fn ids(list: &Value) -> Vec<String> {
    let text = |socket: &Value| socket["socketId"].as_str().unwrap().to_owned();
    list["sockets"].as_array().unwrap_or_else(|| panic!("no sockets: {list}")).iter().map(text).collect()
}

/// Eighteen sockets in turn on all three, with several names each.
async fn crowd(fleet: &Fleet) -> Vec<Client> {
    let mut clients = Vec::new();
    for nth in 0..18 {
        let target = format!("/ws?user_id=u{}&store_id=s{}&room_id=all&room_id=r{}", nth % 2, nth % 3, nth % 4);
        clients.push(fleet[nth % 3].greeted(&target).await);
        // Within one millisecond, ids of two processes have no order.
        sleep(Duration::from_millis(2)).await;
    }
    clients
}

/// Follows the links, each page at the next instance: a cursor is worth the same everywhere.
async fn walk(fleet: &Fleet, target: &str) -> Vec<String> {
    let (mut found, mut next) = (Vec::new(), Some(target.to_owned()));
    for at in (0..3).cycle().take(50) {
        let Some(target) = next else { return found };
        let page = fleet[at].get(&target).await;
        assert_eq!(page.status, 200, "{target}: {}", page.text());
        found.extend(ids(&page.json()));
        next = page.next_page();
    }
    panic!("a walk without end: {target}")
}

#[tokio::test]
async fn lists_are_narrowed_over_the_fleet_and_their_pages_are_turned_anywhere() {
    let fleet = Fleet::with(&[("MAX_SOCKETS_PER_USER", "0")]).await;
    let clients = crowd(&fleet).await;
    let meant = |holds: &dyn Fn(usize) -> bool| -> Vec<String> {
        clients.iter().enumerate().filter(|(nth, _)| holds(*nth)).map(|(_, client)| client.id.clone()).collect()
    };
    for (query, meant) in [
        ("", meant(&|_| true)),
        ("user=u1", meant(&|nth| nth % 2 == 1)),
        ("store=s2", meant(&|nth| nth % 3 == 2)),
        ("room=r3", meant(&|nth| nth % 4 == 3)),
        ("room=all", meant(&|_| true)),
        ("instance=web3", meant(&|nth| nth % 3 == 2)),
        ("instance=web2&room=all&user=u0", meant(&|nth| nth % 3 == 1 && nth % 2 == 0)),
        ("user=u0&room=r2", meant(&|nth| nth % 4 == 2)),
        ("store=s0&instance=web2", Vec::new()),
        ("user=nobody", Vec::new()),
        ("instance=web9", Vec::new()),
    ] {
        for at in 0..3 {
            let list = fleet[at].get(&format!("/api/sockets?{query}")).await;
            assert_eq!(list.status, 200, "{query}: {}", list.text());
            assert_eq!(ids(&list.json()), meant, "{query} at web{}", at + 1);
        }
        assert_eq!(walk(&fleet, &format!("/api/sockets?limit=4&{query}")).await, meant, "{query} in pages");
    }
    let mut pages = Vec::new();
    let mut next = Some("/api/debug/sockets?limit=5".to_owned());
    for at in (0..3).cycle() {
        let Some(target) = next else { break };
        let page = fleet[at].get(&target).await;
        next = page.next_page();
        pages.push(page.json());
    }
    let shown: Vec<_> = pages.iter().flat_map(|page| page["sockets"]["ids"].as_array().unwrap().clone()).collect();
    assert_eq!(json!(shown), json!(meant(&|_| true)));
    assert!(pages.iter().all(|page| page["sockets"]["total"] == 18), "the total is of the fleet");
    fleet.is_sound().await;
}

/// Whoever leaves while the pages are turned takes nobody along.
#[tokio::test]
async fn pages_miss_nobody_who_stays() {
    let fleet = Fleet::with(&[("MAX_SOCKETS_PER_USER", "0")]).await;
    let mut clients = crowd(&fleet).await;
    let first = fleet[0].get("/api/sockets?limit=6&room=all").await;
    for at in [5, 2] {
        clients.remove(at).leaves().await;
    }
    let late = fleet[1].greeted("/ws?room_id=all").await;
    let rest = walk(&fleet, &first.next_page().unwrap()).await;
    let expected: Vec<_> = clients[4..].iter().chain([&late]).map(|client| client.id.clone()).collect();
    assert_eq!(rest, expected);
    fleet.is_sound().await;
}

/// Who moved on is in the old group nowhere, and in the new one everywhere.
#[tokio::test]
async fn groups_follow_their_members_at_once() {
    let fleet = Fleet::with(&[]).await;
    let mut client = fleet[0].greeted("/ws?user_id=ann&store_id=s0&room_id=r0").await;
    let members = async |at: usize, path: String| {
        let told = fleet[at].get(&path).await.json();
        assert_eq!(told["missing"], json!([]), "{told}");
        assert_eq!((told["connected"] == true, &told["count"]), (!ids(&told).is_empty(), &json!(ids(&told).len())));
        ids(&told)
    };
    for turn in 1..=10 {
        let (at, before) = (1 + turn % 2, turn - 1);
        client.asks(json!({"type": "selectStore", "data": {"storeId": format!("s{turn}")}}).to_string()).await;
        client.asks(json!({"type": "join", "room": format!("r{turn}")}).to_string()).await;
        client.asks(json!({"type": "leave", "room": format!("r{before}")}).to_string()).await;
        for kind in ["stores/s", "rooms/r"] {
            assert_eq!(members(at, format!("/api/{kind}{turn}")).await, [client.id.as_str()], "{kind}{turn}");
            assert!(members(at, format!("/api/{kind}{before}")).await.is_empty(), "{kind}{before}");
        }
        let shown = fleet.lookup(at, &client.id).await.json();
        let carried = (json!(format!("s{turn}")), json!([format!("r{turn}")]));
        assert_eq!((&shown["storeId"], &shown["rooms"]), (&carried.0, &carried.1));
    }
    assert_eq!(members(2, "/api/users/ann".into()).await, [client.id.as_str()]);
    client.leaves().await;
    for path in ["/api/users/ann", "/api/stores/s10", "/api/rooms/r10"] {
        assert!(members(1, path.into()).await.is_empty(), "{path}");
    }
    fleet.is_sound().await;
}

/// Checklist 42, 214.
#[tokio::test]
async fn every_instance_knows_all_of_them_and_what_they_hold() {
    let fleet = Fleet::with(&[]).await;
    let mut clients = Vec::new();
    for (at, count) in [(0, 1), (1, 3), (2, 2)] {
        for _ in 0..count {
            clients.push(fleet[at].greeted("/ws").await);
        }
    }
    for at in 0..3 {
        let shown = eventually("the numbers are told", async || {
            let shown = fleet[at].get("/api/instances").await.json()["instances"].clone();
            let counts: Vec<_> = shown.as_array().unwrap().iter().map(|one| one["sockets"].clone()).collect();
            (json!(counts) == json!([1, 3, 2])).then_some(shown)
        })
        .await;
        for (nth, one) in shown.as_array().unwrap().iter().enumerate() {
            let pid = json!(fleet[nth].pid());
            let expected = (json!(Fleet::name(nth)), json!("serving"), pid, json!(false));
            assert_eq!(json!([one["instance"], one["state"], one["pid"], one["canary"]]), json!(expected), "{shown}");
            assert!(one["incarnation"].as_str().unwrap().starts_with(&format!("{}.", Fleet::name(nth))), "{shown}");
        }
        let metrics = eventually("the fleet is counted", async || {
            let counted = fleet[at].metric("holdfast_fleet_connections").await;
            (counted == 6.0).then_some(fleet[at].get("/metrics").with("Accept", "application/json").await)
        });
        let own = [1, 3, 2][at];
        assert_eq!(metrics.await.json()["active_connections"], own);
        assert_eq!(fleet[at].sockets().await, own);
    }
    fleet.is_sound().await;
}

/// Checklist 215: `MIN_SOCKETS` counts the fleet, wherever its sockets are.
#[tokio::test]
async fn the_fleet_is_below_its_minimum_or_it_is_not() {
    let fleet = Fleet::with(&[("MIN_SOCKETS", "3")]).await;
    let below = async |at: usize, value: f64| {
        eventually("every instance sees it", async || {
            (fleet[at].metric("holdfast_sockets_below_minimum").await == value).then_some(())
        })
        .await;
    };
    let mut clients = Vec::new();
    for at in [0, 0, 1] {
        clients.push(fleet[at].greeted("/ws").await);
    }
    for at in 0..3 {
        below(at, 0.0).await;
        assert!(!fleet[at].output().contains("🚨"), "{}", fleet[at].output());
    }
    clients.pop().unwrap().leaves().await;
    for at in 0..3 {
        below(at, 1.0).await;
    }
    let alarmed = (0..3).any(|at| fleet[at].output().contains("🚨 Socket count below threshold!"));
    assert!(alarmed, "{}", fleet[0].output());
    fleet.is_sound().await;
}

async fn command(fleet: &Fleet, at: usize, args: &[&str]) -> Finished {
    Holdfast::command(args).env("PORT", &fleet[at].port().to_string()).run().await
}

#[tokio::test]
async fn the_commands_show_the_fleet_whoever_is_asked() {
    let fleet = Fleet::with(&[]).await;
    let mut clients = Vec::new();
    for at in 0..3 {
        clients.push(fleet[at].greeted(&format!("/ws?user_id=u{at}&room_id=r")).await);
        sleep(Duration::from_millis(2)).await;
    }
    for at in 0..3 {
        let shown = command(&fleet, at, &["sockets"]).await;
        assert_eq!((shown.code, shown.stderr.as_str()), (0, ""), "{shown:?}");
        for (nth, (client, line)) in clients.iter().zip(shown.stdout.lines().skip(1)).enumerate() {
            assert!(line.contains(&client.id) && line.contains(&Fleet::name(nth)), "{line}");
        }
        let narrowed = command(&fleet, at, &["sockets", "--room", "r", "--instance", "web2", "--json"]).await;
        let narrowed: Value = serde_json::from_str(&narrowed.stdout).expect(&narrowed.stdout);
        assert_eq!(ids(&narrowed), [clients[1].id.as_str()]);
        let user = command(&fleet, at, &["sockets", "--user", "u2"]).await;
        assert!(user.code == 0 && user.stdout.contains(&clients[2].id), "{user:?}");
        let shown = command(&fleet, at, &["instances"]).await;
        assert_eq!((shown.code, shown.stdout.lines().count(), shown.stderr.as_str()), (0, 4, ""), "{shown:?}");
        let names: BTreeSet<_> = shown.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(names, ["name", "web1", "web2", "web3"].into());
        assert_eq!(command(&fleet, at, &["sockets", "--user", "nobody"]).await.code, 3);
    }
    fleet.is_sound().await;
}

/// The sockets of a group and of the whole, when there are many on each.
#[tokio::test]
async fn a_group_of_some_hundreds_is_whole_from_everywhere() {
    crate::asking::open_more_files();
    let fleet = Fleet::with(&[("MAX_SOCKETS_PER_USER", "0")]).await;
    let mut clients = Vec::new();
    for nth in 0..300 {
        clients.push(fleet[nth % 3].greeted("/ws?user_id=a%2Fb&room_id=r").await);
    }
    let mut all: Vec<_> = clients.iter().map(|client| client.id.clone()).collect();
    all.sort();
    for at in 0..3 {
        let told = fleet[at].get(&format!("/api/users/{}", encoded("a/b"))).await.json();
        assert_eq!((ids(&told), &told["count"], &told["missing"]), (all.clone(), &json!(300), &json!([])));
    }
    assert_eq!(walk(&fleet, "/api/sockets?room=r&limit=37").await, all);
    let sent = fleet.sends(1, json!({ "userId": "a/b" }), "all of you").await.json();
    let counts = ["matched", "delivered", "unknown", "instances"].map(|key| sent[key].as_u64().unwrap());
    assert_eq!(counts, [300, 300, 0, 3], "{sent}");
    for client in &mut clients {
        assert_eq!(client.hears().await["data"], "all of you");
        client.heard_all().await;
    }
    let kicked = fleet[2].delete("/api/users/a%2Fb").await.json();
    assert_eq!(kicked["closed"], 300, "{kicked}");
    for client in &mut clients {
        assert_eq!(client.closed().await.0, 4403);
    }
    assert_eq!(fleet[0].get("/api/debug/sockets").await.json()["sockets"]["total"], 0);
    fleet.is_sound().await;
}
