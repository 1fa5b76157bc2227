//! Who is where now, and the history as it grows.

use super::{
    fleet::Fleet,
    notes::{Note, What},
};
use crate::patience::eventually;
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

pub struct Board {
    began: Instant,
    history: Mutex<Vec<Note>>,
    /// Where new connections may be made.
    open: Mutex<[Option<SocketAddr>; 3]>,
    /// The socket that each page has, or had last.
    pages: Mutex<Vec<String>>,
    keys: AtomicU64,
    replies: AtomicU64,
    callers_go_home: AtomicBool,
    pages_go_home: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    pub fn of(fleet: &Fleet, pages: usize) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            history: Mutex::default(),
            open: Mutex::new([0, 1, 2].map(|at| Some(fleet.gateway(at).address()))),
            pages: Mutex::new(vec![String::new(); pages]),
            keys: AtomicU64::new(0),
            replies: AtomicU64::new(0),
            callers_go_home: AtomicBool::new(false),
            pages_go_home: AtomicBool::new(false),
        })
    }

    pub fn notes(&self, what: What) {
        if let What::Answered { status: 200, .. } = &what {
            self.replies.fetch_add(1, Ordering::Relaxed);
        }
        let mut history = lock(&self.history);
        history.push(Note { at: self.began.elapsed(), what });
    }

    pub fn history(&self) -> Vec<Note> {
        lock(&self.history).clone()
    }

    pub fn opens(&self, at: usize, address: SocketAddr) {
        lock(&self.open)[at] = Some(address);
    }

    pub fn closes(&self, at: usize) {
        lock(&self.open)[at] = None;
    }

    /// One of those that are open.
    pub fn place(&self, dice: &mut Dice) -> (usize, SocketAddr) {
        let open = lock(&self.open);
        let open: Vec<_> = open.iter().enumerate().filter_map(|(at, address)| Some((at, (*address)?))).collect();
        open[dice.below(open.len())]
    }

    pub fn sits(&self, page: usize, id: &str) {
        id.clone_into(&mut lock(&self.pages)[page]);
    }

    /// The socket of somebody, who may have left meanwhile.
    pub fn somebody(&self, dice: &mut Dice) -> (usize, String) {
        let pages = lock(&self.pages);
        let page = dice.below(pages.len());
        (page, pages[page].clone())
    }

    /// Waits until every page is somewhere.
    pub async fn is_full(&self) {
        eventually("every page has a socket", async || {
            lock(&self.pages).iter().all(|socket| !socket.is_empty()).then_some(())
        })
        .await;
    }

    /// Waits until so many more callers have heard what they asked for.
    pub async fn hears(&self, replies: u64) {
        let enough = self.replies.load(Ordering::Relaxed) + replies;
        eventually("callers are answered again", async || {
            (self.replies.load(Ordering::Relaxed) >= enough).then_some(())
        })
        .await;
    }

    pub fn key(&self) -> u64 {
        self.keys.fetch_add(1, Ordering::Relaxed)
    }

    pub fn asked(&self) -> u64 {
        self.keys.load(Ordering::Relaxed)
    }

    pub fn send_callers_home(&self) {
        self.callers_go_home.store(true, Ordering::Relaxed);
    }

    pub fn callers_go_home(&self) -> bool {
        self.callers_go_home.load(Ordering::Relaxed)
    }

    pub fn send_pages_home(&self) {
        self.pages_go_home.store(true, Ordering::Relaxed);
    }

    pub fn pages_go_home(&self) -> bool {
        self.pages_go_home.load(Ordering::Relaxed)
    }
}

/// Numbers that are the same in every run (SplitMix64).
pub struct Dice(u64);

impl Dice {
    pub fn of(seed: usize) -> Self {
        Self(seed as u64)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}
