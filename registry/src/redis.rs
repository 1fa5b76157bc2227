//! The registry on Redis. Every instance holds its own truth ([`crate::owner`]) and tells it to Redis, where
//! the others find it; Redis is a hint that is checked again and again. In reading order:
//!
//! | file | what it is |
//! |---|---|
//! | `url.rs` | where Redis is |
//! | `resp.rs`, `wire.rs`, `pipeline.rs` | what is said on one connection |
//! | `steadfast.rs` | what has to survive a server, on connections of its own |
//! | `link.rs`, `line.rs`, `topology.rs` | which connections there are, and who is the master of what |
//! | `keys.rs`, `rows.rs`, `scripts.rs`, `lua/` | what stands in Redis |
//! | `claims.rs`, `tellings.rs` | telling it what is ours, and how many are in our groups |
//! | `door.rs`, `places.rs` | letting users in, and who has a place already |
//! | `resume.rs`, `away.rs`, `secret.rs` | giving sockets back to clients that return, and ending those that nobody returns to |
//! | `lookups.rs` | asking it |
//! | `waits.rs`, `queued.rs` | calls that wait for somebody to come, and calls that are kept until then |
//! | `events.rs` | what the application is told |
//! | `once.rs` | requests that are acted upon once |
//! | `book.rs` | the book of keys, and tickets |
//! | `logs.rs`, `appends.rs`, `mails.rs`, `lasting.rs` | durable deliveries: to sockets that may be resumed, and to groups without sockets |
//! | `drains.rs` | who may drain, so that one stays |
//! | `lanes.rs` | what goes the same way, going together |
//! | `post.rs`, `bell.rs` | letters out, letters in |
//! | `losses.rs` | whether they are there still when a server is another than before |
//! | `rehearsal.rs` | whether Redis lets us do all that |
//! | `clock.rs` | Redis' clock, by which instances understand each other |
//! | `beat.rs`, `verify.rs`, `reaper.rs`, `watch.rs` | what is done again and again |

mod appends;
mod away;
mod beat;
mod bell;
mod book;
mod claims;
mod clock;
mod door;
mod drains;
mod events;
mod keys;
mod lanes;
mod lasting;
mod line;
mod link;
mod logs;
mod lookups;
mod losses;
mod mails;
mod once;
mod pipeline;
mod places;
mod post;
mod queued;
mod reaper;
mod rehearsal;
mod resp;
mod resume;
mod rows;
mod scripts;
mod secret;
mod steadfast;
mod tellings;
mod topology;
mod url;
mod verify;
mod waits;
mod watch;
mod wire;

pub use link::Unusable;
pub use scripts::script;
pub use url::RedisUrl;

use crate::{
    admit::CoolDowns,
    all::{Figures, Health, Inbox, Post},
    event::Outgoing,
    lease::{About, Serving},
    names::Incarnation,
    owner::{Owner, PARTITIONS},
    rules::Silence,
    token::{Keyring, Secret},
};
use appends::To;
use arc_swap::ArcSwap;
use bell::Bell;
use clock::Clock;
use keys::Keys;
use lanes::Lanes;
use link::Link;
use losses::Lately;
use redis::cmd;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};

/// Letters that wait for the gateway. Beyond it the reader waits, and the mailbox keeps the rest.
const INBOX_MAX: usize = 1024;

/// What telling the rest may take when an instance retires.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Where and how.
#[derive(Clone)]
pub struct Settings {
    pub url: RedisUrl,
    pub namespace: String,
    pub why_ttl: Duration,
    /// What seals the tokens of sockets that may come back, the first of them; none if Redis has it.
    pub secrets: Vec<Secret>,
}

#[derive(Default)]
struct Counters {
    foreign: AtomicU64,
    gaps: AtomicU64,
    gaps_unfilled: AtomicU64,
    repeated: AtomicU64,
    beats_failed: AtomicU64,
    fenced: AtomicU64,
    reaped: AtomicU64,
}

