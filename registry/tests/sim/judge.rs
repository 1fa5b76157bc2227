//! The judge knows what really happens, and holds every step and the end against the invariants.

use super::{
    claims::{counted, member},
    faults::Fault,
    node::Conn,
    wire::{Op, Said},
    world::World,
};
use crate::model::{Asker, Beaten, Over, Owned, Row, Sent};
use registry::{
    Attempt, GroupKey, Incarnation, Session, SocketId, Superseded,
    owner::{h32, partition},
    rules::{NotBack, State},
};
use std::collections::{BTreeMap, BTreeSet};

/// How old a socket is that everybody has to know of.
const YOUNG: u64 = 2_000;
/// By then somebody has ended who is due, after faults.
const WALKED: u64 = 35_000;
/// Two instances tell the time so far apart at most, as `admit.lua` has it.
const APART: u64 = 1_000;

/// What was there before an operation ran.
#[derive(Default)]
pub struct Before {
    row: Option<Row>,
    entry: Option<Session>,
    live: Vec<SocketId>,
    members: BTreeSet<(u64, String)>,
}

impl World {
    pub fn before(&self, op: &Op) -> Before {
        match op {
            Op::Register { record, .. } => {
                Before { row: self.store.rows.get(&record.id).cloned(), ..Before::default() }
            }
            Op::Resume { asker } => Before { row: self.store.rows.get(&asker.id).cloned(), ..Before::default() },
            Op::Unregister { id, of, .. } => {
                Before { row: self.store.rows.get(id).cloned(), entry: self.entry(*id, of), ..Before::default() }
            }
            Op::Reap { ids, .. } => Before {
                live: ids.iter().copied().filter(|id| self.store.live.contains(id)).collect(),
                ..Before::default()
            },
            Op::Admit { user, .. } => {
                Before { members: self.store.users.get(user).cloned().unwrap_or_default(), ..Before::default() }
            }
            _ => Before::default(),
        }
    }

    fn entry(&self, id: SocketId, of: &Incarnation) -> Option<Session> {
        let owned = self.store.owned.get(&(partition(id), of.clone()))?;
        owned.entries.get(&id).map(|entry| entry.0)
    }

    pub fn judge(&mut self, op: &Op, before: Before, said: &Said) {
        match (op, said) {
            (Op::Register { record, .. }, _) => {
                let Some(was) = before.row else { return };
                let is = &self.store.rows[&record.id];
                let replaced = is.record.session != was.record.session;
                if replaced && was.record.attempt > is.record.attempt && self.flaw.is_none() {
                    self.violate(|| format!("S3: {} was taken by an earlier attempt", record.id));
                }
                let confirmed = self.store.rows[&record.id].confirmed.unwrap_or(0);
                self.heard.entry(record.id).and_modify(|n| *n = confirmed.max(*n)).or_insert(confirmed);
            }
            (Op::Unregister { id, session, of, .. }, _) => {
                if let Some(row) = self.store.rows.get(id).filter(|row| row.state == State::Closed) {
                    self.ended.insert(*id, row.record.attempt.n);
                }
                let changed = |was: &Row, is: Option<&Row>| is.is_none_or(|is| is.state != was.state);
                let touched = before
                    .row
                    .is_some_and(|was| was.record.session != *session && changed(&was, self.store.rows.get(id)));
                let entry = before.entry.filter(|entry| entry != session);
                // What a rule is for has to show in what becomes of it.
                if (touched || (entry.is_some() && self.entry(*id, of) != entry)) && self.flaw.is_none() {
                    self.violate(|| format!("S3: {id} was ended by another session"));
                }
            }
            (Op::Reap { of, .. }, _) => {
                let lost: Vec<_> = before.live.into_iter().filter(|id| !self.store.live.contains(id)).collect();
                if !lost.is_empty() && self.store.lease(of, self.now).is_some() {
                    self.violate(|| format!("S5: {lost:?} of the living {of} were reaped"));
                }
                for id in lost {
                    let row = &self.store.rows[&id];
                    if row.state == State::Lost {
                        self.ended.insert(id, row.record.attempt.n);
                    }
                }
            }
            (Op::Away { id, .. }, Said::Over(Over::Ended(row))) => {
                self.ended.insert(*id, row.record.attempt.n);
            }
            (Op::Resume { asker }, Said::Back(back)) => self.judge_back(asker, before.row.as_ref(), back),
            (Op::Admit { newcomer, .. }, Said::Admitted(admitted)) => {
                // Of two at about the same time the one that asks last counts, and the other is told to go.
                let close = |since: u64| (newcomer.since..=newcomer.since + APART).contains(&since);
                let outrun = before
                    .members
                    .into_iter()
                    .filter(|(since, held)| close(*since) && admitted.replaced.contains(held));
                self.outrun.extend(outrun.map(|(_, held)| held));
            }
            // Sent again, and here after it was taken away.
            (Op::Group { key, of, count: Some(_) }, _) if self.cleared.contains(&(*key, of.clone())) => {
                self.unsaid.insert((*key, of.clone()));
            }
            (Op::Group { key, of, count: None }, _) if self.moved_on.contains(of) => {
                self.cleared.insert((*key, of.clone()));
            }
            (Op::Tomb { of }, Said::Tombed(true)) => drop(self.tombed.insert(of.clone())),
            (Op::Beat { of, .. }, Said::Beaten(Beaten::Held { .. }))
            | (Op::Route { to: of, .. }, Said::Sent(Sent::Ok { .. }))
                if self.tombed.contains(of) && !self.tombs_lost.contains(of) =>
            {
                self.violate(|| format!("S5: {of} lives on after its tomb"));
            }
            _ => {}
        }
    }

