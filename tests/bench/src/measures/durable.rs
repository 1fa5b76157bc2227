//! What a durable send to a client of another instance costs, whose client acknowledges what it hears. The *floor* is a
//! plain send to the same client, between the same instances.

use std::time::Duration;

use crate::Result;
use crate::figure::{Budget, Figure};
use crate::measures::call::crowd::Pace;
use crate::measures::call::pair::Pair;
use crate::measures::call::{Act, per_second, wait};
use crate::measures::{Samples, turns};
use crate::options::Options;
use crate::server::Kind;

const CLIENT: &str = "/ws?user_id=u&store_id=s&room_id=r&resume=";
const CALLERS: [(usize, &str); 2] = [(1, "one at a time"), (64, "64 at once")];
/// Some rounds of acknowledgements, which are told four times a second.
const TIME: Duration = Duration::from_secs(1);

pub fn measure(options: &Options) -> Result<Vec<Figure>> {
    if options.gateway.is_floor() {
        eprintln!("durable: the floor has no durable sends");
        return Ok(Vec::new());
    }
    let mut figures = Vec::new();
    for (callers, how) in CALLERS {
        figures.extend(with(options, callers, how)?);
    }
    Ok(figures)
}

fn with(options: &Options, callers: usize, how: &str) -> Result<Vec<Figure>> {
    let mut pair = Pair::start(Kind::Holdfast, options, 2, callers, CLIENT)?;
    let (mut samples, rounds) = (Samples::new(), options.rounds(3, 7));
    for round in 1..=rounds {
        eprintln!("durable, {how}, {round} of {rounds}");
        for kind in turns(round) {
            samples.push(kind, pair.sample(act(kind), Pace::Closed, TIME)?);
        }
    }
    let mut counted = Samples::new();
    for kind in turns(1) {
        counted.push(kind, pair.count(act(kind))?.commands.into());
    }
    let figure = |what: &str, unit, samples| Figure::new(&format!("durable send, {how}: {what}"), unit, samples);
    Ok(vec![
        figure("Redis CPU", "µs", samples.map(|taken| taken.redis.into())).within(Budget::RatioAtMost(2.0)),
        figure("Redis commands", "", counted),
        figure("server CPU", "µs", samples.map(|taken| taken.cpu.into())),
        figure("sends", "1/s", samples.map(|taken| per_second(taken, taken.done.heard).into())),
        figure("p50", "µs", samples.map(|taken| wait(taken, 0.5).into())),
        figure("p99", "µs", samples.map(|taken| wait(taken, 0.99).into())),
    ])
}

fn act(kind: Kind) -> Act {
    match kind {
        Kind::Holdfast => Act::Durable,
        Kind::Floor => Act::Send,
    }
}
