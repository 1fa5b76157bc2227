//! The time a request's head may take. hyper has one limit for an idle connection and for a
//! half-sent head; they mean opposite things. A kept-alive connection may rest for long, so that
//! nginx's pool is not cut, but a head that has begun must be whole soon.

use crate::clock;
use rustix::net::sockopt::set_tcp_user_timeout;
use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep, sleep_until},
};

/// From a head's first byte to its last.
pub const HEAD: Duration = Duration::from_secs(5);
/// How long a connection may rest between two requests.
pub const IDLE: Duration = Duration::from_secs(75);

/// How long an answer may wait for a client that does not read.
const UNREAD: Duration = Duration::from_secs(30);
/// How long a client may go on sending after its last answer.
const LINGER: Duration = Duration::from_secs(1);

const TOO_LATE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// What a connection and the answers on it know of each other.
#[derive(Clone, Default)]
pub struct Turn(Arc<State>);

struct State {
    /// Odd while a request is being served, even between requests.
    turn: AtomicU32,
    /// Since when it is so, on the coarse clock.
    since: AtomicU32,
    /// An answer that goes on has begun.
    streams: AtomicBool,
    /// Reading or writing has failed.
    broken: AtomicBool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            turn: AtomicU32::new(0),
            since: AtomicU32::new(clock::now_ms()),
            streams: AtomicBool::new(false),
            broken: AtomicBool::new(false),
        }
    }
}

impl Turn {
    /// A head is whole, or its answer is ready.
    pub fn change(&self) {
        self.0.turn.fetch_add(1, Ordering::Relaxed);
        self.0.since.store(clock::now_ms(), Ordering::Relaxed);
    }

    /// Waits until the connection can be told to end: it serves a request, which will be its last, or has rested for
    /// so long.
    pub async fn may_end(&self, rest: Duration) {
        while self.now().is_multiple_of(2) {
            let rested = clock::since(clock::now_ms(), self.0.since.load(Ordering::Relaxed));
            let left = rest.saturating_sub(Duration::from_millis(rested.into()));
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }

    /// Whether the connection has failed, and was not ended by the client.
    pub fn is_broken(&self) -> bool {
        self.0.broken.load(Ordering::Relaxed)
    }

    /// The answer goes on until this is dropped.
    pub fn until_dropped(self) -> Serving {
        self.0.streams.store(true, Ordering::Relaxed);
        Serving(self)
    }

    fn now(&self) -> u32 {
        self.0.turn.load(Ordering::Relaxed)
    }

    fn notice<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(_)) = result {
            self.0.broken.store(true, Ordering::Relaxed);
        }
        result
    }
}

/// An answer that is not whole yet.
pub struct Serving(Turn);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.change();
    }
}

/// A stream that gives up on a head that takes too long.
pub struct HeadTimed {
    stream: TcpStream,
    turn: Turn,
    seen: u32,
    began: Option<Instant>,
    /// Only there for a head that did not come in one piece.
    alarm: Option<Pin<Box<Sleep>>>,
    /// There while an answer waits for a client that does not read.
    unread: Option<Pin<Box<Sleep>>>,
    /// There once the last answer is out and the client may still be sending.
    lingering: Option<Pin<Box<Sleep>>>,
}

impl HeadTimed {
    pub fn new(stream: TcpStream, turn: Turn) -> Self {
        Self { stream, turn, seen: 0, began: None, alarm: None, unread: None, lingering: None }
    }

    pub fn into_inner(self) -> TcpStream {
        self.stream
    }

    /// Gives up on a client that has not taken a byte of its answer for too long.
    fn unless_unread(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if self.turn.0.streams.swap(false, Ordering::Relaxed) {
            // Whoever vanishes without a word is noticed by what it does not acknowledge. Where that cannot be
            // asked for it takes longer.
            let unread = u32::try_from(UNREAD.as_millis()).unwrap_or(u32::MAX);
            let _ = set_tcp_user_timeout(&self.stream, unread);
        }
        if written.is_ready() {
            self.unread = None;
            return self.turn.notice(written);
        }
        let alarm = self.unread.get_or_insert_with(|| Box::pin(sleep(UNREAD)));
        ready!(alarm.as_mut().poll(cx));
        self.turn.notice(Poll::Ready(Err(io::ErrorKind::TimedOut.into())))
    }

    fn poll_patience(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let turn = self.turn.now();
        if turn != self.seen {
            (self.seen, self.began, self.alarm) = (turn, None, None);
        }
        let Some(began) = self.began else { return Ok(()) };
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(began + HEAD)));
        if alarm.as_mut().poll(cx).is_ready() {
            // Courtesy only: whoever sends this slowly may not be reading at all.
            let _ = self.stream.try_write(TOO_LATE);
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

impl AsyncRead for HeadTimed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_patience(cx)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        ready!(self.turn.notice(read))?;
        let between_requests = self.seen.is_multiple_of(2);
        if between_requests && self.began.is_none() && buffer.filled().len() > before {
            self.began = Some(Instant::now());
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HeadTimed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.unless_unread(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.unless_unread(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Takes what the client still sends, for a moment: to close on unread bytes would reset the
    /// connection, and a client in the middle of a large body would never see why it was refused.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        }
        let until = this.lingering.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut scratch = [0; 4096];
        loop {
            if until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::sockopt::{set_socket_linger, tcp_user_timeout};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    async fn connection() -> (HeadTimed, Turn, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let turn = Turn::default();
        (HeadTimed::new(listener.accept().await.unwrap().0, turn.clone()), turn, client)
    }

    /// Whoever listens says nothing, so that nothing else would tell that its network is gone.
    #[tokio::test]
    async fn an_answer_that_goes_on_waits_for_its_reader_so_long_and_no_other_does() {
        let (mut stream, turn, _client) = connection().await;
        stream.write_all(b"an answer that is whole").await.unwrap();
        assert_eq!(tcp_user_timeout(&stream.stream).unwrap(), 0);
        let _serving = turn.until_dropped();
        stream.write_all(b"the first event").await.unwrap();
        assert_eq!(u128::from(tcp_user_timeout(&stream.stream).unwrap()), UNREAD.as_millis());
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_told_from_one_that_ends() {
        for breaks in [false, true] {
            let (mut stream, turn, client) = connection().await;
            if breaks {
                set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
            }
            drop(client);
            let read = stream.read(&mut [0]).await;
            assert_eq!((read.is_err(), turn.is_broken()), (breaks, breaks), "{read:?}");
        }
    }
}
