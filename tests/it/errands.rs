//! The commands that reach a client: `call`, `sync`, `send`. They ask a running gateway over HTTP.

use crate::{
    client::Client,
    gateway::Gateway,
    holdfast::{Finished, Holdfast, TempFile},
    patience::soon,
    terminal::{NEVER, command, run},
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::TcpListener,
};

/// A client gets a call, and says this of it.
async fn says_of_its_call(client: &mut Client, mut words: Value) -> Value {
    let call = client.hears().await;
    words["callId"] = call["callId"].clone();
    client.says(words.to_string()).await;
    call
}

fn json_of(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:?}"))
}

/// Checklist 289.
#[tokio::test]
async fn the_result_alone_goes_to_standard_output() {
    let gateway = Gateway::with([("INSTANCE", "web1:5000")]).await;
    let mut client = gateway.greeted("/ws?user_id=u&store_id=s").await;
    let id = client.id.clone();
    for target in [["--socket", &id], ["--user", "u"], ["--store", "s"]] {
        // Who leaves the word out is understood.
        let data: &[&str] = if target[0] == "--user" { &[r#"{"n":1.10}"#] } else { &["--data", r#"{"n":1.10}"#] };
        let args = [&["call"], &target[..], &["--event", "weigh"], data].concat();
        // A number keeps its digits, and what a terminal would obey does not get there.
        let reply = json!({"type": "reply", "data": {"text": "a\u{9b}31m"}});
        let (finished, call) = tokio::join!(run(&gateway, &args), says_of_its_call(&mut client, reply));
        assert_eq!((finished.code, finished.stdout.as_str()), (0, "{\"text\":\"a\\u009b31m\"}\n"), "{finished:?}");
        assert_eq!((&call["type"], &call["data"]), (&json!("weigh"), &json!({"n": 1.1})));
        for part in [&id, "on web1:5000", "answered after"] {
            assert!(finished.stderr.contains(part), "{part} in {finished:?}");
        }
    }
    let args = ["call", "--user", "u", "--event", "x", "--json"];
    let reply = json!({"type": "reply", "data": [1]});
    let (finished, _) = tokio::join!(run(&gateway, &args), says_of_its_call(&mut client, reply));
    assert_eq!((finished.code, finished.stderr.as_str()), (0, ""), "{finished:?}");
    let shown = json_of(&finished);
    assert_eq!((&shown["status"], &shown["result"]), (&json!("replied"), &json!([1])));
}

/// Each piece when it is said, and none of it where the result goes.
#[tokio::test]
async fn what_a_client_says_on_its_way_is_shown_at_once() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?user_id=u&store_id=s").await;
    for ask in [&["call", "--user", "u", "--event", "x"][..], &["sync", "orders", "--store", "s"]] {
        for (json, pieces) in [
            (&[][..], ["progress: {\"read\":1}", "progress: \"a\\u009b31m\""]),
            (&["--json"], ["{\"progress\":{\"read\":1}}", "{\"progress\":\"a\\u009b31m\"}"]),
        ] {
            for (end, code) in [(json!({"type": "reply", "data": 7}), 0), (json!({"type": "failed", "error": "no"}), 1)]
            {
                let mut asking = command(&gateway, &[ask, json].concat()).begins();
                let mut told = BufReader::new(asking.stderr.take().unwrap()).lines();
                let call = client.hears().await;
                for (data, piece) in [json!({"read": 1}), json!("a\u{9b}31m")].iter().zip(pieces) {
                    let progress = json!({"type": "progress", "callId": call["callId"], "data": data});
                    client.says(progress.to_string()).await;
                    assert_eq!(soon("it is shown", told.next_line()).await.unwrap().as_deref(), Some(piece));
                }
                let mut end = end;
                end["callId"] = call["callId"].clone();
                client.says(end.to_string()).await;
                let output = soon("it ends", asking.wait_with_output()).await.unwrap();
                let shown = String::from_utf8(output.stdout).unwrap();
                assert_eq!(output.status.code(), Some(code), "{ask:?} {json:?}: {shown}");
                match (json.is_empty(), code) {
                    (true, 0) => assert_eq!(shown, "7\n"),
                    (true, _) => assert_eq!(shown, ""),
                    (false, _) => {
                        let answer: Value = serde_json::from_str(&shown).expect("one answer and nothing else");
                        assert_eq!(answer["callId"], call["callId"]);
                    }
                }
            }
        }
    }
    gateway.is_unharmed().await;
}

/// Whoever has heard of progress knows that the client has it; what became of it nobody can say.
#[tokio::test]
async fn a_gateway_that_dies_on_the_way_is_69() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?user_id=u").await;
    let mut asking = command(&gateway, &["call", "--user", "u", "--event", "x"]).begins();
    let mut told = BufReader::new(asking.stderr.take().unwrap()).lines();
    let call = client.hears().await;
    client.says(json!({"type": "progress", "callId": call["callId"], "data": 1}).to_string()).await;
    assert_eq!(soon("it is shown", told.next_line()).await.unwrap().as_deref(), Some("progress: 1"));
    gateway.signal(Signal::KILL);
    let said = soon("it says why", told.next_line()).await.unwrap().unwrap();
    assert!(said.contains("may have been done") && said.contains(&gateway.address().to_string()), "{said}");
    let output = soon("it ends", asking.wait_with_output()).await.unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(69), 0));
}

