//! Clients: they connect, change what they say of themselves, leave with a word or without one, come back
//! elsewhere with their token, and sometimes have two tabs with the same memory.

use super::world::{Event, News, World};
use registry::{
    Attempt, Cause, Incarnation, Resumable, RoomName, Session, SocketId, SocketRecord, StoreName, UserName,
};
use std::{num::NonZeroU32, sync::Arc};

#[derive(Debug, Clone)]
pub struct Client {
    user: Option<UserName>,
    name: Option<Arc<str>>,
    store: u32,
    rooms: u32,
    /// The connection that it believes it has.
    pub at: Option<(usize, SocketId, Session)>,
    /// The id it may claim, and as which attempt.
    pub token: Option<(SocketId, u32)>,
    /// What it has shown for the connection that it has, and may show again.
    pub used: Option<(SocketId, u32)>,
    /// For how many seconds its sockets may be away.
    window: Option<NonZeroU32>,
}

impl Client {
    pub fn new(nth: usize) -> Self {
        let user = (!nth.is_multiple_of(3)).then(|| UserName::parse(&format!("user {}", nth % 4)).expect("a name"));
        let name = (nth % 2 == 1).then(|| format!("tab {nth}").into());
        let window = [Some(4), Some(20), Some(90), None][nth / 2 % 4].and_then(NonZeroU32::new);
        Self { user, name, store: nth as u32 % 3, rooms: nth as u32 % 4, at: None, token: None, used: None, window }
    }

    pub fn record(&self, id: SocketId, session: Session, owner: Incarnation, attempt: Attempt) -> SocketRecord {
        let rooms = (0..2).filter(|bit| self.rooms & (1 << bit) != 0);
        SocketRecord {
            id,
            session,
            owner,
            attempt,
            user: self.user.clone(),
            store: (self.store > 0).then(|| StoreName::parse(&format!("shop {}", self.store)).expect("a name")),
            rooms: rooms.map(|room| RoomName::parse(&format!("room {room}")).expect("a name")).collect(),
            client: self.name.clone(),
            address: [10, 0, 0, 1].into(),
            connected_at: attempt.accepted_at,
            resumable: self.window.map(|window| Resumable { window, confirmed: 0 }),
        }
    }
}

impl World {
    /// Somewhere that takes connections, if there is such a place.
    fn door(&mut self) -> Option<usize> {
        let doors = self.doors();
        (!doors.is_empty()).then(|| doors[self.rng.usize(..doors.len())])
    }

    pub fn act(&mut self, client: usize) {
        let Some((n, id, session)) = self.clients[client].at else {
            match self.door() {
                Some(n) => self.after(1, Event::Knock { client, n }),
                None => self.after(500, Event::Client(client)),
            }
            return;
        };
        if self.calm {
            return;
        }
        let again = self.between(500, 15_000);
        let wait = self.between(1, 30);
        match self.rng.u32(..100) {
            0..30 => self.speak(client, n, id, session),
            30..42 => {
                // A clean close: it comes back as somebody else.
                self.let_go(client);
                self.clients[client].token = None;
                self.news(wait, n, News::Gone { id, session, cause: Cause::ClientClosed });
            }
            42..60 => {
                self.let_go(client);
                self.news(wait, n, News::Gone { id, session, cause: Cause::ConnectionLost });
            }
            60..82 => self.slip_away(client, false),
            82..88 => self.slip_away(client, true),
            // A page that was copied, with the token that opened it.
            88..91 => {
                self.slip_away(client, true);
                self.clients[client].token = self.clients[client].used;
            }
            91..95 => {
                let (Some(a), Some(b)) = (self.door(), self.door()) else {
                    return self.after(500, Event::Client(client));
                };
                let left = self.rng.u32(3..8);
                return self.bounce(client, left, (a, b));
            }
            _ => {}
        }
        let soon = self.between(20, 1_500);
        let next = if self.clients[client].at.is_none() { soon } else { again };
        self.after(next, Event::Client(client));
    }

    /// It has no connection any more, whatever its instance believes.
    fn let_go(&mut self, client: usize) -> Option<(usize, SocketId, Session)> {
        let (n, id, session) = self.clients[client].at.take()?;
        if let Some(conn) = self.nodes[n].conns.get_mut(&id).filter(|conn| conn.session == session) {
            conn.client = None;
        }
        Some((n, id, session))
    }

    /// It goes elsewhere and its instance does not notice. A second tab goes on answering pings.
    fn slip_away(&mut self, client: usize, is_twin: bool) {
        let Some((n, id, session)) = self.let_go(client) else { return };
        if !is_twin {
            // Or what is written to it piles up first, and it is closed for that.
            let cause = if self.chance(0.3) { Cause::TooSlow } else { Cause::PingTimeout };
            let wait = self.between(2_000, 40_000);
            self.news(wait, n, News::Gone { id, session, cause });
        }
    }

    /// Its connection breaks before it has heard anything.
    pub fn slip_away_soon(&mut self, client: usize) {
        self.slip_away(client, false);
        let wait = self.between(20, 1_500);
        self.after(wait, Event::Client(client));
    }

    pub fn bounce(&mut self, client: usize, left: u32, between: (usize, usize)) {
        self.slip_away(client, false);
        if left == 0 || self.calm {
            let wait = self.between(20, 500);
            return self.after(wait, Event::Client(client));
        }
        let wait = self.between(20, 200);
        self.after(0, Event::Knock { client, n: between.0 });
        self.after(wait, Event::Bounce { client, left: left - 1, between: (between.1, between.0) });
    }

    /// It selects another store, or joins and leaves rooms.
    fn speak(&mut self, client: usize, n: usize, id: SocketId, session: Session) {
        let node = &self.nodes[n];
        if !node.is_alive || node.is_paused || !node.conns.contains_key(&id) {
            return;
        }
        self.clients[client].store = self.rng.u32(..3);
        self.clients[client].rooms = self.rng.u32(..4);
        let Some(held) = self.nodes[n].owner.get(id).filter(|held| held.session == session).cloned() else { return };
        let record = self.clients[client].record(id, session, held.owner.clone(), held.attempt);
        let SocketRecord { connected_at, resumable, .. } = *held;
        self.change(n, id, session, SocketRecord { connected_at, resumable, ..record });
    }

    pub fn knock(&mut self, client: usize, n: usize) {
        if self.clients[client].at.is_some() {
            return;
        }
        let node = &self.nodes[n];
        if !node.is_alive || !node.is_ready || node.is_paused {
            let wait = self.between(200, 1_000);
            return self.after(wait, Event::Client(client));
        }
        self.accept(n, client);
        let wait = self.between(500, 15_000);
        self.after(wait, Event::Client(client));
    }
}
