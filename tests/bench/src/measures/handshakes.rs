//! What it takes to let a socket in: until it has its 101 and, from the gateway, its greeting.

use std::time::Instant;

use super::{Samples, gather};
use crate::Result;
use crate::figure::{Budget, Figure};
use crate::options::Options;
use crate::server::{Kind, Server};
use crate::side::Taken;

/// The budgets are those of the design (60 and 12 µs, 15 000 and 53 000 a second) as ratios.
pub fn measure(options: &Options) -> Result<Vec<Figure>> {
    let rounds = options.rounds(4, 9);
    let samples = Samples::take("handshakes", rounds, |kind| sample(options, kind))?;
    Ok(vec![
        Figure::new("server CPU per handshake", "µs", samples.map(|s| s.cpu.into())).within(Budget::RatioAtMost(5.0)),
        Figure::new("handshakes", "1/s", samples.map(|s| s.per_second.into())).within(Budget::RatioAtLeast(0.28)),
    ])
}

fn sample(options: &Options, kind: Kind) -> Result<Taken> {
    let server = Server::start(kind, &options.gateway, &[])?;
    let cpu = server.cpu()?;
    let begin = Instant::now();
    let fleet = gather(&server, options.sockets)?;
    let elapsed = begin.elapsed();
    let spent = server.cpu()?.since(&cpu);
    Ok(Taken { cpu: spent.per(fleet.size() as f64), per_second: fleet.size() as f64 / elapsed.as_secs_f64() })
}
