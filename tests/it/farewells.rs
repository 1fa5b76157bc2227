//! Why a socket is gone, asked at the instances that never held it.

use crate::{
    asking::texts,
    fleet::Fleet,
    holdfast::Holdfast,
    patience::{eventually, soon},
    raw::{CLOSE, FIN, Raw, frame},
};
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};

/// A socket of a store on web1 whose client does only what it is told, and its id.
async fn raw(fleet: &Fleet, target: &str) -> (Raw, String) {
    let mut raw = fleet[0].raw().await;
    raw.upgrade(fleet[0].address(), target).await;
    let id = raw.is_greeted().await["socketId"].as_str().unwrap().to_owned();
    (raw, id)
}

/// The two others say the same of a socket that was on web1; returns what.
async fn others_agree(fleet: &Fleet, id: &str, what: &str) -> Value {
    let verdicts = join_all([1, 2].map(|at| fleet[at].verdict(id))).await;
    // How long ago it was, and so the sentence, may differ.
    let facts = |verdict: &Value| {
        let keys = ["socketId", "state", "cause", "closeCode", "reason", "instance", "closedAt", "storeId"];
        keys.map(|key| verdict[key].clone())
    };
    assert_eq!(facts(&verdicts[0]), facts(&verdicts[1]), "{what}");
    let verdict = verdicts.into_iter().next().unwrap();
    let sentence = verdict["sentence"].as_str().unwrap();
    assert!(sentence.starts_with(&format!("{id} was on web1 and closed ")), "{what}: {sentence}");
    assert_eq!((&verdict["socketId"], &verdict["instance"]), (&json!(id), &json!("web1")), "{what}");
    verdict
}

fn says(verdict: &Value, cause: &str, code: u16, reason: &str) {
    let shown = ["state", "cause", "closeCode", "storeId"].map(|key| &verdict[key]);
    assert_eq!(json!(shown), json!(["closed", cause, code, "shop"]), "{verdict}");
    assert!(verdict["reason"].as_str().unwrap().contains(reason), "{verdict}");
}

/// Checklist 16, 112, 184.
#[tokio::test]
async fn the_true_cause_is_known_everywhere() {
    let fleet = Fleet::with(&[]).await;
    let closed = |code: u16, reason: &str| frame(FIN | CLOSE, &[&code.to_be_bytes()[..], reason.as_bytes()].concat());
    for (bytes, cause, code, reason) in [
        (closed(1000, "done"), "client_closed", 1000, "done"),
        (closed(1001, ""), "client_closed", 1001, ""),
        (closed(3999, "grün"), "client_closed", 3999, "grün"),
        (frame(FIN | 3, b""), "protocol_error", 1002, "protocol"),
        (frame(FIN | 1, b"\xff"), "protocol_error", 1007, "UTF-8"),
    ] {
        let (mut raw, id) = raw(&fleet, "/ws?store_id=shop").await;
        raw.write(&bytes).await;
        says(&others_agree(&fleet, &id, cause).await, cause, code, reason);
    }
    let (broken, id) = raw(&fleet, "/ws?store_id=shop").await;
    drop(broken);
    let verdict = others_agree(&fleet, &id, "a broken connection").await;
    assert_eq!((&verdict["cause"], &verdict["closeCode"]), (&json!("connection_lost"), &json!(null)), "{verdict}");
    fleet.is_sound().await;
}

#[tokio::test]
async fn silence_and_slowness_are_told_apart_everywhere() {
    let fleet = Fleet::with(&[("WS_PING_INTERVAL", "1s"), ("WS_PING_TIMEOUT", "1s")]).await;
    let (_silent, silent) = raw(&fleet, "/ws?store_id=shop").await;
    says(&others_agree(&fleet, &silent, "silence").await, "ping_timeout", 4100, "ping timeout");
    let fleet = Fleet::with(&[("WS_PING_TIMEOUT", "1s")]).await;
    let (_lazy, lazy) = fleet[0].lazy("/ws?store_id=shop").await;
    // It is filled from elsewhere, and what does not fit is refused as it would be next to it.
    let (taken, busy) = fleet[1].fills(&lazy).await;
    assert!(taken > 0 && [410, 429].contains(&busy.status), "{taken}: {}", busy.text());
    says(&others_agree(&fleet, &lazy, "slowness").await, "too_slow", 4101, "too slow");
    fleet.is_sound().await;
}

