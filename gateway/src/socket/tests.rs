//! Facts about one connection, over a stream in memory and a clock that stands still.

use super::*;
use crate::outbox::Refused;
use futures_util::FutureExt;
use tokio::{
    io::{DuplexStream, duplex},
    sync::oneshot,
    task::JoinHandle,
    time::Instant,
};

const MESSAGE_BYTES_MAX: Option<usize> = Some(1024);
const QUEUE_BYTES_MAX: usize = 4096;

/// Answers what it hears with the same, but for a few words that do something.
struct Echo {
    /// What `wait` waits for.
    later: Option<oneshot::Receiver<()>>,
}

impl Conversation for Echo {
    fn hear(&mut self, said: Said) -> Reaction {
        let Said::Text(text) = said else { return Reaction::Silence };
        match &*text {
            b"panic" => panic!("as asked"),
            b"close" => Reaction::Close(Close::Restart),
            b"wait" => {
                let later = self.later.take();
                Reaction::Later(
                    async move {
                        if let Some(later) = later {
                            let _ = later.await;
                        }
                        vec![wire::text("waited")]
                    }
                    .boxed(),
                )
            }
            _ => Reaction::Say(wire::text(text)),
        }
    }

    fn panicked(&mut self) -> String {
        "r_1".into()
    }
}

/// The client's end of a connection, and everything that belongs to it.
struct Peer {
    stream: DuplexStream,
    line: Arc<Line>,
    served: JoinHandle<(End, Duration)>,
}

fn connect(room: usize, later: Option<oneshot::Receiver<()>>) -> Peer {
    let (stream, theirs) = duplex(room);
    let line = Arc::new(Line::new(QUEUE_BYTES_MAX));
    let mut connection = Connection::new(theirs, Bytes::new(), line.clone(), MESSAGE_BYTES_MAX, Echo { later });
    let served = tokio::spawn(async move {
        let end = connection.serve().await;
        let parting = Instant::now();
        connection.farewell(&end).await;
        (end, parting.elapsed())
    });
    Peer { stream, line, served }
}

impl Peer {
    async fn say(&mut self, text: &str) {
        self.send(0x81, text.as_bytes()).await;
    }

    /// A short frame, masked with zeros.
    async fn send(&mut self, opcode: u8, payload: &[u8]) {
        let mut frame = vec![opcode, 0x80 | payload.len() as u8, 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).await.unwrap();
    }

    /// The next frame: first byte and payload.
    async fn hear(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).await.unwrap();
        let length = match head[1] {
            126 => usize::from(self.stream.read_u16().await.unwrap()),
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await.unwrap();
        (head[0], payload)
    }

    async fn hear_text(&mut self) -> String {
        String::from_utf8(self.hear().await.1).unwrap()
    }

