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

use crate::{fleet, patience::note};

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
