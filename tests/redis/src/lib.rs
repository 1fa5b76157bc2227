//! Real Redis servers for tests and benchmarks. Everything here blocks and needs no runtime; inside a
//! tokio test it may be called directly where a wait of milliseconds does no harm, and from
//! `spawn_blocking` where it waits for a failover.
//!
//! Each test starts what it needs and may break it, since nothing is shared: dropping a value ends its
//! processes and removes its folder. In reading order:
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a fixture that meets what it did not expect has found a failure, and its panic is the report"
)]

/// One server, and what can be asked of it.
mod server;

/// What it has done so far.
mod figures;

/// Servers that speak TLS alone, under an authority of their own.
mod tls;

/// Nodes that share the slots.
mod cluster;
/// A slot on its way from one node to another.
mod migration;
/// What one node knows of all.
mod roster;

/// A master, a replica, and those who watch.
mod sentinel;

/// A link that can be cut, frozen, or refused.
mod relay;

/// What ends everything when a test can no longer do it itself.
mod guardian;
/// The connection over which a server is asked.
mod line;
/// Waiting for a condition, with a deadline.
mod patience;
/// Choosing ports.
mod port;
/// The process of one server.
mod process;

pub use cluster::Cluster;
pub use migration::Migration;
pub use port::free as free_port;
pub use relay::Relay;
pub use sentinel::Sentinels;
pub use server::Server;
pub use tls::Papers;
