//! A durable send beside a plain one: both go to a socket of another instance, and an answer comes back.

use std::time::Duration;

use bytes::Bytes;
use registry::envelope::{Message, To};
use registry::log::LIMITS;
use registry::{Acked, Appended, Delivery, Durability, Envelope, Hashed, Lookup, Routed, Session, SocketId};
use servers::Server;
use tokio::time::sleep;

use super::fleet::{Instance, Outcome, Whose, each};
use super::meter::Meter;
use super::{STARTED, WIDTH, alone, protocol};
use crate::Result;
use crate::figure::{Budget, Figure};
use crate::measures::{Samples, turns};
use crate::options::Options;
use crate::server::Kind;
use crate::usage::Spent;

/// Sends of one sample, and sockets that share them.
const SAMPLE: usize = 8000;
const SOCKETS: usize = 200;
const TEXT: &str = "a message of 128 bytes: ---------------------------------------------------------------------------------------------------------";
const TTL: Duration = Duration::from_secs(600);

struct Pair {
    server: Server,
    sender: Instance,
    receiver: Instance,
    ids: Vec<SocketId>,
}

pub async fn measure(options: &Options) -> Result<Vec<Figure>> {
    let pair = Pair::open().await?;
    sleep(STARTED).await;
    let rounds = options.rounds(3, 7);
    let (mut sends, mut appends, mut acks) = (Samples::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        eprintln!("registry: durable sends, {round} of {rounds}");
        for kind in turns(round) {
            sends.push(kind, pair.spent(pair.send(kind, 1)).await?.into());
            pair.acknowledge(&pair.logged().await?).await?;
        }
        appends.push(pair.spent(pair.append()).await?.micros);
        let logged = pair.logged().await?;
        acks.push(pair.spent(pair.acknowledge(&logged)).await?.micros);
    }
    Ok(vec![
        // Its floor is the plain one.
        Figure::new("durable send, 128 B, beside a plain one: Redis CPU", "µs", sends).within(Budget::RatioAtMost(2.0)),
        alone("append, 128 B: Redis CPU", "µs", appends).within(protocol(12.0)),
        alone("ack: Redis CPU", "µs", acks).within(protocol(4.0)),
    ])
}

impl Pair {
    async fn open() -> Result<Self> {
        let server = Server::start();
        let [sender, receiver] = [
            Instance::start(&server.url(), "sender:5000").await?,
            Instance::start(&server.url(), "receiver:5000").await?,
        ];
        let nobody = |_| Whose { user: None, store: None, room: None };
        let records = receiver.sockets(SOCKETS, nobody)?;
        each(&records, WIDTH, |record| receiver.connect(record)).await?;
        // What a socket says that may be resumed.
        for row in server.keys().iter().filter(|key| key.contains("}:socket:")) {
            server.ask(&["HSET", row, "window", "30"]);
        }
        Ok(Self { server, sender, receiver, ids: records.iter().map(|record| record.id).collect() })
    }

    async fn spent(&self, does: impl Future<Output = Outcome>) -> Result<Spent> {
        let meter = Meter::start(&self.server)?;
        does.await?;
        Ok(meter.spent()?.per(SAMPLE as f64))
    }

    fn turns(&self) -> Vec<SocketId> {
        self.ids.iter().copied().cycle().take(SAMPLE).collect()
    }

    async fn send(&self, kind: Kind, width: usize) -> Outcome {
        each(&self.turns(), width, async |id| {
            match kind {
                Kind::Holdfast => self.log(*id).await?,
                Kind::Floor => match self.sender.registry.whereabouts(&id.to_string()).await {
                    Lookup::Live(_) => {}
                    other => return Err(format!("a live socket: {other:?}")),
                },
            }
            for (from, to) in [(&self.sender, &self.receiver), (&self.receiver, &self.sender)] {
                let message =
                    Message::Send { to: To::Socket { id: *id, session: Session::fresh() }, except: None, ack: true };
                let (registry, body) = (&from.registry, Bytes::from_static(TEXT.as_bytes()));
                let letter = Envelope::new(1, registry.incarnation(), registry.now_ms() + 2000, message, body);
                match registry.route(&to.registry.incarnation(), &letter).await {
                    Routed::Taken => {}
                    other => return Err(format!("a letter to an instance that lives: {other:?}")),
                }
            }
            Ok(())
        })
        .await
    }

    async fn append(&self) -> Outcome {
        each(&self.turns(), WIDTH, async |id| self.log(*id).await).await
    }

    async fn log(&self, id: SocketId) -> Outcome {
        let key = Hashed::of(&[SocketId::fresh().short().as_bytes()]);
        let delivery = Delivery { key, text: Bytes::from_static(TEXT.as_bytes()), ttl: TTL, wants: Durability::Memory };
        match self.sender.registry.append(id, &delivery).await {
            Appended::Logged { .. } => Ok(()),
            other => Err(format!("a socket that may be resumed: {other:?}")),
        }
    }

    /// Everything that is logged, the first of each socket first.
    async fn logged(&self) -> Result<Vec<(SocketId, u64)>> {
        let mut logged = Vec::new();
        for id in &self.ids {
            let page = self.receiver.registry.read_log(*id, 0, LIMITS).await.map_err(|unknown| unknown.to_string())?;
            logged.extend(page.entries.iter().map(|entry| (*id, entry.seq)));
        }
        logged.sort_unstable_by_key(|(_, seq)| *seq);
        Ok(logged)
    }

    /// One by one.
    async fn acknowledge(&self, logged: &[(SocketId, u64)]) -> Outcome {
        each(logged, WIDTH, async |(id, seq)| match self.receiver.registry.ack(*id, *seq).await {
            Ok(Acked::Done) => Ok(()),
            other => Err(format!("an entry that was logged: {other:?}")),
        })
        .await
    }
}
