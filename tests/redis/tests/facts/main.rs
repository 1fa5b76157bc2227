//! Facts about the servers themselves: that what other tests do to them is really done.
#![allow(
    clippy::unwrap_used,
    reason = "a fact that meets what it did not expect has failed, and its panic is the report"
)]

mod cluster;
mod relay;
mod sentinel;
mod server;
mod tidiness;
mod tls;