    /// Who shows a token.
    fn judge_back(&mut self, asker: &Asker, was: Option<&Row>, back: &Result<(Row, Attempt), NotBack>) {
        // What Redis forgot it cannot hold against anybody.
        if !self.lost_at.is_empty() {
            return;
        }
        let (id, attempt) = (asker.id, asker.attempt);
        let ended = self.ended.contains_key(&id);
        match back {
            Ok(_) if ended => self.violate(|| format!("S12: {id} came back and had ended")),
            Ok(_) if self.heard.get(&id).is_some_and(|heard| *heard >= attempt.n) => {
                self.violate(|| format!("S11: {id} was opened by a token that was used up, of attempt {}", attempt.n));
            }
            Ok((was, _)) if was.record.attempt.n > attempt.n => {
                self.violate(|| format!("S3: {id} was taken by an earlier attempt"));
            }
            // While Redis was away it was welcomed without being told of.
            Err(NotBack::Unknown) if !self.heard.contains_key(&id) => {}
            Err(NotBack::Unknown) => self.violate(|| format!("S12: nobody knows of {id}, and it never ended")),
            Err(NotBack::Ended) if !ended && was.is_some_and(|was| was.due.is_none_or(|due| due > self.now)) => {
                self.violate(|| format!("S12: {id} is said to have ended, and did not"));
            }
            _ => {}
        }
    }

    /// Who is away, and is listed so.
    fn judge_away(&self, wrong: &mut Vec<String>) {
        let store = &self.store;
        let away = || store.rows.iter().filter(|(_, row)| row.state == State::Away);
        for (id, due) in away().map(|(id, row)| (id, row.due)) {
            if store.ended.get(id).copied() != due {
                wrong.push(format!("{id} is away until {due:?}, and listed until {:?}", store.ended.get(id)));
            }
            if due.is_none_or(|due| due + WALKED < self.now) {
                wrong.push(format!("{id} is away since long, and was due at {due:?}"));
            }
        }
        let listed = store.ended.keys().filter(|id| store.rows.get(id).is_none_or(|row| row.state != State::Away));
        wrong.extend(
            listed
                .filter(|id| store.ended[*id] + WALKED < self.now)
                .map(|id| format!("{id} is listed as one that is away, and is not")),
        );
    }

    pub fn judge_written(&mut self, letter: usize) {
        let written = self.letters[letter].written.len();
        if written > 1 {
            self.violate(|| format!("S2: letter {letter} was written {written} times"));
        }
    }

