//! Two servers of a kind on a Redis of their own, with callers at one and their client at the other.

use std::time::{Duration, Instant};

use servers::Server as Redis;

use super::Act;
use super::crowd::{Crowd, Done, Pace};
use crate::Result;
use crate::measures::registry::tap::Tap;
use crate::options::Options;
use crate::server::{Kind, Server};
use crate::usage::{Cpu, Spent};

/// After its start an instance says once of every partition that it is whole; by then it has.
const STARTED: Duration = Duration::from_secs(4);
const WARM_UP: Duration = Duration::from_millis(150);
const COUNTED: usize = 2000;
/// One thread each, as the relays have: two instances share two cores.
const THREADS: (&str, &str) = ("TOKIO_WORKER_THREADS", "1");

pub struct Pair {
    // The servers stand before their Redis, since they end first.
    crowd: Crowd,
    servers: Vec<Server>,
    redis: Redis,
}

/// One look at a pair under load; the costs are per call or send.
pub struct Taken {
    pub done: Done,
    pub cpu: Spent,
    pub redis: Spent,
    /// The load itself.
    pub own: Spent,
}

/// What Redis did for one call or send.
pub struct Counted {
    pub commands: f64,
    pub deliveries: f64,
}

/// What has been computed so far, by the servers, Redis and us.
struct Costs {
    servers: Vec<Cpu>,
    redis: Cpu,
    own: Cpu,
}

impl Pair {
    /// The callers' server is the first of so many, the client's the last.
    pub fn start(kind: Kind, options: &Options, servers: usize, callers: usize, client: &str) -> Result<Self> {
        let redis = Redis::start();
        let began = Instant::now();
        let start = |index: usize| {
            let (url, name) = (redis.url(), format!("gateway-{index}"));
            if kind == Kind::Floor || options.gateway.is_floor() {
                let other = format!("gateway-{}", servers - 1 - index);
                return Server::relay(redis.port(), &name, &other);
            }
            Server::start(kind, &options.gateway, &[("REDIS_URL", &url), ("INSTANCE", &name), THREADS])
        };
        let servers = (0..servers).map(start).collect::<Result<Vec<_>>>()?;
        let (Some(asked), Some(owner)) = (servers.first(), servers.last()) else { return Err("no servers".into()) };
        let crowd = Crowd::gather(callers, asked, owner, client)?;
        let mut pair = Self { crowd, servers, redis };
        pair.crowd.exactly(Act::Call, callers)?;
        if kind == Kind::Holdfast {
            std::thread::sleep(STARTED.saturating_sub(began.elapsed()));
        }
        Ok(pair)
    }

    pub fn sample(&mut self, act: Act, pace: Pace, time: Duration) -> Result<Taken> {
        self.crowd.load(act, pace, WARM_UP)?;
        let before = self.costs()?;
        let done = self.crowd.load(act, pace, time)?;
        let after = self.costs()?;
        self.crowd.finish()?;
        let count = match act {
            Act::Call => done.answered as f64,
            Act::Send | Act::Durable => done.heard as f64,
        };
        if count == 0.0 {
            return Err("nothing was done in all this time".into());
        }
        let servers = after.servers.iter().zip(&before.servers).map(|(after, before)| after.since(before));
        Ok(Taken {
            cpu: servers.fold(Spent::NOTHING, Spent::and).per(count),
            redis: after.redis.since(&before.redis).per(count),
            own: after.own.since(&before.own).per(count),
            done,
        })
    }

    fn costs(&self) -> Result<Costs> {
        Ok(Costs {
            servers: self.servers.iter().map(Server::cpu).collect::<Result<_>>()?,
            redis: Cpu::of(self.redis.pid())?,
            own: Cpu::of(std::process::id())?,
        })
    }

    /// Looks at all that Redis does. It costs Redis much, so nothing else is measured meanwhile.
    pub fn count(&mut self, act: Act) -> Result<Counted> {
        let tap = Tap::open(&self.redis)?;
        self.crowd.exactly(act, COUNTED)?;
        let heard = tap.close()?;
        let mut deliveries = 0;
        for (channel, messages) in &heard.published {
            deliveries += messages * self.listeners(channel)?;
        }
        let each = |count: u64| count as f64 / COUNTED as f64;
        Ok(Counted { commands: each(heard.commands), deliveries: each(deliveries) })
    }

    /// To how many connections each message on a channel goes.
    fn listeners(&self, channel: &str) -> Result<u64> {
        let patterns: u64 = self.redis.text(&["PUBSUB", "NUMPAT"]).parse()?;
        if patterns > 0 {
            return Err("somebody listens by pattern, so what is delivered cannot be told".into());
        }
        let said: (String, u64) = redis::from_redis_value(self.redis.ask(&["PUBSUB", "NUMSUB", channel]))?;
        Ok(said.1)
    }
}
