//! The registry's verbs for calls that wait for somebody to come, and for calls that are kept until then.

use crate::{
    all::{Arrived, Registry, Unknown, epoch_ms},
    names::{CallId, GroupKey, Incarnation, SocketId},
    queue::{Cancelled, Handed, Parcel, Queued, Standing, Taken, Turn, WasGiven},
};
use bytes::Bytes;
use std::time::Duration;

/// For how long an instance is told of those who come. Whoever waits looks again sooner, and says so again.
pub const WAITS: Duration = Duration::from_secs(8);

impl Registry {
    /// Notes that calls of this instance wait for somebody of a group, for [`WAITS`]. Says whether somebody may be there
    /// by now: of whoever comes later is told by [`crate::Post::Arrived`], where they came.
    pub async fn wait(&self, group: GroupKey) -> Result<bool, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.wait(group, &local.own)),
            Self::Redis(redis) => redis.wait(group).await,
        }
    }

    /// Who has waited for somebody of a group to come, where that was not told by a registration: it is not the first
    /// one here, or it is a socket that was there before.
    pub async fn came(&self, group: GroupKey) -> Result<Option<Arrived>, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.came(group)),
            Self::Redis(redis) => redis.came(group).await,
        }
    }

    /// Keeps a call until somebody of its group takes it.
    pub async fn queue(&self, parcel: &Parcel) -> Result<Queued, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.queue(parcel)),
            Self::Redis(redis) => redis.queue(parcel).await,
        }
    }

    /// Takes up to `limit` of the calls that wait for somebody of a group, for this instance alone.
    pub async fn take(&self, group: GroupKey, limit: usize) -> Result<Turn, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.take(group, &local.own, limit)),
            Self::Redis(redis) => redis.take(group, limit).await,
        }
    }

    /// Notes to which socket here a call that was taken is about to be written; nothing if it is over. After `by`, in
    /// the registry's time, it is refused: somebody else may have taken it by then.
    pub async fn give(&self, call: &CallId, to: SocketId, by: u64) -> Result<Option<Handed>, Unknown> {
        match self {
            Self::Memory(_) if epoch_ms() > by => Err(Unknown::Unavailable),
            Self::Memory(local) => Ok(local.memory.give(call, &local.own, to)),
            Self::Redis(redis) => redis.give(call, to, by).await,
        }
    }

    /// Notes that the socket has it no more, without an answer; false if it is over, or somebody else's by now.
    pub async fn back(&self, call: &CallId, attempt: u32, was_given: WasGiven) -> Result<bool, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.back(call, attempt, was_given)),
            Self::Redis(redis) => redis.back(call, attempt, was_given).await,
        }
    }

    /// Puts calls back that an instance has taken, one or all of the group, and says who holds members.
    pub async fn next(
        &self,
        group: GroupKey,
        of: &Incarnation,
        only: Option<&Taken>,
        ttl: Duration,
    ) -> Result<Vec<Incarnation>, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.next(group, of, only)),
            Self::Redis(redis) => redis.next(group, of, only, ttl).await,
        }
    }

    /// Takes a call that is over out of its group's lists, if it is in the hands of this instance there.
    pub async fn over(&self, taken: &Taken) -> Result<(), Unknown> {
        match self {
            // There it left them when its outcome was told.
            Self::Memory(_) => Ok(()),
            Self::Redis(redis) => redis.over(taken).await,
        }
    }

    /// Says what came of a queued call, by the attempt that it came of; without one, that its time is over. The first
    /// word stands; false if it was another.
    pub async fn answer(&self, call: &CallId, attempt: Option<u32>, outcome: &Bytes) -> Result<bool, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.answer(call, attempt, outcome)),
            Self::Redis(redis) => redis.answer(call, attempt, outcome).await,
        }
    }

    /// How a queued call stands.
    pub async fn standing(&self, call: &CallId) -> Result<Standing, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.standing(call)),
            Self::Redis(redis) => redis.standing(call).await,
        }
    }

    /// Takes a queued call back.
    pub async fn cancel(&self, call: &CallId) -> Result<Cancelled, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.cancel(call)),
            Self::Redis(redis) => redis.cancel(call).await,
        }
    }
}
