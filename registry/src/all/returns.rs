//! The verbs of sockets that come back.

use super::Registry;
use crate::{
    admit::{Admission, Cap},
    names::{SocketId, UserName},
    record::SocketRecord,
    resume::{Back, NotBack},
    token::Keyring,
    verdict::Ending,
};
use std::sync::Arc;

impl Registry {
    /// Asks whether a client may come in that comes back with the token of a socket: id, session, attempt and address are the
    /// newcomer's, all else is the socket's.
    pub async fn admit_back(&self, newcomer: &Arc<SocketRecord>, cap: Cap) -> Result<(Back, Admission), NotBack> {
        match self {
            Self::Memory(local) => local.memory.admit_back(newcomer, cap),
            Self::Redis(redis) => redis.admit_back(newcomer, cap).await,
        }
    }

    /// What its client shows to come back, and by it to nobody else: the next attempt.
    pub fn token(&self, record: &SocketRecord) -> String {
        self.keyring().seal(record.id, record.attempt.n.saturating_add(1), record.user.as_ref())
    }

    /// Whose token it is, if it is one, and was made for this user.
    pub fn open_token(&self, token: &str, user: Option<&UserName>) -> Option<(SocketId, u32)> {
        self.keyring().open(token, user)
    }

    fn keyring(&self) -> &Keyring {
        match self {
            Self::Memory(local) => &local.memory.keyring,
            Self::Redis(redis) => &redis.keyring,
        }
    }

    /// Ends a socket that is away before its time; false if it is not away.
    pub async fn dismiss(&self, id: SocketId, ending: &Ending) -> bool {
        match self {
            Self::Memory(local) => local.dismiss(id, ending).await,
            Self::Redis(redis) => redis.dismiss(id, ending).await,
        }
    }
}
