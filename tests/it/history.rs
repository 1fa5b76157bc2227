//! What became of calls, seen from all sides at once: who asked noted when and what it was told, every client
//! noted what it was given and what it said, and whoever broke something noted that. Afterwards the notes of
//! all are held against each other.
//!
//! | file | what it is |
//! |---|---|
//! | `notes.rs` | one history: what happened, and when |
//! | `rules.rs` | what must be true of every history; `faulty.rs` has one that breaks each of them |
//! | `board.rs` | who is where now, and the history as it grows |
//! | `pages.rs`, `callers.rs` | clients who answer and move on, and those who ask them |
//!
//! All others are files of facts.

use crate::{
    fleet::{self, Fleet},
    patience::{eventually, note},
};

mod board;
mod callers;
mod notes;
mod pages;
mod rules;

mod deaf;
mod faulty;
mod killed;
mod stopped;
mod storm;

/// How many words about its calls an instance got from others. Whoever has a call for 50 ms says so.
async fn words(fleet: &Fleet, at: usize) -> f64 {
    fleet.gateway(at).metric("holdfast_letters_received_total{kind=\"of_call\"}").await
}

async fn has_words(fleet: &Fleet, at: usize, count: f64) {
    eventually("it is known that the client has it", async || (words(fleet, at).await >= count).then_some(())).await;
}
