//! Sends numbered messages without a pause, and holds every answer against what was heard: what was called
//! delivered was heard once, what was called not delivered was not heard, and nothing was heard twice.

use super::{guest::Guest, note};
use crate::http::Request;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet, time::sleep};

/// So many talk at each place: a question that is not answered for a while must not silence all.
const VOICES: usize = 3;

/// What a send may take by itself, and 250 ms more; the rest is for two busy cores.
const BUDGET: Duration = Duration::from_secs(6);

/// One message, and what its sender was told.
#[derive(Debug)]
pub struct Told {
    pub number: u64,
    pub to: Value,
    pub status: u16,
    pub body: Value,
    pub took: Duration,
}

/// What the answer promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    Delivered,
    NotDelivered,
    Unknown,
}

pub struct Chatter {
    talking: JoinSet<Vec<Told>>,
    over: watch::Sender<bool>,
    number: Arc<AtomicU64>,
}

impl Chatter {
    /// Every voice goes round the targets. Numbers begin at `first`.
    pub fn begins(
        places: impl IntoIterator<Item = SocketAddr>,
        targets: &[Value],
        first: u64,
        pause: Duration,
    ) -> Self {
        let (over, ends) = watch::channel(false);
        let number = Arc::new(AtomicU64::new(first));
        let mut talking = JoinSet::new();
        for (nth, address) in places.into_iter().flat_map(|address| [address; VOICES]).enumerate() {
            let targets: Vec<_> = targets.iter().cycle().skip(nth).take(targets.len()).cloned().collect();
            talking.spawn(talk(address, targets, number.clone(), pause, ends.clone()));
        }
        Self { talking, over, number }
    }

    /// So many more are sent while the caller waits here.
    pub async fn goes_on(&self, count: u64) {
        let until = self.number.load(Ordering::Relaxed) + count;
        while self.number.load(Ordering::Relaxed) < until {
            sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn ends(self) -> Vec<Told> {
        let _ = self.over.send(true);
        self.talking.join_all().await.into_iter().flatten().collect()
    }
}

async fn talk(
    address: SocketAddr,
    targets: Vec<Value>,
    number: Arc<AtomicU64>,
    pause: Duration,
    over: watch::Receiver<bool>,
) -> Vec<Told> {
    let mut all = Vec::new();
    for to in targets.into_iter().cycle() {
        if *over.borrow() {
            break;
        }
        let number = number.fetch_add(1, Ordering::Relaxed);
        let asked = Instant::now();
        let answer = Request::new(address, "POST", "/api/send").json(&json!({ "to": to, "data": number })).await;
        all.push(Told { number, to, status: answer.status, body: answer.json(), took: asked.elapsed() });
        sleep(pause).await;
    }
    all
}

impl Told {
    pub fn promise(&self) -> Promise {
        match (self.status, self.body["delivered"].as_u64(), self.body["unknown"].as_u64()) {
            (200, Some(1..), _) => Promise::Delivered,
            (200, Some(0), Some(0)) | (404 | 410 | 429 | 503, ..) => Promise::NotDelivered,
            (504, ..) if self.body["delivered"] == false => Promise::NotDelivered,
            (200 | 504, ..) => Promise::Unknown,
            _ => panic!("not a word of the contract: {self:?}"),
        }
    }
}

/// Every message was for one guest, and every promise is held. Returns how often which was given.
pub async fn every_promise_is_held(told: &[Told], guests: &mut [Guest]) -> BTreeMap<Promise, usize> {
    let mut count = BTreeMap::new();
    for one in told {
        let promise = one.promise();
        *count.entry(promise).or_default() += 1;
        let is_meant = |guest: &&mut Guest| one.to["socketId"] == guest.id || one.to["userId"] == guest.user;
        let Some(guest) = guests.iter_mut().find(is_meant) else { continue };
        match promise {
            Promise::Delivered => guest.hears(one.number).await,
            Promise::NotDelivered => assert_eq!(guest.heard(one.number), 0, "{one:?}"),
            Promise::Unknown => {}
        }
        assert!(guest.heard(one.number) <= 1, "heard twice: {one:?}");
    }
    let slowest = told.iter().map(|one| one.took).max().unwrap_or_default();
    note(&format!("{} sends: {count:?}, the slowest answered after {slowest:?}", told.len()));
    assert!(slowest < BUDGET, "{slowest:?}");
    count
}
