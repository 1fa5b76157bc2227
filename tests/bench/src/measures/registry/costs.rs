//! Redis' processor time and commands for connecting, finding and disconnecting a socket.

use std::sync::Arc;

use registry::{Holder, Lookup, SocketRecord};
use servers::Server;
use tokio::time::sleep;

use super::fleet::{Instance, Outcome, Whose, each};
use super::meter::Meter;
use super::plain::Plain;
use super::tap::Tap;
use super::{STARTED, WIDTH, protocol};
use crate::Result;
use crate::figure::{Budget, Figure};
use crate::measures::{Samples, turns};
use crate::options::Options;
use crate::server::Kind;
use crate::usage::Spent;

/// Sockets of one sample.
const SAMPLE: usize = 4000;
/// Sockets whose commands are counted.
const COUNTED: usize = 1000;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Connect,
    Find,
    LookUp,
    Disconnect,
}

/// What a socket is in. All of it is new to Redis, and nobody else's.
#[derive(Clone, Copy, PartialEq, Eq)]
enum In {
    Nothing,
    StoreAndRoom,
    UserStoreAndRoom,
}

impl In {
    fn whose(self, index: usize) -> Whose {
        let name = |wanted: bool, what: &str| wanted.then(|| format!("{what}-{}-{index}", fresh()));
        Whose {
            user: name(self == Self::UserStoreAndRoom, "user"),
            store: name(self != Self::Nothing, "store"),
            room: name(self != Self::Nothing, "room"),
        }
    }
}

/// Another number each time.
fn fresh() -> usize {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

struct Step {
    name: &'static str,
    act: Act,
    of: In,
    micros: Option<f64>,
    commands: Option<f64>,
}

/// In the order in which they are done: sockets that are there can be found, and then they go.
#[rustfmt::skip]
const STEPS: [Step; 8] = [
    Step { name: "register alone", act: Act::Connect, of: In::Nothing, micros: Some(14.0), commands: Some(1.0) },
    Step { name: "whereabouts", act: Act::Find, of: In::Nothing, micros: Some(1.0), commands: Some(1.0) },
    Step { name: "lookup, owner asked for", act: Act::LookUp, of: In::Nothing, micros: None, commands: Some(2.0) },
    Step { name: "unregister alone", act: Act::Disconnect, of: In::Nothing, micros: Some(8.0), commands: Some(1.0) },
    Step { name: "connect, store, room", act: Act::Connect, of: In::StoreAndRoom, micros: None, commands: None },
    Step { name: "disconnect, store, room", act: Act::Disconnect, of: In::StoreAndRoom, micros: None, commands: None },
    Step { name: "connect, capped user, store, room", act: Act::Connect, of: In::UserStoreAndRoom, micros: None, commands: None },
    Step { name: "disconnect, capped user, store, room", act: Act::Disconnect, of: In::UserStoreAndRoom, micros: None, commands: None },
];

/// The two sides: who holds sockets and who asks for them, and the floor.
struct Pair {
    server: Server,
    holder: Instance,
    asker: Instance,
    plain: Plain,
}

pub async fn measure(options: &Options) -> Result<Vec<Figure>> {
    let server = Server::start();
    let [holder, asker] =
        [Instance::start(&server.url(), "holder:5000").await?, Instance::start(&server.url(), "asker:5000").await?];
    let pair = Pair { holder, asker, plain: Plain::start().await?, server };
    // The scripts become known to Redis, and its tables get their first size.
    pair.round(Kind::Holdfast, COUNTED).await?;
    sleep(STARTED).await;
    let rounds = options.rounds(3, 7);
    let mut samples: Vec<Samples<Spent>> = STEPS.iter().map(|_| Samples::new()).collect();
    for round in 1..=rounds {
        eprintln!("registry: costs, {round} of {rounds}");
        for kind in turns(round) {
            for (samples, spent) in samples.iter_mut().zip(pair.round(kind, SAMPLE).await?) {
                samples.push(kind, spent);
            }
        }
    }
    let mut figures = Vec::new();
    let counted = [pair.count(Kind::Holdfast).await?, pair.count(Kind::Floor).await?];
    for (index, (step, samples)) in STEPS.iter().zip(samples).enumerate() {
        let cpu = Figure::new(&format!("{}: Redis CPU", step.name), "µs", samples.map(|spent| (*spent).into()));
        figures.push(match step.micros {
            Some(micros) => cpu.within(protocol(micros)),
            None => cpu,
        });
        let [holdfast, floor] = [0, 1].map(|side: usize| vec![counted[side][index].into()]);
        let commands = Figure::new(&format!("{}: commands", step.name), "", Samples { holdfast, floor });
        figures.push(match step.commands {
            // A beat may come in between.
            Some(commands_max) => commands.within(Budget::AtMost(commands_max + 0.05)),
            None => commands,
        });
    }
    Ok(figures)
}

impl Pair {
    fn server(&self, kind: Kind) -> &Server {
        match kind {
            Kind::Holdfast => &self.server,
            Kind::Floor => &self.plain.server,
        }
    }

    /// What each step spends, for each socket.
    async fn round(&self, kind: Kind, sockets: usize) -> Result<Vec<Spent>> {
        let mut spent = Vec::new();
        let mut records = Vec::new();
        for step in &STEPS {
            if step.act == Act::Connect {
                records = self.holder.sockets(sockets, |index| step.of.whose(index))?;
            }
            let meter = Meter::start(self.server(kind))?;
            self.walk(kind, step.act, &records).await?;
            spent.push(meter.spent()?.per(sockets as f64));
        }
        Ok(spent)
    }

    /// How many commands each step takes, for each socket.
    async fn count(&self, kind: Kind) -> Result<Vec<f64>> {
        let mut counted = Vec::new();
        let mut records = Vec::new();
        for step in &STEPS {
            if step.act == Act::Connect {
                records = self.holder.sockets(COUNTED, |index| step.of.whose(index))?;
            }
            let tap = Tap::open(self.server(kind))?;
            self.walk(kind, step.act, &records).await?;
            counted.push(tap.close()?.commands as f64 / COUNTED as f64);
        }
        Ok(counted)
    }

    async fn walk(&self, kind: Kind, act: Act, records: &[Arc<SocketRecord>]) -> Outcome {
        match kind {
            Kind::Holdfast => each(records, WIDTH, |record| self.act(act, record)).await,
            Kind::Floor => each(records, WIDTH, |record| self.plain.act(act, record)).await,
        }
    }

    async fn act(&self, act: Act, record: &Arc<SocketRecord>) -> Outcome {
        let found = match act {
            Act::Connect => return self.holder.connect(record).await,
            Act::Disconnect => return self.holder.disconnect(record).await,
            Act::Find => self.asker.registry.whereabouts(&record.id.to_string()).await,
            Act::LookUp => self.asker.registry.lookup(&record.id.to_string()).await.map(|record| Holder::of(&record)),
        };
        match found {
            Lookup::Live(found) if found.session == record.session => Ok(()),
            other => Err(format!("a live socket: {other:?}")),
        }
    }
}
