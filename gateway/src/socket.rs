//! One connection, from the first byte after 101 to the last: a loop around the wire and the
//! outbox, and nothing else. What a frame means is the [`Conversation`]'s business.
//!
//! The states of a connection are the two methods of [`Connection`], in this order:
//!
//! | state | method | ends when |
//! |---|---|---|
//! | serving | [`Connection::serve`] | the peer closes, the line breaks, or somebody asks to close |
//! | farewell | [`Connection::farewell`] | both sides have closed, or two seconds have passed |
//!
//! While serving, one poll looks at its inputs in this order: what waits to be written (so that a
//! slow reader holds up only itself), work that a frame began (frames are answered in order), bytes
//! that were read but not understood yet, and last the stream. A socket whose unsent bytes exceed
//! the limit is not read from: a client that does not listen is not heard.

mod line;
pub mod listen;

pub use line::Line;

use crate::{
    clock,
    close::Close,
    wire::{self, Fault, Heard, Wire},
};
use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use registry::{Cause, Ending};
use std::{
    cell::RefCell,
    collections::VecDeque,
    future::poll_fn,
    io::{self, IoSlice},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};

/// How long the other side may take to say goodbye.
pub const FAREWELL: Duration = Duration::from_secs(2);
/// One read takes this much; a buffer of the thread's, so that an idle socket owns none.
const SCRATCH_BYTES: usize = 16 * 1024;
/// Room for so many frames is kept between two bursts; more is given back.
const FRAMES_KEPT: usize = 1;
/// Frames handed to the kernel in one call.
const SLICES_MAX: usize = 32;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH_BYTES].into());
}

/// A message, as the conversation gets it.
#[derive(Debug)]
pub enum Said {
    Text(Bytes),
    Binary(Bytes),
    /// A protocol ping, answered already.
    Ping,
    /// The answer to one of ours.
    Pong,
}

/// What follows from a message. Frames are encoded.
pub enum Reaction {
    Silence,
    Say(Bytes),
    /// Frames that come when something else has been asked; the next message waits for it.
    Later(BoxFuture<'static, Vec<Bytes>>),
    Close(Close),
}

/// Understands messages.
pub trait Conversation: Send {
    fn hear(&mut self, said: Said) -> Reaction;
    /// A panic closes this connection alone; the id is what its client is told.
    fn panicked(&mut self) -> String;
}

/// How serving came to its end.
#[derive(Debug)]
pub enum End {
    /// We close, for this reason.
    Ours(Close),
    /// The peer closed, and the reply is on its way.
    Theirs { code: u16, reason: String },
    /// No close frame came.
    Broken(io::Error),
}

impl End {
    /// Whether the peer still has to say goodbye. After a fault nothing it says counts any more
    /// (RFC 6455, 7.1.7), and its close may have been the fault.
    fn awaits_reply(&self) -> bool {
        match self {
            Self::Ours(close) => !matches!(close, Close::Protocol(_) | Close::BadUtf8 | Close::TooBig { .. }),
            Self::Theirs { .. } | Self::Broken(_) => false,
        }
    }

    /// The same, for the registry.
    pub fn ending(&self) -> Ending {
        match self {
            Self::Ours(close) => close.ending(),
            Self::Theirs { code, reason } => {
                Ending { cause: Cause::ClientClosed, code: Some(*code), reason: reason.as_str().into() }
            }
            Self::Broken(error) => {
                Ending { cause: Cause::ConnectionLost, code: None, reason: error.to_string().into() }
            }
        }
    }
}

/// One live connection.
pub struct Connection<S, C> {
    stream: S,
    conversation: C,
    line: Arc<Line>,
    wire: Wire,
    /// Frames on their way out; of the first, `sent` bytes are gone already.
    sending: VecDeque<Bytes>,
    sent: usize,
    /// Bytes that were read and wait for `work` to be done.
    backlog: Bytes,
    work: Option<BoxFuture<'static, Vec<Bytes>>>,
    /// When the current poll began: one look at the clock stamps all that it does.
    now: u32,
}

impl<S: AsyncRead + AsyncWrite + Unpin, C: Conversation> Connection<S, C> {
    /// `early` is what came with the handshake, behind its last header.
    pub fn new(stream: S, early: Bytes, line: Arc<Line>, message_bytes_max: Option<usize>, conversation: C) -> Self {
        Self {
            stream,
            conversation,
            line,
            wire: Wire::new(message_bytes_max),
            sending: VecDeque::new(),
            sent: 0,
            backlog: early,
            work: None,
            now: clock::now_ms(),
        }
    }

