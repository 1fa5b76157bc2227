//! The verbs of leases: what an instance says of itself, and who serves.

use super::{Registry, Unknown};
use crate::{
    lease::{Lease, Serving},
    names::Incarnation,
};

impl Registry {
    /// What the lease says from now on.
    pub fn announce(&self, serving: Serving, sockets: usize) {
        match self {
            Self::Memory(local) => local.announce(serving, sockets),
            Self::Redis(redis) => redis.announce(serving, sockets),
        }
    }

    /// The hash of the settings that the lease says are in force from now on.
    pub fn configured(&self, hash: String) {
        match self {
            Self::Memory(local) => local.configured(hash),
            Self::Redis(redis) => redis.configured(hash),
        }
    }

    /// Gives the lease up: the instance is not on the list any more.
    pub async fn retire(&self) {
        match self {
            Self::Memory(local) => local.retire(),
            Self::Redis(redis) => redis.retire().await,
        }
    }

    /// The instances that hold a lease, by name.
    pub async fn instances(&self) -> Result<Vec<Lease>, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.instances()),
            Self::Redis(redis) => redis.instances().await,
        }
    }

    /// Notes that an instance is about to drain; false if it is the last that serves, unless it may be. Of two that ask
    /// at once not both are let go where one has to stay.
    pub async fn let_go(&self, who: &Incarnation, even_last: bool) -> Result<bool, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.let_go(who, even_last)),
            Self::Redis(redis) => redis.let_go(who, even_last).await,
        }
    }

    /// It was not told, and goes on serving.
    pub async fn stays(&self, who: &Incarnation) {
        match self {
            Self::Memory(local) => local.memory.stays(who),
            Self::Redis(redis) => redis.stays(who).await,
        }
    }
}
