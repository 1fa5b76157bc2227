//! Letters between instances, and questions about sockets: what is routed, what is read from the bell and
//! from the mailbox, and what is said of an id.

use super::{
    node::Then,
    wire::{Op, Said},
    world::{Event, News, World},
};
use crate::model::{Flaw, Row, Sent};
use registry::{
    Cause, Incarnation, Session, SocketId, Superseded,
    owner::partition,
    rules::{Absence, Cursor, Heard, State, absence},
};
use std::{sync::Arc, time::Duration};

/// After that the asker says that it does not know.
const DEADLINE: u64 = 2_000;
const TRIES: u32 = 3;

#[derive(Debug, Clone)]
pub struct Letter {
    pub what: What,
    pub from: usize,
    pub until: u64,
    tries: u32,
    pub written: Vec<(usize, Session)>,
}

#[derive(Debug, Clone)]
pub enum What {
    /// To whoever holds the socket.
    Send(SocketId),
    Kick(SocketId, Session, Option<Superseded>),
    /// Not delivered, and never will be by who says so.
    Nack(usize),
}

impl World {
    fn post(&mut self, from: usize, what: What) -> usize {
        let until = self.now + DEADLINE;
        self.letters.push(Letter { what, from, until, tries: 0, written: Vec::new() });
        self.letters.len() - 1
    }

    fn route(&mut self, n: usize, letter: usize, to: &Incarnation) {
        self.letters[letter].tries += 1;
        let text = format!("{letter}.{}", self.letters[letter].tries).into();
        let then = Then::Routed { letter };
        self.send(n, Op::Route { to: to.clone(), text }, None, then);
    }

    /// Another connection has the socket: its earlier holder is told.
    pub fn kick(&mut self, n: usize, owner: &Incarnation, id: SocketId, session: Session) {
        if *owner == self.nodes[n].own {
            return;
        }
        let letter = self.post(n, What::Kick(id, session, Some(Superseded::ByLater)));
        self.route(n, letter, owner);
    }

    /// The same client has connected again.
    pub fn replace(&mut self, n: usize, owner: &Incarnation, id: SocketId, session: Session) {
        let letter = self.post(n, What::Kick(id, session, None));
        if *owner == self.nodes[n].own { self.read(n, letter) } else { self.route(n, letter, owner) }
    }

    /// Somebody asks after a socket, and somebody writes to one.
    pub fn probe(&mut self) {
        let wait = self.between(200, 700);
        self.after(wait, Event::Probe);
        let asked: Vec<_> = self.attempts.keys().rev().take(40).copied().collect();
        let doors: Vec<_> = self.doors().into_iter().filter(|n| !self.nodes[*n].is_paused).collect();
        if asked.is_empty() || doors.is_empty() {
            return;
        }
        let (id, n) = (asked[self.rng.usize(..asked.len())], doors[self.rng.usize(..doors.len())]);
        if self.nodes[n].owner.get(id).is_some() {
            return;
        }
        if self.chance(0.5) {
            let asked = self.now;
            return self.send(n, Op::Row { id }, None, Then::Looked { id, asked });
        }
        let letter = self.post(n, What::Send(id));
        self.address(n, letter);
    }

    /// Finds out where a letter has to go.
    pub fn address(&mut self, n: usize, letter: usize) {
        let Letter { what: What::Send(id), until, tries, .. } = self.letters[letter] else { return };
        if tries < TRIES && self.now < until {
            self.send(n, Op::Row { id }, None, Then::Addressed { letter });
        }
    }

    pub fn rung(&mut self, n: usize, text: &str) {
        let Some((number, text)) = text.split_once('\n') else { return };
        let number: u64 = number.parse().expect("bells say numbers");
        let node = &mut self.nodes[n];
        if text == "!" {
            node.cursor = Some(Cursor(number));
            node.rings += 1;
            return;
        }
        let heard = if text.is_empty() {
            node.rings += 1;
            match &mut node.cursor {
                Some(cursor) => cursor.ring(number),
                None => {
                    node.cursor = Some(Cursor(number));
                    Heard::Due
                }
            }
        } else {
            let fresh = node.read.insert(text.into());
            let heard = node.cursor.get_or_insert(Cursor(number.saturating_sub(1))).letter(number, !fresh);
            if fresh {
                self.open(n, text);
            }
            heard
        };
        if let Heard::Gap { from, to } = heard {
            let of = self.nodes[n].own.clone();
            self.send(n, Op::Mail { of, from, to }, None, Then::Fetched);
        }
    }

