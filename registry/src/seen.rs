//! What was seen before, by its key: so that what comes twice is taken once.

use crate::map::{Seed, Set};
use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hash},
};

/// Keys that were seen, the oldest forgotten first. They are kept as hashes whose seed nobody knows.
pub struct Seen {
    max: usize,
    seed: Seed,
    known: Set<u64>,
    order: VecDeque<u64>,
}

impl Seen {
    /// Remembers so many.
    pub fn new(max: usize) -> Self {
        Self { max, seed: Seed::default(), known: Set::default(), order: VecDeque::new() }
    }

    /// Whether it was seen and is not forgotten.
    pub fn knows(&self, key: impl Hash) -> bool {
        self.known.contains(&self.seed.hash_one(key))
    }

    /// True the first time.
    pub fn is_new(&mut self, key: impl Hash) -> bool {
        let key = self.seed.hash_one(key);
        if !self.known.insert(key) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut seen = Seen::new(2);
        assert!(seen.is_new(("a", 1)) && seen.is_new(("a", 2)) && !seen.is_new(("a", 1)));
        assert!(seen.knows(("a", 1)) && !seen.knows(("b", 1)));
        assert!(seen.is_new(("b", 1)), "of somebody else");
        assert!(!seen.is_new(("a", 2)) && seen.is_new(("a", 1)));
        assert_eq!((seen.known.len(), seen.order.len()), (2, 2));
    }
}
