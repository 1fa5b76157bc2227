//! What sockets cost that say nothing but the pongs they owe.

use std::time::{Duration, Instant};

use super::{Samples, gather, settle};
use crate::Result;
use crate::figure::{Budget, Figure};
use crate::load::Nobody;
use crate::options::Options;
use crate::server::{Kind, Server};

/// The floor has no timers; nothing changes by watching it for longer.
const FLOOR_WINDOW: Duration = Duration::from_secs(5);

struct Sample {
    micros: f64,
    pings: f64,
}

/// The window is one interval of pings, so each socket is pinged once in it. The short interval of
/// a quick run makes the figure larger than with the default, never smaller.
pub fn measure(options: &Options) -> Result<Vec<Figure>> {
    let (interval, window) = if options.quick { ("10s", 10) } else { ("30s", 30) };
    let samples = Samples::take("idle", 1, |kind| sample(options, kind, interval, Duration::from_secs(window)))?;
    Ok(vec![
        Figure::new("server CPU per socket and second", "µs", samples.map(|s| s.micros.into()))
            .within(Budget::AtMost(1.0)),
        Figure::new("pings per socket meanwhile", "", samples.map(|s| s.pings.into())),
    ])
}

fn sample(options: &Options, kind: Kind, interval: &str, window: Duration) -> Result<Sample> {
    let server = Server::start(kind, &options.gateway, &[("WS_PING_INTERVAL", interval)])?;
    let mut fleet = gather(&server, options.sockets)?;
    settle(&mut fleet)?;
    let window = if kind == Kind::Floor { FLOOR_WINDOW } else { window };
    let (cpu, pings) = (server.cpu()?, fleet.pings());
    fleet.turn_until(Instant::now() + window, &mut Nobody)?;
    let spent = server.cpu()?.since(&cpu);
    let sockets = fleet.size() as f64;
    Ok(Sample {
        micros: spent.micros / sockets / window.as_secs_f64(),
        pings: (fleet.pings() - pings) as f64 / sockets,
    })
}
