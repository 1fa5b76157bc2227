//! What the registry costs, measured at real Redis servers by registries in this process: no gateway
//! takes part. The *floor* of an operation is what it has to write or read, as plain commands without
//! any rule; both sides keep as many operations in flight.
//!
//! Where a budget is one of the protocol's figures, it is one and a half times that.

mod beats;
mod bytes;
mod costs;
mod crowd;
pub mod distance;
mod durables;
mod fleet;
mod idle;
mod masses;
mod meter;
mod plain;
mod sends;
pub mod tap;
mod trips;

use std::time::Duration;

use crate::Result;
use crate::figure::{Budget, Figure, Sample};
use crate::measures::Samples;
use crate::options::Options;

pub const NAME: &str = "registry";

/// After its start an instance says once of every partition that it is whole; by then it has.
const STARTED: Duration = Duration::from_secs(4);

/// Operations in flight wherever a single one is measured.
const WIDTH: usize = 64;

pub fn measure(options: &Options) -> Result<Vec<Figure>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut figures = costs::measure(options).await?;
        figures.extend(crowd::measure(options).await?);
        figures.extend(sends::measure(options).await?);
        figures.extend(durables::measure(options).await?);
        figures.extend(beats::measure(options).await?);
        figures.extend(trips::measure(options).await?);
        figures.extend(bytes::measure(options).await?);
        figures.extend(masses::measure(options).await?);
        figures.extend(idle::measure(options).await?);
        Ok(figures)
    })
}

/// A figure of the protocol, with the room that it is given.
fn protocol(micros: f64) -> Budget {
    Budget::AtMost(1.5 * micros)
}

/// A figure that has no floor.
fn alone(name: &str, unit: &'static str, samples: impl IntoIterator<Item = f64>) -> Figure {
    let holdfast = samples.into_iter().map(Sample::from).collect();
    Figure::new(name, unit, Samples { holdfast, floor: Vec::new() })
}