#[tokio::test]
async fn data_comes_from_the_line_a_file_or_standard_input() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?user_id=u").await;
    let file = TempFile::holding("\n{\"a\": [1, 2]}\n");
    let at = format!("@{}", file.path());
    for (data, wanted) in [("-1", json!(-1)), ("\"ü\"", json!("ü")), (at.as_str(), json!({"a": [1, 2]}))] {
        let finished = run(&gateway, &["send", "--user", "u", "--data", data]).await;
        assert_eq!(finished.code, 0, "{finished:?}");
        assert_eq!(client.hears().await["data"], wanted);
    }
    let finished = command(&gateway, &["send", "--user", "u", "--data", "-"]).typing(r#"{"from":"stdin"}"#).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    assert_eq!(client.hears().await["data"], json!({"from": "stdin"}));
    run(&gateway, &["send", "--user", "u"]).await;
    assert_eq!(client.hears().await, json!({"type": "message", "data": null}));
}

#[tokio::test]
async fn a_sync_goes_to_the_stores_client_with_its_data() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?store_id=s").await;
    let id = client.id.clone();
    for target in [&["--store", "s"][..], &["--socket", &id], &["--socket", NEVER, "--store", "s"]] {
        let args = [&["sync", "orders", "--data", r#"{"since":5}"#], target].concat();
        let reply = json!({"type": "reply", "data": {"orders": 3}});
        let (finished, call) = tokio::join!(run(&gateway, &args), says_of_its_call(&mut client, reply));
        assert_eq!((finished.code, finished.stdout.as_str()), (0, "{\"orders\":3}\n"), "{finished:?}");
        assert_eq!((&call["type"], &call["data"]), (&json!("sync_orders"), &json!({"since": 5})));
        assert_eq!(finished.stderr.contains("in place of"), target.contains(&NEVER), "{finished:?}");
    }
}

#[tokio::test]
async fn nobody_there_is_3_and_says_who_could_be_asked() {
    let gateway = Gateway::start().await;
    for args in [
        &["call", "--socket", NEVER, "--event", "x"][..],
        &["call", "--socket", "ws_123", "--event", "x"],
        &["call", "--user", "u", "--event", "x"],
        &["sync", "orders", "--store", "s"],
        &["send", "--socket", NEVER],
        &["send", "--room", "r"],
        &["send", "--all"],
    ] {
        let finished = run(&gateway, args).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (3, ""), "{args:?}: {finished:?}");
        assert!(finished.stderr.contains("holdfast sockets"), "{finished:?}");
        let finished = run(&gateway, &[args, &["--json"]].concat()).await;
        assert!(finished.code == 3 && json_of(&finished).is_object(), "{finished:?}");
    }
    let gone = gateway.greeted("/ws?store_id=s").await;
    let _other = gateway.greeted("/ws?store_id=s").await;
    let id = gone.id.clone();
    gone.leaves().await;
    gateway.verdict(&id).await;
    let finished = run(&gateway, &["call", "--socket", &id, "--event", "x"]).await;
    assert_eq!(finished.code, 3, "{finished:?}");
    for part in [&id, "closed", "connected: 1", "--store s"] {
        assert!(finished.stderr.contains(part), "{part} in {finished:?}");
    }
}

