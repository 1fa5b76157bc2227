//! One instance of Holdfast: a WebSocket gateway whose sockets can be reached from anywhere by
//! HTTP. In reading order:

/// Whether a request may become a socket.
pub mod admission;
/// From 101 to the first frame.
pub mod arrival;
/// Who somebody is, by what they show.
pub mod auth;
/// The calls in flight.
pub mod calls;
/// The command line.
pub mod client;
/// A coarse clock for small stamps.
pub mod clock;
/// Every way to end a socket, in one table.
pub mod close;
/// Every code, and the page that explains it.
pub mod codes;
/// What is said once of a peer.
pub mod complaints;
/// Environment, flags and file → one `Config`, or every problem at once.
pub mod config;
/// Delivering: here, there, or nowhere.
pub mod courier;
/// Parting with every socket.
pub mod drain;
/// How far the log of a socket was written.
pub mod durable;
/// What happens here, for whoever looks.
pub mod feed;
/// The words of the wire.
pub mod frame;
/// One instance: what it holds, how it starts and ends.
pub mod gateway;
/// Once a second: life, lease, figures.
pub mod heartbeat;
/// What the application is asked and told.
pub mod hooks;
/// The table of routes and the path of a request.
pub mod http;
/// What other instances ask of this one.
pub mod inbox;
/// JSON, one level deep.
pub mod json;
/// An outcome that is kept for those who ask again.
pub mod kept;
/// Letters to other instances, and their answers.
pub mod letters;
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
/// Which holders of a place are alive.
pub mod probe;
/// A refusal as a value.
pub mod problem;
/// What a client's frame means.
pub mod session;
/// One connection: the loop.
pub mod socket;
/// The sockets that are connected here.
pub mod sockets;
/// What is done for sockets that may come back.
pub mod upkeep;
/// Asking an application's endpoint, within bounds.
pub mod upstream;
/// A socket as lists show it.
pub mod view;
/// Bytes ↔ messages.
pub mod wire;
