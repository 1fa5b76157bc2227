//! Letters that a bell has missed, or that lie beside it, while the link to Redis breaks in that very moment.

use super::{
    fleet::{DEADLINE, eventually},
    instance, letter, next_letter,
};
use registry::{Envelope, Figures, Inbox, Registry};
use servers::{Relay, Server};
use std::time::Duration;
use tokio::{task::JoinSet, time::Instant};

/// An instance that is alone on its server, and what lies there of it.
struct Listener {
    registry: Registry,
    inbox: Inbox,
    _keeping: JoinSet<()>,
    lease: String,
}

impl Listener {
    async fn at(port: u16) -> Self {
        let url = format!("redis://127.0.0.1:{port}");
        let (registry, inbox) = instance::on_redis(&url, "web1", Duration::from_secs(4));
        let mut keeping = JoinSet::new();
        instance::keep(&registry, &mut keeping, DEADLINE).await;
        let lease = format!("test:{{i:{}}}:lease", registry.incarnation().mark());
        Self { registry, inbox, _keeping: keeping, lease }
    }

    fn key(&self, of: &str) -> String {
        self.lease.replace(":lease", of)
    }

    fn letter(&self, id: u64) -> Vec<u8> {
        letter(&self.registry, id, Vec::new()).encode()
    }

    async fn reads(&mut self) -> u64 {
        next_letter(&mut self.inbox).await.head.id
    }

    /// Puts letters into the mailbox and rings with the last alone. With `breaks`, every connection but the bell's
    /// is cut in the same step.
    fn post(&self, server: &Server, letters: &[&[u8]], breaks: bool) {
        let first: u64 = server.text(&["HGET", &self.lease, "n"]).parse().unwrap();
        let (mail, bell) = (self.key(":mail"), self.key(":bell"));
        let last = first + letters.len() as u64;
        server.ask(&["MULTI"]);
        server.ask(&["HSET", &self.lease, "n", &last.to_string()]);
        for (n, letter) in (first + 1..).zip(letters) {
            server.ask(&[b"XADD", mail.as_bytes(), format!("{n}-0").as_bytes(), b"m", letter]);
        }
        let rung = [format!("{last}\n").as_bytes(), letters[letters.len() - 1]].concat();
        server.ask(&[b"PUBLISH", bell.as_bytes(), &rung]);
        if breaks {
            server.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
        }
        server.ask(&["EXEC"]);
    }

    fn figures(&self) -> Figures {
        self.registry.figures()
    }
}

#[tokio::test]
async fn a_gap_is_filled_although_the_link_breaks() {
    let server = Server::start();
    let mut listener = Listener::at(server.port()).await;
    for round in [0, 10, 20] {
        let letters = [1, 2, 3].map(|nth| listener.letter(round + nth));
        listener.post(&server, &letters.each_ref().map(Vec::as_slice), true);
        assert_eq!(
            [listener.reads().await, listener.reads().await, listener.reads().await],
            [1, 2, 3].map(|nth| round + nth)
        );
    }
    assert_eq!((listener.figures().gaps, listener.figures().gaps_unfilled), (3, 0));
}

#[tokio::test]
async fn a_letter_beside_the_bell_is_had_although_the_link_breaks() {
    let server = Server::start();
    let mut listener = Listener::at(server.port()).await;
    server.ask(&[b"SET", listener.key(":body:x").as_bytes(), &listener.letter(1)]);
    listener.post(&server, &[b"@x"], true);
    assert_eq!(listener.reads().await, 1);
    assert_eq!((listener.figures().foreign, listener.figures().gaps), (0, 0));
}

#[tokio::test]
async fn a_letter_beside_the_bell_that_is_lost_is_a_gap() {
    let server = Server::start();
    let mut listener = Listener::at(server.port()).await;
    listener.post(&server, &[b"@lost"], false);
    listener.post(&server, &[&listener.letter(1)], false);
    assert_eq!(listener.reads().await, 1);
    assert_eq!((listener.figures().foreign, listener.figures().gaps_unfilled), (0, 1));
}

#[tokio::test]
async fn what_waits_behind_a_gap_does_not_wait_for_ever() {
    let server = Server::start();
    let relay = Relay::to(server.port());
    let mut listener = Listener::at(relay.port()).await;
    relay.refuse();
    let began = Instant::now();
    let letters = [1, 2].map(|id| listener.letter(id));
    listener.post(&server, &letters.each_ref().map(Vec::as_slice), true);
    assert_eq!(listener.reads().await, 2);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(listener.figures().gaps_unfilled, 1);
    relay.accept();
    let sent = letter(&listener.registry, 3, b"x".to_vec());
    eventually(async || {
        (listener.registry.route(&listener.registry.incarnation(), &sent).await == registry::Routed::Taken)
            .then_some(())
    })
    .await;
    let heard: Envelope = next_letter(&mut listener.inbox).await;
    assert_eq!(heard, sent);
}
