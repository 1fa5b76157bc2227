//! What the rest of the gateway holds of a connection: where to write, and when it was heard.

use crate::{
    clock,
    close::Close,
    outbox::{Mark, Outbox, Refused},
    wire,
};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Shared by all who write to a connection, and by its own task.
pub struct Line {
    pub(super) outbox: Outbox,
    queue_bytes_max: usize,
    heard_at: AtomicU32,
    spoke_at: AtomicU32,
    pinged_at: AtomicU32,
    rtt_ms: AtomicU32,
    /// Its client cannot say anything.
    one_way: bool,
    /// It came back, and has said nothing yet.
    unheard: AtomicBool,
}

/// No pong was measured yet.
const NO_RTT: u32 = u32::MAX;

impl Line {
    pub fn new(queue_bytes_max: usize) -> Self {
        Self {
            outbox: Outbox::default(),
            queue_bytes_max,
            heard_at: AtomicU32::new(clock::now_ms()),
            spoke_at: AtomicU32::new(clock::now_ms()),
            pinged_at: AtomicU32::new(0),
            rtt_ms: AtomicU32::new(NO_RTT),
            one_way: false,
            unheard: AtomicBool::new(false),
        }
    }

    /// The line of somebody who only listens.
    pub fn one_way(queue_bytes_max: usize) -> Self {
        Self { one_way: true, ..Self::new(queue_bytes_max) }
    }

    /// Whether its client can say anything.
    pub fn can_answer(&self) -> bool {
        !self.one_way
    }

    /// Queues an encoded frame.
    pub fn send(&self, frame: Bytes) -> Result<(), Refused> {
        self.send_at(frame, clock::now_ms())
    }

    /// The same for one of many: the clock was looked at once.
    pub fn send_at(&self, frame: Bytes, now: u32) -> Result<(), Refused> {
        self.outbox.push(frame, self.queue_bytes_max, now).map(|_| ())
    }

    /// Queues an encoded frame; by its mark it can be told whether it was written.
    pub fn hand(&self, frame: Bytes) -> Result<Mark, Refused> {
        self.outbox.push(frame, self.queue_bytes_max, clock::now_ms())
    }

    /// As if the socket's task had written so much.
    #[cfg(test)]
    pub fn wrote(&self, bytes: usize) {
        self.outbox.sent(bytes, clock::now_ms());
    }

    /// Whether the kernel has all of it.
    pub fn has_written(&self, mark: Mark) -> bool {
        self.outbox.has_written(mark)
    }

    /// Puts the first words of a connection in front of whatever waits for it already.
    pub fn greet(&self, frames: &[Bytes]) -> Result<(), Refused> {
        self.outbox.push_front(frames, clock::now_ms())
    }

    /// Asks the connection to close; false if it is closing already.
    pub fn close(&self, close: Close) -> bool {
        self.outbox.close(close)
    }

    pub fn is_open(&self) -> bool {
        self.outbox.is_open()
    }

    /// Pings. A full queue says as much about a socket as a missing pong, so it is left alone.
    pub fn ping(&self, now: u32) {
        let sent = self.outbox.push(wire::ping(), self.queue_bytes_max, now).is_ok();
        if sent {
            // One that is still unanswered keeps its own time.
            let _ = self.pinged_at.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// When any byte was last heard, on the coarse clock.
    pub fn heard_at(&self) -> u32 {
        self.heard_at.load(Ordering::Relaxed)
    }

    /// Whether anything was heard at or after a moment.
    pub fn heard_since(&self, then: u32) -> bool {
        self.heard_at().wrapping_sub(then) as i32 >= 0
    }

    /// It came back with a token, which is good until its client is heard.
    pub fn awaits_first_word(&self) {
        self.unheard.store(true, Ordering::Relaxed);
    }

    /// Whether this is the first word of one that came back.
    pub fn is_first_word(&self) -> bool {
        self.unheard.load(Ordering::Relaxed) && self.unheard.swap(false, Ordering::Relaxed)
    }

    /// Notes that its client said something of its own accord.
    pub fn spoke(&self) {
        self.spoke_at.store(clock::now_ms(), Ordering::Relaxed);
    }

    /// Whether its client said something at or after a moment.
    pub fn spoke_since(&self, then: u32) -> bool {
        self.spoke_at.load(Ordering::Relaxed).wrapping_sub(then) as i32 >= 0
    }

    /// For how long its client said nothing but that it lives.
    pub fn quiet_ms(&self, now: u32) -> u32 {
        clock::since(now, self.spoke_at.load(Ordering::Relaxed))
    }

    /// For how long nothing was heard.
    pub fn silent_ms(&self, now: u32) -> u32 {
        clock::since(now, self.heard_at())
    }

    /// For how long unsent bytes have not moved.
    pub fn stalled_ms(&self, now: u32) -> u32 {
        self.outbox.stalled_ms(now)
    }

    /// The last measured time from ping to pong.
    pub fn rtt_ms(&self) -> Option<u32> {
        Some(self.rtt_ms.load(Ordering::Relaxed)).filter(|rtt| *rtt != NO_RTT)
    }

    pub fn unsent(&self) -> usize {
        self.outbox.unsent()
    }

    /// Whether its client is behind by more than it has to be: what is read for it would find no room.
    pub fn is_half_full(&self) -> bool {
        self.unsent() > self.queue_bytes_max / 2
    }

    /// Whether a frame of so many bytes would be taken.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.outbox.has_room(bytes, self.queue_bytes_max)
    }

    /// Whether more waits than may: then its client is not heard until it has listened.
    pub(super) fn is_full(&self) -> bool {
        self.unsent() > self.queue_bytes_max
    }

    pub(super) fn heard(&self, now: u32) {
        self.heard_at.store(now, Ordering::Relaxed);
    }

    pub(super) fn ponged(&self, now: u32) {
        let pinged_at = self.pinged_at.swap(0, Ordering::Relaxed);
        if pinged_at != 0 {
            self.rtt_ms.store(clock::since(now, pinged_at), Ordering::Relaxed);
        }
    }
}
