//! The pages for who runs a fleet: what they show is what happens.

use crate::{
    fleet::Fleet,
    gateway::Gateway,
    holdfast::{Holdfast, TempFile},
    patience::eventually,
};
use std::{collections::BTreeMap, fs, path::Path};

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The blocks of shell on a page.
fn blocks(page: &str) -> Vec<&str> {
    page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect()
}

/// Checklist 45, 134: development, staging and production as they stand there start as they are.
#[tokio::test]
async fn the_presets_are_configurations_without_a_problem() {
    let secret = TempFile::holding("0123456789abcdef0123456789abcdef");
    let redis = TempFile::holding("redis://127.0.0.1:6379");
    let text = page("environments.md");
    let presets: Vec<_> = blocks(&text).into_iter().filter(|block| block.starts_with("# holdfast.env, ")).collect();
    assert_eq!(presets.len(), 3, "development, staging, production");
    let mut checked = Vec::new();
    for preset in presets {
        let mut check = Holdfast::command(&["check", "--json"]);
        for (name, value) in preset.lines().skip(1).filter_map(|line| line.split_once('=')) {
            // The unit says these itself, and its user cannot read such files.
            let is_of_the_unit = name == "PORT" || name == "HOST" || value.starts_with("/etc/");
            assert_eq!(is_of_the_unit, value.contains("# shell only"), "{name}={value}");
            check = match value {
                _ if value.starts_with("/etc/holdfast/redis_url ") => check.env(name, redis.path()),
                _ if value.starts_with("/etc/holdfast/") => check.env(name, secret.path()),
                _ => check.env(name, value),
            };
        }
        let finished = check.run().await;
        let shown: serde_json::Value = serde_json::from_str(&finished.stdout).expect(&finished.stdout);
        assert_eq!((finished.code, &shown["warnings"]), (0, &serde_json::json!([])), "{preset}{finished:?}");
        checked.push(shown["settings"].clone());
    }
    let value = |at: usize, name: &str| checked[at][name]["value"].as_str().unwrap().to_owned();
    assert_eq!((value(0, "PORT"), value(0, "REDIS_URL")), ("8787".to_owned(), String::new()));
    // Nothing of one reaches the other, and neither shows a secret.
    assert_ne!(value(1, "NAMESPACE"), value(2, "NAMESPACE"));
    for at in [1, 2] {
        assert_eq!((value(at, "API_TOKEN"), value(at, "LOG_FORMAT")), ("***".to_owned(), "json".to_owned()));
    }
}

/// Checklist 287, 288, 289, 290, 291: each part by itself, in the words that stand on the page.
#[tokio::test]
async fn one_part_at_a_time_as_the_page_has_it() {
    let gateway = Gateway::start().await;
    let text = page("troubleshooting.md");
    let commands: Vec<_> = blocks(&text).into_iter().find(|block| block.contains("wscat")).unwrap().lines().collect();
    assert_eq!(commands.len(), 6, "{commands:?}");
    let of = |command: &'static str| {
        let line = commands.iter().filter(move |line| line.contains(command));
        line.map(|line| line.split('#').next().unwrap().trim_end().to_owned()).collect::<Vec<_>>()
    };
    let path = |line: &str| {
        let rest = line.split_once("127.0.0.1:8080").unwrap().1;
        rest.split(['"', ' ']).next().unwrap().to_owned()
    };
    let mut client = gateway.greeted(&path(&of("wscat")[0])).await;
    let mut listener = gateway.get(&path(&of("curl -N")[0])).streams().await;
    listener.hears("hi").await;
    listener.hears("reset").await;
    for line in of("curl -X POST") {
        let body = line.split(" -d '").nth(1).unwrap().trim_end_matches('\'');
        let answer = gateway.posts(&path(&line), body).with("Content-Type", "application/json").await;
        assert!(answer.status == 200 && answer.text().contains("success"), "{line}: {}", answer.text());
        assert_eq!(client.hears().await["data"], serde_json::json!({ "n": 1 }), "{line}");
        listener.hears("message").await;
    }
    let asks = of("holdfast call").remove(0).replace('\'', "");
    let args: Vec<_> = asks.split(' ').skip(1).collect();
    let call = crate::terminal::run(&gateway, &args);
    let (finished, ()) = tokio::join!(call, async {
        let call = client.hears().await;
        client.says(format!(r#"{{"type":"reply","callId":{},"data":"yes"}}"#, call["callId"])).await;
    });
    assert_eq!((finished.code, finished.stdout.trim()), (0, "\"yes\""), "{finished:?}");
    assert_eq!(gateway.get(&path(&of("ab ")[0])).await.status, 200);
}

/// Checklist 207, 208, 209: where and since when, in plain text, under a key that has the socket's id; and it goes when its
/// socket has gone for good. Row 208's names are those of `/api/debug/sockets`; in Redis `storeId` is `store`, and
/// `readyState` is `state`, a word.
#[tokio::test]
async fn a_person_can_read_what_redis_has_of_a_socket() {
    let fleet = Fleet::with(&[("WHY_TTL", "1s")]).await;
    let client = fleet[0].greeted("/ws?user_id=ann&store_id=meonutrition&room_id=r").await;
    let redis = fleet.redis();
    let keys = || {
        let found = redis.ask(&["KEYS", "*:socket:*"]);
        redis::from_redis_value::<Vec<String>>(found).unwrap()
    };
    let key = eventually("there is a row", async || keys().pop()).await;
    let row = redis::from_redis_value::<BTreeMap<String, String>>(redis.ask(&["HGETALL", &key])).unwrap();
    for (field, value) in [("state", "live"), ("store", "meonutrition"), ("user", "ann"), ("rooms", "[\"r\"]")] {
        assert_eq!(row.get(field).map(String::as_str), Some(value), "{field} in {row:?}");
    }
    assert!(row["owner"].starts_with("web1."), "{row:?}");
    let shown = fleet[1].get(&format!("/api/sockets/{}", client.id)).await.json();
    assert_eq!(row["connectedAt"], shown["connectedAt"].to_string());
    let debugged = fleet[1].get("/api/debug/sockets").await.json()["sockets"]["metadata"][&client.id].clone();
    let expected = serde_json::json!({
        "connectedAt": shown["connectedAt"], "storeId": "meonutrition", "readyState": 1,
    });
    assert_eq!(debugged, expected);
    client.leaves().await;
    eventually("nothing is left of it", async || keys().is_empty().then_some(())).await;
}