/// One instance's part in the registry.
pub struct Redis {
    about: About,
    /// The hash of the settings in force, which the next beat tells.
    configuration: ArcSwap<String>,
    why_ttl: Duration,
    keys: Keys,
    pub(crate) keyring: Keyring,
    /// Whether it was given to this instance, and Redis has nothing to do with it.
    has_own_secret: bool,
    link: Link,
    own: ArcSwap<Incarnation>,
    /// Lives of ours that the others ended. What they left in the indexes goes with what replaces it.
    former: ArcSwap<Vec<Incarnation>>,
    owner: Mutex<Owner>,
    clock: Clock,
    bell: Arc<Bell>,
    inbox: mpsc::Sender<Post>,
    pub(crate) outgoing: Outgoing,
    letters: Lanes<Incarnation, post::Waiting>,
    appends: Lanes<To, appends::Waiting>,
    /// What we logged lately.
    lately: Lately,
    draining: AtomicBool,
    retired: AtomicBool,
    sockets: AtomicUsize,
    /// Whether users' sockets are counted.
    capped: AtomicBool,
    /// Who was evicted by us alone, while Redis was away.
    cooling: Mutex<CoolDowns>,
    deaf: AtomicBool,
    /// When the last good beat was sent, on a clock that runs while the machine sleeps.
    beaten_at: AtomicU64,
    fleet: AtomicUsize,
    drift: [AtomicU32; PARTITIONS],
    /// Partitions of whose sockets the groups and users have to be told again.
    indexes_suspect: [AtomicBool; PARTITIONS],
    /// When everything was last told anew, by Redis' clock.
    told_at: AtomicU64,
    /// Whether it was said since when the partitions' memory is whole.
    settled: AtomicBool,
    /// Who of the others was silent lately.
    silence: Mutex<Silence>,
    /// Until when nobody may say that an id never was, in milliseconds of our clock.
    unsure_until: AtomicU64,
    counters: Counters,
    beat_now: Notify,
    mend_now: Notify,
    reborn_now: Notify,
    group_told: Notify,
    ending_told: Notify,
}

impl Redis {
    pub(crate) fn new(settings: Settings, about: About) -> (Arc<Self>, Inbox) {
        let (sender, inbox) = mpsc::channel(INBOX_MAX);
        let own = Incarnation::fresh(&about.instance);
        let redis = Self {
            about,
            configuration: ArcSwap::default(),
            why_ttl: settings.why_ttl,
            keys: Keys::new(&settings.namespace),
            has_own_secret: !settings.secrets.is_empty(),
            keyring: Keyring::new(&settings.namespace, settings.secrets),
            link: Link::new(settings.url),
            own: ArcSwap::from_pointee(own),
            former: ArcSwap::default(),
            owner: Mutex::default(),
            clock: Clock::new(),
            bell: Arc::default(),
            inbox: sender,
            outgoing: Outgoing::default(),
            letters: Lanes::default(),
            appends: Lanes::default(),
            lately: Lately::default(),
            draining: AtomicBool::new(false),
            retired: AtomicBool::new(false),
            sockets: AtomicUsize::new(0),
            capped: AtomicBool::new(false),
            cooling: Mutex::default(),
            deaf: AtomicBool::new(false),
            beaten_at: AtomicU64::new(0),
            fleet: AtomicUsize::new(1),
            drift: std::array::from_fn(|_| AtomicU32::new(0)),
            indexes_suspect: std::array::from_fn(|_| AtomicBool::new(false)),
            told_at: AtomicU64::new(0),
            settled: AtomicBool::new(false),
            silence: Mutex::default(),
            unsure_until: AtomicU64::new(0),
            counters: Counters::default(),
            beat_now: Notify::new(),
            mend_now: Notify::new(),
            reborn_now: Notify::new(),
            group_told: Notify::new(),
            ending_told: Notify::new(),
        };
        (Arc::new(redis), inbox)
    }

    pub(crate) async fn open(&self) -> Result<(), Unusable> {
        self.link.open().await?;
        match self.link.is_up() {
            true => {
                self.read_clock().await;
                self.look_at_servers().await;
                self.rehearse().await?;
                if !self.has_own_secret {
                    self.share_secret().await;
                }
                Ok(())
            }
            false => Ok(()),
        }
    }

    /// Everything that is done again and again. Never returns; whoever drops it ends it all.
    pub(crate) async fn keep(self: &Arc<Self>) {
        // Letters and entries are tasks of their own: there may be thousands a second, and the others have hardly ever
        // to do.
        let (reader, sender, scribe) = (self.clone(), self.clone(), self.clone());
        let (appender, mut letters) = (self.clone(), JoinSet::new());
        letters.spawn(async move { reader.keep_bell().await });
        letters.spawn(async move { sender.keep_post().await });
        letters.spawn(async move { appender.keep_appending().await });
        letters.spawn(async move { scribe.link.keep_steadfast().await });
        let all = async {
            tokio::join!(
                self.link.keep(),
                self.keep_beating(),
                self.keep_verified(),
                self.keep_born(),
                self.keep_clean(),
                self.keep_away(),
                self.keep_secret(),
                self.keep_watching(),
            )
        };
        tokio::select! {
            _ = all => {}
            // Only by a bug; without ears or a mouth there is no sense in the rest.
            _ = letters.join_next() => {}
        }
    }