    /// A connection of a living client is closed only if another has the socket, or it was declared dead.
    pub fn judge_close(&mut self, n: usize, id: SocketId, conn: &Conn, why: Option<Superseded>) {
        if conn.client.is_none() {
            return;
        }
        let right = match why {
            None => true,
            Some(Superseded::ByLater) => {
                // Of two with one token the one that asked last counts, as far as clocks can be apart.
                let counts = |other: &Attempt| {
                    (other.n, other.accepted_at + APART) >= (conn.attempt.n, conn.attempt.accepted_at)
                };
                self.attempts[&id].iter().any(|(attempt, session)| counts(attempt) && *session != conn.session)
            }
            Some(Superseded::Ended) => self.ended.get(&id).is_some_and(|attempt| *attempt >= conn.attempt.n),
        };
        if !right {
            self.violate(|| format!("L3: {n} closed {id}, which lives: {why:?}"));
        }
    }

    /// Somebody says that Redis lost its entry of a socket, and tells everything anew. What another has taken over
    /// is no reason, unless that one has forgotten it since.
    pub fn judge_loss(&mut self, n: usize, id: SocketId, has_row: bool) {
        let spoiled = self.faults.iter().any(|(_, fault)| matches!(fault, Fault::Miscount { .. }));
        let forgotten = !has_row && self.attempts[&id].len() > 1;
        if self.lost_at.is_empty() && !spoiled && !forgotten {
            self.violate(|| format!("S10: {n} calls its entry of {id} lost, and nothing was"));
        }
    }

    /// Somebody said that a socket is not there.
    pub fn judge_gone(&mut self, n: usize, id: SocketId, asked: u64, what: &str) {
        let now = self.now;
        let lives = self.nodes.iter().enumerate().find(|(_, node)| {
            // A view younger than that is not promised: its owner may not have been able to tell it yet.
            let heard = |conn: &Conn| conn.client.is_some() && conn.hi_at.is_some_and(|at| at + YOUNG < asked);
            // Who was silent until it was declared dead has to tell everything anew.
            let declared = self.tombed.contains(&node.own) || node.fenced_at > 0 && node.fenced_at + 60_000 > now;
            // Nor does anybody think of one that is silent while Redis has lost the list.
            let unknown = !self.store.instances.contains_key(&node.own);
            // A short silence may go unseen if the answers to who looked for it are lost.
            let unseen = self.noise.lost > 0.0 && node.woke_at.max(node.cut_until) + 60_000 > now;
            node.is_alive && !declared && !unknown && !unseen && node.conns.get(&id).is_some_and(heard)
        });
        let lives = lives.map(|(at, _)| at);
        // Nor is it right after a loss: it is noticed by a beat, or by the one after if its answer is lost.
        let noticed = if self.noise.lost > 0.0 { 3 * YOUNG } else { YOUNG };
        let unnoticed = self.lost_at.iter().any(|at| at + noticed > now);
        if let Some(at) = lives.filter(|_| !unnoticed && !self.ended.contains_key(&id)) {
            self.violate(|| format!("S9: {n} says of {id}, which lives on {at}: {what}"));
        }
    }

