//! How often a client has to wait for Redis before it is in: counted by the time that passes when every
//! question travels for a while.

use std::time::Duration;

use registry::{Admission, Cap, Lookup, Policy};
use servers::Server;
use tokio::time::Instant;

use super::alone;
use super::distance::Distance;
use super::fleet::{CAP, Instance, Whose};
use crate::Result;
use crate::figure::{Budget, Figure};
use crate::options::Options;

const DELAY: Duration = Duration::from_millis(20);
const TRIES: usize = 5;

struct Trips {
    near: Instance,
    far: Instance,
    users: usize,
}

pub async fn measure(_options: &Options) -> Result<Vec<Figure>> {
    eprintln!("registry: waits for Redis");
    let server = Server::start();
    let distance = Distance::to(server.port(), DELAY).await?;
    let [near, far] =
        [Instance::start(&server.url(), "near:5000").await?, Instance::start(&distance.url(), "far:5000").await?];
    let mut trips = Trips { near, far, users: 0 };
    let first = trips.connect().await?;
    let (mut connect, mut disconnect, mut evict, mut reject, mut lookup) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    trips.at_a_full_cap(Policy::EvictOldest).await?;
    trips.at_a_full_cap(Policy::Reject).await?;
    for _ in 0..TRIES {
        connect.push(trips.connect().await?);
        disconnect.push(trips.disconnect().await?);
        evict.push(trips.at_a_full_cap(Policy::EvictOldest).await?);
        reject.push(trips.at_a_full_cap(Policy::Reject).await?);
        lookup.push(trips.lookup().await?);
    }
    Ok(vec![
        alone("connect under the cap: waits for Redis", "", connect).within(Budget::AtMost(1.0)),
        alone("connect at a full cap, evicting: waits for Redis", "", evict).within(Budget::AtMost(2.0)),
        alone("refusal at a full cap: waits for Redis", "", reject),
        alone("the first connect, scripts unknown: waits for Redis", "", [first]),
        alone("disconnect: waits for Redis", "", disconnect),
        alone("lookup of a remote socket: waits for Redis", "", lookup),
    ])
}

/// What passed since, in delays.
fn trips_since(began: Instant) -> f64 {
    (began.elapsed().as_secs_f64() / DELAY.as_secs_f64()).round()
}

impl Trips {
    /// A user, store and room that nobody has seen yet.
    fn newcomer(&mut self) -> Whose {
        self.users += 1;
        let name = |what| Some(format!("{what}{}", self.users));
        Whose { user: name("u"), store: name("s"), room: name("r") }
    }

    async fn connect(&mut self) -> Result<f64> {
        let whose = self.newcomer();
        let record = self.far.socket(&whose)?;
        let began = Instant::now();
        self.far.connect(&record).await?;
        Ok(trips_since(began))
    }

    async fn disconnect(&mut self) -> Result<f64> {
        let whose = self.newcomer();
        let record = self.far.socket(&whose)?;
        self.far.connect(&record).await?;
        let began = Instant::now();
        self.far.disconnect(&record).await?;
        Ok(trips_since(began))
    }

    async fn lookup(&mut self) -> Result<f64> {
        let record = self.near.socket(&Whose::default())?;
        self.near.connect(&record).await?;
        let began = Instant::now();
        match self.far.registry.lookup(&record.id.to_string()).await {
            Lookup::Live(_) => Ok(trips_since(began)),
            other => Err(format!("a live socket: {other:?}").into()),
        }
    }

    /// All of the user's sockets are at another instance.
    async fn at_a_full_cap(&mut self, policy: Policy) -> Result<f64> {
        let whose = self.newcomer();
        for _ in 0..CAP.sockets_max {
            self.near.connect(&self.near.socket(&whose)?).await?;
        }
        let record = self.far.socket(&whose)?;
        let began = Instant::now();
        let admission = self.far.registry.admit(&record, Cap { policy, ..CAP }).await;
        let trips = trips_since(began);
        match (policy, admission) {
            (Policy::EvictOldest, Admission::Welcome { evicted, .. }) if evicted.len() == 1 => Ok(trips),
            (Policy::Reject, Admission::Full { holders }) if holders.len() == CAP.sockets_max => Ok(trips),
            (_, other) => Err(format!("one socket too many: {other:?}").into()),
        }
    }
}
