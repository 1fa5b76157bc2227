//! Calls that sockets here were given and have not answered. Pure: what has to be told is returned.

use super::Owed;
use crate::{outbox::Mark, socket::Line};
use registry::{CallId, Incarnation, Map, Seen, Session, SocketId};
use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// So long a client may take before its asker is told that it has the call. Most answers come sooner, and
/// save that letter.
pub const ACCEPTED_AFTER: Duration = Duration::from_millis(50);
/// Calls in the hands of sockets at once. Beyond it nobody is given another, as if all were busy.
const GIVEN_MAX: usize = 100_000;
/// Calls that are over and still known: a letter that comes twice is not written again, and a word that comes
/// late is told from one that was never wanted.
const OVER_MAX: usize = 32_768;
/// How much longer than its deadline a call is remembered: its asker withdraws it, unless it died.
const GRACE: Duration = Duration::from_secs(5);
/// So long after its deadline a call whose outcome is owed was not withdrawn by its asker: they are gone, and what
/// is true is said here.
const OVERDUE: Duration = Duration::from_secs(1);

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
    /// Where its frame stands in all that is written to the socket.
    pub mark: Mark,
    /// What came of it is kept for whoever asks again.
    pub owed: Option<Arc<Owed>>,
}

impl Given {
    /// Whether all of it was written, and does not only wait.
    pub fn is_written(&self) -> bool {
        self.line.has_written(self.mark)
    }
}

pub struct Table {
    calls: Map<CallId, Given>,
    by_socket: Map<SocketId, Vec<CallId>>,
    /// By the time when their askers are told that it was accepted.
    unanswered: VecDeque<(Instant, CallId)>,
    /// Calls whose outcomes are owed, by the time when they are said here.
    owed: BTreeSet<(Instant, CallId)>,
    over: Seen,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            calls: Map::default(),
            by_socket: Map::default(),
            unanswered: VecDeque::new(),
            owed: BTreeSet::new(),
            over: Seen::new(OVER_MAX),
        }
    }
}

impl Table {
    /// Whether it has been given before: a call is written once.
    pub fn was_given(&self, call: &CallId) -> bool {
        // A queued one is given again, by whoever has taken it for the next.
        self.calls.contains_key(call) || (!call.is_queued() && self.over.knows(call))
    }

    pub fn is_full(&self) -> bool {
        self.calls.len() >= GIVEN_MAX
    }

    pub fn len(&self) -> usize {
        self.calls.len()
    }

    pub fn give(&mut self, call: &CallId, given: Given) {
        self.by_socket.entry(given.socket).or_default().push(call.clone());
        self.unanswered.push_back((given.at + ACCEPTED_AFTER, call.clone()));
        if given.owed.is_some() {
            self.owed.insert((given.by + OVERDUE, call.clone()));
        }
        self.calls.insert(call.clone(), given);
    }

    /// It is over.
    pub fn take(&mut self, call: &CallId) -> Option<Given> {
        let given = self.lift(call)?;
        self.over.is_new(call);
        self.over.is_new((call, given.socket));
        Some(given)
    }

    /// It was not written, and may be given again.
    fn lift(&mut self, call: &CallId) -> Option<Given> {
        let given = self.calls.remove(call)?;
        if let Some(held) = self.by_socket.get_mut(&given.socket) {
            held.retain(|other| other != call);
            if held.is_empty() {
                self.by_socket.remove(&given.socket);
            }
        }
        if given.owed.is_some() {
            self.owed.remove(&(given.by + OVERDUE, call.clone()));
        }
        Some(given)
    }

    /// Whether this socket had it.
    pub fn had(&self, call: &CallId, socket: SocketId) -> bool {
        self.over.knows((call, socket))
    }

    pub fn get(&self, call: &CallId) -> Option<&Given> {
        self.calls.get(call)
    }

    /// A call that this very socket holds.
    pub fn of(&self, call: &CallId, socket: SocketId) -> Option<&Given> {
        self.calls.get(call).filter(|given| given.socket == socket)
    }

