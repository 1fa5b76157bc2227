//! What waits to be written to one socket: frames, bounded in bytes, and one word to stop.
//!
//! Anybody may push; only the socket's own task takes. No channel: an empty outbox owns room for one
//! frame at most, and a frame that goes to many sockets is the same bytes in all of them.

use crate::{clock, close::Close};
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    task::Waker,
};

/// Why a frame was not taken. Nothing of it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Its queue has no room: the client does not read fast enough.
    Full,
    /// It is on its way out.
    Closing,
}

/// One socket's outbox.
#[derive(Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    waker: AtomicWaker,
    /// Whether there is anything to take, so that its task need not lock to learn that there is not.
    waiting: AtomicBool,
    /// All bytes that were ever pushed, and of these the written ones; both begin anew when they are full. What is put
    /// in front of the rest is counted down from the written ones, so that the marks of the rest stay true.
    owed: AtomicUsize,
    written: AtomicUsize,
    /// When unsent bytes last moved, on the gateway's coarse clock.
    moved_at: AtomicU32,
}

/// The place of a frame in all that is ever written to a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(usize);

#[derive(Default)]
struct Queue {
    frames: VecDeque<Bytes>,
    stop: Stop,
}

#[derive(Default)]
enum Stop {
    #[default]
    Open,
    Asked(Box<Close>),
    Taken,
}

impl Outbox {
    /// Puts a frame at the end. When the queue is full, nothing of it is taken; an empty queue
    /// takes any one frame, so that no limit makes a socket unreachable.
    pub fn push(&self, frame: Bytes, bytes_max: usize, now: u32) -> Result<Mark, Refused> {
        let mut queue = self.queue();
        if !matches!(queue.stop, Stop::Open) {
            return Err(Refused::Closing);
        }
        if !self.has_room(frame.len(), bytes_max) {
            return Err(Refused::Full);
        }
        let mark = self.owe(frame.len(), now);
        if queue.frames.capacity() == 0 {
            // Most sockets never have more than one frame waiting; the usual growth would keep room for four.
            queue.frames.reserve_exact(1);
        }
        queue.frames.push_back(frame);
        self.wake(queue);
        Ok(mark)
    }

    /// Whether a frame of so many bytes fits.
    pub fn has_room(&self, bytes: usize, bytes_max: usize) -> bool {
        let unsent = self.unsent();
        unsent == 0 || unsent + bytes <= bytes_max
    }

    /// Whether the kernel has all of a frame. What its own task says in the same moment may stand before it,
    /// and is not counted: words that the client waits for, and that it therefore reads.
    pub fn has_written(&self, Mark(mark): Mark) -> bool {
        self.written.load(Ordering::Relaxed).wrapping_sub(mark) as isize >= 0
    }

    /// Puts frames in front of all that waits. Whatever came before its task began stands behind them.
    pub fn push_front(&self, frames: &[Bytes], now: u32) -> Result<(), Refused> {
        let mut queue = self.queue();
        if !matches!(queue.stop, Stop::Open) {
            return Err(Refused::Closing);
        }
        queue.frames.reserve_exact(frames.len());
        for frame in frames.iter().rev() {
            self.owe_before(frame.len(), now);
            queue.frames.push_front(frame.clone());
        }
        self.wake(queue);
        Ok(())
    }

    /// Asks the socket to close once everything before has been written. The first word counts.
    pub fn close(&self, close: Close) -> bool {
        let mut queue = self.queue();
        let open = matches!(queue.stop, Stop::Open);
        if open {
            queue.stop = Stop::Asked(Box::new(close));
            self.wake(queue);
        }
        open
    }

    /// Whether frames are still taken.
    pub fn is_open(&self) -> bool {
        matches!(self.queue().stop, Stop::Open)
    }

    /// Moves everything that waits behind what is there already, and says whether to close then.
    /// The caller has registered its waker before. An empty queue is swapped for the full one:
    /// in a broadcast one thread pushes and another takes, and neither has to allocate or free.
    pub fn take(&self, sending: &mut VecDeque<Bytes>) -> Option<Close> {
        if !self.waiting.swap(false, Ordering::Acquire) {
            return None;
        }
        let mut queue = self.queue();
        match sending.is_empty() {
            true => std::mem::swap(sending, &mut queue.frames),
            false => sending.append(&mut queue.frames),
        }
        match std::mem::replace(&mut queue.stop, Stop::Taken) {
            Stop::Asked(close) => Some(*close),
            other => {
                queue.stop = other;
                None
            }
        }
    }

    /// Closes the outbox from the inside: from now on nothing is taken. What was, is handed over.
    pub fn shut(&self, sending: &mut VecDeque<Bytes>) {
        let mut queue = self.queue();
        queue.stop = Stop::Taken;
        sending.append(&mut queue.frames);
    }

    pub fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Notes that the socket's own task owes bytes that never stood in the queue.
    pub fn owe(&self, bytes: usize, now: u32) -> Mark {
        let before = self.owed.fetch_add(bytes, Ordering::Relaxed);
        if before == self.written.load(Ordering::Relaxed) {
            self.moved_at.store(now, Ordering::Relaxed);
        }
        Mark(before.wrapping_add(bytes))
    }

