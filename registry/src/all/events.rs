//! The verbs of events, which the application is told.

use super::{Registry, Unknown};
use crate::{
    event::{Logged, Outgoing, Place},
    record::SocketRecord,
};
use std::time::Duration;

impl Registry {
    /// From now on events are logged. Has to be said before the first socket comes.
    pub fn want_events(&self) {
        self.outgoing().want();
    }

    /// Logs that a socket came, which is to be told once for each.
    pub async fn connected(&self, record: &SocketRecord) {
        match self {
            Self::Memory(local) => local.memory.connected(record),
            Self::Redis(redis) => redis.connected(record).await,
        }
    }

    /// The next event that was logged here, and is to be told in that lane.
    pub async fn next_event(&self, lane: usize) -> Logged {
        self.outgoing().next(lane).await
    }

    /// The application has it, and nobody need tell it again.
    pub async fn event_told(&self, partition: usize, at: Place) {
        match self {
            Self::Memory(local) => local.memory.event_told(partition, at),
            Self::Redis(redis) => redis.event_told(partition, at).await,
        }
    }

    /// One that lies in no log was given up.
    pub fn event_dropped(&self) {
        self.outgoing().dropped(1);
    }

    /// Whether this instance tells what is left in a partition of the log.
    pub fn minds_events(&self, partition: usize) -> bool {
        match self {
            Self::Memory(local) => local.minds_events(),
            Self::Redis(redis) => redis.outgoing.minds(partition),
        }
    }

    /// How many events lie in a partition of the log. What is too old goes.
    pub async fn events_left(&self, partition: usize) -> Result<usize, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.events_left(partition)),
            Self::Redis(redis) => redis.events_left(partition).await,
        }
    }

    /// The oldest events of a partition behind `after`, of those that lie there for so long.
    pub async fn events(
        &self,
        partition: usize,
        after: Option<Place>,
        older_than: Duration,
        limit: usize,
    ) -> Result<Vec<Logged>, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.events(partition, after, older_than, limit)),
            Self::Redis(redis) => redis.events(partition, after, older_than, limit).await,
        }
    }

    fn outgoing(&self) -> &Outgoing {
        match self {
            Self::Memory(local) => &local.memory.outgoing,
            Self::Redis(redis) => &redis.outgoing,
        }
    }
}
