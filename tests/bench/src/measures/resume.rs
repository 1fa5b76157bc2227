//! What it takes to come back to another instance, until the greeting is there. The *floor* is a handshake of somebody
//! new who may come back later, at the same instance.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use servers::Server as Redis;
use tokio::runtime::{Builder, Runtime};

use crate::Result;
use crate::figure::{Budget, Figure, quantile};
use crate::measures::registry::distance::Distance;
use crate::measures::registry::tap::Tap;
use crate::measures::{Samples, turns};
use crate::options::Options;
use crate::server::{Kind, Server};
use crate::usage::Cpu;
use crate::visitor::Visitor;

/// Clients of one sample.
const SAMPLE: usize = 300;
/// How far Redis is where waits for it are counted, by the time that passes.
const DELAY: Duration = Duration::from_millis(20);
const TRIES: usize = 5;
/// After its start an instance says once of every partition that it is whole; by then it has.
const STARTED: Duration = Duration::from_secs(4);
const AWAY_MAX: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(5);

struct Fleet<'a> {
    options: &'a Options,
    redis: Redis,
    left: Server,
    clients: usize,
}

/// Whether the sockets are of a user, store and room.
#[derive(Clone, Copy)]
enum Whose {
    Nobodys,
    Somebodys,
}

/// One look at so many clients who come one after the other; the costs are those of each.
struct Taken {
    wait: f64,
    redis: f64,
    server: f64,
}

pub fn measure(options: &Options) -> Result<Vec<Figure>> {
    if options.gateway.is_floor() {
        eprintln!("resume: the floor has no sockets that come back");
        return Ok(Vec::new());
    }
    let redis = Redis::start();
    let left = start(options, &redis.url(), "left", "0")?;
    let mut fleet = Fleet { options, redis, left, clients: 0 };
    let mut figures = fleet.costs()?;
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    for whose in [Whose::Nobodys, Whose::Somebodys] {
        figures.push(fleet.waits(&runtime, whose)?);
    }
    Ok(figures)
}

fn start(options: &Options, redis: &str, name: &str, cap: &str) -> Result<Server> {
    let more = [("REDIS_URL", redis), ("INSTANCE", name), ("MAX_SOCKETS_PER_USER", cap)];
    Server::start(Kind::Holdfast, &options.gateway, &more)
}

