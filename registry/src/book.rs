//! The book of keys that all instances share, and tickets that let one client in once. What is written there is the
//! gateway's: a name, which is a hash, and a text.

use crate::once::Hashed;
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};
use tokio::time::Instant;

/// How long a ticket is good.
pub const TICKET_STANDS: Duration = Duration::from_secs(30);
/// Tickets in memory. When there are as many, the oldest goes.
const TICKETS_MAX: usize = 10_000;
/// Where it stands how often the book was changed; no page has such a name.
pub(crate) const VERSION: &str = "#n";

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    /// Another number than before: something was changed.
    pub version: u64,
    pub pages: BTreeMap<String, String>,
}

impl Book {
    pub(crate) fn write(&mut self, name: &str, expected: Option<&str>, page: Option<&str>) -> bool {
        if self.pages.get(name).map(String::as_str) != expected {
            return false;
        }
        match page {
            Some(page) => _ = self.pages.insert(name.to_owned(), page.to_owned()),
            None => _ = self.pages.remove(name),
        }
        self.version += 1;
        true
    }
}

/// Tickets in memory.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    held: HashMap<Hashed, String>,
    /// In the order in which they came.
    order: VecDeque<(Instant, Hashed)>,
}

impl Tickets {
    pub fn put(&mut self, ticket: Hashed, held: &str) {
        self.forget();
        self.held.insert(ticket, held.to_owned());
        self.order.push_back((Instant::now(), ticket));
    }

    pub fn look(&mut self, ticket: Hashed) -> Option<String> {
        self.forget();
        self.held.get(&ticket).cloned()
    }

    pub fn redeem(&mut self, ticket: Hashed) -> Option<String> {
        self.forget();
        self.held.remove(&ticket)
    }

    fn forget(&mut self) {
        let is_over = |(at, _): &(Instant, Hashed)| at.elapsed() >= TICKET_STANDS;
        while self.order.len() >= TICKETS_MAX || self.order.front().is_some_and(is_over) {
            let Some((_, ticket)) = self.order.pop_front() else { break };
            self.held.remove(&ticket);
        }
    }
}
