//! The registry and its verbs. An enum, not a trait: every form there is stands here, and a reader
//! finds each verb's code by one step.

use crate::{
    admit::{Admission, Cap},
    envelope::Envelope,
    lease::About,
    memory::{Local, Memory},
    names::{GroupKey, Incarnation, Session, SocketId},
    once::{Errand, Once, Outcome, Ticket},
    record::{Holder, SocketRecord},
    redis::{Redis, Settings, Unusable},
    verdict::{Ending, Verdict},
};
use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

mod book;
mod events;
mod leases;
mod logs;
mod returns;

/// How long a number is waited for that only adds to an answer: one that comes late is worse than one without it.
const COUNTED_WITHIN: Duration = Duration::from_millis(200);

/// Epoch milliseconds of this host. Shown to people, never compared with another host's.
pub fn epoch_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// How much of the past is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// How long a verdict is kept after the end.
    pub why_ttl: Duration,
    /// How many verdicts are kept at most, so that a storm of reconnections cannot fill the memory.
    /// What is dropped early is afterwards `forgotten`, never `never_seen`.
    pub verdicts_max: usize,
}

/// What became of a registration.
#[derive(Debug)]
pub enum Registered {
    /// Nobody had it.
    Fresh,
    /// An earlier attempt had it; its owner still has to be told.
    TakenFrom { owner: Incarnation, session: Session },
    /// The caller must not serve this connection.
    Superseded(Superseded),
    /// The registry did not answer. It is told as soon as it does.
    Later,
}

/// Why a registration, or a connection that was registered, does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Superseded {
    /// A later attempt has the socket.
    ByLater,
    /// The socket has ended.
    Ended,
}

/// What a look-up finds.
#[derive(Debug)]
pub enum Lookup<T = Arc<SocketRecord>> {
    Live(T),
    Gone(Verdict),
    /// Nobody may call it offline.
    Unknown(Unknown),
}

impl<T> Lookup<T> {
    pub fn map<U>(self, map: impl FnOnce(T) -> U) -> Lookup<U> {
        match self {
            Self::Live(live) => Lookup::Live(map(live)),
            Self::Gone(verdict) => Lookup::Gone(verdict),
            Self::Unknown(unknown) => Lookup::Unknown(unknown),
        }
    }
}

/// Why the registry cannot say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// It does not answer.
    Unavailable,
    /// It lost what it knew, and the instances are telling it again.
    Rebuilding,
    /// The row is there, but the instance that owns it is not heard. It is not known to be dead.
    OwnerUnreachable(Incarnation),
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable => f.write_str("the registry does not answer"),
            Self::Rebuilding => f.write_str("the registry lost what it knew and is being rebuilt"),
            Self::OwnerUnreachable(owner) => write!(f, "{}, which holds it, is not heard", owner.instance()),
        }
    }
}

/// What became of a letter. It goes elsewhere only after one of the first three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routed {
    /// The registry is known to be away; the letter was not sent.
    Unsent,
    /// The receiver holds no lease; nothing was kept.
    Gone,
    /// Nobody heard the bell; nothing was kept.
    Deaf,
    /// It was rung, and it lies in the mailbox.
    Taken,
    /// The registry did not answer: it may have been taken.
    Unknown,
}

/// That an instance holds members of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holding {
    pub owner: Incarnation,
    /// Exact when it was written, which is some seconds ago at most.
    pub members: usize,
    /// When one of them was heard, by the registry's clock; as old as the number.
    pub active_at: u64,
}

/// Whether an instance hears what is sent to it, as the registry sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hearing {
    Hears,
    /// Nobody listens to its bell; its last beat is so long ago.
    Deaf {
        beaten: Duration,
    },
    /// It holds no lease.
    Gone,
}

/// What comes to an instance from the registry, in order.
#[derive(Debug)]
pub enum Post {
    Letter(Envelope),
    /// A connection of ours does not count any more.
    Superseded {
        id: SocketId,
        session: Session,
        why: Superseded,
    },
    /// A socket that was away has ended, as its last connection did or as somebody decided.
    Ended {
        record: Arc<SocketRecord>,
        ending: Ending,
    },
    /// Somebody of a group came here, and calls have waited for that.
    Arrived(Arrived),
}

/// Somebody of a group came, and who has waited for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    pub group: GroupKey,
    /// The instances whose calls do.
    pub by: Vec<Incarnation>,
    /// Calls were queued for it, and are not over.
    pub queued: bool,
}

/// Where it comes. Bounded: what finds no room is fetched from the mailbox later.
pub type Inbox = mpsc::Receiver<Post>;

/// How the registry is, without asking it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It is in this process.
    Here,
    /// It answers.
    Up,
    /// It does not.
    Down,
}

