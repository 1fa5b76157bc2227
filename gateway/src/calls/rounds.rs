//! What is done about calls later than at once: telling who waits that a socket has its call, trying letters
//! again, looking whether owners are still there, and forgetting.

use super::{AGAIN, Calls, News, Place, Post, ROUND, lock, owed};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use registry::{CallId, Hearing, Incarnation, Unknown, envelope::Word};
use std::{
    collections::{BTreeSet, HashMap},
    future::pending,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// How often owners of calls in flight are looked at, and how long a call is in flight before that.
const WATCHED_EVERY: Duration = Duration::from_millis(800);
/// An owner that nobody hears twice, and whose last beat is so long ago, is lost. One that holds no lease at
/// two looks is, too; at one, it may be Redis that was emptied, and the next beat brings it back.
const BEAT_LOST: Duration = Duration::from_secs(2);
const UNHEARD_MAX: u32 = 2;

/// How often each owner was not heard lately.
type Unheard = Mutex<HashMap<Incarnation, u32>>;

/// Does what has to be done later, until the instance ends. What asks the registry is an errand beside the others: a
/// server that does not answer holds up what is asked of it alone.
pub async fn run(calls: Arc<Calls>) {
    let unheard = Unheard::default();
    let mut watched = Instant::now();
    let mut errands = FuturesUnordered::<BoxFuture<'_, ()>>::new();
    loop {
        let wake = calls.wake.notified();
        let next = calls.next_due(watched + WATCHED_EVERY);
        let pause = async {
            tokio::select! {
                () = wake => {}
                () = sleep_until(next.unwrap_or(watched)), if next.is_some() => {}
            }
            // So that many that come one after the other make one round.
            sleep(ROUND).await;
        };
        let busy = async {
            while errands.next().await.is_some() {}
            pending::<()>().await;
        };
        tokio::select! {
            () = pause => {}
            () = busy => {}
        }
        calls.tell_accepted();
        errands.extend(calls.due().map(|post| calls.try_again(post).boxed()));
        errands.extend(calls.overdue().map(|(call, given)| calls.settle_overdue(call, given).boxed()));
        if watched.elapsed() >= WATCHED_EVERY {
            watched = Instant::now();
            lock(&calls.given).forget(watched);
            calls.mind_our_name();
            let owners = calls.owners();
            lock(&unheard).retain(|owner, _| owners.contains(owner));
            errands.extend(owners.into_iter().map(|owner| calls.watch(owner, &unheard).boxed()));
        }
    }
}

impl Calls {
    /// When there will be something to do; nothing is due while no call is in flight.
    fn next_due(&self, watch: Instant) -> Option<Instant> {
        let accepted = lock(&self.given).next_accepted();
        let again = lock(&self.undelivered).next_due();
        let overdue = lock(&self.given).next_overdue();
        let watch = (!lock(&self.asked).calls.is_empty()).then_some(watch);
        let forget = lock(&self.given).next_forgotten(Instant::now());
        [accepted, again, overdue, watch, forget].into_iter().flatten().min()
    }

    fn tell_accepted(&self) {
        // The table is let go first: who hears of it takes the other lock.
        let accepted = lock(&self.given).accepted(Instant::now());
        for (call, given) in accepted {
            let word = Word::Accepted(given.socket);
            if let Some(post) = self.tell(&call, given, word, Bytes::new()) {
                self.later(post);
            }
        }
    }

    /// Letters that are to be tried now. Those that are of no use any more are given up.
    fn due(&self) -> impl Iterator<Item = Post> {
        let now = Instant::now();
        let mut undelivered = lock(&self.undelivered);
        let (due, over): (Vec<_>, Vec<_>) = undelivered.due(now).into_iter().partition(|post| post.by > now);
        for post in over {
            if !post.taken {
                self.lost_its_caller(&post.letter);
            }
            undelivered.tried(post, None);
        }
        due.into_iter()
    }

    async fn try_again(&self, mut post: Post) {
        let arrived = self.found_its_way(&mut post).await;
        let again = Instant::now() + if post.taken { owed::TOLD_WITHIN } else { AGAIN };
        lock(&self.undelivered).tried(post, (!arrived).then_some(again));
        self.wake.notify_one();
    }

    /// Owners of calls that have been in flight for a while.
    fn owners(&self) -> BTreeSet<Incarnation> {
        let asked = lock(&self.asked);
        let slow = asked.calls.values().filter(|asked| asked.since.elapsed() >= WATCHED_EVERY);
        slow.filter_map(|asked| match &asked.place {
            Some(Place::There(owner)) => Some(owner.clone()),
            _ => None,
        })
        .collect()
    }

    /// Looks whether an owner is still there. Before the next look it is known, or nobody can say.
    async fn watch(&self, owner: Incarnation, unheard: &Unheard) {
        let look = timeout(WATCHED_EVERY, self.registry.hearing(&owner)).await;
        let lost = match look.unwrap_or(Err(Unknown::Unavailable)) {
            Ok(Hearing::Hears) => {
                lock(unheard).remove(&owner);
                false
            }
            Ok(silence) => {
                let mut unheard = lock(unheard);
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

    /// Ends all that wait here, with the truth as far as it is known: the process ends. Nothing is asked any more.
    pub fn cut_off(&self) {
        self.cut_off.store(true, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{courier::tests, letters::LATE};
    use registry::{SocketId, envelope::Message};
    use tokio_util::task::AbortOnDropHandle;

    #[tokio::test(start_paused = true)]
    async fn whoever_ends_waits_for_words_that_found_no_way_for_as_long_as_they_are_of_use() {
        let memory = tests::memory();
        let ((web1, _), (web2, mut box2)) = (tests::deaf(&memory, "web1"), tests::deaf(&memory, "web2"));
        let calls = &web1.courier.calls;
        let _running = AbortOnDropHandle::new(tokio::spawn(run(calls.clone())));
        let reply = |to: &Incarnation| {
            let word = Word::Reply(SocketId::fresh(), 1);
            let message = Message::OfCall { call: CallId::fresh(to), word };
            calls.post(to.clone(), message, "1".into(), Instant::now() + Duration::from_secs(1), None)
        };
        calls.later(reply(&web2.courier.registry.incarnation()));
        calls.finish().await;
        assert!(box2.try_recv().is_ok(), "it has arrived");

        let began = Instant::now();
        calls.later(reply(&Incarnation::fresh("web3")));
        calls.finish().await;
        let (took, of_use) = (began.elapsed(), Duration::from_secs(1) + LATE);
        assert!((of_use..=of_use + AGAIN + ROUND * 2).contains(&took), "{took:?}");
        assert_eq!(lock(&calls.undelivered).next_due(), None);
    }
}
