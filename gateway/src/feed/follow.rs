//! Hearing what happens on the other instances, while somebody here looks at the whole fleet. Each is asked to tell
//! it, again and again, so that one which is not asked any more falls silent by itself. What it tells is numbered, so
//! that a letter that was lost is noticed; who does not answer is named: the feed never seems whole when it is not.

use super::{Happening, Look, lock};
use crate::{letters::LIFE, session::Desk};
use bytes::Bytes;
use futures_util::future::join_all;
use registry::{
    Incarnation, Lease, Unknown,
    envelope::{Answer, Message, Told},
};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use std::{
    borrow::Cow,
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{Notify, broadcast, watch},
    time::{Instant, sleep, timeout},
};

/// How often the others are asked again, and newcomers found.
const ASKED_EVERY: Duration = Duration::from_secs(2);
/// How long they tell us without being asked again: one answer may be late, and one be lost.
const FOLLOWED: Duration = Duration::from_secs(10);
// Else whoever answers in time would stop telling in between.
const _: () = assert!(2 * (ASKED_EVERY.as_millis() + LIFE.as_millis()) < FOLLOWED.as_millis());
/// What one who looks at the fleet may be behind: what others tell comes many at once.
const BEHIND_MAX: usize = 4096;

/// What is heard of the others.
pub struct Following {
    /// What happens here and there.
    pub(super) fleet: broadcast::Sender<Happening>,
    /// Who is heard; nobody knows before the first round.
    standing: watch::Sender<Option<Arc<Standing>>>,
    begins: Notify,
    /// How far each has told.
    marks: Mutex<BTreeMap<Incarnation, Told>>,
}

impl Default for Following {
    fn default() -> Self {
        let fleet = broadcast::Sender::new(BEHIND_MAX);
        Self { fleet, standing: watch::Sender::default(), begins: Notify::default(), marks: Mutex::default() }
    }
}

/// Who of the fleet is heard. By their lives, so that one that came back is told as a change.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    heard: BTreeSet<Incarnation>,
    unheard: BTreeSet<Incarnation>,
    /// Whether these are all that there are.
    is_all: bool,
}

/// Hears of every change in who is heard.
pub struct Watch(watch::Receiver<Option<Arc<Standing>>>);

/// Asks the others while somebody looks, and sleeps while nobody does.
pub async fn run(desk: &Desk) {
    let following = &desk.feed.following;
    loop {
        if following.standing.receiver_count() == 0 {
            following.standing.send_replace(None);
            lock(&following.marks).clear();
            following.begins.notified().await;
            continue;
        }
        let standing = ask_all(desk).await;
        following.standing.send_if_modified(|known| {
            let is_new = known.as_deref() != Some(&standing);
            if is_new {
                *known = Some(Arc::new(standing));
            }
            is_new
        });
        tokio::select! {
            () = sleep(ASKED_EVERY) => {}
            () = following.standing.closed() => {}
        }
    }
}

/// One round: each other instance is asked at the same time.
async fn ask_all(desk: &Desk) -> Standing {
    let (registry, following) = (&desk.courier.registry, &desk.feed.following);
    let own = registry.incarnation();
    let mut standing = Standing { heard: [own.clone()].into(), unheard: BTreeSet::new(), is_all: true };
    if registry.is_alone() {
        return standing;
    }
    let Ok(leases) = timeout(LIFE, registry.instances()).await.unwrap_or(Err(Unknown::Unavailable)) else {
        standing.unheard = lock(&following.marks).keys().cloned().collect();
        standing.is_all = false;
        return standing;
    };
    let others: Vec<_> =
        leases.into_iter().map(|Lease { incarnation, .. }| incarnation).filter(|one| *one != own).collect();
    lock(&following.marks).retain(|one, _| others.contains(one));
    let asked = others.into_iter().map(async |other| {
        let is_heard = ask(desk, &other).await;
        (other, is_heard)
    });
    for (other, is_heard) in join_all(asked).await {
        if is_heard {
            standing.heard.insert(other)
        } else {
            standing.unheard.insert(other)
        };
    }
    standing
}

async fn ask(desk: &Desk, other: &Incarnation) -> bool {
    let message = Message::Follow { ms: FOLLOWED.as_millis() as u64 };
    match desk.courier.letters.ask(other, message, Bytes::new(), Instant::now() + LIFE).await {
        Ok((Answer::Followed(told), _)) => {
            // What it has sent before its answer has come by now, or never will.
            desk.feed.following.is_at(other, told);
            true
        }
        Ok(_) | Err(_) => false,
    }
}

/// A line in a letter about what has happened.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

impl Following {
    pub(super) fn look(&self) -> Look {
        let mut standing = self.standing.subscribe();
        standing.mark_changed();
        let look = Look { happenings: self.fleet.subscribe(), standing: Some(Watch(standing)) };
        self.begins.notify_one();
        look
    }

    /// Another instance tells what has happened there, behind what it told before.
    pub fn heard(&self, from: &Incarnation, before: Told, lines: &Bytes) {
        if self.fleet.receiver_count() == 0 {
            return;
        }
        let mut marks = lock(&self.marks);
        let mark = marks.entry(from.clone()).or_insert(before);
        if !self.catch_up(from, mark, before) {
            return;
        }
        for (count, line) in (before.count..).zip(lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())) {
            // One that came late was given up before, and told as missed.
            if count < mark.count {
                continue;
            }
            mark.count = count + 1;
            if let Ok(Line { event, data }) = serde_json::from_slice(line) {
                self.tell(Happening { kind: event.into_owned().into(), data: data.get().into() });
            }
        }
    }

    fn is_at(&self, who: &Incarnation, told: Told) {
        let mut marks = lock(&self.marks);
        self.catch_up(who, marks.entry(who.clone()).or_insert(told), told);
    }

    /// What lies between what was heard and what was told is missed. False for what is from an earlier time, when
    /// we had been followers there before.
    fn catch_up(&self, who: &Incarnation, mark: &mut Told, told: Told) -> bool {
        match told.since.cmp(&mark.since) {
            Ordering::Less => return false,
            Ordering::Equal if told.count <= mark.count => return true,
            Ordering::Equal => self.tell(Happening::missed(Some(who.instance()), Some(told.count - mark.count))),
            // For a while it did not tell us.
            Ordering::Greater => self.tell(Happening::missed(Some(who.instance()), None)),
        }
        *mark = told;
        true
    }

    fn tell(&self, happening: Happening) {
        // Who has closed the feed in this moment has not missed it.
        let _ = self.fleet.send(happening);
    }
}

impl Watch {
    pub(super) async fn next(&mut self) -> Happening {
        loop {
            if self.0.changed().await.is_err() {
                // The instance is about to end.
                return std::future::pending().await;
            }
            if let Some(standing) = self.0.borrow_and_update().as_deref() {
                return standing.as_happening();
            }
        }
    }
}

impl Standing {
    fn as_happening(&self) -> Happening {
        let names =
            |lives: &BTreeSet<Incarnation>| lives.iter().map(Incarnation::instance).map(str::to_owned).collect();
        let [heard, unheard]: [BTreeSet<String>; 2] = [names(&self.heard), names(&self.unheard)];
        let is_whole = self.is_all && unheard.is_empty();
        Happening::new("instances", json!({ "whole": is_whole, "heard": heard, "unheard": unheard }))
    }
}