/// What a server of Redis said of itself when it was looked at last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub address: String,
    pub version: String,
    /// Empty where it does not say.
    pub maxmemory_policy: String,
}

/// Counters that say whether the promises hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Sockets in which the registry and this instance were found to differ, and that are not mended yet.
    pub drift: usize,
    /// Messages on the bell that were no letters of a version we know.
    pub foreign: u64,
    /// Gaps in the numbers on the bell, and those that could not be filled from the mailbox.
    pub gaps: u64,
    pub gaps_unfilled: u64,
    /// Letters that came twice and were taken once.
    pub repeated: u64,
    /// Beats that failed, and times that this instance was declared dead.
    pub beats_failed: u64,
    pub fenced: u64,
    /// Sockets of dead instances that this one cleaned up.
    pub reaped: u64,
    /// Events that are lost: the log had no room for them, or they waited in it for too long.
    pub events_dropped: u64,
}

/// Who holds which socket, as one instance sees it. Cheap to clone.
#[derive(Clone)]
pub enum Registry {
    Memory(Local),
    Redis(Arc<Redis>),
}

impl Registry {
    /// A registry that lives and dies with this process.
    pub fn in_memory(memory: &Arc<Memory>, about: About) -> (Self, Inbox) {
        let (local, inbox) = Local::join(memory, about);
        (Self::Memory(local), inbox)
    }

    /// A registry that is shared by every instance on this Redis and namespace. Asks nobody yet.
    pub fn on_redis(settings: Settings, about: About) -> (Self, Inbox) {
        let (redis, inbox) = Redis::new(settings, about);
        (Self::Redis(redis), inbox)
    }