#[tokio::test]
async fn those_who_had_to_go_are_told_apart_everywhere() {
    let fleet = Fleet::with(&[("MAX_SOCKETS_PER_USER", "1")]).await;
    let target = |client: &str| format!("/ws?user_id=ann&store_id=shop&client_id={client}");
    let mut replaced = fleet[0].greeted(&target("tab")).await;
    let again = fleet[1].greeted(&target("tab")).await;
    let (code, reason) = replaced.closed().await;
    assert_eq!(code, 4409);
    says(&others_agree(&fleet, &replaced.id, "replaced").await, "replaced", 4409, &reason);
    again.leaves().await;
    let mut evicted = fleet[0].greeted(&target("one")).await;
    let _newest = fleet[2].greeted(&target("another")).await;
    assert_eq!(evicted.closed().await.0, 4410);
    let too_many = "Too many connections, closing oldest";
    says(&others_agree(&fleet, &evicted.id, "evicted").await, "evicted", 4410, too_many);
    let mut kicked = fleet[0].greeted("/ws?store_id=shop").await;
    let asked = fleet[2].delete(&format!("/api/sockets/{}?reason=zu+laut%2C+J%C3%BCrgen", kicked.id)).await;
    assert_eq!(asked.status, 200, "{}", asked.text());
    assert_eq!(kicked.closed().await, (4403, "kicked: zu laut, Jürgen".into()));
    says(&others_agree(&fleet, &kicked.id, "kicked").await, "kicked", 4403, "kicked: zu laut, Jürgen");
    fleet.is_sound().await;
}

/// Without waiting: whoever has heard the goodbye may ask anybody at once.
#[tokio::test]
async fn after_the_goodbye_nobody_takes_it_for_live() {
    let fleet = Fleet::with(&[]).await;
    for turn in 0..15 {
        let (at, elsewhere, third) = (turn % 3, (turn + 1) % 3, (turn + 2) % 3);
        let client = fleet[at].greeted("/ws?user_id=ann&room_id=r").await;
        let id = client.id.clone();
        client.leaves().await;
        let gone = fleet.lookup(elsewhere, &id).await;
        assert_eq!((gone.status, &gone.json()["action"]), (410, &json!("reconnect")), "{turn}: {}", gone.text());
        let sent = fleet.sends(third, json!({ "socketId": id }), 1).await;
        assert_eq!((sent.status, &sent.json()["code"]), (410, &json!("socket_gone")), "{turn}: {}", sent.text());
        let nobody = fleet.sends(third, json!({ "roomId": "r" }), 1).await.json();
        assert_eq!((&nobody["status"], &nobody["matched"]), (&json!("undelivered"), &json!(0)), "{turn}");
    }
    fleet.is_sound().await;
}

/// However many kick at once, the client hears of it once.
#[tokio::test]
async fn kicked_from_everywhere_at_once_is_kicked_once() {
    let fleet = Fleet::with(&[]).await;
    for turn in 0..5 {
        let mut client = fleet[turn % 3].greeted("/ws").await;
        let path = |at| format!("/api/sockets/{}?code=400{at}&reason=web{at}", client.id);
        let answers = join_all((0..3).map(|at| fleet[at].delete(&path(at)).into_future())).await;
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        assert!(statuses.iter().all(|status| [200, 410].contains(status)), "{statuses:?}");
        let (code, reason) = client.closed().await;
        let by = usize::from(code - 4000);
        assert_eq!((statuses[by], reason), (200, format!("web{by}")), "{statuses:?}");
        let verdict = fleet[0].verdict(&client.id).await;
        assert_eq!((&verdict["closeCode"], &verdict["cause"]), (&json!(code), &json!("kicked")));
        assert!(client.next().await.is_none(), "nothing follows a close");
    }
    fleet.is_sound().await;
}

async fn states(fleet: &Fleet, from: usize) -> Vec<(String, String)> {
    let shown = fleet[from].get("/api/instances").await.json()["instances"].clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    shown.as_array().unwrap().iter().map(|one| (text(&one["instance"]), text(&one["state"]))).collect()
}

