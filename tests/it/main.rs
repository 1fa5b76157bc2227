//! Facts about whole gateways, seen from outside: the real `holdfast` as a child process, and
//! clients that know nothing of its inside.
//!
//! Fixtures, each with verbs:
//!
//! | file | what it is |
//! |---|---|
//! | `patience.rs` | waiting for a condition, with a deadline |
//! | `holdfast.rs` | the binary: run to its end, or until it is ready |
//! | `gateway.rs` | a running gateway: its log, its signals, what can be asked of it |
//! | `fleet.rs` | three of them on one Redis, and what must be true of each after every fact |
//! | `http.rs` | requests and answers |
//! | `client.rs` | a WebSocket client that behaves |
//! | `stream.rs` | events, as they come |
//! | `raw.rs` | a TCP client that need not behave |
//! | `comebacks.rs`, `numbers.rs` | a page that comes back, and what it must have heard |
//! | `balancer.rs` | a balancer that passes on bytes, and says whose they are |
//! | `nginx.rs` | a real nginx in front of gateways |
//! | `application.rs` | an application behind a gateway, which behaves as it is told |
//! | `stranger.rs` | somebody else at the other end |
//! | `findings.rs` | what `holdfast doctor` finds |
//! | `terminal.rs` | commands, as somebody types them |
//! | `asking.rs` | more verbs, for what callers ask over HTTP |
//!
//! All others are files of facts. The contract decides what a fact is, not the code.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a fixture that meets what it did not expect has found a failure, and its panic is the report"
)]

mod application;
mod asking;
mod balancer;
mod client;
mod comebacks;
mod findings;
mod fleet;
mod gateway;
mod holdfast;
mod http;
mod nginx;
mod numbers;
mod patience;
mod raw;
mod stranger;
mod stream;
mod terminal;

mod absences;
mod afar;
mod alarms;
mod anywhere;
mod bodies;
mod calls;
mod checks;
mod codes;
mod commands;
mod conversations;
mod credentials;
mod crowds;
mod debug;
mod demos;
mod denials;
mod diffs;
mod directories;
mod doctor;
mod doors;
mod drains;
mod durables;
mod ending;
mod errands;
mod fallbacks;
mod farewells;
mod faults;
mod feeds;
mod figures;
mod forgeries;
mod frames;
mod guises;
mod handbook;
mod heads;
mod health;
mod history;
mod hooks;
mod inits;
mod jwks;
mod keys;
mod kicks;
mod kit;
mod listeners;
mod locks;
mod logs;
mod lookups;
mod losses;
mod managers;
mod many;
mod measures;
mod moves;
mod names;
mod openapi;
mod orders;
mod origins;
mod outages;
mod packages;
mod pages;
mod places;
mod planes;
mod preambles;
mod proxies;
mod pushes;
mod queues;
mod redises;
mod refusals;
mod repeats;
mod resumes;
mod rolling;
mod rooms;
mod secrets;
mod sends;
mod sessions;
mod smuggling;
mod spoofs;
mod start;
mod story;
mod strangers;
mod streams;
mod tidings;
mod tidy;
mod tokens;
mod upgrades;
mod users;
mod waits;
mod wire;
