//! What goes wrong, and when: drawn from the seed before anything happens.

use super::{
    wire::{self, Op},
    world::{BEGIN, Event, News, Noise, PARTITIONS, World},
};
use crate::model::Store;
use registry::owner::partition;

#[derive(Debug, Clone)]
pub enum Fault {
    /// SIGSTOP and SIGCONT.
    Pause { slot: usize, ms: u64 },
    /// SIGKILL, and a new process later.
    Crash { slot: usize, boot_ms: u64 },
    /// FLUSHALL on one master, or on all. Nobody is told, no connection breaks.
    Flush { shard: Option<usize> },
    /// A replica takes over that lacks the last milliseconds.
    Failover { shard: usize, lost_ms: u64, down_ms: u64 },
    /// A master comes back empty.
    Restart { shard: usize, down_ms: u64 },
    /// SIGSTOP of the masters, or CLIENT PAUSE: they do later what they were asked.
    Stall { ms: u64 },
    /// All masters refuse connections, and lose nothing.
    Down { ms: u64 },
    /// One instance cannot reach the store.
    Cut { slot: usize, ms: u64 },
    /// The subscription alone is gone.
    Deafen { slot: usize },
    /// Somebody writes a wrong count, or a wrong digest, over the entries of an instance.
    Miscount { slot: usize, k: usize, count: i32, xor: u32 },
    /// Not a fault: what a failover will fall back to.
    Remember { shard: usize },
}

impl Fault {
    fn lasts(&self) -> u64 {
        match self {
            Self::Pause { ms, .. } | Self::Stall { ms } | Self::Down { ms } | Self::Cut { ms, .. } => *ms,
            Self::Crash { boot_ms: ms, .. } => *ms,
            Self::Failover { down_ms: ms, .. } | Self::Restart { down_ms: ms, .. } => *ms,
            Self::Flush { .. } | Self::Deafen { .. } | Self::Miscount { .. } | Self::Remember { .. } => 0,
        }
    }
}

impl World {
    /// Draws the schedule, and says when the last fault will be over.
    pub fn arrange(&mut self) -> u64 {
        let slots = self.rng.usize(3..6);
        (0..slots).for_each(|slot| self.boot(slot));
        for client in 0..self.rng.usize(6..13) {
            self.clients.push(super::clients::Client::new(client));
            let wait = self.between(200, 4_000);
            self.after(wait, Event::Client(client));
        }
        self.after(3_000, Event::Probe);
        if self.chance(0.7) {
            let pick = |rng: &mut fastrand::Rng| rng.f64() * rng.f64() * 0.1;
            self.noise = Noise { lost: pick(&mut self.rng), echoed: pick(&mut self.rng), slow: pick(&mut self.rng) };
        }
        let phase = self.between(20_000, 60_000);
        for _ in 0..self.rng.usize(1..6) {
            let at = self.between(6_000, phase);
            let fault = self.draw(slots);
            if let Fault::Failover { shard, lost_ms, .. } = fault {
                self.faults.push((at - lost_ms, Fault::Remember { shard }));
            }
            self.faults.push((at, fault));
        }
        if self.chance(0.2) {
            let (at, slot) = (self.between(6_000, phase), self.rng.usize(..slots));
            let k = PARTITIONS[self.rng.usize(..PARTITIONS.len())];
            let (count, xor) = (self.rng.i32(-1..=1), self.rng.u32(..2));
            self.faults.push((at, Fault::Miscount { slot, k, count, xor }));
        }
        self.faults.sort_by_key(|(at, _)| *at);
        for (nth, (at, _)) in self.faults.clone().into_iter().enumerate() {
            self.after(at, Event::Fault(nth));
        }
        let over = self.faults.iter().map(|(at, fault)| at + fault.lasts()).max().unwrap_or(0);
        BEGIN + over.max(phase)
    }

    fn draw(&mut self, slots: usize) -> Fault {
        let (slot, shard) = (self.rng.usize(..slots), self.rng.usize(..self.shards.len()));
        match self.rng.u32(..100) {
            0..18 => Fault::Pause {
                slot,
                ms: if self.chance(0.5) { self.between(500, 12_000) } else { self.between(16_000, 60_000) },
            },
            18..32 => Fault::Crash { slot, boot_ms: self.between(500, 10_000) },
            32..42 => Fault::Flush { shard: self.chance(0.5).then_some(shard) },
            42..60 => Fault::Failover { shard, lost_ms: self.between(0, 1_000), down_ms: self.between(200, 5_000) },
            60..68 => Fault::Restart { shard, down_ms: self.between(200, 5_000) },
            68..76 => Fault::Stall { ms: self.between(500, 30_000) },
            76..82 => Fault::Down { ms: self.between(1_000, 30_000) },
            82..92 => Fault::Cut { slot, ms: self.between(1_000, 40_000) },
            _ => Fault::Deafen { slot },
        }
    }

