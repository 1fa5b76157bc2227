//! Cleaning up after the dead, as `reaper.rs` of the registry does it.

use super::{
    claims::{counted, member},
    node::Then,
    wire::{Op, Said},
    world::{News, PARTITIONS, World},
};
use crate::model::Flaw;
use registry::{Incarnation, SocketId, SocketRecord, rules::rank};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

const LEASE: u64 = registry::lease::LEASE.as_millis() as u64;
const RANK_WAITS: Duration = Duration::from_secs(5);
const ONCE_MORE: u64 = 60_000;

impl World {
    pub fn look(&mut self, n: usize) {
        let wait = self.between(3_600, 4_400);
        self.news(wait, n, News::Look);
        let now = self.now;
        let node = &mut self.nodes[n];
        if !node.all_up() || node.is_fenced(now) || node.view.lives != node.lives() {
            node.view.missing.clear();
            node.view.lives = node.lives();
        }
        let own = node.own.clone();
        node.view.asked = 0;
        self.send(n, Op::Enlist { of: own }, None, Then::Nothing);
        self.send(n, Op::Known, None, Then::Known);
        self.look_around(n, None);
        let due: Vec<_> = self.nodes[n].view.once_more.extract_if(.., |(at, _)| *at <= now).collect();
        for (at, of) in due {
            self.send(n, Op::Tomb { of: of.clone() }, None, Then::TombAgain { at, of });
        }
    }

    fn known(&mut self, n: usize) {
        let now = self.now;
        let node = &mut self.nodes[n];
        node.view.lapsed.clear();
        node.view.heard = 0;
        let (quiet, beating): (Vec<_>, Vec<_>) = node
            .view
            .known
            .iter()
            .map(|(other, last)| (other.clone(), *last))
            .filter(|(other, _)| *other != node.own)
            .partition(|(_, last)| last + LEASE < now);
        for (other, _) in beating {
            node.view.missing.remove(&other);
        }
        node.view.asked = quiet.len();
        for (of, _) in quiet {
            self.send(n, Op::Heard { of: of.clone() }, None, Then::Heard { of });
        }
    }

    fn looked(&mut self, n: usize, of: Incarnation, leased: bool, listeners: usize) {
        let view = &mut self.nodes[n].view;
        if view.asked == 0 {
            return;
        }
        view.asked -= 1;
        if leased {
            view.missing.remove(&of);
        } else {
            view.heard += usize::from(listeners > 0);
            view.lapsed.push(of);
        }
        // Redis' clock jumped, if most are heard and hold no lease.
        if view.asked > 0 || (view.heard > 0 && view.heard * 2 > view.known.len()) {
            return;
        }
        for dead in std::mem::take(&mut view.lapsed) {
            let node = &mut self.nodes[n];
            let marks = node.view.known.keys().map(Incarnation::mark);
            let rank = u32::try_from(rank(dead.mark(), node.own.mark(), marks)).unwrap_or(0);
            let wait = registry::lease::REAPED_AFTER + RANK_WAITS * rank.min(10);
            let clock = Duration::from_millis(self.now - node.began);
            if node.view.missing.entry(dead.clone()).or_default().look(clock, wait) {
                node.view.missing.remove(&dead);
                self.send(n, Op::Tomb { of: dead.clone() }, None, Then::Tomb { of: dead });
            }
        }
    }

    pub fn reap(&mut self, n: usize, dead: &Incarnation) {
        if self.nodes[n].view.reaping.contains_key(dead) {
            return;
        }
        self.nodes[n].view.reaping.insert(dead.clone(), (PARTITIONS.len(), false));
        for k in PARTITIONS {
            let of = dead.clone();
            self.send(n, Op::Entries { k, of: of.clone() }, None, Then::DeadEntries { k, of });
        }
    }