    /// Notes bytes in front of all that waits. So much less is written, and every mark is so much farther away.
    fn owe_before(&self, bytes: usize, now: u32) {
        let before = self.written.fetch_sub(bytes, Ordering::Release);
        if before == self.owed.load(Ordering::Relaxed) {
            self.moved_at.store(now, Ordering::Relaxed);
        }
    }

    /// Notes that bytes went out.
    pub fn sent(&self, bytes: usize, now: u32) {
        self.written.fetch_add(bytes, Ordering::Release);
        self.moved_at.store(now, Ordering::Relaxed);
    }

    pub fn unsent(&self) -> usize {
        // In this order, since what is owed is never less than what was written before.
        let written = self.written.load(Ordering::Acquire);
        self.owed.load(Ordering::Relaxed).wrapping_sub(written)
    }

    /// For how long the unsent bytes have not moved; zero when there are none.
    pub fn stalled_ms(&self, now: u32) -> u32 {
        match self.unsent() {
            0 => 0,
            _ => clock::since(now, self.moved_at.load(Ordering::Relaxed)),
        }
    }

    fn wake(&self, queue: MutexGuard<'_, Queue>) {
        self.waiting.store(true, Ordering::Release);
        drop(queue);
        self.waker.wake();
    }

    /// A panic while the lock was held leaves a queue that can be used: every step is whole.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_and_not_taken_in_part() {
        let outbox = Outbox::default();
        let frame = Bytes::from_static(b"0123456789");
        assert_eq!(outbox.push(frame.clone(), 15, 0), Ok(Mark(10)));
        assert_eq!(outbox.push(frame.clone(), 15, 0), Err(Refused::Full));
        assert_eq!(outbox.unsent(), 10);
        outbox.sent(10, 1);
        assert_eq!(outbox.push(frame, 5, 1), Ok(Mark(20)), "an empty queue takes any one frame");
    }

    #[test]
    fn a_greeting_stands_before_what_came_early() {
        let outbox = Outbox::default();
        let [early, hi, reset] = [&b"early"[..], b"hi", b"reset"].map(Bytes::from_static);
        assert!(outbox.push(early.clone(), 10, 0).is_ok());
        assert_eq!(outbox.push_front(&[hi.clone(), reset.clone()], 0), Ok(()));
        let mut taken = VecDeque::new();
        outbox.take(&mut taken);
        assert_eq!((taken, outbox.unsent()), ([hi, reset, early].into(), 12));
    }

    #[test]
    fn what_came_early_is_not_written_when_the_greeting_is() {
        let outbox = Outbox::default();
        let [early, hi] = [&b"early"[..], b"a greeting"].map(Bytes::from_static);
        let early = outbox.push(early, 100, 0).unwrap();
        outbox.push_front(&[hi], 0).unwrap();
        let late = outbox.push(Bytes::from_static(b"late"), 100, 0).unwrap();
        for (bytes, written) in [(0, (false, false)), (14, (false, false)), (1, (true, false)), (4, (true, true))] {
            outbox.sent(bytes, 0);
            assert_eq!((outbox.has_written(early), outbox.has_written(late)), written);
        }
        assert_eq!(outbox.unsent(), 0);
    }

    #[test]
    fn the_first_word_to_stop_counts_and_nothing_follows_it() {
        let outbox = Outbox::default();
        assert!(outbox.close(Close::Restart));
        assert!(!outbox.close(Close::TooSlow));
        assert_eq!(outbox.push(Bytes::from_static(b"x"), 10, 0), Err(Refused::Closing));
        assert_eq!(outbox.take(&mut VecDeque::new()), Some(Close::Restart));
        assert!(outbox.take(&mut VecDeque::new()).is_none() && !outbox.is_open());
    }

    #[test]
    fn a_frame_is_written_when_its_last_byte_is() {
        // The count begins anew at the end of all numbers.
        for before in [0, usize::MAX - 12] {
            let outbox = Outbox { owed: before.into(), written: before.into(), ..Outbox::default() };
            let [first, second] =
                [&b"0123456789"[..], b"0123"].map(|frame| outbox.push(Bytes::from_static(frame), 100, 0).unwrap());
            for (bytes, written) in [(0, (false, false)), (9, (false, false)), (1, (true, false)), (4, (true, true))] {
                outbox.sent(bytes, 0);
                assert_eq!((outbox.has_written(first), outbox.has_written(second)), written);
            }
            assert_eq!(outbox.unsent(), 0);
        }
    }

    #[test]
    fn bytes_that_do_not_move_are_noticed() {
        let outbox = Outbox::default();
        assert_eq!(outbox.stalled_ms(5000), 0);
        let _ = outbox.push(Bytes::from_static(b"x"), 10, 1000);
        assert_eq!(outbox.stalled_ms(5000), 4000);
    }
}
