//! Comparing and mending, as `verify.rs` of the registry does it.

use super::{
    node::Then,
    wire::{Op, Said},
    world::{News, PARTITIONS, World},
};
use crate::model::{Ended, Flaw, Registered, To};
use registry::owner::{Compared, partition};

/// Into how many parts there are in all, of which a tenth is compared at a time.
const ALL: usize = registry::owner::PARTITIONS;

/// By then has come what was sent over a connection that was given up, or never will.
const LATE_BY: u64 = 12_000;

impl World {
    pub fn verify(&mut self, n: usize) {
        self.news(3_000, n, News::Verify);
        if !self.nodes[n].all_up() {
            return;
        }
        let (lives, now) = (self.nodes[n].lives(), self.now);
        let life = &mut self.nodes[n].life;
        match life {
            (known, ..) if *known != lives => *life = (lives, now, false),
            (_, since, doubted) if !*doubted && now - *since >= LATE_BY => {
                *doubted = true;
                if self.flaw != Some(Flaw::UnansweredIsOver) {
                    self.nodes[n].owner.groups.doubt_unanswered();
                }
            }
            _ => {}
        }
        for parting in self.nodes[n].owner.untold(32) {
            // It may never have heard of the socket at all, and the client knows the id.
            let node = &mut self.nodes[n];
            let ticket = node.owner.start(partition(parting.record.id));
            let op = Op::Register { record: parting.record.clone(), by: node.own.clone() };
            self.send(n, op, Some(ticket), Then::Untold { parting });
        }
        let at_once = ALL.div_ceil(10);
        let (first, node_began) = (self.nodes[n].compared, self.nodes[n].began);
        self.nodes[n].compared = (first + at_once) % ALL;
        // One that moved when its turn came has it again at the next, or it would wait for a whole round.
        let mut due = std::mem::take(&mut self.nodes[n].missed);
        due.extend((0..at_once).map(|nth| (first + nth) % ALL).filter(|k| PARTITIONS.contains(k)));
        if self.flaw == Some(Flaw::NoDigest) {
            due.clear();
        }
        for k in due {
            let node = &mut self.nodes[n];
            // One thing at a time: what is being mended differs.
            let Some(quiet) = node.owner.quiet(k).filter(|_| node.mending.is_none()) else {
                node.missed.insert(k);
                continue;
            };
            let of = node.own.clone();
            self.send(n, Op::Digest { k, of }, None, Then::Compare { k, quiet });
            if self.now - node_began > 6_000 && self.flaw != Some(Flaw::BornUnwatched) {
                self.send(n, Op::Born { k }, None, Then::WatchBorn { k });
            }
        }
        self.news(100, n, News::Mend);
        if self.now - self.nodes[n].numbers_at >= 10_000 {
            self.nodes[n].numbers_at = self.now;
            let mut stale = self.nodes[n].owner.groups.stale(usize::MAX);
            stale.sort();
            stale.into_iter().for_each(|key| self.tell_one(n, key, true));
        }
    }

    pub fn mend(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        if node.mending.is_some() || !node.doubts.is_empty() || !node.all_up() {
            return;
        }
        while let Some(k) = node.owner.take_suspect() {
            if PARTITIONS.contains(&k) {
                node.mending = Some(k);
                node.mends_left = 0;
                node.mend_failed = false;
                let (of, quiet) = (node.own.clone(), node.owner.quiet(k));
                return self.send(n, Op::Digest { k, of }, None, Then::Sums { k, quiet });
            }
        }
    }

    pub fn mended(&mut self, n: usize, answered: bool) {
        let node = &mut self.nodes[n];
        node.mends_left = node.mends_left.saturating_sub(1);
        node.mend_failed |= !answered;
        if node.mends_left == 0
            && let Some(k) = node.mending.take()
        {
            if node.mend_failed {
                node.owner.suspect(k);
            } else {
                self.news(1, n, News::Mend);
            }
        }
    }

