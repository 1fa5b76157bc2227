//! `EVENTS_URL`: the application hears of every socket that came, and how it ended, at least once. Whoever logged an
//! event tells it at once, and again for some seconds; what stays in the log, since its teller died or the application
//! did not take it, is told by whoever minds that part of the log, in its order. The log belongs to the registry.

use super::{
    Hook, Who,
    untold::{self, Untold, jittered},
};
use crate::{metrics::Metrics, session::Desk};
use futures_util::future::join_all;
use registry::{
    Registry,
    event::{Event, LANES, Logged, Particulars, partitions},
    owner::{PARTITIONS, partition},
};
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// For so long whoever logged an event tries to tell it; then it is left in the log.
const OWN_FOR: Duration = Duration::from_secs(5);
/// What lies there for so long is told by whoever minds it.
const LEFT_AFTER: Duration = Duration::from_secs(10);
/// Between two looks at what is left; while the application fails they come further and further apart.
const LOOK: Duration = Duration::from_secs(5);
const LOOK_MAX: Duration = Duration::from_secs(30);
/// Between two tries of an own event, the first time; twice as long each time after.
const PAUSE: Duration = Duration::from_millis(250);
/// How often an event is tried that the application has answered, but not taken; another may fare better.
const REFUSED_MAX: u32 = 3;
/// So many of those that are left may be refused in a row before the rest waits for the next look.
const REFUSED_IN_A_ROW: u32 = 8;
/// Events that are read from the log at once.
const PAGE: usize = 50;

/// Tells events until `stopping`, and then those of sockets that are still to be told from here.
pub async fn run(desk: Arc<Desk>, stopping: CancellationToken) {
    let Some(hook) = &desk.hooks.events else { return stopping.cancelled().await };
    let teller = Teller {
        hook,
        registry: &desk.courier.registry,
        metrics: &desk.metrics,
        left: std::array::from_fn(|_| AtomicUsize::new(0)),
    };
    let lanes = join_all((0..LANES).map(|lane| teller.keep(lane, &stopping)));
    tokio::join!(lanes, desk.hooks.notices.keep(hook, &desk.metrics, &stopping));
}

struct Teller<'a> {
    hook: &'a Hook,
    registry: &'a Registry,
    metrics: &'a Metrics,
    /// How many events lie in each partition of the log that is minded here.
    left: [AtomicUsize; PARTITIONS],
}

impl Teller<'_> {
    /// One lane, in which one event goes after the other.
    async fn keep(&self, lane: usize, stopping: &CancellationToken) {
        let mut apart = LOOK;
        let mut look = pin!(sleep(jittered(apart)));
        loop {
            tokio::select! {
                biased;
                () = &mut look, if !stopping.is_cancelled() => {
                    let all_told = self.tell_what_is_left(lane, LEFT_AFTER, stopping).await;
                    apart = if all_told { LOOK } else { (apart * 2).min(LOOK_MAX) };
                    look.as_mut().reset(Instant::now() + jittered(apart));
                }
                logged = self.registry.next_event(lane) => self.tell_own(logged).await,
                () = stopping.cancelled() => break,
            }
        }
        if self.registry.is_alone() {
            // The log ends with us.
            self.tell_what_is_left(lane, Duration::ZERO, &CancellationToken::new()).await;
        }
    }

    /// An event that was logged here.
    async fn tell_own(&self, logged: Logged) {
        let Logged { event, at, since } = logged;
        let (mut pause, mut refused) = (PAUSE, 0);
        // One that has waited for long is in other hands, if there are any.
        while at.is_none() || since.elapsed() < OWN_FOR {
            let untold = match self.tell(&event).await {
                Ok(()) => {
                    if let Some(at) = at {
                        self.registry.event_told(partition(event.data.socket_id), at).await;
                    }
                    return;
                }
                Err(untold) => untold,
            };
            refused += u32::from(matches!(untold, Untold::Refused(_)));
            let wait = untold.wait(pause);
            if refused >= REFUSED_MAX || since.elapsed() + wait >= OWN_FOR {
                break;
            }
            sleep(wait).await;
            pause *= 2;
        }
        if at.is_none() {
            self.registry.event_dropped();
        }
    }

    /// Events that nobody told until now, if this instance minds them, the oldest first. False if some are still to be
    /// told, since the application does not take them.
    async fn tell_what_is_left(&self, lane: usize, older_than: Duration, stopping: &CancellationToken) -> bool {
        for k in partitions(lane) {
            self.count_left(k).await;
        }
        let mut all_told = true;
        for k in partitions(lane).filter(|k| self.left(*k) > 0) {
            let walked = self.walk(k, older_than, stopping).await;
            self.count_left(k).await;
            match walked {
                Ok(told) => all_told &= told,
                Err(()) => return false,
            }
        }
        all_told
    }

    /// Whether all was told; an error if the application is not there.
    async fn walk(&self, k: usize, older_than: Duration, stopping: &CancellationToken) -> Result<bool, ()> {
        let (mut after, mut all_told, mut in_a_row) = (None, true, 0);
        while let Ok(page) = self.registry.events(k, after, older_than, PAGE).await {
            let Some(last) = page.last() else { return Ok(all_told) };
            after = last.at;
            for Logged { event, at, .. } in &page {
                if stopping.is_cancelled() {
                    return Ok(all_told);
                }
                match self.tell(event).await {
                    Ok(()) => {
                        if let Some(at) = at {
                            self.registry.event_told(k, *at).await;
                        }
                        in_a_row = 0;
                    }
                    Err(Untold::Refused(_)) if in_a_row < REFUSED_IN_A_ROW => {
                        (all_told, in_a_row) = (false, in_a_row + 1);
                    }
                    Err(Untold::Refused(_)) => return Ok(false),
                    Err(_) => return Err(()),
                }
            }
        }
        Ok(all_told)
    }

    /// Once. Whatever is no 2xx has not been heard.
    async fn tell(&self, event: &Event) -> Result<(), Untold> {
        let Particulars { socket_id, user_id, store_id, rooms, .. } = &event.data;
        let who = Who { socket: *socket_id, user: user_id.as_ref(), store: store_id.as_ref(), rooms };
        let answer = self.hook.post(&event.id, event.text().into(), &who, None).await;
        untold::of(self.hook, self.metrics, event.kind.as_str(), answer)
    }

    /// How many lie in a partition, for whoever looks. Without an answer of the registry the last one stands.
    async fn count_left(&self, k: usize) {
        let left = if self.registry.minds_events(k) { self.registry.events_left(k).await } else { Ok(0) };
        if let Ok(left) = left {
            self.left[k].store(left, Ordering::Relaxed);
            let all: usize = (0..PARTITIONS).map(|k| self.left(k)).sum();
            self.metrics.events_backlog.set(i64::try_from(all).unwrap_or(i64::MAX));
        }
    }

    fn left(&self, k: usize) -> usize {
        self.left[k].load(Ordering::Relaxed)
    }
}
