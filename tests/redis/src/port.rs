//! Choosing ports. They are taken from below the range that the kernel hands out by itself: there, any
//! client of any test may sit on a number between our choice and the server's start, or while a server
//! that shall come back to its port is down.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::{Mutex, PoisonError};

/// The usual range of the kernel starts at 32768. Where it starts earlier, a start that fails is
/// tried again, so this is a matter of speed and not of truth.
const OURS: std::ops::Range<u16> = 10_000..32_768;

/// The rule of all our tests, tests/browser/port.mjs too: whoever holds the UDP port of a number may
/// listen on its TCP port. The kernel gives it to one process only, and takes it back when that ends,
/// however it ends.
static HELD: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());

/// A port that nobody listens at, and that no other test is given while this process lives.
pub fn free() -> u16 {
    let tries = std::iter::repeat_with(|| fastrand::u16(OURS)).take(1000);
    tries.into_iter().find(|port| is_reserved(*port)).expect("not one free port in a thousand")
}

fn is_reserved(port: u16) -> bool {
    let Ok(held) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) else { return false };
    let is_free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    if is_free {
        HELD.lock().unwrap_or_else(PoisonError::into_inner).push(held);
    }
    is_free
}
