//! What a call to a client of another instance costs: callers at one of two instances, the client at the
//! other, Redis between them. The *floor* is two relays on a Redis of their own, under the same load.

mod asker;
pub mod crowd;
pub mod pair;

use std::time::Duration;

use crate::Result;
use crate::figure::{Budget, Figure, quantile};
use crate::measures::{Samples, turns};
use crate::options::Options;
use crate::server::Kind;
use crowd::Pace;
use pair::{Counted, Pair, Taken};

const CLIENT: &str = "/ws?user_id=u&store_id=s&room_id=r";
/// Callers at once, where each asks as soon as it is answered.
const CALLERS: usize = 64;
/// Enough that an open load finds one who is free even while a server stands still for a moment.
const CALLERS_OPEN: usize = 512;
const OPEN_PER_SECOND: f64 = 1000.0;

const CLOSED: Duration = Duration::from_millis(500);
const OPEN: Duration = Duration::from_millis(1500);

/// Beats and looks at owners may come in between, of ten instances more than of two.
const BACKGROUND: f64 = 0.1;
const MANY: usize = 10;

/// What an HTTP caller wants of a client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Act {
    Call,
    Send,
    Durable,
}

pub fn measure(options: &Options) -> Result<Vec<Figure>> {
    let start = |kind: Kind, callers| {
        Pair::start(kind, options, 2, callers, CLIENT).map_err(|error| format!("{kind}: {error}"))
    };
    let mut floor = [start(Kind::Floor, CALLERS)?, start(Kind::Floor, CALLERS_OPEN)?];
    let mut holdfast = [start(Kind::Holdfast, CALLERS)?, start(Kind::Holdfast, CALLERS_OPEN)?];
    let (mut calls, mut sends, mut open) = (Samples::new(), Samples::new(), Samples::new());
    let rounds = options.rounds(3, 6);
    for round in 1..=rounds {
        eprintln!("call, {round} of {rounds}");
        for kind in turns(round) {
            let [closed, wide] = if kind == Kind::Floor { &mut floor } else { &mut holdfast };
            let fault = |error| format!("{kind}: {error}");
            calls.push(kind, closed.sample(Act::Call, Pace::Closed, CLOSED).map_err(fault)?);
            sends.push(kind, closed.sample(Act::Send, Pace::Closed, CLOSED).map_err(fault)?);
            open.push(kind, wide.sample(Act::Call, Pace::Open(OPEN_PER_SECOND), OPEN).map_err(fault)?);
        }
    }
    let mut figures = of_calls(&calls);
    figures.extend(of_sends(&sends));
    figures.push(Figure::new("calls, 1 000/s: p50 since due", "µs", open.map(|taken| wait(taken, 0.5).into())));
    figures.push(Figure::new("calls, 1 000/s: p99 since due", "µs", open.map(|taken| wait(taken, 0.99).into())));
    let plain = floor[0].count(Act::Call)?;
    figures.extend(of_counts("2 instances", &holdfast[0].count(Act::Call)?, Some(&plain)));
    drop((floor, holdfast));
    let many = Pair::start(Kind::Holdfast, options, MANY, CALLERS, CLIENT)?.count(Act::Call)?;
    figures.extend(of_counts("10 instances", &many, None));
    Ok(figures)
}

fn of_calls(calls: &Samples<Taken>) -> Vec<Figure> {
    vec![
        Figure::new("call, 64 at once: server CPU", "µs", calls.map(|taken| taken.cpu.into()))
            .within(Budget::AtMost(30.0)),
        Figure::new("call, 64 at once: Redis CPU", "µs", calls.map(|taken| taken.redis.into()))
            .within(Budget::AtMost(20.0)),
        Figure::new("call, 64 at once: the load's own CPU", "µs", calls.map(|taken| taken.own.into())),
        Figure::new(
            "calls, 64 at once",
            "1/s",
            calls.map(|taken| per_second(taken, taken.done.answered as u64).into()),
        )
        .within(Budget::AtLeast(20_000.0)),
        Figure::new("call, 64 at once: p50", "µs", calls.map(|taken| wait(taken, 0.5).into()))
            .within(Budget::RatioAtMost(2.5)),
        Figure::new("call, 64 at once: p99", "µs", calls.map(|taken| wait(taken, 0.99).into()))
            .within(Budget::RatioAtMost(3.0)),
    ]
}

fn of_sends(sends: &Samples<Taken>) -> Vec<Figure> {
    vec![
        Figure::new("send, 64 at once: server CPU", "µs", sends.map(|taken| taken.cpu.into())),
        Figure::new("send, 64 at once: Redis CPU", "µs", sends.map(|taken| taken.redis.into())),
        Figure::new("sends, 64 at once", "1/s", sends.map(|taken| per_second(taken, taken.done.heard).into()))
            .within(Budget::AtLeast(35_000.0)),
    ]
}

fn of_counts(of: &str, counted: &Counted, floor: Option<&Counted>) -> Vec<Figure> {
    let figure = |what: &str, value: fn(&Counted) -> f64, most: f64| {
        let samples = Samples {
            holdfast: vec![value(counted).into()],
            floor: floor.map(|floor| value(floor).into()).into_iter().collect(),
        };
        Figure::new(&format!("call, {of}: {what}"), "", samples).within(Budget::AtMost(most))
    };
    vec![
        figure("Redis commands", |counted| counted.commands, 3.0 + BACKGROUND),
        figure("deliveries", |counted| counted.deliveries, 2.0 + BACKGROUND),
    ]
}

pub fn per_second(taken: &Taken, count: u64) -> f64 {
    count as f64 / taken.done.elapsed.as_secs_f64()
}

pub fn wait(taken: &Taken, share: f64) -> f64 {
    quantile(&taken.done.waits, share).unwrap_or(f64::NAN)
}
