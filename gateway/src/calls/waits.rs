//! Which calls here wait until somebody comes. Whoever hears that somebody came rings, and all who wait for them look.

use super::lock;
use registry::{GroupKey, Map};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use tokio::sync::watch;

/// Calls that wait here at once. Beyond it they are told so at once.
pub const WAITING_MAX: usize = 10_000;

/// Who waits for whom.
#[derive(Default)]
pub struct Waits {
    bells: Mutex<Map<GroupKey, Bell>>,
    waiting: AtomicUsize,
}

/// One for all who wait for the same.
struct Bell {
    rung: watch::Sender<()>,
    waiting: usize,
}

/// One who waits, for as long as this lives.
pub struct Waiter {
    waits: Arc<Waits>,
    key: GroupKey,
    rung: watch::Receiver<()>,
}

impl Waits {
    /// Begins to wait. `None`: as many wait as may.
    pub fn join(self: &Arc<Self>, key: GroupKey) -> Option<Waiter> {
        let mut bells = lock(&self.bells);
        if self.waiting.load(Ordering::Relaxed) >= WAITING_MAX {
            return None;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let bell = bells.entry(key).or_insert_with(|| Bell { rung: watch::Sender::new(()), waiting: 0 });
        bell.waiting += 1;
        Some(Waiter { waits: self.clone(), key, rung: bell.rung.subscribe() })
    }

    /// Somebody came whom some may wait for.
    pub fn ring(&self, key: GroupKey) {
        if let Some(bell) = lock(&self.bells).get(&key) {
            bell.rung.send_replace(());
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Waiter {
    pub fn key(&self) -> GroupKey {
        self.key
    }

    /// Waits until somebody has come since this was last asked.
    pub async fn rung(&mut self) {
        // Its sender lives for as long as anybody waits.
        let _ = self.rung.changed().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut bells = lock(&self.waits.bells);
        if let Some(bell) = bells.get_mut(&self.key) {
            bell.waiting -= 1;
            if bell.waiting == 0 {
                bells.remove(&self.key);
            }
        }
        self.waits.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use registry::{Group, StoreName};

    fn store(name: &str) -> GroupKey {
        Group::Store(StoreName::parse(name).unwrap()).key()
    }

    #[tokio::test]
    async fn all_who_wait_hear_of_it_once_and_nobody_else_does() {
        let waits = Arc::new(Waits::default());
        let (mut one, mut two, mut other) =
            (waits.join(store("a")).unwrap(), waits.join(store("a")).unwrap(), waits.join(store("b")).unwrap());
        waits.ring(store("a"));
        waits.ring(store("a"));
        assert!(one.rung().now_or_never().is_some() && one.rung().now_or_never().is_none());
        assert!(two.rung().now_or_never().is_some() && other.rung().now_or_never().is_none());
        drop((one, two, other));
        assert!(waits.is_empty() && lock(&waits.bells).is_empty());
    }

    #[tokio::test]
    async fn they_are_bounded() {
        let waits = Arc::new(Waits::default());
        let mut all: Vec<_> = (0..WAITING_MAX).map(|_| waits.join(store("a")).unwrap()).collect();
        assert!(waits.join(store("b")).is_none());
        all.pop();
        assert!(waits.join(store("b")).is_some());
    }
}
