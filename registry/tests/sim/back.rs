//! Coming back with a token, as `resume.rs` of the registry does it; being away, and the end of it, as `away.rs`.

use super::{
    claims::{counted, member},
    node::{Conn, Then},
    wire::{Op, Said},
    world::{Event, News, PARTITIONS, World},
};
use crate::model::{Asker, Flaw, Over, When, ids};
use registry::{
    Attempt, Cause, Incarnation, Resumable, Session, SocketId, SocketRecord, Superseded,
    owner::{Answered, Ticket},
    rules::{State, rank},
};
use std::sync::Arc;

impl World {
    /// A client shows a token.
    pub fn ask_back(&mut self, n: usize, client: usize, id: SocketId, attempt: Attempt) {
        let session = ids::session(&mut self.rng);
        self.attempts.entry(id).or_default().push((attempt, session));
        self.tell(|| format!("client {client} asks {n} for {id} as {session}, attempt {}", attempt.n));
        self.clients[client].at = Some((n, id, session));
        let node = &mut self.nodes[n];
        let asker = Asker { id, session, attempt, owner: node.own.clone(), address: [10, 0, 0, 2].into() };
        let ticket = node.owner.ask_back(id, session);
        self.send(n, Op::Resume { asker: asker.clone() }, None, Then::Back { client, asker, ticket });
    }

    pub fn came_back(&mut self, n: usize, client: usize, asker: &Asker, ticket: &Ticket, said: Option<Said>) {
        let Asker { id, session, address, .. } = *asker;
        let owner = &mut self.nodes[n].owner;
        let (was, attempt) = match said {
            Some(Said::Back(back)) => match *back {
                Ok(back) => back,
                Err(_) => {
                    owner.settle_back(ticket, (id, session), Answered::No);
                    return self.is_somebody_new(n, client, id, session);
                }
            },
            _ => {
                owner.settle_back(ticket, (id, session), Answered::Nobody);
                // It waits for the answer, or for nothing.
                if self.chance(0.5) {
                    return self.is_somebody_new(n, client, id, session);
                }
                if self.clients[client].at == Some((n, id, session)) {
                    self.clients[client].at = None;
                    let wait = self.between(50, 2_000);
                    self.after(wait, Event::Client(client));
                }
                return;
            }
        };
        let resumable = was.record.resumable.map(|it| Resumable { confirmed: was.confirmed.unwrap_or(0), ..it });
        let own = self.nodes[n].own.clone();
        let record = SocketRecord { session, attempt, address, owner: own, resumable, ..(*was.record).clone() };
        let record = Arc::new(record);
        if !self.nodes[n].owner.settle_back(ticket, (id, session), Answered::Yes(&record)) {
            return self.is_somebody_new(n, client, id, session);
        }
        let here = self.nodes[n].conns.get(&id).map(|conn| conn.session);
        if let Some(ghost) = here {
            self.hang_up(n, id, ghost, Some(Superseded::ByLater));
        }
        let is_there = self.clients[client].at == Some((n, id, session));
        let conn = Conn { session, client: is_there.then_some(client), hi_at: None, attempt };
        self.nodes[n].conns.insert(id, conn);
        if was.state == State::Live && was.record.session != session {
            if let Some(user) = counted(&was.record) {
                let member = member(&was.record, &was.owner);
                self.send(n, Op::DropMember { user, member }, None, Then::Nothing);
            }
            self.kick(n, &was.owner, id, was.record.session);
        }
        self.tell_groups(n, &record);
        self.admit(n, &record);
        self.greet(n, id, session);
        if !is_there {
            self.news(1, n, News::Gone { id, session, cause: Cause::ConnectionLost });
        }
    }

    /// Its token opened nothing.
    fn is_somebody_new(&mut self, n: usize, client: usize, id: SocketId, session: Session) {
        if self.clients[client].at == Some((n, id, session)) {
            self.clients[client].at = None;
            self.clients[client].token = None;
            self.accept(n, client);
        }
    }

    /// A frame of its client: the token that opened this connection is used up.
    pub fn heard(&mut self, n: usize, id: SocketId, session: Session) {
        let is_there = |conn: &&Conn| conn.session == session && conn.client.is_some();
        if self.nodes[n].conns.get(&id).filter(is_there).is_none() {
            return;
        }
        let Some(held) = self.nodes[n].owner.get(id).filter(|held| held.session == session).cloned() else { return };
        if let Some(resumable) = held.resumable.filter(|resumable| resumable.confirmed < held.attempt.n) {
            let resumable = Some(Resumable { confirmed: held.attempt.n, ..resumable });
            self.change(n, id, session, SocketRecord { resumable, ..(*held).clone() });
        }
    }

    pub fn walk(&mut self, n: usize) {
        let wait = self.between(4_500, 5_500);
        self.news(wait, n, News::Walk);
        if self.flaw != Some(Flaw::NoWalker) {
            self.send(n, Op::Known, None, Then::Walk);
        }
    }

    pub fn walked(&mut self, n: usize, then: Then, said: Option<Said>) {
        match (then, said) {
            (Then::Walk, Some(Said::Known(known))) => {
                let own = self.nodes[n].own.clone();
                for k in PARTITIONS {
                    if rank(&format!("p{k}"), own.mark(), known.keys().map(Incarnation::mark)) == 0 {
                        self.send(n, Op::Due { k }, None, Then::Due);
                    }
                }
            }
            (Then::Due, Some(Said::Ids(due))) => {
                for id in due {
                    self.send(n, Op::Away { id, when: When::Due }, None, Then::Over { id });
                }
            }
            (Then::Over { id }, Some(Said::Over(Over::Ended(_)))) => {
                // Told, and then it goes off the list.
                self.send(n, Op::Away { id, when: When::Told }, None, Then::Nothing);
            }
            _ => {}
        }
    }
}
