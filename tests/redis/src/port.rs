//! Choosing ports. They are taken from below the range that the kernel hands out by itself: there, any
//! client of any test may sit on a number between our choice and the server's start, or while a server
//! that shall come back to its port is down.

use std::net::TcpListener;

/// The usual range of the kernel starts at 32768. Where it starts earlier, a start that fails is
/// tried again, so this is a matter of speed and not of truth.
const OURS: std::ops::Range<u16> = 10_000..32_768;

/// A port that nobody listens at now. Somebody may a moment later.
pub fn free() -> u16 {
    let tries = std::iter::repeat_with(|| fastrand::u16(OURS)).take(1000);
    let found = tries.into_iter().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    found.expect("not one free port in a thousand")
}
