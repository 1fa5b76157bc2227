//! Delivering: here, or nowhere. The one place that decides where a frame goes, and the one place
//! where a socket is told to go.

use crate::{
    clock,
    close::Close,
    outbox::Refused,
    socket::Line,
    sockets::{SLICE, Socket, Sockets},
};
use bytes::Bytes;
use registry::{Group, Lookup, Registry, SocketId, SocketRecord, Verdict};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::sleep;

/// What became of a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Sockets that were meant.
    pub matched: usize,
    /// Sockets whose queue took it.
    pub delivered: usize,
    /// Sockets whose queue had no room; nothing was written there.
    pub full: usize,
}

/// Whom a frame is for.
#[derive(Debug, Clone)]
pub enum Target {
    Group(Group),
    /// The members of any of these; who is in several gets it once.
    AnyOf(Vec<Group>),
    All,
}

/// Why a named socket cannot be had.
#[derive(Debug)]
pub enum Absent {
    Gone(Verdict),
    /// It was on its way in or out for as long as we looked.
    Unsettled,
}

/// How often, and how far apart, a socket on its way in or out is looked for.
const SETTLING_LOOKS: usize = 100;
const SETTLING_LOOK: Duration = Duration::from_millis(2);

/// Delivers. Cheap to clone.
#[derive(Clone)]
pub struct Courier {
    pub sockets: Arc<Sockets>,
    pub registry: Registry,
}

impl Courier {
    /// The socket, or the true reason why it is not there. A socket that is just coming or going
    /// is waited for, since neither answer would be true of it.
    pub async fn find(&self, asked: &str) -> Result<Arc<Socket>, Absent> {
        let id = SocketId::parse(asked);
        for _ in 0..SETTLING_LOOKS {
            if let Some(socket) = id.and_then(|id| self.sockets.get(id)) {
                return Ok(socket);
            }
            match self.registry.lookup(asked).await {
                Lookup::Gone(verdict) => return Err(Absent::Gone(verdict)),
                Lookup::Live(_) => sleep(SETTLING_LOOK).await,
            }
        }
        Err(Absent::Unsettled)
    }

    /// One frame to one named socket.
    pub async fn to_socket(&self, asked: &str, frame: Bytes) -> Result<Receipt, Absent> {
        // One that closes between being found and being written to is not found the second time.
        for _ in 0..2 {
            match self.find(asked).await?.line.send(frame.clone()) {
                Ok(()) => return Ok(Receipt { matched: 1, delivered: 1, full: 0 }),
                Err(Refused::Full) => return Ok(Receipt { matched: 1, delivered: 0, full: 1 }),
                Err(Refused::Closing) => {}
            }
        }
        Err(Absent::Unsettled)
    }

    /// One frame to everybody meant but `except`; encoded once, whoever they are.
    pub fn to_many(&self, target: &Target, except: Option<SocketId>, frame: &Bytes) -> Receipt {
        let mut receipt = Receipt::default();
        let now = clock::now_ms();
        self.each(target, |socket| {
            if except == Some(socket.id) {
                return;
            }
            match socket.line.send_at(frame.clone(), now) {
                Ok(()) => receipt.delivered += 1,
                Err(Refused::Full) => receipt.full += 1,
                Err(Refused::Closing) => return,
            }
            receipt.matched += 1;
        });
        receipt
    }

    /// Tells a socket to go. Its verdict stands at once; its own task does the rest.
    pub async fn close(&self, socket: &Socket, close: Close) -> bool {
        self.end(&socket.record(), &socket.line, close).await
    }

    /// The same for one that may still be on its way in.
    pub async fn send_away(&self, record: &SocketRecord, close: Close) {
        match self.sockets.line(record.id) {
            Some(line) => drop(self.end(record, &line, close).await),
            // A row without a socket is what a bug would leave behind; it must not count for ever.
            None => drop(self.registry.unregister(record.id, record.session, close.ending()).await),
        }
    }

    async fn end(&self, record: &SocketRecord, line: &Line, close: Close) -> bool {
        let ending = close.ending();
        let told = line.close(close);
        if told {
            self.registry.unregister(record.id, record.session, ending).await;
        }
        told
    }

    /// Replaces what a socket says of itself, here and in the registry. Two changes at once may
    /// reach the registry in either order, so whoever finds a later one there sends that too.
    pub async fn change(&self, socket: &Arc<Socket>, change: impl FnOnce(&SocketRecord) -> Option<SocketRecord>) {
        self.sockets.change(socket, change);
        loop {
            let record = socket.record();
            self.registry.update(record.clone()).await;
            if Arc::ptr_eq(&record, &socket.record()) {
                break;
            }
        }
    }

    fn each(&self, target: &Target, mut act: impl FnMut(&Socket)) {
        match target {
            Target::Group(group) => self.sockets.each_member(group.key(), |socket| act(socket)),
            Target::AnyOf(groups) => {
                let mut members = BTreeMap::new();
                for group in groups {
                    self.sockets.each_member(group.key(), |socket| drop(members.insert(socket.id, socket.clone())));
                }
                members.values().for_each(|socket| act(socket));
            }
            Target::All => {
                let mut after = SocketId::FIRST;
                loop {
                    let slice = self.sockets.walk(after, SLICE);
                    let Some(last) = slice.last() else { break };
                    after = last.id;
                    slice.iter().for_each(|socket| act(socket));
                }
            }
        }
    }
}
