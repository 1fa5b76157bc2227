//! One instance of Holdfast: a WebSocket gateway whose sockets can be reached from anywhere by
//! HTTP. In reading order:

/// Whether a request may become a socket.
pub mod admission;
/// From 101 to the first frame.
pub mod arrival;
/// The command line.
pub mod client;
/// A coarse clock for small stamps.
pub mod clock;
/// Every way to end a socket, in one table.
pub mod close;
/// Environment, flags and file → one `Config`, or every problem at once.
pub mod config;
/// Delivering: here, or nowhere.
pub mod courier;
/// Parting with every socket.
pub mod drain;
/// The words of the wire.
pub mod frame;
/// One instance: what it holds, how it starts and ends.
pub mod gateway;
/// Once a second: life, lease, figures.
pub mod heartbeat;
/// The table of routes and the path of a request.
pub mod http;
/// JSON, one level deep.
pub mod json;
/// The listener, and what is in its way.
pub mod listener;
/// Log lines.
pub mod log;
/// Telling a process manager that we are ready.
pub mod manager;
/// @mentions of public accounts.
pub mod mention;
/// What is counted.
pub mod metrics;
/// What waits to be written to one socket.
pub mod outbox;
/// A refusal as a value.
pub mod problem;
/// What a client's frame means.
pub mod session;
/// One connection: the loop.
pub mod socket;
/// The sockets that are connected here.
pub mod sockets;
/// Bytes ↔ messages.
pub mod wire;
