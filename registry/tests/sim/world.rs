//! Virtual time, the network, and the masters of the store. Everything that happens is an event with a
//! moment; of one moment, what was arranged first happens first. All chance comes from one seed.

use super::{
    clients::Client,
    faults::Fault,
    letters::Letter,
    node::{Flight, Node, Then},
    wire::{self, Op, Said, Spread},
};
use crate::model::{Beaten, Flaw, Sent, Store};
use fastrand::Rng;
use registry::{Attempt, Cause, GroupKey, Incarnation, Session, SocketId, owner::Ticket};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    sync::Arc,
};

/// The simulated epoch: somewhere in 2025.
pub const BEGIN: u64 = 1_750_000_000_000;
/// After that long without an answer nobody waits any more.
const TIMEOUT: u64 = 2_000;
/// The partitions that ids fall into; the others stay empty and cost nothing.
pub const PARTITIONS: [usize; 5] = [3, 10, 23, 38, 61];

#[derive(Debug, Clone)]
pub enum Event {
    /// At the store. An echo's answer is lost.
    Arrive {
        n: usize,
        flight: u64,
        epoch: u32,
        echo: bool,
        op: Op,
    },
    /// At an instance.
    ForNode(usize, News),
    Client(usize),
    /// A client's connection comes in somewhere.
    Knock {
        client: usize,
        n: usize,
    },
    Bounce {
        client: usize,
        left: u32,
        between: (usize, usize),
    },
    Fault(usize),
    Mended(Fault),
    Boot {
        slot: usize,
    },
    Probe,
}

/// What an instance is told, or remembers to do. A paused one gets it later.
#[derive(Debug, Clone)]
pub enum News {
    Answer {
        flight: u64,
        said: Said,
    },
    Timeout {
        flight: u64,
    },
    Failed {
        flight: u64,
    },
    Broken {
        shard: usize,
        epoch: u32,
    },
    Reconnect {
        shard: usize,
    },
    Noticed {
        shard: usize,
        run: u32,
    },
    Subscribe {
        of: Incarnation,
    },
    Subscribed {
        of: Incarnation,
    },
    Rung {
        of: Incarnation,
        text: Arc<str>,
    },
    Beat,
    Verify,
    Mend,
    Look,
    WholeByNow,
    Gone {
        id: SocketId,
        session: Session,
        cause: Cause,
    },
    Again {
        letter: usize,
    },
    /// The first frame of a connection.
    Heard {
        id: SocketId,
        session: Session,
    },
    Walk,
}

#[derive(Debug, Clone, Default)]
pub struct Shard {
    pub run: u32,
    /// Takes what comes, and does it later.
    pub stalled_until: u64,
    pub is_down: bool,
    pub past: Option<Box<Store>>,
}

/// How bad the network is, until the faults end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Noise {
    pub lost: f64,
    pub echoed: f64,
    pub slow: f64,
}

struct Due {
    at: u64,
    seq: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.seq == other.seq
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.seq).cmp(&(other.at, other.seq))
    }
}

pub struct World {
    pub now: u64,
    queue: BinaryHeap<Reverse<Due>>,
    seq: u64,
    pub rng: Rng,
    pub store: Store,
    pub spread: Spread,
    pub shards: Vec<Shard>,
    pub nodes: Vec<Node>,
    /// Which node stands in each place now.
    pub slots: Vec<usize>,
    pub clients: Vec<Client>,
    pub letters: Vec<Letter>,
    /// Who listens to a bell.
    pub subs: BTreeMap<Incarnation, usize>,
    pub noise: Noise,
    /// While the faults lasted.
    pub noise_was: Noise,
    pub faults: Vec<(u64, Fault)>,
    pub calm: bool,
    pub flaw: Option<Flaw>,
    /// What really happened, for the judge.
    pub attempts: BTreeMap<SocketId, Vec<(Attempt, Session)>>,
    /// With the attempt that has ended.
    pub ended: BTreeMap<SocketId, u32>,
    /// Attempts of which Redis knows that their connection was heard.
    pub heard: BTreeMap<SocketId, u32>,
    pub tombed: BTreeSet<Incarnation>,
    pub tombs_lost: BTreeSet<Incarnation>,
    pub lost_at: Vec<u64>,
    pub outrun: BTreeSet<String>,
    /// Marks whose holders have begun anew and taken their numbers away, and those numbers that are.
    pub moved_on: BTreeSet<Incarnation>,
    pub cleared: BTreeSet<(GroupKey, Incarnation)>,
    /// Numbers of groups of which nobody knows whether Redis heard them, told by or of somebody who is dead.
    pub unsaid: BTreeSet<(GroupKey, Incarnation)>,
    tells: bool,
    pub told: Vec<String>,
    pub broken: Option<String>,
    pub events: u64,
}

