//! The smallest exchange there is: `{"evt":"ping"}` and its pong, over a few busy sockets.

use std::time::{Duration, Instant};

use super::gather;
use crate::figure::{Budget, Figure};
use crate::load::{Fleet, Listener};
use crate::options::Options;
use crate::server::Server;
use crate::side::{self, Load, Taken};
use crate::{Result, wire};

const SOCKETS: usize = 64;
const DEPTHS: [usize; 2] = [1, 16];

const WARM_UP: Duration = Duration::from_millis(50);
const WINDOW: Duration = Duration::from_millis(200);

/// A pong that nobody asked for would have come by then.
const STRAY: Duration = Duration::from_millis(20);

pub fn measure(options: &Options) -> Result<Vec<Figure>> {
    let samples = side::compare("pingpong", SOCKETS, &DEPTHS, options.rounds(8, 20))?;
    let mut figures = Vec::new();
    for (depth, samples) in DEPTHS.iter().zip(samples) {
        let cost = format!("server CPU per ping, {depth} outstanding");
        let figure = Figure::new(&cost, "µs", samples.map(|s| s.cpu.into()));
        // The budget is for a ping and its pong. Sixteen in one read share the system calls that the floor consists
        // of, and show what understanding a frame costs beside them.
        figures.push(if *depth == 1 { figure.within(Budget::RatioAtMost(1.3)) } else { figure });
        let rate = format!("pings, {depth} outstanding");
        figures.push(Figure::new(&rate, "1/s", samples.map(|s| s.per_second.into())));
    }
    Ok(figures)
}

/// Where matches are played: a server and the sockets at it.
pub struct Table {
    server: Server,
    fleet: Fleet,
}

impl Table {
    pub fn lay(server: Server, sockets: usize) -> Result<Self> {
        let fleet = gather(&server, sockets)?;
        Ok(Self { server, fleet })
    }
}

impl Load for Table {
    fn sample(&mut self, depth: usize) -> Result<Taken> {
        let Self { server, fleet } = self;
        let mut play = Match::begin(fleet, depth)?;
        fleet.turn_until(Instant::now() + WARM_UP, &mut play)?;

        let (cpu, pongs, begin) = (server.cpu()?, play.pongs, Instant::now());
        fleet.turn_until(begin + WINDOW, &mut play)?;
        let (spent, elapsed) = (server.cpu()?.since(&cpu), begin.elapsed());
        let played = (play.pongs - pongs) as f64;

        play.finish(fleet)?;
        Ok(Taken { cpu: spent.per(played), per_second: played / elapsed.as_secs_f64() })
    }
}

/// Every pong is answered with the next ping, those of one read together.
struct Match {
    /// As many as may be outstanding, ready to be sent in one write.
    pings: Vec<u8>,
    ping_bytes: usize,
    pings_sent: usize,
    pongs: usize,
    over: bool,
}

impl Match {
    fn begin(fleet: &Fleet, depth: usize) -> Result<Self> {
        let ping = wire::masked(wire::TEXT, br#"{"evt":"ping"}"#);
        let pings = ping.repeat(depth);
        fleet.say_everywhere(&pings)?;
        let pings_sent = fleet.size() * depth;
        Ok(Self { pings, ping_bytes: ping.len(), pings_sent, pongs: 0, over: false })
    }

    /// Lets the outstanding pongs come in, and no other.
    fn finish(mut self, fleet: &mut Fleet) -> Result<()> {
        self.over = true;
        let state = |play: &Self| format!("{} pongs for {} pings", play.pongs, play.pings_sent);
        fleet.turn_while(&mut self, |play| play.pongs < play.pings_sent, state)?;
        fleet.turn_until(Instant::now() + STRAY, &mut self)?;
        if self.pongs > self.pings_sent {
            return Err(state(&self).into());
        }
        Ok(())
    }
}

impl Listener for Match {
    fn heard(&mut self, _member: usize, text: &[u8]) -> Result<()> {
        if text != br#"{"evt":"pong"}"# {
            return Err(format!("not a pong: {}", String::from_utf8_lossy(text)).into());
        }
        self.pongs += 1;
        Ok(())
    }

    fn answer(&mut self, frames: usize) -> &[u8] {
        if self.over {
            return &[];
        }
        // More pongs than can be outstanding show in the sums at the end.
        let bytes = self.pings.len().min(frames * self.ping_bytes);
        self.pings_sent += bytes / self.ping_bytes;
        &self.pings[..bytes]
    }
}
