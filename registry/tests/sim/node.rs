//! An instance: its links, its beat, its ears. What it owns is a real `Owner`.

use super::{
    losses::Doubt,
    silence::Question,
    wire::{Op, Said},
    world::{News, World},
};
use crate::model::{Asker, Beaten, ids};
use registry::{
    Attempt, GroupKey, Incarnation, Serving, Session, SocketId, SocketRecord,
    owner::{Mend, Owner, Parting, Quiet, Ticket},
    rules::{Cursor, Digest, Missing, Silence},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

const LEASE: u64 = registry::lease::LEASE.as_millis() as u64;

/// For so long after an outage nobody may say that a socket is not there.
pub const UNSURE: u64 = registry::rules::REBUILT_AFTER.as_millis() as u64;

/// Who boots says after this time that nothing was lost, unless those who know better have spoken. By then
/// everybody who lives is on the list again.
const WHOLE_AFTER: u64 = 5_000;

/// A longer gap between good beats was an outage, of the store or of ourselves.
const BEATS_APART: u64 = 4_000;

/// One connection of a client.
#[derive(Debug, Clone)]
pub struct Conn {
    pub session: Session,
    /// None if the client has gone without a word, or is a second tab with the same memory.
    pub client: Option<usize>,
    /// Since when its client knows the id.
    pub hi_at: Option<u64>,
    pub attempt: Attempt,
}

#[derive(Debug, Clone, Default)]
pub struct Link {
    pub is_up: bool,
    pub epoch: u32,
    pub run: Option<u32>,
    pub there_at: u64,
    pub back_at: u64,
    pub was_away: bool,
}

#[derive(Debug)]
pub struct Flight {
    pub shard: usize,
    pub op: Op,
    pub ticket: Option<Ticket>,
    pub then: Then,
}

/// Why a claim was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Open,
    Change,
    Mend,
}

/// What an answer is for.
#[derive(Debug)]
pub enum Then {
    Nothing,
    Claim { record: Arc<SocketRecord>, by: Incarnation, why: Why },
    Part { parting: Parting, again: bool },
    Untold { parting: Parting },
    Mended,
    Told { key: GroupKey, count: Option<u32>, exact: bool },
    Member { user: GroupKey },
    Beat { of: Incarnation, sent: u64, rings: u64 },
    Compare { k: usize, quiet: Quiet },
    WatchBorn { k: usize },
    Missing { k: usize },
    MissingRow { k: usize, id: SocketId, session: Session },
    Sums { k: usize, quiet: Option<Quiet> },
    Entries { k: usize, quiet: Option<Quiet>, sums: Digest },
    Known,
    WholeByNow,
    Heard { of: Incarnation },
    Tomb { of: Incarnation },
    TombAgain { at: u64, of: Incarnation },
    Listed { nth: usize },
    Sign { nth: usize, of: Incarnation },
    DeadEntries { k: usize, of: Incarnation },
    Reaped { k: usize, of: Incarnation, ids: Vec<SocketId> },
    Forgotten { k: usize, of: Incarnation },
    LeftBy { k: usize, of: Incarnation },
    LeftOver { of: Incarnation },
    Back { client: usize, asker: Asker, ticket: Ticket },
    Walk,
    Due,
    Over { id: SocketId },
    Admitted { user: GroupKey },
    Replaced { session: Session },
    Looked { id: SocketId, asked: u64 },
    LookedBorn { id: SocketId, asked: u64, is_away: bool },
    LookedOwner { id: SocketId, asked: u64 },
    Addressed { letter: usize },
    Routed { letter: usize },
    Fetched,
}

/// What it has seen of the others.
#[derive(Debug, Default)]
pub struct View {
    pub known: BTreeMap<Incarnation, u64>,
    pub missing: BTreeMap<Incarnation, Missing>,
    pub once_more: Vec<(u64, Incarnation)>,
    /// Incarnations asked for in this look, and what was heard of them.
    pub asked: usize,
    pub lapsed: Vec<Incarnation>,
    pub heard: usize,
    pub lives: u32,
    /// Partitions of a dead one that are still to be done, and whether one failed.
    pub reaping: BTreeMap<Incarnation, (usize, bool)>,
}

pub struct Node {
    pub slot: usize,
    pub own: Incarnation,
    pub began: u64,
    pub is_alive: bool,
    pub is_paused: bool,
    pub is_ready: bool,
    pub cut_until: u64,
    pub backlog: Vec<News>,
    pub owner: Owner,
    pub conns: BTreeMap<SocketId, Conn>,
    pub links: Vec<Link>,
    pub flights: BTreeMap<u64, Flight>,
    pub rung_at: u64,
    pub is_subscribed: bool,
    pub cursor: Option<Cursor>,
    pub read: BTreeSet<Arc<str>>,
    pub rings: u64,
    unheard: u32,
    waited: u32,
    lease_since: Option<u64>,
    pub known_born: BTreeMap<usize, Option<u64>>,
    pub beaten_at: u64,
    pub fenced_at: u64,
    pub woke_at: u64,
    pub lost: bool,
    whole: bool,
    pub unsure_until: u64,
    pub view: View,
    pub compared: usize,
    /// Partitions that could not be compared when it was their turn.
    pub missed: BTreeSet<usize>,
    pub numbers_at: u64,
    pub mends_left: usize,
    pub mend_failed: bool,
    pub mending: Option<usize>,
    pub silence: Silence,
    /// Strangers that were asked for, and who was not heard.
    pub questions: Vec<Question>,
    /// Which lives of the links these are, since when, and whether what was not answered before is told over.
    pub life: (u32, u64, bool),
    /// Partitions of which it is looked whether something was lost. Until that is known nothing is mended.
    pub doubts: BTreeMap<usize, Doubt>,
}