    fn open(&mut self, n: usize, text: &str) {
        let letter = text.split('.').next().and_then(|nth| nth.parse().ok()).expect("letters are numbered");
        self.read(n, letter);
    }

    fn read(&mut self, n: usize, letter: usize) {
        let Letter { what, until, from, .. } = self.letters[letter].clone();
        let refused = self.nodes[n].is_fenced(self.now);
        match what {
            What::Nack(of) => self.address(n, of),
            What::Kick(id, session, Some(why)) => {
                if self.nodes[n].owner.lose(id, session) {
                    self.regroup(n);
                    self.hang_up(n, id, session, Some(why));
                }
            }
            What::Kick(id, session, None) => {
                self.hang_up(n, id, session, None);
                self.end(n, id, session, Cause::Replaced);
            }
            What::Send(id) => {
                if self.now > until {
                    return;
                }
                let conn = self.nodes[n].conns.get(&id).filter(|_| !refused).map(|conn| conn.session);
                let held = conn.filter(|session| self.nodes[n].owner.holds(id, *session));
                match held {
                    Some(session) => {
                        self.letters[letter].written.push((n, session));
                        self.judge_written(letter);
                    }
                    None => {
                        let to = self.nodes[from].own.clone();
                        let nack = self.post(n, What::Nack(letter));
                        self.route(n, nack, &to);
                    }
                }
            }
        }
    }

    /// Some groups have fewer members than they were told to have.
    fn regroup(&mut self, n: usize) {
        let mut stale = self.nodes[n].owner.groups.stale(usize::MAX);
        stale.sort();
        stale.into_iter().for_each(|key| self.tell_one(n, key, false));
    }

    pub fn resume_letters(&mut self, n: usize, op: Op, then: Then, said: Option<Said>) {
        match (then, said) {
            (Then::Addressed { letter }, Some(Said::Row(Some(row)))) if row.state == State::Live => {
                if row.owner == self.nodes[n].own {
                    self.read(n, letter);
                } else {
                    self.route(n, letter, &row.owner);
                }
            }
            (Then::Routed { letter }, Some(Said::Sent(Sent::Gone | Sent::Deaf))) => {
                self.news(50, n, News::Again { letter });
            }
            // The answer was lost, not the letter: it goes nowhere else.
            (Then::Routed { .. }, _) => {}
            (Then::Fetched, Some(Said::Mail(letters))) => {
                let Op::Mail { of, .. } = op else { return };
                if of == self.nodes[n].own {
                    letters.into_iter().for_each(|(_, text)| self.fetched(n, &text));
                }
            }
            (Then::Looked { id, asked }, Some(Said::Row(row))) => self.looked_at(n, id, asked, row),
            (Then::LookedBorn { id, asked, is_away }, Some(Said::Born(born))) => {
                let sure = self.flaw == Some(Flaw::SureAtOnce) || self.nodes[n].is_sure(self.now);
                let why_ttl = Duration::from_secs(600);
                match absence(id, born.filter(|_| sure), self.now, why_ttl) {
                    Absence::Rebuilding => {}
                    // It may have come back, and whoever has it did not tell yet: the same doubt.
                    _ if is_away => self.ask_around(n, id, asked, "away".to_owned()),
                    absence => self.ask_around(n, id, asked, format!("{absence:?}")),
                }
            }
            (then @ (Then::Listed { .. } | Then::Sign { .. }), said) => self.resume_question(n, then, said),
            (Then::LookedOwner { id, asked }, Some(Said::Heard { dead: true, .. })) => {
                self.judge_gone(n, id, asked, "its owner is dead");
            }
            _ => {}
        }
    }

    fn fetched(&mut self, n: usize, text: &Arc<str>) {
        if self.nodes[n].read.insert(text.clone()) {
            self.open(n, text);
        }
    }

    fn looked_at(&mut self, n: usize, id: SocketId, asked: u64, row: Option<Row>) {
        match row {
            None => {
                let then = Then::LookedBorn { id, asked, is_away: false };
                self.send(n, Op::Born { k: partition(id) }, None, then);
            }
            Some(row) if row.state == State::Live => {
                if row.owner != self.nodes[n].own {
                    self.send(n, Op::Heard { of: row.owner }, None, Then::LookedOwner { id, asked });
                }
            }
            Some(row) if row.state == State::Away => {
                let then = Then::LookedBorn { id, asked, is_away: true };
                self.send(n, Op::Born { k: partition(id) }, None, then);
            }
            Some(row) => self.judge_gone(n, id, asked, row.state.as_str()),
        }
    }
}
