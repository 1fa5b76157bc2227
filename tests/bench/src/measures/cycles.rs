//! Whether anything is left of sockets that came and went: open files and memory of two instances, keys and memory of
//! their Redis. Of four clients one leaves, one breaks off, and two do so that might have come back. It fails where
//! something stays.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use servers::Server as Redis;

use super::somebody;
use crate::Result;
use crate::figure::{Budget, Figure};
use crate::measures::Samples;
use crate::options::Options;
use crate::server::{Kind, Server};
use crate::visitor::Visitor;

pub const NAME: &str = "cycles";

/// Before the first look: they bring in code and buffers, which a process has once, and as many verdicts at a time
/// as there are later.
const WARM_UP: usize = 20_000;
const CYCLES: usize = 100_000;
const CYCLES_QUICK: usize = 20_000;
const AT_ONCE: usize = 32;

/// All that is kept of a socket ends soon.
const SETTINGS: [(&str, &str); 2] = [("RESUME_WINDOW", "1s"), ("WHY_TTL", "1s")];
/// Whoever looks for what is over does so several times meanwhile.
const STILL: Duration = Duration::from_secs(10);
const REST_MAX: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_secs(1);

type Value = fn(&Stock) -> f64;

/// What is looked at, and how much more there may be. An allocator keeps some of what it was given back.
const LEFT: [(&str, &str, Value, f64); 4] = [
    ("open files", "", |stock| stock.files, 0.0),
    ("Redis keys", "", |stock| stock.keys, 0.0),
    ("memory of both instances", "MiB", |stock| stock.memory / MIB, 4.0),
    ("memory of Redis", "MiB", |stock| stock.redis / MIB, 0.5),
];
const MIB: f64 = (1 << 20) as f64;

struct House {
    // The servers stand before their Redis, since they end first.
    servers: [Server; 2],
    redis: Redis,
}

/// What is there.
struct Stock {
    files: f64,
    keys: f64,
    memory: f64,
    redis: f64,
}

pub fn measure(options: &Options) -> Result<Vec<Figure>> {
    if options.gateway.is_floor() {
        return Err("the floor has no registry that could be left with anything".into());
    }
    let redis = Redis::start();
    let start = |name: &str| {
        let url = redis.url();
        let more = [("REDIS_URL", url.as_str()), ("INSTANCE", name), SETTINGS[0], SETTINGS[1]];
        Server::start(Kind::Holdfast, &options.gateway, &more)
    };
    let servers = [start("one")?, start("other")?];
    let house = House { servers, redis };
    house.cycle(WARM_UP)?;
    let before = house.rest()?;
    let count = if options.quick { CYCLES_QUICK } else { CYCLES };
    let began = Instant::now();
    house.cycle(count)?;
    let per_second = count as f64 / began.elapsed().as_secs_f64();
    let busy = house.stock()?;
    let after = house.rest()?;
    let mut figures = Vec::new();
    for (what, unit, value, most) in LEFT {
        let more = value(&after) - value(&before);
        if more > most {
            let kinds = house.kinds();
            return Err(format!("{count} sockets came and went, and there is more than before: {what} + {more:.0} {unit}; Redis has {kinds}").into());
        }
        figures.push(alone(&format!("{what}, more than before"), unit, more).within(Budget::AtMost(most)));
        figures.push(alone(&format!("{what} before"), unit, value(&before)));
    }
    figures.push(alone("Redis keys when the last had gone", "", busy.keys));
    figures.push(alone("cycles", "1/s", per_second));
    Ok(figures)
}

fn alone(name: &str, unit: &'static str, value: f64) -> Figure {
    Figure::new(name, unit, Samples { holdfast: vec![value.into()], floor: Vec::new() })
}

impl House {
    fn cycle(&self, count: usize) -> Result<()> {
        let next = AtomicUsize::new(0);
        let walk = || -> std::result::Result<(), String> {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return Ok(());
                }
                if index.is_multiple_of(10_000) {
                    eprintln!("cycles, {index} of {count}");
                }
                self.come_and_go(index).map_err(|error| format!("socket {index}: {error}"))?;
            }
        };
        thread::scope(|scope| {
            let walkers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(walk)).collect();
            walkers.into_iter().try_for_each(|walker| walker.join().map_err(|_| "a client broke".to_owned())?)
        })?;
        Ok(())
    }

    fn come_and_go(&self, index: usize) -> Result<()> {
        let mut target = somebody(index);
        if index.is_multiple_of(2) {
            target.push_str("&resume=");
        }
        let visitor = Visitor::come(self.servers[index / 4 % 2].address, &target)?;
        match index / 2 % 2 {
            0 => visitor.leave(),
            _ => Ok(()),
        }
    }

    /// What is there when no more has gone for a while.
    fn rest(&self) -> Result<Stock> {
        let (began, mut least, mut since) = (Instant::now(), self.stock()?, Instant::now());
        while since.elapsed() < STILL && began.elapsed() < REST_MAX {
            thread::sleep(LOOK_EVERY);
            let now = self.stock()?;
            if now.files < least.files || now.keys < least.keys {
                since = Instant::now();
            }
            least = now;
        }
        Ok(least)
    }

    /// The names of the keys, without what they are of, and how many there are of each.
    fn kinds(&self) -> String {
        let mut kinds = BTreeMap::<String, usize>::new();
        for key in self.redis.keys() {
            let name = key.split_once("}:").map_or(key.as_str(), |(_, rest)| rest);
            *kinds.entry(name.split(':').next().unwrap_or_default().to_owned()).or_default() += 1;
        }
        let kinds: Vec<_> = kinds.into_iter().map(|(kind, count)| format!("{count} × {kind}")).collect();
        kinds.join(", ")
    }

    fn stock(&self) -> Result<Stock> {
        let mut stock = Stock {
            files: 0.0,
            keys: self.redis.text(&["DBSIZE"]).parse()?,
            memory: 0.0,
            redis: self.redis.used_memory() as f64,
        };
        for server in &self.servers {
            stock.files += server.files()? as f64;
            stock.memory += server.memory()?.anonymous;
        }
        Ok(stock)
    }
}
