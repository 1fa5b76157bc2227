//! What is measured, and how the two servers take turns; [`registry`] alone measures no gateway.

use std::time::{Duration, Instant};

use crate::Result;
use crate::figure::Figure;
use crate::load::{Fleet, Nobody};
use crate::options::Options;
use crate::report::Report;
use crate::server::{Kind, Server};

mod call;
pub mod cycles;
mod durable;
pub mod fanout;
mod handshakes;
mod idle;
mod memory;
pub mod pingpong;
pub mod registry;
mod resume;

/// After the last handshake: what a server still does then belongs to the handshakes.
const SETTLE: Duration = Duration::from_secs(3);

type Measure = fn(&Options) -> Result<Vec<Figure>>;

const MEASURES: [(&str, Measure); 10] = [
    ("memory", memory::measure),
    ("handshakes", handshakes::measure),
    ("pingpong", pingpong::measure),
    ("fanout", fanout::measure),
    ("idle", idle::measure),
    ("call", call::measure),
    ("durable", durable::measure),
    ("resume", resume::measure),
    (cycles::NAME, cycles::measure),
    (registry::NAME, registry::measure),
];

pub fn run(options: &Options) -> Result<Report> {
    let mut report = Report::begin(options);
    for (name, measure) in MEASURES {
        if options.wants(name) {
            let figures = measure(options).map_err(|error| format!("{name}: {error}"))?;
            report.add(name, figures);
        }
    }
    Ok(report.end())
}

/// The samples of one figure; those with the same index are neighbours in time.
pub struct Samples<T> {
    pub holdfast: Vec<T>,
    pub floor: Vec<T>,
}

impl<T> Samples<T> {
    pub fn new() -> Self {
        Self { holdfast: Vec::new(), floor: Vec::new() }
    }

    /// Each sample with servers of its own, taken in turn.
    fn take(what: &str, rounds: usize, sample: impl Fn(Kind) -> Result<T>) -> Result<Self> {
        let mut samples = Self::new();
        for round in 1..=rounds {
            eprintln!("{what}, {round} of {rounds}");
            for kind in turns(round) {
                samples.push(kind, sample(kind).map_err(|error| format!("{kind}: {error}"))?);
            }
        }
        Ok(samples)
    }

    pub fn push(&mut self, kind: Kind, sample: T) {
        match kind {
            Kind::Floor => self.floor.push(sample),
            Kind::Holdfast => self.holdfast.push(sample),
        }
    }

    fn map<U>(&self, part: impl Fn(&T) -> U) -> Samples<U> {
        Samples { holdfast: self.holdfast.iter().map(&part).collect(), floor: self.floor.iter().map(&part).collect() }
    }
}

/// Whoever is second finds the machine as the first left it, so they change places.
pub fn turns(round: usize) -> [Kind; 2] {
    if round.is_multiple_of(2) { [Kind::Holdfast, Kind::Floor] } else { [Kind::Floor, Kind::Holdfast] }
}

/// A fleet as it would be in the field: everybody somebody else, in a store and a room.
fn gather(server: &Server, size: usize) -> Result<Fleet> {
    let mut fleet = Fleet::new(server)?;
    fleet.gather(size, somebody)?;
    Ok(fleet)
}

fn somebody(index: usize) -> String {
    format!("/ws?user_id=u{index}&store_id=s{}&room_id=r{}", index % 500, index % 100)
}

fn settle(fleet: &mut Fleet) -> Result<()> {
    fleet.turn_until(Instant::now() + SETTLE, &mut Nobody)
}