/// Checklist 44, 113.
#[tokio::test]
async fn a_drain_is_seen_by_the_others_from_its_begin_to_its_end() {
    let mut fleet = Fleet::with(&[]).await;
    // Those who do not answer a close hold the drain up, for two seconds.
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(raw(&fleet, "/ws?store_id=shop&room_id=r").await);
    }
    let mut near = fleet[1].greeted("/ws?room_id=r").await;
    let incarnation = fleet.incarnations(1).await["web1"].clone();
    fleet[0].signal(Signal::TERM);
    for at in [1, 2] {
        eventually("the others see it draining", async || {
            states(&fleet, at).await.contains(&("web1".into(), "draining".into())).then_some(())
        })
        .await;
    }
    assert_eq!(fleet[0].knock("/ws").await.status, 503);
    for (_, id) in &silent {
        let verdict = others_agree(&fleet, id, "drained").await;
        says(&verdict, "instance_restart", 1012, "restart");
        assert!(verdict["sentence"].as_str().unwrap().contains("with 1012: instance restart"), "{verdict}");
    }
    fleet.ends(0).await;
    for at in [1, 2] {
        let names: Vec<_> = states(&fleet, at).await.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["web2", "web3"], "its lease is given up before it ends");
        let shown = fleet[at].get("/api/debug/sockets?verbose=1").await.json();
        assert_eq!(shown["sockets"]["ids"], json!([near.id]));
        assert_eq!(texts(&shown["instances"]), ["web2", "web3"]);
    }
    let sent = fleet.sends(2, json!({ "roomId": "r" }), 1).await.json();
    assert_eq!((&sent["status"], &sent["matched"], &sent["unknown"]), (&json!("delivered"), &json!(1), &json!(0)));
    assert_eq!(near.hears().await["data"], 1);

    fleet.restart(0).await;
    let mut back = fleet[0].greeted("/ws?room_id=r").await;
    assert_ne!(fleet.incarnations(2).await["web1"], incarnation, "every start is another life");
    assert_eq!(states(&fleet, 2).await.len(), 3);
    assert_eq!(fleet.sends(2, json!({ "roomId": "r" }), 2).await.json()["delivered"], 2);
    assert_eq!((back.hears().await["data"].clone(), near.hears().await["data"].clone()), (json!(2), json!(2)));
    let verdict = fleet[0].verdict(&silent[0].1).await;
    assert_eq!(verdict["cause"], "instance_restart", "the new life knows what became of the old one's sockets");
    assert!(!fleet[1].output().contains("another instance is called"), "{}", fleet[1].output());
    fleet.is_sound().await;
}

/// Checklist 114.
#[tokio::test]
async fn why_tells_of_sockets_of_other_instances() {
    let fleet = Fleet::with(&[]).await;
    let client = fleet[0].greeted("/ws?user_id=ann&store_id=shop").await;
    let id = client.id.clone();
    let why = async |at: usize, id: &str| {
        let url = format!("http://{}", fleet[at].address());
        soon("why ends", Holdfast::command(&["why", id, "--url", &url]).run()).await
    };
    let live = why(2, &id).await;
    assert!(live.code == 0 && live.stdout.contains("connected to web1"), "{live:?}");
    client.leaves().await;
    for at in 0..3 {
        let gone = why(at, &id).await;
        assert_eq!((gone.code, gone.stderr.as_str()), (3, ""), "{gone:?}");
        assert!(gone.stdout.contains(&format!("{id} was on web1 and closed ")), "{gone:?}");
    }
    // A fleet that has just begun does not know for a while what was before.
    eventually("it says that it never saw the id", async || {
        let never = why(1, "ws_0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b").await;
        assert!([1, 3].contains(&never.code), "{never:?}");
        (never.code == 3).then_some(())
    })
    .await;
    fleet.is_sound().await;
}

/// Whoever has heard that a kick was done may ask anybody at once.
#[tokio::test]
async fn right_after_a_kick_nobody_takes_it_for_live() {
    let fleet = Fleet::with(&[]).await;
    for turn in 0..100 {
        let (at, elsewhere, third) = (turn % 3, (turn + 1) % 3, (turn + 2) % 3);
        let mut kicked = fleet[at].greeted("/ws").await;
        assert_eq!(fleet[elsewhere].delete(&format!("/api/sockets/{}", kicked.id)).await.status, 200);
        let gone = fleet.lookup(third, &kicked.id).await;
        assert_eq!((gone.status, &gone.json()["verdict"]["cause"]), (410, &json!("kicked")), "{}", gone.text());
        let again = fleet[third].delete(&format!("/api/sockets/{}", kicked.id)).await;
        assert_eq!((again.status, &again.json()["code"]), (410, &json!("socket_gone")), "{}", again.text());
        assert_eq!(kicked.closed().await.0, 4403);
    }
    fleet.is_sound().await;
}
