//! Calls that sockets here were given and have not answered. Pure: what has to be told is returned.

use crate::socket::Line;
use registry::{CallId, Incarnation, Session, SocketId};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// So long a client may take before its asker is told that it has the call. Most answers come sooner, and
/// save that letter.
pub const ACCEPTED_AFTER: Duration = Duration::from_millis(50);
/// How much longer than its deadline a call is remembered: its asker withdraws it, unless it died.
const GRACE: Duration = Duration::from_secs(5);

/// One call in the hands of a socket.
#[derive(Clone)]
pub struct Given {
    /// Who asked; nobody else is who asked from here.
    pub asker: Option<Incarnation>,
    pub socket: SocketId,
    pub session: Session,
    pub line: Arc<Line>,
    pub at: Instant,
    pub by: Instant,
}

#[derive(Default)]
pub struct Table {
    calls: HashMap<CallId, Given>,
    by_socket: BTreeSet<(SocketId, CallId)>,
    /// Calls of other instances, by the time when they are told that it was accepted.
    unanswered: VecDeque<(Instant, CallId)>,
}

impl Table {
    /// False if it was given already: a call is written once.
    pub fn give(&mut self, call: &CallId, given: Given) -> bool {
        if self.calls.contains_key(call) {
            return false;
        }
        self.by_socket.insert((given.socket, call.clone()));
        if given.asker.is_some() {
            self.unanswered.push_back((given.at + ACCEPTED_AFTER, call.clone()));
        }
        self.calls.insert(call.clone(), given);
        true
    }

    /// It is over, or was not given after all.
    pub fn take(&mut self, call: &CallId) -> Option<Given> {
        let given = self.calls.remove(call)?;
        self.by_socket.remove(&(given.socket, call.clone()));
        Some(given)
    }

    pub fn get(&self, call: &CallId) -> Option<&Given> {
        self.calls.get(call)
    }

    /// A call that this very socket holds.
    pub fn of(&self, call: &CallId, socket: SocketId) -> Option<&Given> {
        self.calls.get(call).filter(|given| given.socket == socket)
    }

    /// Takes all calls of a connection that ended.
    pub fn take_all(&mut self, socket: SocketId, session: Session) -> Vec<(CallId, Given)> {
        let held = self.by_socket.iter().skip_while(|(id, _)| *id < socket).take_while(|(id, _)| *id == socket);
        let held: Vec<_> = held.map(|(_, call)| call.clone()).collect();
        let of_it = |call: &CallId| self.calls.get(call).is_some_and(|given| given.session == session);
        let held: Vec<_> = held.into_iter().filter(of_it).collect();
        held.into_iter().filter_map(|call| self.take(&call).map(|given| (call, given))).collect()
    }

    /// Those whose askers have to be told now that somebody has them.
    pub fn accepted(&mut self, now: Instant) -> Vec<(CallId, Given)> {
        let mut accepted = Vec::new();
        while let Some((_, call)) = self.unanswered.pop_front_if(|(due, _)| *due <= now) {
            if let Some(given) = self.calls.get(&call) {
                accepted.push((call, given.clone()));
            }
        }
        accepted
    }

    /// When the next of them is due.
    pub fn next_accepted(&self) -> Option<Instant> {
        self.unanswered.front().map(|(due, _)| *due)
    }

    /// Forgets what nobody waits for any more.
    pub fn forget(&mut self, now: Instant) {
        let over: Vec<_> =
            self.calls.iter().filter(|(_, given)| given.by + GRACE < now).map(|(call, _)| call.clone()).collect();
        over.iter().for_each(|call| drop(self.take(call)));
    }

    /// Whether every call was answered that anybody still waits for.
    pub fn is_idle(&self, now: Instant) -> bool {
        self.calls.values().all(|given| given.by <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(socket: SocketId, asker: Option<&Incarnation>) -> Given {
        let at = Instant::now();
        let by = at + Duration::from_secs(1);
        Given { asker: asker.cloned(), socket, session: Session::fresh(), line: Arc::new(Line::new(1)), at, by }
    }

    #[tokio::test]
    async fn a_call_is_given_once_and_answered_by_its_socket_alone() {
        let (mut table, socket, other) = (Table::default(), SocketId::fresh(), SocketId::fresh());
        let call = CallId::fresh(&Incarnation::fresh("web1"));
        assert!(table.give(&call, given(socket, None)));
        assert!(!table.give(&call, given(other, None)));
        assert!(table.of(&call, socket).is_some() && table.of(&call, other).is_none());
        assert!(table.take(&call).is_some() && table.take(&call).is_none());
    }

    #[tokio::test]
    async fn what_ends_with_a_connection_is_that_connections() {
        let (mut table, asker) = (Table::default(), Incarnation::fresh("web2"));
        let (socket, other) = (SocketId::fresh(), SocketId::fresh());
        let calls: Vec<_> = (0..3).map(|_| CallId::fresh(&asker)).collect();
        let first = given(socket, Some(&asker));
        assert!(table.give(&calls[0], first.clone()));
        assert!(table.give(&calls[1], given(socket, Some(&asker))), "a later connection of the same socket");
        assert!(table.give(&calls[2], given(other, Some(&asker))));
        let taken = table.take_all(socket, first.session);
        assert_eq!(taken.iter().map(|(call, _)| call).collect::<Vec<_>>(), [&calls[0]]);
        assert_eq!(table.accepted(Instant::now() + ACCEPTED_AFTER).len(), 2);
    }
}