impl World {
    pub fn new(seed: u64, shards: usize, flaw: Option<Flaw>) -> Self {
        Self {
            now: BEGIN,
            queue: BinaryHeap::new(),
            seq: 0,
            rng: Rng::with_seed(seed),
            store: Store { flaw, ..Store::default() },
            spread: Spread(shards),
            shards: vec![Shard::default(); shards],
            nodes: Vec::new(),
            slots: Vec::new(),
            clients: Vec::new(),
            letters: Vec::new(),
            subs: BTreeMap::new(),
            noise: Noise::default(),
            noise_was: Noise::default(),
            faults: Vec::new(),
            calm: false,
            flaw,
            attempts: BTreeMap::new(),
            ended: BTreeMap::new(),
            heard: BTreeMap::new(),
            tombed: BTreeSet::new(),
            tombs_lost: BTreeSet::new(),
            lost_at: Vec::new(),
            outrun: BTreeSet::new(),
            moved_on: BTreeSet::new(),
            cleared: BTreeSet::new(),
            unsaid: BTreeSet::new(),
            tells: std::env::var_os("SIM_TELL").is_some(),
            told: Vec::new(),
            broken: None,
            events: 0,
        }
    }

    /// Says what happens, for whoever replays a schedule.
    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.tells {
            let at = self.now - BEGIN;
            self.told.push(format!("{:>7}.{:03} {}", at / 1000, at % 1000, what()));
        }
    }

    pub fn violate(&mut self, what: impl FnOnce() -> String) {
        if self.broken.is_none() {
            let at = self.now - BEGIN;
            self.broken = Some(format!("{} at {}.{:03} s", what(), at / 1000, at % 1000));
        }
    }

    pub fn after(&mut self, ms: u64, event: Event) {
        self.seq += 1;
        self.queue.push(Reverse(Due { at: self.now + ms, seq: self.seq, event }));
    }

    pub fn news(&mut self, ms: u64, n: usize, news: News) {
        self.after(ms, Event::ForNode(n, news));
    }

    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        self.rng.u64(from..=to)
    }

    pub fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && self.rng.f64() < p
    }

    /// Runs until that moment, or until an invariant is violated.
    pub fn run_until(&mut self, end: u64) {
        while self.broken.is_none()
            && let Some(Reverse(due)) = self.queue.peek()
            && due.at <= end
            && let Some(Reverse(due)) = self.queue.pop()
        {
            self.now = due.at;
            self.events += 1;
            self.happen(due.event);
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive { n, flight, epoch, echo, op } => self.arrive(n, flight, epoch, echo, op),
            Event::ForNode(n, news) => self.hear(n, news),
            Event::Client(client) => self.act(client),
            Event::Knock { client, n } => self.knock(client, n),
            Event::Bounce { client, left, between } => self.bounce(client, left, between),
            Event::Fault(nth) => self.begin_fault(nth),
            Event::Mended(fault) => self.end_fault(&fault),
            Event::Boot { slot } => self.boot(slot),
            Event::Probe => self.probe(),
        }
    }

    fn hear(&mut self, n: usize, news: News) {
        let node = &mut self.nodes[n];
        if !node.is_alive {
            return;
        }
        if node.is_paused {
            node.backlog.push(news);
            return;
        }
        self.handle(n, news);
    }

    pub fn delay(&mut self) -> u64 {
        let slow = self.noise.slow;
        if self.chance(slow) { self.between(50, 1_500) } else { self.between(1, 5) }
    }

    /// Sends an operation. On one connection they arrive in the order in which they were sent.
    pub fn send(&mut self, n: usize, op: Op, ticket: Option<Ticket>, then: Then) {
        let shard = self.spread.of(&op);
        self.seq += 1;
        let flight = self.seq;
        let delay = self.delay();
        let node = &mut self.nodes[n];
        let link = &mut node.links[shard];
        let (up, epoch) = (link.is_up, link.epoch);
        node.flights.insert(flight, Flight { shard, op: op.clone(), ticket, then });
        if !up {
            return self.news(0, n, News::Failed { flight });
        }
        let (cut, at) = (node.cut_until, (self.now + delay).max(link.there_at));
        // What is sent over a link that is cut is sent again by TCP, for a while.
        let at = if at < cut { if cut - at > 8_000 { u64::MAX } else { cut + delay } } else { at };
        if at < u64::MAX {
            self.nodes[n].links[shard].there_at = at;
            // Sent again because the first answer was lost: then the second run's answer is what comes.
            let (echoed, late) = (self.noise.echoed, self.between(1, 400));
            // A letter is never sent again: a second answer would say what became of the second alone.
            let may_echo = !matches!(op, Op::Route { .. }) || self.flaw == Some(Flaw::RoutesTwice);
            let echo = may_echo && self.chance(echoed);
            if echo {
                self.after(at - self.now + late, Event::Arrive { n, flight, epoch, echo: false, op: op.clone() });
            }
            self.after(at - self.now, Event::Arrive { n, flight, epoch, echo, op });
        }
        self.news(TIMEOUT, n, News::Timeout { flight });
    }

    fn arrive(&mut self, n: usize, flight: u64, epoch: u32, echo: bool, op: Op) {
        let at = self.spread.of(&op);
        let shard = &self.shards[at];
        if shard.is_down {
            return;
        }
        if shard.stalled_until > self.now {
            let wait = shard.stalled_until - self.now;
            return self.after(wait, Event::Arrive { n, flight, epoch, echo, op });
        }
        // Of a connection that broke meanwhile some bytes had come, and some had not.
        if self.nodes[n].links[at].epoch != epoch && flight.is_multiple_of(2) {
            return;
        }
        let said = self.run(&op);
        let lost = self.noise.lost;
        if echo || self.nodes[n].links[at].epoch != epoch || self.chance(lost) {
            return;
        }
        let delay = self.delay();
        let link = &mut self.nodes[n].links[at];
        link.back_at = (self.now + delay).max(link.back_at);
        let wait = link.back_at - self.now;
        self.news(wait, n, News::Answer { flight, said });
    }

    /// The store runs an operation, watched by the judge.
    fn run(&mut self, op: &Op) -> Said {
        let listeners = match op {
            Op::Beat { of, .. } | Op::Route { to: of, .. } | Op::Heard { of } => {
                usize::from(self.subs.contains_key(of))
            }
            _ => 0,
        };
        let before = self.before(op);
        let said = wire::run(&mut self.store, op, listeners, self.now);
        self.judge(op, before, &said);
        self.tell(|| format!("    {op:?} -> {said:?}"));
        let ring = match (op, &said) {
            (Op::Beat { of, .. }, Said::Beaten(Beaten::Held { new, n, .. })) => {
                Some((of, format!("{n}\n{}", if *new { "!" } else { "" })))
            }
            (Op::Route { to, text }, Said::Sent(Sent::Ok { n, .. })) => Some((to, format!("{n}\n{text}"))),
            _ => None,
        };
        if let Some((of, text)) = ring
            && let Some(n) = self.subs.get(of).copied()
        {
            let wait = self.delay();
            let node = &mut self.nodes[n];
            node.rung_at = (self.now + wait).max(node.rung_at);
            let wait = node.rung_at - self.now;
            self.news(wait, n, News::Rung { of: of.clone(), text: text.into() });
        }
        said
    }

    /// The last fault is over.
    pub fn calm_down(&mut self) {
        self.calm = true;
        self.noise_was = std::mem::take(&mut self.noise);
    }

    /// Whether an instance can reach a master now.
    pub fn reaches(&self, n: usize, shard: usize) -> bool {
        let master = &self.shards[shard];
        !master.is_down && master.stalled_until <= self.now && self.nodes[n].cut_until <= self.now
    }

    /// The instances that take connections.
    pub fn doors(&self) -> Vec<usize> {
        self.slots.iter().copied().filter(|n| self.nodes[*n].is_alive && self.nodes[*n].is_ready).collect()
    }
}
