//! A letter from one instance to another, and its delivery there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use redis::cmd;
use registry::envelope::{Message, To};
use registry::{Envelope, Routed, Session, SocketId};
use servers::Server;
use tokio::time::{Instant, sleep};

use super::fleet::{Instance, each};
use super::meter::Meter;
use super::plain::{Plain, client};
use super::tap::Tap;
use super::{STARTED, WIDTH, protocol};
use crate::Result;
use crate::figure::{Budget, Figure};
use crate::measures::{Samples, turns};
use crate::options::Options;
use crate::server::Kind;
use crate::usage::Spent;

/// Letters of one sample.
const SAMPLE: u64 = 10_000;
const COUNTED: u64 = 1000;
/// What travels in one, head and body.
const LETTER_BYTES: usize = 300;
const ARRIVED_MAX: Duration = Duration::from_secs(5);
const CHANNEL: &str = "holdfast:{i:0123456789abcdefghijkl}:bell";

struct Taken {
    cpu: Spent,
    per_second: f64,
}

struct Post {
    server: Server,
    sender: Instance,
    receiver: Instance,
    plain: Plain,
    plainly_heard: Arc<AtomicU64>,
}

pub async fn measure(options: &Options) -> Result<Vec<Figure>> {
    let post = Post::open().await?;
    let rounds = options.rounds(3, 7);
    let (mut samples, mut next) = (Samples::new(), 0);
    post.send(Kind::Holdfast, next..next + COUNTED).await?;
    next += COUNTED;
    sleep(STARTED).await;
    for round in 1..=rounds {
        eprintln!("registry: sends, {round} of {rounds}");
        for kind in turns(round) {
            samples.push(kind, post.send(kind, next..next + SAMPLE).await?);
            next += SAMPLE;
        }
    }
    let mut counted = Samples::new();
    for kind in turns(1) {
        let tap = Tap::open(post.server(kind))?;
        post.send(kind, next..next + COUNTED).await?;
        counted.push(kind, (tap.close()?.commands as f64 / COUNTED as f64).into());
        next += COUNTED;
    }
    Ok(vec![
        Figure::new("remote send, 300 B: Redis CPU", "µs", samples.map(|taken| taken.cpu.into())).within(protocol(8.0)),
        Figure::new("remote send, 300 B: commands", "", counted).within(Budget::AtMost(1.05)),
        Figure::new("remote send, 64 at once: messages/s", "", samples.map(|taken| taken.per_second.into())),
    ])
}

impl Post {
    async fn open() -> Result<Self> {
        let server = Server::start();
        let [sender, receiver] = [
            Instance::start(&server.url(), "sender:5000").await?,
            Instance::start(&server.url(), "receiver:5000").await?,
        ];
        let plain = Plain::start().await?;
        let mut subscription = client(&plain.server)?.get_async_pubsub().await?;
        subscription.subscribe(CHANNEL).await?;
        let plainly_heard = Arc::<AtomicU64>::default();
        let counter = plainly_heard.clone();
        tokio::spawn(async move {
            let mut heard = subscription.into_on_message();
            while heard.next().await.is_some() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self { server, sender, receiver, plain, plainly_heard })
    }

    fn server(&self, kind: Kind) -> &Server {
        match kind {
            Kind::Holdfast => &self.server,
            Kind::Floor => &self.plain.server,
        }
    }

    fn heard(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Holdfast => self.receiver.letters(),
            Kind::Floor => self.plainly_heard.load(Ordering::Relaxed),
        }
    }

    /// Sends letters with these ids, and waits until all are there.
    async fn send(&self, kind: Kind, ids: std::ops::Range<u64>) -> Result<Taken> {
        let letters: Vec<Envelope> = ids.map(|id| self.letter(id)).collect();
        let count = letters.len() as u64;
        let expected = self.heard(kind) + count;
        let to = self.receiver.registry.incarnation();
        let meter = Meter::start(self.server(kind))?;
        match kind {
            Kind::Holdfast => {
                each(&letters, WIDTH, async |letter| match self.sender.registry.route(&to, letter).await {
                    Routed::Taken => Ok(()),
                    other => Err(format!("a letter to an instance that lives: {other:?}")),
                })
                .await?;
            }
            Kind::Floor => {
                each(&letters, WIDTH, async |letter| {
                    self.plain.line.ask(cmd("PUBLISH").arg(CHANNEL).arg(letter.encode())).await.map(drop)
                })
                .await?;
            }
        }
        let deadline = Instant::now() + ARRIVED_MAX;
        while self.heard(kind) < expected {
            if Instant::now() > deadline {
                return Err(format!("{} of {count} letters did not arrive", expected - self.heard(kind)).into());
            }
            sleep(Duration::from_millis(1)).await;
        }
        let elapsed = meter.elapsed();
        Ok(Taken { cpu: meter.spent()?.per(count as f64), per_second: count as f64 / elapsed.as_secs_f64() })
    }

    fn letter(&self, id: u64) -> Envelope {
        let to = To::Socket { id: SocketId::fresh(), session: Session::fresh() };
        let registry = &self.sender.registry;
        let message = Message::Send { to, except: None, ack: true };
        let of = |body| Envelope::new(id, registry.incarnation(), registry.now_ms() + 2000, message.clone(), body);
        let head = of(Bytes::new()).encode().len();
        of(Bytes::from(vec![b'x'; LETTER_BYTES.saturating_sub(head)]))
    }
}
