//! The registry's verbs for calls that wait for somebody to come.

use crate::{
    all::{Registry, Unknown},
    names::GroupKey,
};
use std::time::Duration;

/// For how long an instance is told of those who come. Whoever waits looks again sooner, and says so again.
pub const WAITS: Duration = Duration::from_secs(8);

impl Registry {
    /// Notes that calls of this instance wait for somebody of a group, for [`WAITS`]. Says whether somebody may be there
    /// by now: whoever comes later is told of, by [`crate::Post::Awaited`] where they came.
    pub async fn wait(&self, group: GroupKey) -> Result<bool, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.wait(group, &local.own)),
            Self::Redis(redis) => redis.wait(group).await,
        }
    }

    /// Says that somebody of a group is here, where that was not told by a registration: it is not the first one here,
    /// or it is a socket that was there before.
    pub async fn came(&self, group: GroupKey) {
        match self {
            Self::Memory(local) => local.memory.came(group, &local.own),
            Self::Redis(redis) => redis.came(group).await,
        }
    }
}
