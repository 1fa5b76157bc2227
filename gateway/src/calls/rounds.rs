//! What is done about calls later than at once: telling who waits that a socket has its call, trying letters
//! again, looking whether owners are still there, and forgetting.

use super::{AGAIN, Calls, News, Place, ROUND, Undelivered, lock, owed};
use bytes::Bytes;
use futures_util::future::join_all;
use registry::{CallId, Hearing, Incarnation, envelope::Word};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until};

/// How often owners of calls in flight are looked at, and how long a call is in flight before that.
const WATCHED_EVERY: Duration = Duration::from_millis(800);
/// An owner that nobody hears twice, and whose last beat is so long ago, is lost. One that holds no lease at
/// two looks is, too; at one, it may be Redis that was emptied, and the next beat brings it back.
const BEAT_LOST: Duration = Duration::from_secs(2);
const UNHEARD_MAX: u32 = 2;

/// Does what has to be done later, until the instance ends.
pub async fn run(calls: Arc<Calls>) {
    let mut unheard = HashMap::new();
    let mut watched = Instant::now();
    loop {
        let wake = calls.wake.notified();
        let next = calls.next_due(watched + WATCHED_EVERY);
        tokio::select! {
            () = wake => {}
            () = sleep_until(next.unwrap_or(watched)), if next.is_some() => {}
        }
        // So that many that come one after the other make one round.
        sleep(ROUND).await;
        calls.tell_accepted().await;
        calls.try_again().await;
        calls.settle_overdue().await;
        if watched.elapsed() >= WATCHED_EVERY {
            watched = Instant::now();
            lock(&calls.given).forget(watched);
            calls.mind_our_name();
            calls.watch(&mut unheard).await;
        }
    }
}

impl Calls {
    /// When there will be something to do; nothing is due while no call is in flight.
    fn next_due(&self, watch: Instant) -> Option<Instant> {
        let accepted = lock(&self.given).next_accepted();
        let again = lock(&self.undelivered).iter().map(|letter| letter.due).min();
        let overdue = lock(&self.given).next_overdue();
        let watch = (!lock(&self.asked).calls.is_empty()).then_some(watch);
        let forget = lock(&self.given).next_forgotten(Instant::now());
        [accepted, again, overdue, watch, forget].into_iter().flatten().min()
    }

    async fn tell_accepted(&self) {
        let accepted = lock(&self.given).accepted(Instant::now());
        let told = accepted.into_iter().filter_map(|(call, given)| {
            let word = Word::Accepted(given.socket);
            self.tell(&call, given, word, Bytes::new())
        });
        join_all(told.map(|post| self.send(post))).await;
    }

    async fn try_again(&self) {
        let now = Instant::now();
        let due: Vec<_> = {
            let mut undelivered = lock(&self.undelivered);
            undelivered.retain(|letter| {
                let of_use = letter.post.by > now;
                if !of_use && !letter.post.taken {
                    self.lost_its_caller(&letter.post.letter);
                }
                of_use
            });
            let (due, rest) = std::mem::take(&mut *undelivered).into_iter().partition(|letter| letter.due <= now);
            *undelivered = rest;
            let due: VecDeque<Undelivered> = due;
            due.into()
        };
        let tried = due.into_iter().map(async |Undelivered { mut post, .. }| {
            let arrived = self.found_its_way(&mut post).await;
            (!arrived).then_some(post)
        });
        for post in join_all(tried).await.into_iter().flatten() {
            let due = Instant::now() + if post.taken { owed::TOLD_WITHIN } else { AGAIN };
            lock(&self.undelivered).push_back(Undelivered { post, due });
        }
    }

    /// Looks whether the owners of calls that have been in flight for a while are still there.
    async fn watch(&self, unheard: &mut HashMap<Incarnation, u32>) {
        let owners: BTreeSet<_> = {
            let asked = lock(&self.asked);
            let slow = asked.calls.values().filter(|asked| asked.since.elapsed() >= WATCHED_EVERY);
            slow.filter_map(|asked| match &asked.place {
                Some(Place::There(owner)) => Some(owner.clone()),
                _ => None,
            })
            .collect()
        };
        unheard.retain(|owner, _| owners.contains(owner));
        let looks = join_all(owners.iter().map(|owner| self.registry.hearing(owner))).await;
        for (owner, hearing) in owners.into_iter().zip(looks) {
            let lost = match hearing {
                Ok(Hearing::Hears) => {
                    unheard.remove(&owner);
                    false
                }
                Ok(silence) => {
                    let times = unheard.entry(owner.clone()).or_default();
                    *times += 1;
                    let long = !matches!(silence, Hearing::Deaf { beaten } if beaten < BEAT_LOST);
                    *times >= UNHEARD_MAX && long
                }
                // Nobody can say.
                Err(_) => false,
            };
            if lost {
                self.lose(&owner);
            }
        }
    }

    fn lose(&self, owner: &Incarnation) {
        let place = Place::There(owner.clone());
        self.end(|_, at| at == Some(&place), || News::OwnerLost);
    }

    /// Whoever was declared dead goes on under another name, and what is sent to the former one arrives nowhere:
    /// calls that others have are over.
    fn mind_our_name(&self) {
        let own = self.registry.incarnation();
        self.end(|call, at| matches!(at, Some(Place::There(_))) && !call.is_of(&own), || News::CutOff);
    }

    /// Ends all that wait here, with the truth as far as it is known: the process ends.
    pub fn cut_off(&self) {
        self.end(|_, _| true, || News::CutOff);
    }

    fn end(&self, which: impl Fn(&CallId, Option<&Place>) -> bool, news: impl Fn() -> News) {
        let mut asked = lock(&self.asked);
        let which = asked.calls.iter().filter(|(call, asked)| which(call, asked.place.as_ref()));
        let which: Vec<_> = which.map(|(call, _)| call.clone()).collect();
        for asked in which.iter().filter_map(|call| asked.remove(call)) {
            let _ = asked.news.try_send(news());
        }
    }
}