    /// Takes all calls of a connection that ended, and whether each may have been written. To one that broke nothing
    /// more is written; any other end is a farewell, and that may be. Of a socket that `lasts` those stay that may have
    /// been written, but for queued ones: there may be somebody else for them, now.
    pub fn take_all(
        &mut self,
        socket: SocketId,
        session: Session,
        broke: bool,
        lasts: bool,
    ) -> Vec<(CallId, Given, bool)> {
        let held = self.by_socket.get(&socket).cloned().unwrap_or_default();
        let of_it = |call: &CallId| self.calls.get(call).is_some_and(|given| given.session == session);
        let held: Vec<_> = held.into_iter().filter(of_it).collect();
        let taken = held.into_iter().filter_map(|call| {
            let may_be_written = !broke || self.calls.get(&call)?.is_written();
            if may_be_written && lasts && !call.is_queued() {
                return None;
            }
            let given = if may_be_written { self.take(&call) } else { self.lift(&call) }?;
            Some((call, given, may_be_written))
        });
        taken.collect()
    }

    /// Those whose askers have to be told now that somebody has them. What waits for a client that does not
    /// read is looked at again later.
    pub fn accepted(&mut self, now: Instant) -> Vec<(CallId, Given)> {
        let mut accepted = Vec::new();
        while let Some((_, call)) = self.unanswered.pop_front_if(|(due, _)| *due <= now) {
            match self.calls.get(&call) {
                Some(given) if given.is_written() => accepted.push((call, given.clone())),
                Some(given) if given.by > now => self.unanswered.push_back((now + ACCEPTED_AFTER, call)),
                _ => {}
            }
        }
        accepted
    }

    /// When the next of them may be forgotten, if there is any.
    pub fn next_forgotten(&self, now: Instant) -> Option<Instant> {
        (!self.calls.is_empty()).then_some(now + GRACE)
    }

    /// Those whose askers did not withdraw them when the time was over. They are looked at again after `again`,
    /// unless they are taken.
    pub fn overdue(&mut self, now: Instant, again: Duration) -> Vec<(CallId, Given)> {
        let mut due = Vec::new();
        while self.next_overdue().is_some_and(|due| due <= now) {
            let call = self.owed.pop_first().map(|(_, call)| call);
            due.extend(call.and_then(|call| self.calls.get(&call).map(|given| (call, given.clone()))));
        }
        self.owed.extend(due.iter().map(|(call, _)| (now + again, call.clone())));
        due
    }

