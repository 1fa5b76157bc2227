//! Coming back: a client whose connection broke shows its token, on any instance, and has its socket again.

use crate::{names::Incarnation, record::SocketRecord, rules};
use std::sync::Arc;

/// A socket that has a connection again.
#[derive(Debug)]
pub struct Back {
    /// As it is from now on.
    pub record: Arc<SocketRecord>,
    /// The connection that had it until now; its owner still has to be told.
    pub ghost: Option<Arc<SocketRecord>>,
    /// Who had it last.
    pub came_from: Incarnation,
    /// A later connection has it here by now: whoever asked is somebody new, and the ghost has to go all the same.
    pub is_overtaken: bool,
}

/// Why a client does not get its socket back. It is somebody new then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotBack {
    Rule(rules::NotBack),
    /// The registry did not answer.
    Unavailable,
}

impl NotBack {
    /// For people.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Rule(rules::NotBack::Unknown) => "the registry knows nothing of it",
            Self::Rule(rules::NotBack::Ended) => "it has ended, or was away for too long",
            Self::Rule(rules::NotBack::Later) => "its token was used before",
            Self::Unavailable => "the registry does not answer",
        }
    }

    /// For metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rule(rules::NotBack::Unknown) => "unknown",
            Self::Rule(rules::NotBack::Ended) => "ended",
            Self::Rule(rules::NotBack::Later) => "used",
            Self::Unavailable => "unavailable",
        }
    }
}
