//! Delivering: here, there, or nowhere. The one place that decides where a frame goes, and the one
//! place where a socket is told to go. In reading order: `search` finds one socket, `many` reaches
//! groups, `durable` logs first, `call` asks one and waits for its answer, `wait` waits for somebody to ask, `queue`
//! keeps a call until then, `ends` parts with sockets, `change` replaces what they
//! say of themselves.

mod call;
mod change;
mod durable;
mod ends;
mod lately;
mod many;
mod queue;
mod search;
#[cfg(test)]
pub(crate) mod tests;
mod wait;

pub use call::{Fallback, Outcome, Question, Step, WhenOffline, Whom, Wording};
pub use change::{Move, Moved};
pub use durable::{KEPT_MAX, Unkept};
pub use ends::{After, Parted};
pub use many::{Roll, Target};
pub use search::{Absent, Found, Search};
pub use wait::{Awaited, verdict, why};

use crate::{
    calls::{Calls, Queue, Waits},
    letters::{Letters, Unheard},
    metrics::Metrics,
    outbox::Refused,
    sockets::Sockets,
    upkeep::Upkeep,
};
use bytes::Bytes;
use lately::Lately;
use registry::{
    Durability, Registry, Unknown,
    envelope::{Answer, Message, To},
};
use std::sync::Arc;
use tokio::time::Instant;

/// What became of a frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Sockets that were meant.
    pub matched: usize,
    /// Sockets whose queue took it.
    pub delivered: usize,
    /// Sockets whose queue had no room; nothing was written there.
    pub full: usize,
    /// Sockets whose instance did not say in time whether it wrote.
    pub unknown: usize,
    /// Sockets for which it is kept, and to which it was not written yet.
    pub kept: usize,
    /// How sure that is, if it was kept for any of them.
    pub durability: Option<Durability>,
    /// Instances that hold sockets which were meant.
    pub instances: usize,
    /// Why it is not known whether others were meant, too.
    pub blind: Option<Unknown>,
}

/// Delivers. Cheap to clone.
#[derive(Clone)]
pub struct Courier {
    pub sockets: Arc<Sockets>,
    pub registry: Registry,
    pub letters: Arc<Letters>,
    pub calls: Arc<Calls>,
    pub upkeep: Arc<Upkeep>,
    pub waits: Arc<Waits>,
    pub queue: Arc<Queue>,
    lately: Arc<Lately>,
}

impl Courier {
    pub fn new(registry: Registry, metrics: &Arc<Metrics>) -> Self {
        let letters = Arc::new(Letters::new(registry.clone(), metrics.clone()));
        let calls = Arc::new(Calls::new(registry.clone(), letters.clone(), metrics.clone()));
        Self {
            sockets: Arc::default(),
            registry,
            letters,
            calls,
            upkeep: Arc::default(),
            waits: Arc::default(),
            queue: Arc::default(),
            lately: Arc::default(),
        }
    }

    /// One frame to one named socket, wherever it is. It is written once at most.
    pub async fn to_socket(&self, asked: &str, frame: Bytes, by: Instant) -> Result<Receipt, Absent> {
        let mut search = self.search(asked, by);
        let one = Receipt { matched: 1, instances: 1, ..Receipt::default() };
        loop {
            match search.next().await? {
                Found::Here(socket) => match socket.line.send(frame.clone()) {
                    Ok(()) => return Ok(Receipt { delivered: 1, ..one }),
                    Err(Refused::Full) => return Ok(Receipt { full: 1, ..one }),
                    // One that closes between being found and being written to is not found again.
                    Err(Refused::Closing) => search.missed_here(),
                },
                Found::There(record) => {
                    let to = To::Socket { id: record.id, session: record.session };
                    let message = Message::Send { to, except: None, ack: true };
                    match self.letters.ask(&record.owner, message, frame.clone(), by).await {
                        Ok((Answer::Sent { delivered, full, .. }, _)) => return Ok(Receipt { delivered, full, ..one }),
                        Err(Unheard::NotDelivered(why)) => search.missed(&record, why),
                        Ok(_) | Err(Unheard::Silent) => return Err(Absent::Silent(record.owner.clone())),
                    }
                }
            }
        }
    }
}