#[tokio::test]
async fn where_nobody_is_there_a_call_waits_or_is_kept_as_it_is_told() {
    let gateway = Gateway::start().await;
    let ask = ["call", "--user", "u", "--event", "x", "--when-offline"];
    let waited = run(&gateway, &[&ask[..], &["wait", "--timeout", "300ms"]].concat()).await;
    assert_eq!((waited.code, waited.stdout.as_str()), (1, ""), "{waited:?}");
    for part in ["no socket of user u is connected", "was waited for", "300ms", "nothing was done"] {
        assert!(waited.stderr.contains(part), "{part} in {waited:?}");
    }
    let kept = run(&gateway, &[&ask[..], &["queue"]].concat()).await;
    let id = kept.stdout.trim();
    assert!(kept.code == 0 && kept.stderr.contains(&format!("GET /api/calls/{id}")), "{kept:?}");
    assert_eq!(gateway.get(&format!("/api/calls/{id}")).await.json()["status"], "queued");
    let kept = run(&gateway, &[&ask[..], &["queue", "--json"]].concat()).await;
    assert_eq!((kept.code, &json_of(&kept)["status"]), (0, &json!("queued")), "{kept:?}");
}

#[tokio::test]
async fn a_call_that_is_not_answered_is_1_and_says_why() {
    let gateway = Gateway::start().await;
    let mut client = gateway.greeted("/ws?user_id=u").await;
    let ask = ["call", "--user", "u", "--event", "x"];
    let failed = json!({"type": "failed", "error": {"why": "no rights"}});
    let (finished, _) = tokio::join!(run(&gateway, &ask), says_of_its_call(&mut client, failed));
    assert_eq!((finished.code, finished.stdout.as_str()), (1, ""), "{finished:?}");
    assert!(finished.stderr.contains(r#"{"why":"no rights"}"#), "{finished:?}");

    let silent = run(&gateway, &[&ask[..], &["--timeout", "200ms"]].concat()).await;
    assert_eq!(silent.code, 1, "{silent:?}");
    assert!(silent.stderr.contains("200ms") && silent.stderr.contains("--timeout"), "{silent:?}");
    // The time is the configuration's when none is given.
    let silent = command(&gateway, &ask).env("CALL_TIMEOUT", "300ms").run().await;
    assert!(silent.code == 1 && silent.stderr.contains("300ms"), "{silent:?}");
    for _ in 0..2 {
        assert_eq!(
            (client.hears().await["type"].clone(), client.hears().await["type"].clone()),
            (json!("x"), json!("cancel"))
        );
    }
    let leaves = async {
        client.hears().await;
        client.leaves().await;
    };
    let (finished, ()) = tokio::join!(run(&gateway, &ask), leaves);
    assert_eq!(finished.code, 1, "{finished:?}");
    assert!(finished.stderr.contains("closed") && finished.stderr.contains("does no harm"), "{finished:?}");
}

#[tokio::test]
async fn a_send_says_how_many_took_it() {
    let gateway = Gateway::start().await;
    let mut one = gateway.greeted("/ws?user_id=u&store_id=s&room_id=r").await;
    let mut two = gateway.greeted("/ws?user_id=v&room_id=r").await;
    for (target, count) in [
        (&["--socket", &one.id.clone()][..], 1),
        (&["--user", "u"], 1),
        (&["--store", "s"], 1),
        (&["--room", "r"], 2),
        (&["--all"], 2),
        (&["--all", "--except", &two.id.clone()], 1),
    ] {
        let finished = run(&gateway, &[&["send", "--event", "news", "--data", "1"], target].concat()).await;
        assert_eq!((finished.code, finished.stderr.as_str()), (0, ""), "{finished:?}");
        assert!(finished.stdout.starts_with(&format!("{count} socket")), "{finished:?}");
        assert_eq!(one.hears().await, json!({"type": "news", "data": 1}));
        if count == 2 {
            assert_eq!(two.hears().await, json!({"type": "news", "data": 1}));
        }
    }
    let finished = run(&gateway, &["send", "--room", "r", "--json"]).await;
    assert_eq!((finished.code, &json_of(&finished)["delivered"]), (0, &json!(2)), "{finished:?}");
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_69_and_named() {
    let mut gateway = Gateway::start().await;
    gateway.signal(Signal::TERM);
    gateway.exits().await;
    let address = gateway.address().to_string();
    for args in [&["call", "--user", "u", "--event", "x"][..], &["sync", "orders", "--store", "s"], &["send", "--all"]]
    {
        let finished = run(&gateway, args).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (69, ""), "{finished:?}");
        for part in [address.as_str(), "holdfast serve", "--url"] {
            assert!(finished.stderr.contains(part), "{part} in {finished:?}");
        }
    }
}

/// It may have passed the call on, so nothing invites to repeat it.
#[tokio::test]
async fn a_gateway_that_is_lost_in_the_middle_may_have_done_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let hang_up = async {
        let mut stream = soon("it asks", listener.accept()).await.unwrap().0;
        stream.read_u8().await.unwrap();
    };
    let (finished, ()) = tokio::join!(Holdfast::command(&["send", "--all", "--url", &url]).run(), hang_up);
    assert_eq!((finished.code, finished.stdout.as_str()), (69, ""), "{finished:?}");
    assert!(finished.stderr.contains("may have been done"), "{finished:?}");
}

#[tokio::test]
async fn what_cannot_be_asked_is_2_before_anything_is_asked() {
    let call = ["call", "--user", "u", "--event", "x"];
    for args in [
        vec!["call", "--user", "u"],
        vec!["call", "--event", "x"],
        vec!["call", "--user", "u", "--store", "s", "--event", "x"],
        vec!["call", "--room", "r", "--event", "x"],
        vec!["call", "--user", "", "--event", "x"],
        [&call[..], &["--timeout", "0"]].concat(),
        [&call[..], &["--timeout", "11m"]].concat(),
        [&call[..], &["--timeout", "soon"]].concat(),
        [&call[..], &["--fallback", "room"]].concat(),
        [&call[..], &["--data", "hello"]].concat(),
        [&call[..], &["--data", "@/no/such/file"]].concat(),
        [&call[..], &["--data", "-"]].concat(),
        vec!["sync", "orders"],
        vec!["sync", "--store", "s"],
        vec!["sync", "orders", "--store", "s", "--data", "[1]"],
        vec!["sync", "orders", "--store", "s", "--data", r#"{"storeId":"t"}"#],
        vec!["send"],
        vec!["send", "--all", "--user", "u"],
    ] {
        let finished = Holdfast::command(&args).run().await;
        assert_eq!((finished.code, finished.stdout.as_str()), (2, ""), "{args:?}: {finished:?}");
        assert!(!finished.stderr.is_empty(), "{args:?}");
    }
}

#[tokio::test]
async fn what_the_gateway_refuses_is_1_in_its_own_words() {
    let gateway = Gateway::start().await;
    for (args, said) in [
        (&["sync", "a b", "--store", "s"][..], "a kind is"),
        (&["call", "--user", "undefined", "--event", "x"], "--user: "),
        (&["send", "--room", " "], "--room: "),
        (&["sync", "orders", "--store", "null"], "--store: it is a placeholder"),
    ] {
        let finished = run(&gateway, args).await;
        assert_eq!((finished.code, finished.stdout.as_str()), (1, ""), "{args:?}: {finished:?}");
        assert!(finished.stderr.contains(said), "{said} in {finished:?}");
        assert_eq!(finished.stderr.lines().count(), 1, "one fault, one line: {finished:?}");
    }
    let guarded = Gateway::with([("API_TOKEN", "s3cret")]).await;
    let args = ["send", "--user", "u"];
    let without = run(&guarded, &args).await;
    assert!(without.code == 1 && without.stderr.contains("API_TOKEN"), "{without:?}");
    let with = command(&guarded, &args).env("API_TOKEN", "s3cret").run().await;
    assert!(with.code == 3 && !with.said().contains("s3cret"), "{with:?}");
}
