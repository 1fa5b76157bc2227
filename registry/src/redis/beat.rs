//! The beat: once a second the lease is renewed and our own bell rung. It tells whether we live, whether we
//! hear, and what Redis' clock says.

use super::{
    Redis,
    clock::boottime_ms,
    scripts::{BEAT, number, text},
};
use crate::{
    lease::{self, About, Serving},
    names::Incarnation,
};
use redis::cmd;
use std::{iter::once, sync::atomic::Ordering, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tracing::{error, info, warn};

/// How much earlier or later than the second a beat may come, so that a fleet does not beat as one.
const JITTER: f64 = 0.1;
/// Between two good beats so far apart, others may have failed to tell what they accepted.
pub const GAP: Duration = Duration::from_secs(4);
/// Lives of ours that are remembered: what an earlier one left behind went with the ones in between.
const FORMER_MAX: usize = 4;
/// Beats whose ring was not heard until the subscription is renewed: one may still be on its way.
const UNHEARD_MAX: u32 = 2;

impl Redis {
    /// Beats. Never returns.
    pub(super) async fn keep_beating(&self) {
        let mut since = None;
        let mut unheard = 0;
        loop {
            self.link.is_back().await;
            if !self.bell.is_subscribed() {
                // First the ears, then the lease: whoever writes to us must be heard.
                let _ = timeout(lease::BEAT, self.bell.subscribed()).await;
            }
            let rings = self.bell.rings();
            self.beat(&mut since).await;
            let pause = lease::BEAT.mul_f64(1.0 - JITTER + 2.0 * JITTER * fastrand::f64());
            tokio::select! {
                () = sleep(pause) => {}
                () = self.beat_now.notified() => {}
            }
            // Our own ring came back, or we are deaf.
            unheard = if self.bell.rings() == rings { unheard + 1 } else { 0 };
            self.deaf.store(unheard > 0, Ordering::Relaxed);
            if unheard >= UNHEARD_MAX && self.link.is_up() {
                unheard = 0;
                warn!("our own bell is not heard; subscribing anew");
                self.bell.anew.notify_one();
            }
        }
    }

    /// `since` is from when on we held the lease, as far as we know.
    async fn beat(&self, since: &mut Option<u64>) {
        if self.retired.load(Ordering::Relaxed) {
            return;
        }
        let (sent, sent_at) = (boottime_ms(), Instant::now());
        let own = self.own();
        let (keys, mark) = (&self.keys, own.mark());
        let serving = if self.bell.is_subscribed() { self.serving() } else { Serving::Deaf };
        let about = &self.about;
        let said = BEAT
            .on([keys.lease(mark), keys.tomb(mark), keys.mail(mark), keys.bell(mark)])
            .arg(self.publish())
            .arg(ms(lease::LEASE))
            .arg(self.bell.read())
            .arg(serving.as_str())
            .arg(self.sockets.load(Ordering::Relaxed))
            .arg(ms(super::post::MAIL))
            .arg(self.configuration.load().as_str())
            .arg(lasting(about, own.instance()))
            .run(&self.link)
            .await;
        let Ok(said) = said else {
            self.counters.beats_failed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        // One that the machine slept through was longer than the other clock says.
        let slept = Duration::from_millis(boottime_ms().saturating_sub(sent + 1));
        self.clock.sample(number(said.get(1)), sent_at.elapsed().max(slept));
        match text(said.first()) {
            "fenced" => {
                *since = None;
                self.begin_anew(&own);
            }
            word => {
                let last = self.beaten_at.swap(sent, Ordering::Relaxed);
                // At the first beat, too, if Redis was away before.
                let was_away = last == 0 && self.link.lives() > 1;
                if was_away || (last > 0 && sent.saturating_sub(last) > ms(GAP)) {
                    // What was accepted meanwhile, here or elsewhere, may not have a row yet.
                    self.is_unsure();
                }
                let now_since = number(said.get(4));
                if since.is_some_and(|since| since != now_since) {
                    warn!("our lease was gone from Redis; telling it again what is here");
                    self.everything_is_suspect();
                }
                if word == "new" {
                    info!("registered as {own}");
                    self.enlist(&own).await;
                }
                *since = Some(now_since);
                if number(said.get(3)) == 0 && self.bell.is_subscribed() {
                    warn!("nobody hears our bell; subscribing anew");
                    self.bell.anew.notify_one();
                }
            }
        }
    }

    /// The others took us for dead: what we hold has to be told again, under another mark.
    fn begin_anew(&self, dead: &Incarnation) {
        let fresh = Incarnation::fresh(dead.instance());
        error!("this instance was declared dead while it did not answer; going on as {fresh}");
        self.counters.fenced.fetch_add(1, Ordering::Relaxed);
        self.former.rcu(|former| once(dead).chain(former.iter()).take(FORMER_MAX).cloned().collect::<Vec<_>>());
        self.own.store(fresh.into());
        self.all_is_suspect();
        self.bell.anew.notify_one();
        self.beat_now.notify_one();
    }

    /// On the list, so that others know of us.
    pub(super) async fn enlist(&self, own: &Incarnation) {
        if self.retired.load(Ordering::Relaxed) {
            return;
        }
        let mut command = cmd("ZADD");
        command.arg(self.keys.instances()).arg(self.now_ms()).arg(own.to_string());
        let _ = self.link.ask(&command).await;
    }

    /// Whether the last good beat is recent enough to speak for what others told.
    pub(super) fn beats_well(&self) -> bool {
        boottime_ms().saturating_sub(self.beaten_at.load(Ordering::Relaxed)) <= ms(GAP)
    }

    /// No good beat for as long as a lease holds: by now others may have taken us for dead.
    pub fn is_fenced(&self) -> bool {
        boottime_ms().saturating_sub(self.beaten_at.load(Ordering::Relaxed)) > ms(lease::LEASE)
    }
}

/// What never changes, name and value in turn. What is not known is not there: an instance that reads it knows that from
/// instances of an earlier version.
fn lasting(about: &About, name: &str) -> Vec<String> {
    let known = [
        ("name", Some(name.to_owned())),
        ("version", Some(about.version.clone())),
        ("pid", Some(about.pid.to_string())),
        ("startedAt", Some(about.started_at.to_string())),
        ("canary", Some(about.canary.to_string())),
        ("address", Some(about.address.clone())),
        ("manager", about.manager.clone()),
        ("restarts", about.restarts.map(|restarts| restarts.to_string())),
    ];
    known.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?])).flatten().collect()
}

pub fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
