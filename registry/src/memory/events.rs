//! The log of events in memory. It ends with the process; until then it keeps what the one on Redis keeps.

use super::{Local, Memory, Tables};
use crate::{
    all::epoch_ms,
    event::{EVENTS_MAX, Event, KEPT, Logged, Place},
    owner::{PARTITIONS, partition},
    record::SocketRecord,
    verdict::Ending,
};
use std::{collections::VecDeque, time::Duration};

/// A partition each.
pub(super) struct Events {
    logs: [VecDeque<Logged>; PARTITIONS],
    count: u64,
}

impl Default for Events {
    fn default() -> Self {
        Self { logs: std::array::from_fn(|_| VecDeque::new()), count: 0 }
    }
}

impl Tables {
    /// Logs that a socket has ended, if somebody wants to know.
    pub(super) fn log_end(&mut self, record: &SocketRecord, ending: &Ending, closed_at: u64) {
        if self.outgoing.is_wanted() {
            self.log_event(Event::disconnected(record, ending, closed_at, epoch_ms()));
        }
    }

    fn log_event(&mut self, event: Event) {
        let k = partition(event.data.socket_id);
        self.events.count += 1;
        let logged = Logged::new(event, Some(Place(self.events.count, 0)));
        let log = &mut self.events.logs[k];
        log.push_back(logged.clone());
        if log.len() > EVENTS_MAX {
            log.pop_front();
            self.outgoing.dropped(1);
        }
        self.outgoing.offer(k, logged);
    }
}

impl Memory {
    pub(crate) fn connected(&self, record: &SocketRecord) {
        if self.outgoing.is_wanted() {
            self.tables().log_event(Event::connected(record, epoch_ms()));
        }
    }

    pub(crate) fn event_told(&self, k: usize, at: Place) {
        let log = &mut self.tables().events.logs[k];
        if let Ok(nth) = log.binary_search_by_key(&Some(at), |logged| logged.at) {
            log.remove(nth);
        }
    }

    pub(crate) fn events_left(&self, k: usize) -> usize {
        let log = &mut self.tables().events.logs[k];
        while log.front().is_some_and(|oldest| oldest.since.elapsed() > KEPT) {
            log.pop_front();
            self.outgoing.dropped(1);
        }
        log.len()
    }

    pub(crate) fn events(&self, k: usize, after: Option<Place>, older_than: Duration, limit: usize) -> Vec<Logged> {
        let tables = self.tables();
        let log = tables.events.logs[k].iter();
        let log = log.skip_while(|logged| logged.at <= after);
        log.take_while(|logged| logged.since.elapsed() >= older_than).take(limit).cloned().collect()
    }
}

impl Local {
    /// One of those that share it tells what is left.
    pub(crate) fn minds_events(&self) -> bool {
        self.memory.tables().instances.keys().next() == Some(&self.own)
    }
}
