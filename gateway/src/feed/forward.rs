//! Telling others what happens here, for as long as they ask for it: a letter to each for all that happened in a
//! moment. All read from one queue; what does not find its way, or has no room in the queue, is missed, and its number
//! tells them so.

use super::{Happening, lock, or_missed};
use crate::session::Desk;
use bytes::Bytes;
use futures_util::future::join_all;
use registry::{
    Incarnation, Routed,
    envelope::{Message, Told},
    epoch_ms,
};
use std::{collections::BTreeMap, sync::Mutex, time::Duration};
use tokio::{
    sync::{Notify, broadcast},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// How long a letter waits for more to happen, and how much it holds before it waits no longer.
const MOMENT: Duration = Duration::from_millis(200);
const BYTES_MAX: usize = 60 << 10;
/// While nothing happens, so often those are forgotten that ask no more.
const FORGETS_EVERY: Duration = Duration::from_secs(1);
/// Nobody is told for longer without asking again.
const FOLLOWED_MAX: Duration = Duration::from_secs(60);

/// Those who want to be told.
pub struct Followers {
    here: broadcast::WeakSender<Happening>,
    list: Mutex<List>,
    comes: Notify,
}

#[derive(Default)]
struct List {
    /// Nobody is taken out but by [`Followers::present`], which ends the telling when it finds nobody.
    followers: BTreeMap<Incarnation, Follower>,
    /// What has happened since the first of them came, until the telling begins.
    ear: Option<broadcast::Receiver<Happening>>,
}

struct Follower {
    until: Instant,
    told: Told,
}

/// Lines about what has happened.
#[derive(Default)]
struct Batch {
    lines: String,
    count: u64,
}

/// Tells those who follow, and sleeps while nobody does. At the end what has happened is still told.
pub async fn run(desk: &Desk, stopping: &CancellationToken) {
    let followers = &desk.feed.followers;
    loop {
        tokio::select! {
            () = followers.comes.notified() => {}
            () = stopping.cancelled() => return,
        }
        let Some(mut ear) = lock(&followers.list).ear.take() else { continue };
        loop {
            let batch = gather(desk, &mut ear, stopping).await;
            let present = followers.present();
            if present.is_empty() {
                break;
            }
            if batch.count > 0 {
                send(desk, present, batch).await;
            } else if stopping.is_cancelled() {
                return;
            }
        }
    }
}

/// All that happens in a moment.
async fn gather(desk: &Desk, ear: &mut broadcast::Receiver<Happening>, stopping: &CancellationToken) -> Batch {
    let mut batch = Batch::default();
    let mut until = Instant::now() + FORGETS_EVERY;
    while batch.lines.len() < BYTES_MAX {
        tokio::select! {
            biased;
            happening = ear.recv() => {
                let own = desk.courier.registry.incarnation();
                let Some(happening) = or_missed(happening, Some(own.instance())) else { break };
                if batch.count == 0 {
                    until = Instant::now() + MOMENT;
                }
                batch.add(&happening);
            }
            () = sleep_until(until) => break,
            () = stopping.cancelled() => break,
        }
    }
    batch
}

async fn send(desk: &Desk, followers: Vec<(Incarnation, Told)>, Batch { lines, count }: Batch) {
    let lines = Bytes::from(lines);
    let sent = followers.into_iter().map(async |(to, before)| {
        let routed = desk.courier.letters.tell(&to, Message::Happened(before), lines.clone()).await;
        (to, routed)
    });
    let sent = join_all(sent).await;
    let mut list = lock(&desk.feed.followers.list);
    for (to, routed) in sent {
        if let Some(follower) = list.followers.get_mut(&to) {
            // What did not arrive has its number all the same.
            follower.told.count += count;
            if routed == Routed::Gone {
                follower.until = Instant::now();
            }
        }
    }
}

impl Followers {
    pub(super) fn of(here: &broadcast::Sender<Happening>) -> Self {
        Self { here: here.downgrade(), list: Mutex::default(), comes: Notify::default() }
    }

    /// From now on this one is told what happens, for so long. Says what it has been told until now.
    pub fn add(&self, who: Incarnation, ms: u64) -> Told {
        let mut list = lock(&self.list);
        if list.followers.is_empty() {
            list.ear = self.here.upgrade().map(|here| here.subscribe());
            self.comes.notify_one();
        }
        let until = Instant::now() + Duration::from_millis(ms).min(FOLLOWED_MAX);
        let told = Told { since: epoch_ms(), count: 0 };
        let follower = list.followers.entry(who).or_insert(Follower { until, told });
        follower.until = until;
        follower.told
    }

    /// Those who still want to be told, and what each has been told.
    fn present(&self) -> Vec<(Incarnation, Told)> {
        let mut list = lock(&self.list);
        let now = Instant::now();
        list.followers.retain(|_, follower| follower.until > now);
        list.followers.iter().map(|(who, follower)| (who.clone(), follower.told)).collect()
    }
}

impl Batch {
    fn add(&mut self, Happening { kind, data }: &Happening) {
        self.lines.push_str(&format!("{{\"event\":\"{kind}\",\"data\":{data}}}\n"));
        self.count += 1;
    }
}