impl Node {
    pub fn is_fenced(&self, now: u64) -> bool {
        now.saturating_sub(self.beaten_at) > LEASE
    }

    /// Whether what the store does not know may be called unknown.
    pub fn is_sure(&self, now: u64) -> bool {
        now >= self.unsure_until && now <= self.beaten_at + BEATS_APART
    }

    pub fn all_up(&self) -> bool {
        self.links.iter().all(|link| link.is_up)
    }

    pub fn lives(&self) -> u32 {
        self.links.iter().map(|link| link.epoch).sum()
    }
}

impl World {
    pub fn boot(&mut self, slot: usize) {
        let own = ids::incarnation(&format!("web{slot}"), self.now, &mut self.rng);
        let n = self.nodes.len();
        self.tell(|| format!("boot {n} as {own} in place {slot}"));
        self.nodes.push(Node {
            slot,
            own: own.clone(),
            began: self.now,
            is_alive: true,
            is_paused: false,
            is_ready: false,
            cut_until: 0,
            backlog: Vec::new(),
            owner: Owner::default(),
            conns: BTreeMap::new(),
            links: vec![Link::default(); self.shards.len()],
            flights: BTreeMap::new(),
            rung_at: 0,
            is_subscribed: false,
            cursor: None,
            read: BTreeSet::new(),
            rings: 0,
            unheard: 0,
            waited: 0,
            lease_since: None,
            known_born: BTreeMap::new(),
            beaten_at: self.now,
            fenced_at: 0,
            woke_at: 0,
            lost: false,
            whole: false,
            unsure_until: 0,
            view: View::default(),
            compared: self.rng.usize(..64),
            missed: BTreeSet::new(),
            numbers_at: self.now,
            mends_left: 0,
            mend_failed: false,
            mending: None,
            silence: Silence::default(),
            questions: Vec::new(),
            life: (0, self.now, false),
            doubts: BTreeMap::new(),
        });
        match self.slots.get_mut(slot) {
            Some(there) => *there = n,
            None => self.slots.push(n),
        }
        for shard in 0..self.shards.len() {
            self.news(1, n, News::Reconnect { shard });
        }
        self.news(2, n, News::Subscribe { of: own });
        self.news(20, n, News::Beat);
        let (verify, look) = (self.between(1, 3_000), self.between(3_600, 4_400));
        self.news(verify, n, News::Verify);
        self.news(look, n, News::Look);
        let walk = self.between(4_500, 5_500);
        self.news(walk, n, News::Walk);
    }

    pub fn handle(&mut self, n: usize, news: News) {
        match news {
            News::Answer { flight, said } => self.settle(n, flight, Some(said)),
            News::Failed { flight } => self.settle(n, flight, None),
            News::Timeout { flight } => {
                let Some(shard) = self.nodes[n].flights.get(&flight).map(|flight| flight.shard) else { return };
                self.settle(n, flight, None);
                // A ping finds out whether anybody is there.
                if !self.reaches(n, shard) {
                    self.break_link(n, shard);
                }
            }
            News::Broken { shard, epoch } if self.nodes[n].links[shard].epoch == epoch => self.lose_link(n, shard),
            News::Broken { .. } => {}
            News::Reconnect { shard } => self.reconnect(n, shard),
            News::Noticed { shard, run } => self.notice(n, shard, run),
            News::Subscribe { of } => self.subscribe(n, of),
            News::Subscribed { of } => {
                let node = &mut self.nodes[n];
                if node.own == of && self.subs.get(&of) == Some(&n) && !node.is_subscribed {
                    node.is_subscribed = true;
                    if !node.whole {
                        node.whole = true;
                        self.news(WHOLE_AFTER, n, News::WholeByNow);
                    }
                }
            }
            News::Rung { of, text } if self.nodes[n].own == of => self.rung(n, &text),
            News::Rung { .. } => {}
            News::Beat => self.beat(n),
            News::Verify => self.verify(n),
            News::Mend => self.mend(n),
            News::Look => self.look(n),
            News::WholeByNow => {
                self.send(n, Op::Known, None, Then::WholeByNow);
            }
            News::Gone { id, session, cause } => self.gone(n, id, session, cause),
            News::Again { letter } => self.address(n, letter),
            News::Heard { id, session } => self.heard(n, id, session),
            News::Walk => self.walk(n),
        }
    }