    fn reaped_partition(&mut self, n: usize, dead: &Incarnation, done: bool) {
        let Some((left, failed)) = self.nodes[n].view.reaping.get_mut(dead) else { return };
        *left -= 1;
        *failed |= !done;
        if let (0, failed) = (*left, *failed) {
            self.nodes[n].view.reaping.remove(dead);
            if !failed {
                self.nodes[n].view.known.remove(dead);
                self.send(n, Op::Delist { of: dead.clone() }, None, Then::Nothing);
            }
        }
    }

    fn clean(&mut self, n: usize, k: usize, dead: &Incarnation, ids: Vec<SocketId>, lost: &[Arc<SocketRecord>]) {
        self.leave(n, dead, lost);
        // Last, so that whoever is interrupted before finds them again.
        self.send(n, Op::Forget { k, of: dead.clone(), ids }, None, Then::Forgotten { k, of: dead.clone() });
    }

    fn leave(&mut self, n: usize, dead: &Incarnation, lost: &[Arc<SocketRecord>]) {
        let groups: BTreeSet<_> = lost.iter().flat_map(|record| record.groups()).map(|group| group.key()).collect();
        for key in groups {
            self.send(n, Op::Group { key, of: dead.clone(), count: None }, None, Then::Nothing);
        }
        for record in lost {
            if let Some(user) = counted(record) {
                self.send(n, Op::DropMember { user, member: member(record, dead) }, None, Then::Nothing);
            }
        }
    }

    pub fn resume_others(&mut self, n: usize, op: Op, then: Then, said: Option<Said>) {
        match (then, said) {
            (Then::Known, Some(Said::Known(known))) => {
                // The list may be lost as well; whoever was on it is dead or comes back to it.
                if self.flaw == Some(Flaw::ListIsAll) {
                    self.nodes[n].view.known.clear();
                }
                self.nodes[n].view.known.extend(known);
                self.known(n);
            }
            (Then::WholeByNow, Some(Said::Known(known))) => self.whole_by_now(n, &known),
            (Then::WholeByNow, _) => self.news(1_000, n, News::WholeByNow),
            (Then::Heard { of }, Some(Said::Heard { leased, listeners, .. })) => self.looked(n, of, leased, listeners),
            (Then::Heard { .. }, _) => {}
            (Then::Tomb { of }, Some(Said::Tombed(true))) => {
                self.tell(|| format!("{n} declares {of} dead"));
                let at = self.now + ONCE_MORE;
                self.nodes[n].view.once_more.push((at, of.clone()));
                self.reap(n, &of);
            }
            (Then::TombAgain { of, .. }, Some(Said::Tombed(true))) => self.reap(n, &of),
            (Then::TombAgain { at, of }, None) => self.nodes[n].view.once_more.push((at, of)),
            (Then::DeadEntries { k, of }, Some(Said::Entries(entries))) => {
                let ids: Vec<_> = entries.into_keys().collect();
                if ids.is_empty() {
                    // A count may be left over them.
                    return self.send(n, Op::Forget { k, of: of.clone(), ids }, None, Then::Forgotten { k, of });
                }
                let op = Op::Reap { k, of: of.clone(), ids: ids.clone() };
                self.send(n, op, None, Then::Reaped { k, of, ids });
            }
            (Then::Reaped { k, of, ids }, Some(Said::Reaped(lost))) => self.clean(n, k, &of, ids, &lost),
            (Then::Forgotten { k, of }, Some(_)) => {
                self.send(n, Op::Left { k, of: of.clone() }, None, Then::LeftBy { k, of });
            }
            (Then::LeftBy { k, of }, Some(Said::Reaped(left))) => {
                self.leave(n, &of, &left);
                self.send(n, Op::DropLeft { k, of: of.clone() }, None, Then::LeftOver { of });
            }
            (Then::LeftOver { of }, said) => self.reaped_partition(n, &of, said.is_some()),
            (
                Then::DeadEntries { of, .. }
                | Then::Reaped { of, .. }
                | Then::Forgotten { of, .. }
                | Then::LeftBy { of, .. },
                None,
            ) => {
                self.reaped_partition(n, &of, false);
            }
            (then, said) => self.resume_letters(n, op, then, said),
        }
    }
}
