//! `holdfast connect` and `holdfast tail`: somebody at a terminal who talks, and who looks on.

use crate::{
    gateway::Gateway,
    holdfast::{Holdfast, signal},
    patience::{eventually, soon},
    terminal::command,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use servers::free_port;
use std::net::TcpListener;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout},
};

/// A command that goes on until it is told to stop.
struct Running {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: Lines<BufReader<ChildStderr>>,
}

impl Running {
    fn of(command: Holdfast) -> Self {
        let mut child = command.begins();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let err = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, out, err }
    }

    /// The next line with this in it.
    async fn says(&mut self, part: &str) -> String {
        line_with(&mut self.out, part).await
    }

    async fn complains(&mut self, part: &str) -> String {
        line_with(&mut self.err, part).await
    }

    fn interrupt(&self) {
        signal(&self.child, Signal::INT);
    }

    async fn ends(&mut self) -> i32 {
        soon("it ends", self.child.wait()).await.unwrap().code().expect("it exits by itself")
    }
}

async fn line_with<R: AsyncRead + Unpin>(lines: &mut Lines<BufReader<R>>, part: &str) -> String {
    let mut seen = String::new();
    loop {
        let line = soon(&format!("{part} after {seen}"), lines.next_line()).await.unwrap();
        let line = line.unwrap_or_else(|| panic!("it ended without {part}: {seen}"));
        if line.contains(part) {
            return line;
        }
        seen.push_str(&line);
        seen.push('\n');
    }
}

/// Checklist 287: what is typed is sent, what comes is printed, and then it leaves.
#[tokio::test]
async fn a_socket_can_be_talked_to_in_a_terminal() {
    let gateway = Gateway::with([("INSTANCE", "web1")]).await;
    let args = ["connect", "--user", "test 123", "--store", "s", "--room", "a", "--room", "b"];
    let typed = "{\"evt\":\"ping\"}\n\n{\"type\":\"getSocketId\"}\n";
    let finished = command(&gateway, &args).typing(typed).await;
    assert_eq!(finished.code, 0, "{finished:?}");
    let lines: Vec<&str> = finished.stdout.lines().collect();
    let hi: Value = serde_json::from_str(lines[0]).unwrap();
    assert_eq!((&hi["type"], lines[1], lines[2]), (&json!("hi"), "{\"type\":\"reset\"}", "{\"evt\":\"pong\"}"));
    assert_eq!(serde_json::from_str::<Value>(lines[3]).unwrap()["data"], hi["socketId"]);
    assert!(finished.stderr.contains("connected to web1") && finished.stderr.contains("left"), "{finished:?}");
    let verdict = gateway.verdict(hi["socketId"].as_str().unwrap()).await;
    assert_eq!((&verdict["cause"], &verdict["storeId"]), (&json!("client_closed"), &json!("s")));
    // All of the address may be written as a client writes it.
    let url = format!("ws://{}/ws/ABCDE?user_id=u", gateway.address());
    let finished = Holdfast::command(&["connect", &url]).run().await;
    assert!(finished.code == 0 && finished.stdout.contains("\"hi\""), "{finished:?}");
}

#[tokio::test]
async fn a_socket_that_is_ended_says_how() {
    let gateway = Gateway::start().await;
    let mut kicked = Running::of(command(&gateway, &["connect", "--listen", "--user", "u"]));
    kicked.says("reset").await;
    gateway.delete("/api/users/u?reason=too+loud").await;
    kicked.complains("closed with 4403: kicked: too loud").await;
    assert_eq!(kicked.ends().await, 1);
    let mut left = Running::of(command(&gateway, &["connect", "--listen", "/connect"]));
    left.says("reset").await;
    left.interrupt();
    left.complains("left").await;
    assert_eq!(left.ends().await, 0);
    eventually("it is gone", async || (gateway.sockets().await == 0).then_some(())).await;
}

#[tokio::test]
async fn a_door_that_stays_shut_says_why() {
    let gateway = Gateway::with([("AUTH", "jwt"), ("JWT_SECRET", "0123456789abcdef0123456789abcdef")]).await;
    for (args, code, parts) in [
        (&["/ws"][..], 1, &["401", "Unauthorized. Please log in."][..]),
        (&["/ws", "--token", "a.b.c"], 1, &["401", "Invalid session token"]),
        (&["/websocket"], 1, &["400", "Missing room_id query parameter"]),
        (&["/ws", "--origin", "https://evil.example.com"], 1, &["403", "Origin not allowed", "CORS_ORIGINS"]),
        (&["/nowhere"], 1, &["404"]),
    ] {
        let finished = command(&gateway, &[&["connect"], args].concat()).run().await;
        assert_eq!((finished.code, finished.stdout.as_str()), (code, ""), "{args:?}: {finished:?}");
        for part in parts {
            assert!(finished.stderr.contains(part), "{part} in {finished:?}");
        }
        assert!(!finished.stderr.contains("a.b.c"), "{finished:?}");
    }
    let nobody = format!("ws://127.0.0.1:{}/ws", free_port());
    let finished = Holdfast::command(&["connect", &nobody]).run().await;
    assert!(finished.code == 69 && finished.stderr.contains("holdfast doctor"), "{finished:?}");
}

/// Checklist 98, 219, 221: what happens is followed, also over a restart, until Ctrl-C.
#[tokio::test]
async fn what_happens_is_followed_line_by_line() {
    let port = free_port().to_string();
    let serve = || Gateway::command(&[]).env("PORT", &port).env("INSTANCE", "web1").serve();
    let gateway = serve().await;
    let mut lines = Running::of(command(&gateway, &["tail"]));
    let mut events = Running::of(command(&gateway, &["tail", "--json"]));
    lines.says("heard: web1").await;
    events.says("\"instances\"").await;
    let client = gateway.greeted("/ws?user_id=u&store_id=s").await;
    let line = lines.says("connected").await;
    for part in ["on web1", &client.id, "user u", "store s"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let event: Value = serde_json::from_str(&events.says("connected").await).unwrap();
    assert_eq!((&event["event"], &event["data"]["socketId"]), (&json!("connected"), &json!(client.id)));
    gateway.stop().await;
    lines.says("instance_restart").await;
    lines.complains("is lost").await;
    let gateway = serve().await;
    lines.complains("answers again").await;
    lines.says("heard: web1").await;
    let _client = gateway.greeted("/ws?user_id=again").await;
    lines.says("user again").await;
    lines.interrupt();
    assert_eq!(lines.ends().await, 0);
    // Whoever reads may leave as well, as head does.
    drop(events.out);
    let mut gone = events.child;
    let client = gateway.greeted("/ws").await;
    let status = eventually("it notices", async || {
        gateway.greeted("/ws").await;
        gone.try_wait().unwrap()
    })
    .await;
    assert!(status.success(), "{status}");
    drop(client);
}

#[tokio::test]
async fn who_may_not_look_on_is_told_what_is_missing() {
    let gateway = Gateway::with([("API_TOKEN", "hush")]).await;
    let refused = command(&gateway, &["tail"]).run().await;
    assert!(refused.code == 1 && refused.stderr.contains("API_TOKEN"), "{refused:?}");
    // Bound and not listening to HTTP; and then nobody at all.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let nobody = Holdfast::command(&["tail", "--url", &url]).run().await;
    assert!(nobody.code == 69 && nobody.stderr.contains("holdfast serve"), "{nobody:?}");
}