    /// An operation was answered, or nobody knows whether it ran.
    pub fn settle(&mut self, n: usize, flight: u64, said: Option<Said>) {
        let Some(flight) = self.nodes[n].flights.remove(&flight) else { return };
        if let Some(ticket) = &flight.ticket {
            self.nodes[n].owner.settle(ticket, said.is_some());
        }
        if let (Op::Group { key, of, count: None }, None) = (&flight.op, &said)
            && *of != self.nodes[n].own
        {
            self.unsaid.insert((*key, of.clone()));
        }
        self.resume(n, flight.op, flight.then, said);
    }

    pub fn everything_is_suspect(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.owner.suspect_all();
        node.lost = true;
        let wait = self.between(0, 500);
        self.news(wait, n, News::Mend);
        let at = self.now;
        self.say_born(n, at, false);
    }

    fn beat(&mut self, n: usize) {
        let shard = self.spread.instance(&self.nodes[n].own);
        let node = &mut self.nodes[n];
        if !node.links[shard].is_up || (!node.is_subscribed && node.waited < 10) {
            node.waited += 1;
            return self.news(100, n, News::Beat);
        }
        node.waited = 0;
        let serving = if node.is_subscribed { Serving::Serving } else { Serving::Deaf };
        let (of, rings) = (node.own.clone(), node.rings);
        let then = Then::Beat { of: of.clone(), sent: self.now, rings };
        self.send(n, Op::Beat { of, serving }, None, then);
    }

    pub fn beaten(&mut self, n: usize, of: &Incarnation, sent: u64, rings: u64, said: Option<&Said>) {
        let mut pause = self.between(900, 1_100);
        match said {
            Some(Said::Beaten(Beaten::Fenced)) if self.nodes[n].own == *of => {
                self.begin_anew(n);
                pause = 1;
            }
            Some(Said::Beaten(Beaten::Held { new, listeners, since, .. })) if self.nodes[n].own == *of => {
                let node = &mut self.nodes[n];
                if sent > node.beaten_at + BEATS_APART {
                    node.unsure_until = self.now + UNSURE;
                }
                node.beaten_at = sent;
                // The answer that said so may have been lost.
                let lost = node.lease_since.replace(*since).is_some_and(|before| before != *since);
                node.is_ready = true;
                let silent = *listeners == 0 && node.is_subscribed;
                if lost {
                    self.everything_is_suspect(n);
                }
                if *new {
                    self.send(n, Op::Enlist { of: of.clone() }, None, Then::Nothing);
                }
                if silent {
                    self.listen_anew(n);
                }
            }
            _ => {}
        }
        let node = &mut self.nodes[n];
        node.unheard = if node.rings == rings { node.unheard + 1 } else { 0 };
        // The ring of this beat is on its way; those of three are not.
        if node.unheard > 2 && node.is_subscribed {
            node.unheard = 0;
            self.listen_anew(n);
        }
        self.news(pause, n, News::Beat);
    }

    /// The others took us for dead.
    fn begin_anew(&mut self, n: usize) {
        let own = ids::incarnation(&format!("web{}", self.nodes[n].slot), self.now, &mut self.rng);
        self.tell(|| format!("{n} was fenced and goes on as {own}"));
        let node = &mut self.nodes[n];
        let past = std::mem::replace(&mut node.own, own);
        node.lease_since = None;
        node.cursor = None;
        node.read.clear();
        node.fenced_at = self.now;
        node.owner.suspect_all();
        self.clear_own_past(n, &past);
        self.listen_anew(n);
        self.news(1, n, News::Mend);
    }

    pub fn say_born(&mut self, n: usize, at: u64, nx: bool) {
        for k in super::world::PARTITIONS {
            self.send(n, Op::SetBorn { k, at, nx }, None, Then::Nothing);
        }
    }

    /// A fleet that begins has lost nothing. One that was there before has, where nothing is said any more.
    pub fn whole_by_now(&mut self, n: usize, known: &BTreeMap<Incarnation, u64>) {
        let node = &self.nodes[n];
        let (now, began) = (self.now, ids::began(&node.own));
        let older = known.iter().any(|(of, last)| last + LEASE > now && ids::began(of) + WHOLE_AFTER < began);
        let young = node.lost || older;
        let is_lost = node.lost;
        self.say_born(n, if young { now } else { 0 }, !is_lost);
        for k in super::world::PARTITIONS {
            self.send(n, Op::Born { k }, None, Then::WatchBorn { k });
        }
    }

    pub fn mend_one(&mut self, n: usize, mend: Mend) {
        match mend {
            Mend::Register(record) => {
                // It may have left since, and must not come back.
                if !self.nodes[n].owner.holds(record.id, record.session) {
                    return;
                }
                self.nodes[n].mends_left += 1;
                self.claim(n, &record, None, Why::Mend);
                self.tell_groups(n, &record);
            }
            Mend::Remove { id, session, parting } => {
                self.nodes[n].mends_left += 1;
                let ticket = self.nodes[n].owner.start(registry::owner::partition(id));
                let of = self.nodes[n].own.clone();
                let to = crate::model::To::of(parting.as_ref());
                self.send(n, Op::Unregister { id, session, of, to }, Some(ticket), Then::Mended);
            }
        }
    }
}