    /// What becomes of an answer.
    pub fn resume(&mut self, n: usize, op: Op, then: Then, said: Option<Said>) {
        match (then, said) {
            (Then::Nothing, _) => {}
            (Then::Claim { record, by, why }, said) => self.claimed(n, &record, &by, why, said),
            (Then::Part { parting, again }, Some(Said::Ended(ended))) => {
                // One that Redis knew nothing of may be on its way still, and is told again.
                if again || ended != Ended::Nothing {
                    self.nodes[n].owner.told(parting.record.id);
                }
            }
            (Then::Part { .. } | Then::Untold { .. } | Then::Compare { .. }, None) => {}
            (Then::Untold { parting }, Some(Said::Registered(Registered::Superseded(_)))) => {
                self.nodes[n].owner.told(parting.record.id);
            }
            (Then::Untold { parting }, Some(said)) => {
                if let Said::Registered(Registered::Taken { owner, session }) = said {
                    self.supersede(n, &parting.record, &owner, session);
                }
                let node = &mut self.nodes[n];
                let (id, session) = (parting.record.id, parting.record.session);
                let ticket = node.owner.start(partition(id));
                let op = Op::Unregister { id, session, of: node.own.clone(), to: To::of(Some(&parting)) };
                self.send(n, op, Some(ticket), Then::Part { parting, again: true });
            }
            (Then::Mended, said) => self.mended(n, said.is_some()),
            (Then::Told { key, count, exact }, said) => self.told_group(n, key, count, exact, said.is_some()),
            (Then::Admitted { user } | Then::Member { user }, None) => self.nodes[n].owner.groups.doubt(user),
            (Then::Beat { of, sent, rings }, said) => self.beaten(n, &of, sent, rings, said.as_ref()),
            (Then::Compare { k, quiet }, Some(Said::Digest(theirs))) => {
                match self.nodes[n].owner.compare(k, quiet, theirs) {
                    Compared::Same => {}
                    Compared::Overtaken => {
                        self.nodes[n].missed.insert(k);
                    }
                    Compared::Differs(_) => {
                        self.tell(|| format!("{n}: partition {k} differs"));
                        self.doubt(n, k);
                    }
                }
            }
            (Then::WatchBorn { k }, Some(Said::Born(born))) => self.watch_born(n, k, born),
            (Then::Sums { k, quiet }, Some(Said::Digest(sums))) => {
                let of = self.nodes[n].own.clone();
                self.send(n, Op::Entries { k, of }, None, Then::Entries { k, quiet, sums });
            }
            (Then::Entries { k, quiet, sums }, Some(Said::Entries(theirs))) => {
                let node = &mut self.nodes[n];
                let mends = node.owner.verify(k, &theirs);
                node.mends_left = 1;
                let righted = quiet.and_then(|quiet| node.owner.righted(k, quiet, sums));
                if let Some(right) = righted.filter(|_| mends.is_empty() && self.flaw != Some(Flaw::CountStays)) {
                    let op = Op::Recount { k, of: node.own.clone(), was: sums, right };
                    return self.send(n, op, None, Then::Mended);
                }
                mends.into_iter().for_each(|mend| self.mend_one(n, mend));
                self.mended(n, true);
            }
            (Then::Sums { .. } | Then::Entries { .. }, _) => self.mended(n, false),
            (then @ (Then::Missing { .. } | Then::MissingRow { .. }), said) => self.resume_doubt(n, then, said),
            (Then::Admitted { .. }, Some(Said::Admitted(admitted))) => {
                for held in admitted.replaced {
                    let id = registry::SocketId::from_short(&held[22..44]).expect("members name ids");
                    let session = registry::Session::parse(&held[44..55]).expect("and sessions");
                    self.send(n, Op::Row { id }, None, Then::Replaced { session });
                }
            }
            (Then::Replaced { session }, Some(Said::Row(Some(row)))) => {
                if row.record.session == session && row.state == registry::rules::State::Live {
                    self.replace(n, &row.owner, row.record.id, session);
                }
            }
            (Then::Back { client, asker, ticket }, said) => self.came_back(n, client, &asker, &ticket, said),
            (then @ (Then::Walk | Then::Due | Then::Over { .. }), said) => self.walked(n, then, said),
            (then, said) => self.resume_others(n, op, then, said),
        }
    }

    /// A partition's memory is younger than it was: what lay beside it may be gone as well, and of a
    /// partition without sockets nobody else would find out.
    fn watch_born(&mut self, n: usize, k: usize, born: Option<u64>) {
        let node = &mut self.nodes[n];
        let before = node.known_born.insert(k, born);
        if born.is_none() {
            let at = self.now;
            self.send(n, Op::SetBorn { k, at, nx: true }, None, Then::Nothing);
        }
        if before.is_some_and(|before| before != born) {
            let node = &mut self.nodes[n];
            // The keys beside it are not compared, and the partition is.
            node.owner.groups.forget_told();
        }
    }
}