    pub(crate) fn incarnation(&self) -> Incarnation {
        self.own.load().as_ref().clone()
    }

    fn own(&self) -> Incarnation {
        self.incarnation()
    }

    /// A panic elsewhere while the lock was held cannot leave a half-done change: every step is whole.
    fn owner(&self) -> MutexGuard<'_, Owner> {
        self.owner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    pub(crate) fn configured(&self, hash: String) {
        self.configuration.store(Arc::new(hash));
    }

    fn why_ttl_ms(&self) -> u64 {
        beat::ms(self.why_ttl)
    }

    fn is_capped(&self) -> bool {
        self.capped.load(Ordering::Relaxed)
    }

    fn fleet_size(&self) -> usize {
        self.fleet.load(Ordering::Relaxed)
    }

    fn serving(&self) -> Serving {
        if self.draining.load(Ordering::Relaxed) { Serving::Draining } else { Serving::Serving }
    }

    pub(crate) fn health(&self) -> Health {
        self.link.health()
    }

    pub(crate) fn servers(&self) -> Vec<crate::all::Server> {
        let known = self.link.servers.known().into_iter();
        let shown = known.map(|server| crate::all::Server {
            address: server.node.to_string(),
            version: server.version,
            maxmemory_policy: server.eviction,
        });
        shown.collect()
    }

    /// Whether a letter that is sent to us now would be read.
    pub(crate) fn hears(&self) -> bool {
        self.bell.is_subscribed() && !self.deaf.load(Ordering::Relaxed) && !self.is_fenced()
    }

    /// Waits until it is so.
    pub(crate) async fn heard(&self) {
        while !self.hears() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        Figures {
            drift: self.drift.iter().map(|part| part.load(Ordering::Relaxed) as usize).sum(),
            foreign: count(&counters.foreign),
            gaps: count(&counters.gaps),
            gaps_unfilled: count(&counters.gaps_unfilled),
            repeated: count(&counters.repeated),
            beats_failed: count(&counters.beats_failed),
            fenced: count(&counters.fenced),
            reaped: count(&counters.reaped),
            events_dropped: self.outgoing.dropped_so_far(),
        }
    }

    /// Grows whenever letters to this instance may have been lost.
    pub(crate) fn letters_lost(&self) -> u64 {
        self.link.lives() + self.counters.gaps_unfilled.load(Ordering::Relaxed)
    }

    pub(crate) fn announce(&self, serving: Serving, sockets: usize) {
        self.sockets.store(sockets, Ordering::Relaxed);
        let draining = serving == Serving::Draining;
        if self.draining.swap(draining, Ordering::Relaxed) != draining {
            self.beat_now.notify_one();
        }
    }

    /// Gives the lease up; from here on no beat takes it back.
    pub(crate) async fn retire(&self) {
        // What the end of so many at once left untold is told now, but not for ever.
        let _ = tokio::time::timeout(LAST_WORDS, self.tell_what_is_left()).await;
        self.retired.store(true, Ordering::Relaxed);
        let own = self.own();
        let (mut lease, mut listed, mut tomb) = (cmd("DEL"), cmd("ZREM"), cmd("SET"));
        lease.arg(self.keys.lease(own.mark())).arg(self.keys.mail(own.mark()));
        listed.arg(self.keys.instances()).arg(own.to_string());
        if !self.owner().is_told() {
            // Somebody has to clean up after us, as after a crash.
            let _ = self.link.ask(&lease).await;
            return;
        }
        // Whoever remembers us need not wonder where we are.
        tomb.arg(self.keys.tomb(own.mark())).arg(own.to_string()).arg("PX").arg(beat::ms(reaper::TOMB_STANDS));
        let _ = tokio::join!(self.link.ask(&lease), self.link.ask(&listed), self.link.ask(&tomb));
    }

    /// Gives something to the gateway; waits while it has too much to do.
    async fn hand_over(&self, post: Post) {
        // A gateway that is gone takes nothing any more.
        let _ = self.inbox.send(post).await;
    }
}