    pub fn begin_fault(&mut self, nth: usize) {
        let fault = self.faults[nth].1.clone();
        self.tell(|| format!("--- {fault:?}"));
        let now = self.now;
        match &fault {
            Fault::Pause { slot, .. } => self.nodes[self.slots[*slot]].is_paused = true,
            Fault::Crash { slot, boot_ms } => {
                let n = self.slots[*slot];
                if self.nodes[n].is_alive {
                    self.crash(n);
                    self.after(*boot_ms, Event::Boot { slot: *slot });
                }
                return;
            }
            Fault::Flush { shard } => {
                let shards = shard.map_or(0..self.shards.len(), |shard| shard..shard + 1);
                shards.for_each(|shard| self.lose(&Store::default(), shard));
            }
            Fault::Failover { shard, .. } => {
                let past = self.shards[*shard].past.take().unwrap_or_default();
                self.lose(&past, *shard);
                self.turn_off(*shard);
            }
            Fault::Restart { shard, .. } => {
                self.lose(&Store::default(), *shard);
                self.turn_off(*shard);
            }
            Fault::Stall { ms } => {
                for shard in &mut self.shards {
                    shard.stalled_until = shard.stalled_until.max(now + ms);
                }
            }
            Fault::Down { .. } => (0..self.shards.len()).for_each(|shard| {
                let run = self.shards[shard].run;
                self.turn_off(shard);
                self.shards[shard].run = run;
            }),
            Fault::Cut { slot, ms } => self.nodes[self.slots[*slot]].cut_until = now + ms,
            Fault::Deafen { slot } => {
                let n = self.slots[*slot];
                self.subs.retain(|_, listener| *listener != n);
            }
            Fault::Miscount { slot, k, count, xor } => {
                let of = self.nodes[self.slots[*slot]].own.clone();
                if let Some(owned) = self.store.owned.get_mut(&(*k, of)) {
                    owned.digest.count = owned.digest.count.saturating_add_signed(*count);
                    owned.digest.xor ^= xor;
                }
            }
            Fault::Remember { shard } => self.shards[*shard].past = Some(Box::new(self.store.clone())),
        }
        self.after(fault.lasts(), Event::Mended(fault));
    }

    pub fn end_fault(&mut self, fault: &Fault) {
        match fault {
            Fault::Pause { slot, .. } => self.wake(self.slots[*slot]),
            Fault::Failover { shard, .. } | Fault::Restart { shard, .. } => self.shards[*shard].is_down = false,
            Fault::Down { .. } => self.shards.iter_mut().for_each(|shard| shard.is_down = false),
            _ => {}
        }
    }

    /// A master forgets.
    fn lose(&mut self, past: &Store, shard: usize) {
        let lost = self.tombed.iter().filter(|of| self.spread.instance(of) == shard && !past.tombs.contains(*of));
        self.tombs_lost.extend(lost.cloned().collect::<Vec<_>>());
        wire::fall_back(&mut self.store, past, self.spread, shard);
        self.lost_at.push(self.now);
    }

    /// It is another one from here on, and every connection to it breaks.
    fn turn_off(&mut self, shard: usize) {
        self.shards[shard].run += 1;
        self.shards[shard].is_down = true;
        let spread = self.spread;
        self.subs.retain(|of, _| spread.instance(of) != shard);
        (0..self.nodes.len()).filter(|n| self.nodes[*n].is_alive).collect::<Vec<_>>().into_iter().for_each(|n| {
            self.break_link(n, shard);
        });
    }

    fn crash(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        node.is_alive = false;
        node.backlog.clear();
        node.owner.groups.doubt_unanswered();
        let on_their_way = node.flights.values().flat_map(|flight| match &flight.op {
            Op::Group { key, of, .. } => vec![(*key, of.clone())],
            // Its groups may have been told, and its row not.
            Op::Register { record, by } => record.groups().map(|group| (group.key(), by.clone())).collect(),
            _ => Vec::new(),
        });
        let untold = node.owner.groups.stale(usize::MAX).into_iter().map(|key| (key, node.own.clone()));
        // Its row may not have been there yet, and its groups know it.
        let held = PARTITIONS.into_iter().flat_map(|k| node.owner.records(k));
        let store = &self.store;
        let has_entry =
            |id| store.owned.get(&(partition(id), node.own.clone())).is_some_and(|it| it.entries.contains_key(&id));
        let unknown = held
            .filter(|record| !has_entry(record.id))
            .flat_map(|record| record.groups().map(|group| (group.key(), record.owner.clone())).collect::<Vec<_>>());
        self.unsaid.extend(on_their_way.chain(untold).chain(unknown));
        node.conns.clear();
        self.subs.retain(|_, listener| *listener != n);
        for client in 0..self.clients.len() {
            if self.clients[client].at.is_some_and(|(at, ..)| at == n) {
                self.clients[client].at = None;
                let wait = self.between(50, 3_000);
                self.after(wait, Event::Client(client));
            }
        }
    }

    /// It goes on, and finds everything that has come meanwhile.
    fn wake(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if !node.is_alive || !node.is_paused {
            return;
        }
        node.is_paused = false;
        node.woke_at = self.now;
        for news in std::mem::take(&mut node.backlog) {
            // An answer that came, and a time that ran out: whichever is looked at first.
            if matches!(news, News::Answer { .. }) && self.chance(0.3) {
                continue;
            }
            self.news(0, n, news);
        }
    }
}
