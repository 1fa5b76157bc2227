//! Numbered durable deliveries: those who send them to a socket, and the page that reads them and knows what is missing.

use crate::{
    client::Client,
    comebacks::Page,
    http::Request,
    patience::{eventually, soon},
};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{task::JoinSet, time::interval};
use tokio_tungstenite::tungstenite::Message;

/// Who sent it, and its number there.
type Number = (usize, u64);

/// A delivery that was answered with 202.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub number: Number,
    pub durability: String,
}

/// Each sends one after the other, so that its numbers come in order.
pub struct Senders {
    stop: Arc<AtomicBool>,
    /// How many were accepted so far.
    count: Arc<AtomicUsize>,
    sending: JoinSet<Vec<Accepted>>,
}

impl Senders {
    /// One at each of these, of so many a second, to a socket.
    pub fn begin(at: &[SocketAddr], per_second: u32, id: &str) -> Self {
        let (stop, count, mut sending) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default(), JoinSet::new());
        for (by, at) in at.iter().enumerate() {
            sending.spawn(send(*at, by, per_second, id.to_owned(), (stop.clone(), count.clone())));
        }
        Self { stop, count, sending }
    }

    /// Until so many more were accepted.
    pub async fn go_on(&self, more: usize) {
        let wanted = self.count.load(Ordering::Relaxed) + more;
        eventually("more is accepted", async || (self.count.load(Ordering::Relaxed) >= wanted).then_some(())).await;
    }

    /// Returns what was accepted, in order of each.
    pub async fn stop(self) -> Vec<Accepted> {
        self.stop.store(true, Ordering::Relaxed);
        soon("the senders stop", self.sending.join_all()).await.concat()
    }
}

async fn send(
    at: SocketAddr,
    by: usize,
    per_second: u32,
    id: String,
    (stop, count): (Arc<AtomicBool>, Arc<AtomicUsize>),
) -> Vec<Accepted> {
    let (mut accepted, mut ticks) = (Vec::new(), interval(Duration::from_secs(1) / per_second));
    for n in 0.. {
        ticks.tick().await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let body = json!({"socketId": id, "event": "order", "data": [by, n], "durable": true});
        let answer = Request::new(at, "POST", "/api/send").json(&body).await;
        if answer.status == 202 {
            let durability = answer.json()["durability"].as_str().unwrap().to_owned();
            accepted.push(Accepted { number: (by, n), durability });
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    accepted
}

/// Reads, acknowledges now and then, and may come back.
pub struct Reader {
    query: String,
    token: String,
    last_seq: u64,
    /// In order; nothing where it was told to load afresh.
    heard: Vec<Option<Number>>,
}

impl Reader {
    pub async fn opens(at: SocketAddr, query: &str) -> (Self, Client) {
        let page = Page::comes_to(at, query, "", 0).await;
        let token = page.token().to_owned();
        (Self { query: query.to_owned(), token, last_seq: 0, heard: Vec::new() }, page.client)
    }

    pub async fn returns(&mut self, at: SocketAddr) -> Client {
        let page = Page::comes_to(at, &self.query, &self.token, self.last_seq).await;
        page.token().clone_into(&mut self.token);
        self.heard.extend(page.reset.then_some(None));
        page.client
    }

    /// Until it has heard enough, or its connection has ended: then false.
    pub async fn reads(&mut self, client: &mut Client, enough: impl Fn(&Self) -> bool) -> bool {
        while !enough(self) {
            let Some(Message::Text(text)) = client.next().await else { return false };
            let frame: Value = serde_json::from_str(&text).unwrap();
            match frame["type"].as_str() {
                Some("order") => {
                    let seq = frame["seq"].as_u64().unwrap();
                    assert!(seq > self.last_seq, "{seq} after {}", self.last_seq);
                    self.last_seq = seq;
                    self.heard.push(Some(serde_json::from_value(frame["data"].clone()).unwrap()));
                    if self.heard.len().is_multiple_of(20) {
                        // Whose connection breaks just now says it the next time.
                        let _ = client.tries_to_say(json!({"type": "ack", "seq": seq}).to_string()).await;
                    }
                }
                Some("reset") => self.heard.push(None),
                Some("retry") => {}
                other => panic!("{other:?}"),
            }
        }
        true
    }

    /// So many more.
    pub async fn reads_on(&mut self, client: &mut Client, count: usize) -> bool {
        let wanted = self.heard.len() + count;
        self.reads(client, |reader| reader.heard.len() >= wanted).await
    }

    pub fn has_heard(&self, number: Number) -> bool {
        self.heard.contains(&Some(number))
    }

    pub fn resets(&self) -> usize {
        self.heard.iter().filter(|one| one.is_none()).count()
    }

    /// What did not come. What came, came once and in the order of its sender.
    pub fn misses(&self, accepted: &[Accepted]) -> Vec<Accepted> {
        for by in 0..=self.heard.iter().flatten().map(|(by, _)| *by).max().unwrap_or(0) {
            let numbers: Vec<_> = self.heard.iter().flatten().filter(|(other, _)| *other == by).collect();
            assert!(numbers.is_sorted_by(|one, other| one < other), "{numbers:?}");
        }
        accepted.iter().filter(|one| !self.has_heard(one.number)).cloned().collect()
    }

    /// Whether it was told to load afresh between what its sender sent before and what came after that.
    pub fn was_told_of(&self, missing: &Accepted) -> bool {
        let (by, n) = missing.number;
        let is = |one: &Option<Number>, wanted: fn(&u64, &u64) -> bool| {
            one.as_ref().is_some_and(|(other, m)| *other == by && wanted(m, &n))
        };
        let before = self.heard.iter().rposition(|one| is(one, u64::lt)).map_or(0, |at| at + 1);
        let after = self.heard.iter().position(|one| is(one, u64::gt)).unwrap_or(self.heard.len());
        self.heard[before..after].contains(&None)
    }
}