    /// Serves until the end, and says which end it was. Nothing is taken for sending afterwards.
    pub async fn serve(&mut self) -> End {
        let end = poll_fn(|cx| self.poll_serve(cx)).await;
        // What was taken in the last moment is written before the close, if there is somebody to read it.
        self.line.outbox.shut(&mut self.sending);
        end
    }

    /// Writes what is left, closes as RFC 6455 wants it, and waits for the peer, but not for long.
    pub async fn farewell(mut self, end: &End) {
        if let End::Ours(close) = end {
            self.sending.push_back(wire::close(close.code(), &close.reason()));
        }
        if !matches!(end, End::Broken(_)) {
            // A peer that is gone by now, or does not answer in time, is simply left.
            let _ = timeout(FAREWELL, self.part(end.awaits_reply())).await;
        }
    }

    /// A panic anywhere in here is a bug; it ends this connection alone, and as any other end does,
    /// so that its verdict is written and its place is given back.
    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.now = clock::now_ms();
        self.line.outbox.register(cx.waker());
        match catch_unwind(AssertUnwindSafe(|| self.poll_inputs(cx))) {
            Ok(Poll::Ready(Ok(end))) => Poll::Ready(end),
            Ok(Poll::Ready(Err(error))) => Poll::Ready(End::Broken(error)),
            Ok(Poll::Pending) => Poll::Pending,
            Err(_) => {
                // Whether a frame was half written is not known any more, so nothing follows it.
                self.sending.clear();
                Poll::Ready(End::Ours(Close::Internal { request_id: self.conversation.panicked() }))
            }
        }
    }

    fn poll_inputs(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<End>> {
        loop {
            let written = self.poll_write(cx)?;
            if let Poll::Ready(Some(close)) = written {
                return Poll::Ready(Ok(End::Ours(close)));
            }
            if let Some(work) = &mut self.work {
                let frames = ready!(work.as_mut().poll(cx));
                self.work = None;
                frames.into_iter().for_each(|frame| self.say(frame));
                continue;
            }
            if self.line.is_full() {
                return Poll::Pending;
            }
            if !self.backlog.is_empty() {
                let backlog = std::mem::take(&mut self.backlog);
                if let Some(end) = self.understand(&backlog, cx) {
                    return Poll::Ready(Ok(end));
                }
                continue;
            }
            if let Some(end) = ready!(self.poll_read(cx))? {
                return Poll::Ready(Ok(end));
            }
        }
    }

    /// Writes until nothing waits. Ready with the close, if one was asked for: what waited before
    /// it is the farewell's to write.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<Poll<Option<Close>>> {
        loop {
            let close = self.line.outbox.take(&mut self.sending);
            if close.is_some() {
                return Ok(Poll::Ready(close));
            }
            if self.sending.is_empty() {
                if self.sending.capacity() > FRAMES_KEPT {
                    self.sending = VecDeque::new();
                }
                return Ok(Poll::Ready(None));
            }
            match self.poll_write_some(cx) {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(written) => written?,
            }
        }
    }

