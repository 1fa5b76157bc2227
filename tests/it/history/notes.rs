//! One history: what happened, and when. Times count from its beginning, on one clock.

use serde_json::Value;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Note {
    pub at: Duration,
    pub what: What,
}

/// A call is known by `key`, which its caller made and which travels in its data.
#[derive(Debug, Clone)]
pub enum What {
    /// Somebody began to ask the instance.
    Asked {
        key: u64,
        asker: usize,
        budget: Duration,
    },
    Answered {
        key: u64,
        status: u16,
        body: Value,
    },
    /// The connection ended before the answer was whole.
    Broken {
        key: u64,
    },

    /// A client got the frame of a call.
    Delivered {
        key: u64,
        call: String,
        socket: String,
    },
    Said {
        key: u64,
        socket: String,
        word: Word,
    },
    Withdrawn {
        call: String,
        socket: String,
    },
    /// It began to leave, or its connection ended.
    Parted {
        socket: String,
    },

    Killed {
        instance: usize,
    },
    Stopped {
        instance: usize,
    },
    GoesOn {
        instance: usize,
    },
    /// It was told to end.
    Drained {
        instance: usize,
    },
    Ended {
        instance: usize,
    },
    RedisAway,
    RedisBack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    Progress,
    Reply,
    Failed,
}