    /// When the next of them is.
    pub fn next_overdue(&self) -> Option<Instant> {
        self.owed.first().map(|(due, _)| *due)
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

    /// Whether a socket has a call that anybody still waits for.
    pub fn is_asked(&self, socket: SocketId, now: Instant) -> bool {
        let mut held = self.by_socket.get(&socket).into_iter().flatten();
        held.any(|call| self.calls.get(call).is_some_and(|given| given.by > now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use registry::{Hashed, Ticket, envelope::Keep};

    fn given(socket: SocketId, asker: Option<&Incarnation>) -> Given {
        let at = Instant::now();
        let by = at + Duration::from_secs(1);
        let line = Arc::new(Line::new(1));
        let mark = line.hand("x".into()).unwrap();
        Given { asker: asker.cloned(), socket, session: Session::fresh(), line, at, by, mark, owed: None }
    }

    #[tokio::test]
    async fn a_call_is_given_once_and_answered_by_its_socket_alone() {
        let (mut table, socket, other) = (Table::default(), SocketId::fresh(), SocketId::fresh());
        let call = CallId::fresh(&Incarnation::fresh("web1"));
        assert!(!table.was_given(&call));
        table.give(&call, given(socket, None));
        assert!(table.was_given(&call) && !table.had(&call, socket));
        assert!(table.of(&call, socket).is_some() && table.of(&call, other).is_none());
        assert!(table.take(&call).is_some() && table.take(&call).is_none());
        // Also when it is over.
        assert!(table.was_given(&call) && table.had(&call, socket) && !table.had(&call, other));
        assert!(table.by_socket.is_empty());
    }

    #[tokio::test]
    async fn what_was_not_written_to_a_connection_that_broke_may_be_given_to_another() {
        let (mut table, asker) = (Table::default(), Incarnation::fresh("web2"));
        let calls = [CallId::fresh(&asker), CallId::fresh(&asker)];
        let (unwritten, written) = (given(SocketId::fresh(), Some(&asker)), given(SocketId::fresh(), Some(&asker)));
        written.line.wrote(1);
        for (call, given) in calls.iter().zip([&unwritten, &written]) {
            table.give(call, given.clone());
            let taken = table.take_all(given.socket, given.session, true, false);
            assert_eq!(taken.len(), 1);
            assert_eq!(taken[0].2, given.is_written());
        }
        assert!(!table.was_given(&calls[0]) && table.was_given(&calls[1]));
        assert!(table.by_socket.is_empty());
    }

    #[tokio::test]
    async fn what_ends_with_a_connection_is_that_connections() {
        let (mut table, asker) = (Table::default(), Incarnation::fresh("web2"));
        let (socket, other) = (SocketId::fresh(), SocketId::fresh());
        let calls: Vec<_> = (0..3).map(|_| CallId::fresh(&asker)).collect();
        let first = given(socket, Some(&asker));
        table.give(&calls[0], first.clone());
        // A later connection of the same socket.
        table.give(&calls[1], given(socket, Some(&asker)));
        table.give(&calls[2], given(other, Some(&asker)));
        let taken = table.take_all(socket, first.session, false, false);
        assert_eq!(taken.iter().map(|(call, ..)| call).collect::<Vec<_>>(), [&calls[0]]);
        let due = Instant::now() + ACCEPTED_AFTER;
        assert_eq!(table.accepted(due).len(), 0, "nothing of them is written");
        table.calls.values().for_each(|given| given.line.wrote(1));
        assert_eq!(table.accepted(due + ACCEPTED_AFTER).len(), 2);
        assert_eq!(table.next_accepted(), None);
    }

    #[tokio::test]
    async fn what_waits_for_a_client_that_does_not_read_is_accepted_when_it_reads_or_never() {
        let (mut table, asker) = (Table::default(), Incarnation::fresh("web2"));
        let call = CallId::fresh(&asker);
        let stuck = given(SocketId::fresh(), Some(&asker));
        table.give(&call, stuck.clone());
        for _ in 0..3 {
            let due = table.next_accepted().unwrap();
            assert!(table.accepted(due).is_empty());
        }
        assert!(table.accepted(stuck.by).is_empty() && table.next_accepted().is_none());
    }

    #[tokio::test]
    async fn an_outcome_that_is_owed_is_overdue_until_its_call_is_taken() {
        let (mut table, asker) = (Table::default(), Incarnation::fresh("web2"));
        let calls: Vec<_> = (0..3).map(|_| CallId::fresh(&asker)).collect();
        let ticket = Ticket { key: Hashed::of(&[b"k"]), token: "t".into() };
        let keep = Keep { ticket, began: 0, fallback: false };
        let owed = Arc::new(Owed { keep, request: "r".into() });
        let plain = given(SocketId::fresh(), Some(&asker));
        let keyed = Given { owed: Some(owed), ..plain.clone() };
        for (call, given) in calls.iter().zip([&plain, &keyed, &keyed]) {
            table.give(call, given.clone());
        }
        table.take(&calls[2]);
        let (due, again) = (plain.by + OVERDUE, Duration::from_secs(1));
        assert_eq!(table.next_overdue(), Some(due));
        assert!(table.overdue(plain.by, again).is_empty());
        for nth in 0..2 {
            let overdue = table.overdue(due + again * nth, again);
            assert_eq!(overdue.iter().map(|(call, _)| call).collect::<Vec<_>>(), [&calls[1]]);
        }
        table.take(&calls[1]);
        assert!(table.overdue(due + again * 2, again).is_empty() && table.next_overdue().is_none());
    }
}