    /// L1: what Redis has is what there is.
    pub fn judge_end(&mut self) {
        let alive: Vec<_> = self.slots.iter().copied().filter(|n| self.nodes[*n].is_alive).collect();
        let mut rows: BTreeMap<SocketId, (usize, Session)> = BTreeMap::new();
        let mut owned: BTreeMap<(usize, Incarnation), Owned> = BTreeMap::new();
        let mut groups: BTreeMap<GroupKey, BTreeMap<Incarnation, u32>> = BTreeMap::new();
        let mut members: Vec<(GroupKey, String)> = Vec::new();
        let mut wrong = Vec::new();
        for n in &alive {
            let node = &self.nodes[*n];
            if node.owner.len() != node.conns.len() {
                wrong.push(format!("{n} owns {} sockets and has {} connections", node.owner.len(), node.conns.len()));
            }
            for (id, conn) in &node.conns {
                if let Some((other, _)) = rows.insert(*id, (*n, conn.session)) {
                    wrong.push(format!("{id} is owned by {other} and {n}"));
                }
                let Some(record) = node.owner.get(*id) else { continue };
                let owned = owned.entry((partition(*id), node.own.clone())).or_default();
                owned.entries.insert(*id, (conn.session, h32(record)));
                owned.digest.enter(h32(record));
                for group in record.groups() {
                    *groups.entry(group.key()).or_default().entry(node.own.clone()).or_default() += 1;
                }
                // A second tab of a client was replaced by the first, and may not have heard of it.
                if let Some(user) = counted(record).filter(|_| conn.client.is_some()) {
                    members.push((user, member(record, &node.own)));
                }
            }
        }
        let store = &self.store;
        for (id, (n, session)) in &rows {
            match store.rows.get(id) {
                Some(row) if row.state == State::Live && row.record.session == *session => {
                    if row.owner != self.nodes[*n].own {
                        wrong.push(format!("the row of {id} says {}, not {}", row.owner, self.nodes[*n].own));
                    }
                    let held = self.nodes[*n].owner.get(*id);
                    if held.is_some_and(|held| h32(held) != h32(&row.record)) {
                        wrong.push(format!("the row of {id} says something old"));
                    }
                }
                other => {
                    wrong.push(format!("the row of {id}, which lives on {n}, is {:?}", other.map(|row| row.state)));
                }
            }
        }
        // Over a wrong count entries are taken away with another's, and nobody knows of them any more.
        let spoiled = self.faults.iter().any(|(_, fault)| matches!(fault, Fault::Miscount { .. }));
        let is_unknown = |row: &Row| spoiled && self.entry(row.record.id, &row.owner).is_none();
        let live = store.rows.iter().filter(|(_, row)| row.state == State::Live);
        let unheld: Vec<_> = live.filter(|(id, row)| !rows.contains_key(id) && !is_unknown(row)).collect();
        for (id, row) in unheld {
            wrong.push(format!("the row of {id} is live on {}, and nobody has it", row.owner));
        }
        let is_listed = |id: &&SocketId| store.rows.get(id).is_none_or(|row| rows.contains_key(id) || !is_unknown(row));
        if !store.live.iter().filter(is_listed).eq(rows.keys()) {
            wrong.push(format!("listed are {:?}", store.live));
        }
        for (key, theirs) in &store.owned {
            let ours = owned.remove(key).unwrap_or_default();
            if ours.entries != theirs.entries || ours.digest != theirs.digest {
                wrong.push(format!("{} has entries {:?} in {}, not {:?}", key.1, theirs, key.0, ours));
            }
        }
        wrong.extend(owned.keys().map(|(k, of)| format!("{of} has no entries in {k}")));
        self.judge_away(&mut wrong);
        let mut theirs = store.groups.clone();
        // What died with a telling on its way nobody else knows of; nor of anybody dead, if Redis lost the entries or the
        // notes by which somebody cleans up after it. Readers pass over the dead and take them out.
        let lives = |of: &Incarnation| alive.iter().any(|n| self.nodes[*n].own == *of);
        let is_excused =
            |key: GroupKey, of: &Incarnation| !self.lost_at.is_empty() || self.unsaid.contains(&(key, of.clone()));
        for (key, fields) in &mut theirs {
            fields.retain(|of, _| lives(of) || !is_excused(*key, of));
        }
        theirs.retain(|_, fields| !fields.is_empty());
        for key in groups.keys().chain(theirs.keys()).filter(|key| groups.get(key) != theirs.get(key)) {
            wrong.push(format!("group {}: {:?}, not {:?}", key.short(), theirs.get(key), groups.get(key)));
        }
        for (user, member) in members.into_iter().filter(|(_, member)| !self.outrun.contains(member)) {
            if !store.users.get(&user).is_some_and(|held| held.iter().any(|(_, held)| *held == member)) {
                wrong.push(format!("member {member} is missing"));
            }
        }
        let instances: Vec<_> = store.instances.keys().collect();
        if instances.len() != alive.len() || alive.iter().any(|n| !instances.contains(&&self.nodes[*n].own)) {
            wrong.push(format!("instances are {instances:?}"));
        }
        if !super::world::PARTITIONS.iter().all(|k| store.born.contains_key(k)) {
            wrong.push(format!("born are {:?}", store.born));
        }
        if !wrong.is_empty() {
            self.violate(|| format!("L1: {}", wrong.join("; ")));
        }
    }
}