    async fn hear_close(&mut self) -> (u16, String) {
        let (opcode, payload) = self.hear().await;
        assert_eq!(opcode, 0x88);
        (u16::from_be_bytes([payload[0], payload[1]]), String::from_utf8(payload[2..].to_vec()).unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn what_waited_before_is_written_first() {
    let mut peer = connect(4096, None);
    peer.line.send(wire::text("hi")).unwrap();
    peer.say("a").await;
    assert_eq!((peer.hear_text().await, peer.hear_text().await), ("hi".into(), "a".into()));
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_in_its_turn() {
    let mut peer = connect(4096, None);
    peer.say("a").await;
    peer.send(0x89, b"p").await;
    peer.say("b").await;
    assert_eq!(peer.hear_text().await, "a");
    assert_eq!(peer.hear().await, (0x8a, b"p".to_vec()));
    assert_eq!(peer.hear_text().await, "b");
}

#[tokio::test(start_paused = true)]
async fn a_pong_tells_the_round_trip() {
    let mut peer = connect(4096, None);
    assert_eq!(peer.line.rtt_ms(), None);
    tokio::time::advance(Duration::from_secs(5)).await;
    peer.line.ping(clock::now_ms());
    assert_eq!(peer.hear().await.0, 0x89);
    tokio::time::advance(Duration::from_millis(40)).await;
    peer.send(0x8a, b"").await;
    peer.say("x").await;
    assert_eq!(peer.hear_text().await, "x");
    assert_eq!(peer.line.rtt_ms(), Some(40));
}

#[tokio::test(start_paused = true)]
async fn work_holds_up_the_next_message_but_no_other_frame() {
    let (done, later) = oneshot::channel();
    let mut peer = connect(4096, Some(later));
    peer.say("wait").await;
    peer.say("next").await;
    peer.line.send(wire::text("from elsewhere")).unwrap();
    assert_eq!(peer.hear_text().await, "from elsewhere");
    done.send(()).unwrap();
    assert_eq!((peer.hear_text().await, peer.hear_text().await), ("waited".into(), "next".into()));
}

#[tokio::test(start_paused = true)]
async fn a_close_comes_after_all_that_waited_and_nothing_after_it() {
    let mut peer = connect(4096, None);
    peer.line.send(wire::text("last")).unwrap();
    assert!(peer.line.close(Close::Restart));
    assert_eq!(peer.line.send(wire::text("late")), Err(Refused::Closing));
    assert_eq!(peer.hear_text().await, "last");
    assert_eq!(peer.hear_close().await, (1012, "restart".into()));
    peer.send(0x88, &[]).await;
    let (end, parting) = peer.served.await.unwrap();
    assert!(matches!(end, End::Ours(Close::Restart)));
    assert!(parting < FAREWELL);
}

/// Checklist 286.
#[tokio::test(start_paused = true)]
async fn a_peer_that_never_closes_is_left_after_two_seconds() {
    let peer = connect(4096, None);
    peer.line.close(Close::Restart);
    let (_, parting) = peer.served.await.unwrap();
    assert_eq!(parting, FAREWELL);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_is_left_after_two_seconds() {
    let peer = connect(64, None);
    peer.line.send(wire::text(vec![b'x'; 2000])).unwrap();
    peer.line.close(Close::TooSlow);
    let (_, parting) = peer.served.await.unwrap();
    assert_eq!(parting, FAREWELL);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_closes_is_answered_with_its_own_code() {
    let mut peer = connect(4096, None);
    peer.say("a").await;
    peer.send(0x88, &[0x0f, 0xa0, b'b', b'y', b'e']).await;
    assert_eq!(peer.hear_text().await, "a");
    assert_eq!(peer.hear_close().await, (4000, "bye".into()));
    drop(peer.stream);
    let (end, _) = peer.served.await.unwrap();
    let ending = end.ending();
    assert_eq!((ending.cause, ending.code, &*ending.reason), (Cause::ClientClosed, Some(4000), "bye"));
}

#[tokio::test(start_paused = true)]
async fn a_line_that_breaks_has_no_close_code() {
    let peer = connect(4096, None);
    drop(peer.stream);
    let (end, _) = peer.served.await.unwrap();
    assert_eq!((end.ending().cause, end.ending().code), (Cause::ConnectionLost, None));
}

#[tokio::test(start_paused = true)]
async fn what_was_answered_is_written_before_a_protocol_error_is() {
    let mut peer = connect(4096, None);
    peer.say("a").await;
    peer.send(0x83, b"reserved").await;
    assert_eq!(peer.hear_text().await, "a");
    assert_eq!(peer.hear_close().await.0, 1002);
}

#[tokio::test(start_paused = true)]
async fn a_message_too_large_closes_with_1009() {
    let mut peer = connect(4096, None);
    peer.stream.write_all(&[0x81, 0xfe, 0x04, 0x01, 0, 0, 0, 0]).await.unwrap();
    assert_eq!(peer.hear_close().await, (1009, "message larger than 1024 bytes".into()));
}

/// Checklist 143, 167.
#[tokio::test(start_paused = true)]
async fn a_panic_ends_this_connection_with_its_request_id() {
    let mut peer = connect(4096, None);
    peer.say("panic").await;
    assert_eq!(peer.hear_close().await, (1011, "internal error, request r_1".into()));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_listen_is_not_heard_and_costs_no_more() {
    let mut peer = connect(256, None);
    let text = "x".repeat(100);
    let mut said = 0;
    while timeout(Duration::from_secs(1), peer.say(&text)).await.is_ok() {
        said += 1;
        assert!(said < 1000, "it reads on although nothing is taken from it");
    }
    assert!(peer.line.unsent() <= QUEUE_BYTES_MAX + 200, "{}", peer.line.unsent());
    assert!(peer.line.stalled_ms(clock::now_ms()) >= 1000);
}

#[tokio::test(start_paused = true)]
async fn what_came_with_the_handshake_is_the_first_thing_heard() {
    let (mut stream, theirs) = duplex(4096);
    let line = Arc::new(Line::new(4096));
    let early = Bytes::from_static(&[0x81, 0x81, 0, 0, 0, 0, b'e']);
    let mut connection = Connection::new(theirs, early, line, MESSAGE_BYTES_MAX, Echo { later: None });
    let served = tokio::spawn(async move { connection.serve().await });
    let mut frame = [0; 3];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(&frame, b"\x81\x01e");
    drop(stream);
    served.await.unwrap();
}

/// Its close may have been the fault, and then no other comes.
#[tokio::test(start_paused = true)]
async fn a_peer_that_broke_the_protocol_is_not_waited_for() {
    for bad in [&[0x88, 0x81, 0, 0, 0, 0, 3][..], &[0xff; 14]] {
        let mut peer = connect(4096, None);
        peer.stream.write_all(bad).await.unwrap();
        assert_eq!(peer.hear_close().await.0, 1002);
        assert_eq!(peer.stream.read(&mut [0]).await.unwrap(), 0, "our side is shut at once");
        peer.stream.write_all(b"more").await.unwrap();
        drop(peer.stream);
        let (_, parting) = peer.served.await.unwrap();
        assert_eq!(parting, Duration::ZERO);
    }
}
