//! The verbs of durable deliveries.

use super::{Registry, Unknown};
use crate::{
    log::{Acked, Appended, Delivery, Durability, Left, Limits, Mail, Page},
    names::{GroupKey, SocketId},
};
use futures_util::future::join_all;

/// Sockets for which the same is logged at once.
const APPENDED_AT_ONCE: usize = 256;

impl Registry {
    /// Logs a delivery for a socket that may be resumed, once, and says who is to be told.
    pub async fn append(&self, id: SocketId, delivery: &Delivery) -> Appended {
        match self {
            Self::Memory(local) => local.memory.append(id, delivery),
            Self::Redis(redis) => redis.append(id, delivery).await,
        }
    }

    /// The same for many; what became of each, in their order.
    pub async fn append_many(&self, ids: &[SocketId], delivery: &Delivery) -> Vec<Appended> {
        let mut said = Vec::with_capacity(ids.len());
        for some in ids.chunks(APPENDED_AT_ONCE) {
            said.extend(join_all(some.iter().map(|id| self.append(*id, delivery))).await);
        }
        said
    }

    /// The client has everything up to this number: it need not be kept.
    pub async fn ack(&self, id: SocketId, seq: u64) -> Result<Acked, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.ack(id, seq)),
            Self::Redis(redis) => redis.ack(id, seq).await,
        }
    }

    /// What was logged for a socket after a number, as much as is wanted at once, one entry at least.
    pub async fn read_log(&self, id: SocketId, after: u64, most: Limits) -> Result<Page, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.read_log(id, after, most)),
            Self::Redis(redis) => redis.read_log(id, after, most).await,
        }
    }

    /// Notes that a socket may be resumed, so that durable deliveries to these groups are logged for it, wherever it
    /// is.
    pub async fn keep_for(&self, groups: &[GroupKey], id: SocketId) -> Result<(), Unknown> {
        match self {
            Self::Memory(local) => local.memory.keep_for(groups, id),
            Self::Redis(redis) => redis.keep_for(groups, id).await?,
        }
        Ok(())
    }

    /// The socket has left these groups, or ended for good. Whoever meets one that is not there any more may say so.
    pub async fn unkeep(&self, groups: &[GroupKey], id: SocketId) -> Result<(), Unknown> {
        match self {
            Self::Memory(local) => local.memory.unkeep(groups, id),
            Self::Redis(redis) => redis.unkeep(groups, id).await?,
        }
        Ok(())
    }

    /// The sockets of a group that may be resumed, live or away, so many of them at most. Some may have ended since.
    pub async fn kept(&self, group: GroupKey, limit: usize) -> Result<Vec<SocketId>, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.kept(group, limit)),
            Self::Redis(redis) => redis.kept(group, limit).await,
        }
    }

    /// Leaves a delivery for the first socket of a group that comes, if it has none.
    pub async fn leave(&self, group: GroupKey, delivery: &Delivery) -> Left {
        match self {
            Self::Memory(local) => local.memory.leave(group, delivery),
            Self::Redis(redis) => redis.leave(group, delivery).await,
        }
    }

    /// Moves what was left for a group into the log of a socket that may be resumed, in order. To be
    /// asked when the socket is registered and kept for the group: from then on nothing is left for nobody. What finds
    /// no room in its log stays until somebody asks again.
    pub async fn take_mail(&self, group: GroupKey, id: SocketId, wants: Durability) -> Result<Mail, Unknown> {
        match self {
            Self::Memory(local) => Ok(local.memory.take_mail(group, id)),
            Self::Redis(redis) => redis.take_mail(group, id, wants).await,
        }
    }
}