impl Fleet<'_> {
    fn costs(&mut self) -> Result<Vec<Figure>> {
        let other = start(self.options, &self.redis.url(), "other", "0")?;
        sleep(STARTED);
        let (mut samples, rounds) = (Samples::new(), self.options.rounds(3, 7));
        for round in 1..=rounds {
            eprintln!("resume, {round} of {rounds}");
            for kind in turns(round) {
                samples.push(kind, self.sample(kind, &other)?);
            }
        }
        let mut counted = Samples::new();
        for kind in turns(1) {
            let targets = self.targets(kind, Whose::Somebodys, SAMPLE)?;
            let tap = Tap::open(&self.redis)?;
            let came = self.come(kind, other.address, &targets);
            let commands = tap.close()?.commands;
            leave(came?)?;
            counted.push(kind, (commands as f64 / SAMPLE as f64).into());
        }
        Ok(vec![
            Figure::new("resume elsewhere: until hi, p50", "µs", samples.map(|taken| taken.wait.into())),
            Figure::new("resume elsewhere: server CPU", "µs", samples.map(|taken| taken.server.into())),
            Figure::new("resume elsewhere: Redis CPU", "µs", samples.map(|taken| taken.redis.into())),
            Figure::new("resume elsewhere: Redis commands, those after it too", "", counted),
        ])
    }

    fn sample(&mut self, kind: Kind, other: &Server) -> Result<Taken> {
        let targets = self.targets(kind, Whose::Somebodys, SAMPLE)?;
        let (redis, server) = (Cpu::of(self.redis.pid())?, other.cpu()?);
        let came = self.come(kind, other.address, &targets)?;
        let each = |now: Cpu, before: &Cpu| now.since(before).per(SAMPLE as f64).micros;
        let (redis, server) = (each(Cpu::of(self.redis.pid())?, &redis), each(other.cpu()?, &server));
        let mut waits: Vec<f64> = came.iter().map(|(wait, _)| *wait).collect();
        waits.sort_by(f64::total_cmp);
        leave(came)?;
        Ok(Taken { wait: quantile(&waits, 0.5).unwrap_or(f64::NAN), redis, server })
    }

    /// How often one has to wait for Redis: what it holds is far from the instance that is come to.
    fn waits(&mut self, runtime: &Runtime, whose: Whose) -> Result<Figure> {
        // The log is read beside the first. Who is counted under a cap, and which groups hear of it, is known when
        // that is answered.
        let (name, cap, how, most) = match whose {
            Whose::Nobodys => ("far", "0", "of no group", 1.0),
            Whose::Somebodys => ("farther", "5", "under a cap", 2.0),
        };
        eprintln!("resume: waits for Redis, {how}");
        let distance = runtime.block_on(Distance::to(self.redis.port(), DELAY))?;
        let far = start(self.options, &distance.url(), name, cap)?;
        sleep(STARTED);
        let mut samples = Samples::new();
        for kind in turns(1) {
            let targets = self.targets(kind, whose, TRIES)?;
            let came = self.come(kind, far.address, &targets)?;
            let trips = came.iter().map(|(micros, _)| (micros / 1e6 / DELAY.as_secs_f64()).round());
            trips.for_each(|trips| samples.push(kind, trips.into()));
            leave(came)?;
        }
        Ok(Figure::new(&format!("resume elsewhere, {how}: waits for Redis"), "", samples).within(Budget::AtMost(most)))
    }

    /// What clients ask for: those that have been elsewhere, and are away now, or new ones.
    fn targets(&mut self, kind: Kind, whose: Whose, count: usize) -> Result<Vec<String>> {
        let mut targets = Vec::new();
        for _ in 0..count {
            self.clients += 1;
            let n = self.clients;
            targets.push(match whose {
                Whose::Nobodys => "/ws?resume=".to_owned(),
                Whose::Somebodys => format!("/ws?user_id=u{n}&store_id=s{n}&room_id=r{n}&resume="),
            });
        }
        if kind == Kind::Floor {
            return Ok(targets);
        }
        let mut sockets = Vec::new();
        for target in &mut targets {
            let visitor = Visitor::come(self.left.address, target)?;
            target.push_str(visitor.hi["session"].as_str().ok_or("it was given no token")?);
            target.push_str("&last_seq=0");
            sockets.push(visitor);
        }
        drop(sockets);
        let deadline = Instant::now() + AWAY_MAX;
        while self.is_live_there()? {
            if Instant::now() > deadline {
                return Err("clients have broken off and are not away".into());
            }
            sleep(LOOK_EVERY);
        }
        Ok(targets)
    }

    fn is_live_there(&self) -> Result<bool> {
        for row in self.redis.keys().iter().filter(|key| key.contains("}:socket:")) {
            let fields: Vec<Option<String>> =
                redis::from_redis_value(self.redis.ask(&["HMGET", row.as_str(), "state"]))?;
            if fields.iter().flatten().any(|state| state == "live") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// One after the other; how long each waited.
    fn come(&self, kind: Kind, address: SocketAddr, targets: &[String]) -> Result<Vec<(f64, Visitor)>> {
        let mut came = Vec::new();
        for target in targets {
            let began = Instant::now();
            let visitor = Visitor::come(address, target)?;
            let wait = began.elapsed().as_secs_f64() * 1e6;
            if visitor.hi["resumed"].as_bool() != Some(kind == Kind::Holdfast) {
                return Err(format!("{kind}: it was greeted with {}", visitor.hi).into());
            }
            came.push((wait, visitor));
        }
        Ok(came)
    }
}

/// For good.
fn leave(came: Vec<(f64, Visitor)>) -> Result<()> {
    came.into_iter().try_for_each(|(_, visitor)| visitor.leave())
}