    fn poll_write_some(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let stream = Pin::new(&mut self.stream);
        let first = self.sending.front().map_or(&[][..], |frame| &frame[self.sent..]);
        let mut written = if self.sending.len() == 1 {
            ready!(stream.poll_write(cx, first))?
        } else {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            slices[0] = IoSlice::new(first);
            let rest = self.sending.iter().skip(1);
            slices[1..].iter_mut().zip(rest).for_each(|(slice, frame)| *slice = IoSlice::new(frame));
            let count = self.sending.len().min(SLICES_MAX);
            ready!(stream.poll_write_vectored(cx, &slices[..count]))?
        };
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.line.outbox.sent(written, self.now);
        while let Some(frame) = self.sending.front() {
            let left = frame.len() - self.sent;
            if written < left {
                self.sent += written;
                break;
            }
            written -= left;
            self.sent = 0;
            self.sending.pop_front();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<End>>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))?;
            let bytes = buffer.filled();
            if bytes.is_empty() {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "connection ended without a close frame",
                )));
            }
            self.line.heard(self.now);
            Poll::Ready(Ok(self.understand(bytes, cx)))
        })
    }

    /// Turns bytes into messages and messages into reactions. What must wait goes to the backlog.
    fn understand(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Option<End> {
        let mut input = bytes;
        let mut answers = Vec::new();
        loop {
            let heard = self.wire.read(&mut input, &mut answers);
            if !answers.is_empty() {
                self.say(std::mem::take(&mut answers).into());
            }
            let said = match heard {
                Ok(None) => return None,
                Ok(Some(Heard::Text(text))) => Said::Text(text),
                Ok(Some(Heard::Binary(bytes))) => Said::Binary(bytes),
                Ok(Some(Heard::Ping)) => Said::Ping,
                Ok(Some(Heard::Pong)) => {
                    self.line.ponged(self.now);
                    Said::Pong
                }
                Ok(Some(Heard::Close(frame))) => {
                    // 1005 is what RFC 6455 calls a close without a code.
                    let (code, reason) =
                        frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
                    return Some(End::Theirs { code, reason });
                }
                Err(fault) => return Some(End::Ours(self.verdict_on(fault))),
            };
            match self.conversation.hear(said) {
                Reaction::Silence => {}
                Reaction::Say(frame) => self.say(frame),
                Reaction::Close(close) => return Some(End::Ours(close)),
                Reaction::Later(mut work) => match work.as_mut().poll(cx) {
                    Poll::Ready(frames) => frames.into_iter().for_each(|frame| self.say(frame)),
                    Poll::Pending => {
                        self.work = Some(work);
                        self.backlog = Bytes::copy_from_slice(input);
                        return None;
                    }
                },
            }
            if self.line.is_full() {
                self.backlog = Bytes::copy_from_slice(input);
                return None;
            }
        }
    }

    fn verdict_on(&self, fault: Fault) -> Close {
        match fault {
            Fault::Protocol(what) => Close::Protocol(what),
            Fault::BadUtf8 => Close::BadUtf8,
            Fault::TooBig => Close::TooBig { bytes_max: self.wire.message_bytes_max().unwrap_or(usize::MAX) },
        }
    }

    fn say(&mut self, frame: Bytes) {
        self.line.outbox.owe(frame.len(), self.now);
        self.sending.push_back(frame);
    }

    async fn part(&mut self, mut reply_expected: bool) -> io::Result<()> {
        while let Some(mut frame) = self.sending.pop_front() {
            frame.advance(std::mem::take(&mut self.sent));
            self.stream.write_all(&frame).await?;
        }
        let mut buffer = [0; 512];
        let mut answers = Vec::new();
        loop {
            if !reply_expected {
                self.stream.shutdown().await?;
            }
            let length = self.stream.read(&mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            let mut input = &buffer[..length];
            while reply_expected && !input.is_empty() {
                match self.wire.read(&mut input, &mut answers) {
                    Ok(Some(Heard::Close(_))) => return self.stream.shutdown().await,
                    // What cannot be understood is still taken: unread bytes would make the kernel
                    // reset the connection, and the peer might never see why it was closed.
                    Err(_) => reply_expected = false,
                    Ok(_) => answers.clear(),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
