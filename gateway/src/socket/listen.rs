//! The other way to be connected: somebody who only listens, over whatever else than WebSocket. What waits in
//! the outbox is handed on word by word; between two of them waits at most one.

use super::{FAREWELL, Line};
use crate::{clock, close::Close, wire};
use bytes::Bytes;
use registry::{Cause, Ending};
use std::{collections::VecDeque, future::poll_fn, task::Poll};
use tokio::{sync::mpsc, time::timeout};

/// What a listener is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    Text(Bytes),
    Ping,
    /// The last one.
    Close(Ending),
}

/// Nobody listens any more.
pub struct Left;

/// Hands on what waits on a line, until its listener leaves or somebody asks to close.
pub async fn listen(line: &Line, listener: &mpsc::Sender<Word>) -> Result<Close, Left> {
    let mut waiting = VecDeque::new();
    let close = loop {
        tokio::select! {
            biased;
            () = listener.closed(), if waiting.is_empty() => return Err(Left),
            permit = listener.reserve(), if !waiting.is_empty() => {
                permit.map_err(|_| Left)?;
                hand_on(line, listener, &mut waiting).await?;
            }
            close = line.next(&mut waiting) => if let Some(close) = close { break close },
        }
    };
    line.outbox.shut(&mut waiting);
    let farewell = async {
        while !waiting.is_empty() {
            hand_on(line, listener, &mut waiting).await?;
        }
        listener.send(Word::Close(close.ending())).await.map_err(|_| Left)
    };
    // One that does not listen to the end, or is gone by now, is simply left.
    let _ = timeout(FAREWELL, farewell).await;
    Ok(close)
}

/// What is handed on was asked for, and so is a sign of life.
async fn hand_on(line: &Line, listener: &mpsc::Sender<Word>, waiting: &mut VecDeque<Bytes>) -> Result<(), Left> {
    let Some(frame) = waiting.pop_front() else { return Ok(()) };
    // Bytes of other kinds have no place in a text.
    if let Some(word) = wire::payload(&frame).map(|text| text.map_or(Word::Ping, Word::Text)) {
        listener.send(word).await.map_err(|_| Left)?;
    }
    let now = clock::now_ms();
    line.heard(now);
    line.outbox.sent(frame.len(), now);
    Ok(())
}

/// How somebody ended who left without a word; `broken`: the connection failed under it.
pub fn left(broken: bool) -> Ending {
    let (cause, reason) = match broken {
        true => (Cause::ConnectionLost, "the connection failed while its events were written"),
        false => (Cause::ClientClosed, "the client ended its stream"),
    };
    Ending { cause, code: None, reason: reason.into() }
}

impl Line {
    /// Waits until more waits, and adds it; or until somebody asks to close.
    async fn next(&self, waiting: &mut VecDeque<Bytes>) -> Option<Close> {
        let before = waiting.len();
        poll_fn(|cx| {
            self.outbox.register(cx.waker());
            match self.outbox.take(waiting) {
                None if waiting.len() == before => Poll::Pending,
                close => Poll::Ready(close),
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;

    #[tokio::test]
    async fn what_waits_is_handed_on_in_order_and_the_close_is_last() {
        let line = Line::one_way(1000);
        let (listener, mut words) = mpsc::channel(1);
        line.send(wire::text("1")).unwrap();
        line.ping(clock::now_ms());
        line.send(wire::binary(&b"no text"[..])).unwrap();
        line.send(frame::reset()).unwrap();
        line.close(Close::Restart);
        let heard = async {
            let mut heard = Vec::new();
            while let Some(word) = words.recv().await {
                heard.push(word);
            }
            heard
        };
        let served = async move {
            let end = listen(&line, &listener).await;
            (end.ok(), line.unsent())
        };
        let (served, heard) = tokio::join!(served, heard);
        assert_eq!(served, (Some(Close::Restart), 0));
        let texts = [&b"1"[..], br#"{"type":"reset"}"#].map(|text| Word::Text(Bytes::from_static(text)));
        let [first, second] = texts;
        assert_eq!(heard, [first, Word::Ping, second, Word::Close(Close::Restart.ending())]);
    }

    #[tokio::test]
    async fn who_leaves_is_noticed_and_who_does_not_listen_fills_its_queue() {
        let line = Line::one_way(10);
        let (listener, words) = mpsc::channel(1);
        let listening = listen(&line, &listener);
        let leaves = async {
            let mut taken = 0;
            while line.send(wire::text("12345")).is_ok() {
                taken += 1;
                tokio::task::yield_now().await;
            }
            assert!(taken <= 4, "{taken}");
            assert!(line.is_open() && !line.can_answer());
            drop(words);
        };
        let (end, ()) = tokio::join!(listening, leaves);
        assert!(matches!(end, Err(Left)));
    }
}