    /// Connects for the first time. Fails where waiting would not help; not being reached is no failure.
    pub async fn open(&self) -> Result<(), Unusable> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(redis) => redis.open().await,
        }
    }

    /// Waits until this instance hears what the others send it.
    pub async fn heard(&self) {
        match self {
            Self::Memory(_) => {}
            Self::Redis(redis) => redis.heard().await,
        }
    }

    /// Does all that has to be done again and again. Never returns; whoever drops it goes silent.
    pub async fn keep(&self) {
        match self {
            Self::Memory(local) => local.keep_away().await,
            Self::Redis(redis) => Box::pin(redis.keep()).await,
        }
    }

    /// The life of this instance that owns what is registered now. A new one begins when the others
    /// took this instance for dead.
    pub fn incarnation(&self) -> Incarnation {
        match self {
            Self::Memory(local) => local.own.clone(),
            Self::Redis(redis) => redis.incarnation(),
        }
    }

    /// Epoch milliseconds of the clock that deadlines between instances are told by.
    pub fn now_ms(&self) -> u64 {
        match self {
            Self::Memory(_) => epoch_ms(),
            Self::Redis(redis) => redis.now_ms(),
        }
    }

    /// Whether there is nobody else to be told or asked.
    pub fn is_alone(&self) -> bool {
        match self {
            Self::Memory(local) => !local.memory.is_shared(),
            Self::Redis(_) => false,
        }
    }

    /// How it is, without asking it.
    pub fn health(&self) -> Health {
        match self {
            Self::Memory(_) => Health::Here,
            Self::Redis(redis) => redis.health(),
        }
    }

    /// The servers of Redis, without asking them; nothing while none was found, or where there are none.
    pub fn servers(&self) -> Vec<Server> {
        match self {
            Self::Memory(_) => Vec::new(),
            Self::Redis(redis) => redis.servers(),
        }
    }

    /// Whether this instance hears what the others send it.
    pub fn hears(&self) -> bool {
        match self {
            Self::Memory(_) => true,
            Self::Redis(redis) => redis.hears(),
        }
    }

    /// Grows whenever letters to this instance may have been lost.
    pub fn letters_lost(&self) -> u64 {
        match self {
            Self::Memory(_) => 0,
            Self::Redis(redis) => redis.letters_lost(),
        }
    }

    pub fn figures(&self) -> Figures {
        match self {
            Self::Memory(local) => Figures {
                drift: local.memory.drift(),
                events_dropped: local.memory.outgoing.dropped_so_far(),
                ..Figures::default()
            },
            Self::Redis(redis) => redis.figures(),
        }
    }

    /// Asks whether a newcomer may come in, and registers it if it is welcome. It counts from this
    /// moment, so that two who ask at once cannot both be the last.
    pub async fn admit(&self, newcomer: &Arc<SocketRecord>, cap: Cap) -> Admission {
        match self {
            Self::Memory(local) => local.memory.admit(newcomer, cap),
            Self::Redis(redis) => redis.admit(newcomer, cap).await,
        }
    }

    /// Claims a socket for this instance.
    pub async fn register(&self, record: Arc<SocketRecord>) -> Registered {
        match self {
            Self::Memory(local) => local.memory.register(record),
            Self::Redis(redis) => redis.register(&record).await,
        }
    }

    /// Tells what the socket says of itself by now; false if another connection has it. Whatever becomes of whoever
    /// waits for this, the last that it says is what the others find.
    pub async fn update(&self, says: impl Fn() -> Arc<SocketRecord>) -> bool {
        match self {
            Self::Memory(local) => local.memory.update(says),
            Self::Redis(redis) => redis.update(says).await,
        }
    }

    /// Takes the connection out and keeps its verdict: the socket has ended, or is away. False if another connection
    /// has it by now.
    pub async fn unregister(&self, id: SocketId, session: Session, ending: Ending) -> bool {
        match self {
            Self::Memory(local) => local.memory.unregister(id, session, ending),
            Self::Redis(redis) => redis.unregister(id, session, ending).await,
        }
    }

    /// Finds a socket by whatever text the caller holds for its id. The row's word alone: its owner
    /// may have died since, which whoever writes to it finds out.
    pub async fn whereabouts(&self, asked: &str) -> Lookup<Holder> {
        match self {
            Self::Memory(local) => local.memory.lookup(asked).map(|record| Holder::of(&record)),
            Self::Redis(redis) => redis.whereabouts(asked).await,
        }
    }

    /// The same, and whether its owner is heard.
    pub async fn lookup(&self, asked: &str) -> Lookup {
        match self {
            Self::Memory(local) => local.memory.lookup(asked),
            Self::Redis(redis) => redis.lookup(asked).await,
        }
    }

    /// The instances that hold members of a group.
    pub async fn holders(&self, group: GroupKey) -> Result<Vec<Holding>, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.holders(group)),
            Self::Redis(redis) => redis.holders(group).await,
        }
    }

    /// Whether an instance hears what is sent to it.
    pub async fn hearing(&self, of: &Incarnation) -> Result<Hearing, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.hearing(of)),
            Self::Redis(redis) => redis.hearing(of).await,
        }
    }

    /// Notes that members of these groups were heard, so that who is asked for the most active knows.
    pub fn active(&self, groups: &[GroupKey]) {
        match self {
            // There everybody who asks sees the sockets themselves.
            Self::Memory(_) => {}
            Self::Redis(redis) => redis.active(groups),
        }
    }

    /// Takes an instance that was not reached out of a group, if it is dead, and says whether it is. Whoever
    /// meets the dead in an index removes exactly them.
    pub async fn leave_if_dead(&self, group: GroupKey, owner: &Incarnation) -> bool {
        match self {
            Self::Memory(_) => true,
            Self::Redis(redis) => redis.leave_if_dead(group, owner).await,
        }
    }

    /// Up to `limit` live sockets with ids after `after`, in order of connection.
    pub async fn page(&self, after: SocketId, limit: usize) -> Result<Vec<Arc<SocketRecord>>, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.page(after, limit)),
            Self::Redis(redis) => redis.page(after, limit).await,
        }
    }

    /// How many sockets are live in the whole fleet.
    pub async fn total(&self) -> Result<usize, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.total()),
            Self::Redis(redis) => redis.total().await,
        }
    }

    /// How many members a group has, if that is known soon.
    pub async fn members(&self, group: GroupKey) -> Option<usize> {
        let holders = timeout(COUNTED_WITHIN, self.holders(group)).await.ok()?;
        holders.ok().map(|holders| holders.iter().map(|holder| holder.members).sum())
    }

    /// Takes on a request that is to be acted upon once, or says who has and what came of it.
    pub async fn take_on(&self, errand: &Errand) -> Result<Once, Unknown> {
        match self {
            Self::Memory(local) => local.memory.take_on(errand),
            Self::Redis(redis) => redis.take_on(errand).await,
        }
    }

    /// Says what came of it; false if it is somebody else's by now, or settled already. The first word stands.
    pub async fn settle(&self, ticket: &Ticket, outcome: &Outcome) -> Result<bool, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.settle(ticket, outcome)),
            Self::Redis(redis) => redis.settle(ticket, outcome).await,
        }
    }

    /// Sends a letter to an instance, in the order of the calls; later it is told what became of it, once.
    pub fn post(&self, to: &Incarnation, letter: &Envelope, told: impl FnOnce(Routed) + Send + 'static) {
        match self {
            Self::Memory(local) => told(local.memory.route(to, letter)),
            Self::Redis(redis) => redis.post(to, letter, told),
        }
    }

    /// The same for whoever waits for what becomes of it.
    pub async fn route(&self, to: &Incarnation, letter: &Envelope) -> Routed {
        let (told, hears) = oneshot::channel();
        self.post(to, letter, |routed| _ = told.send(routed));
        // Nothing is told only where everything ends.
        hears.await.unwrap_or(Routed::Unknown)
    }
}
