//! Three instances on one Redis, and what must be true of each of them after every fact.

use crate::{
    gateway::Gateway,
    http::Answer,
    patience::{eventually, note},
};
use futures_util::future::join_all;
use rustix::process::Signal;
use serde_json::{Value, json};
use servers::Server;
use std::{
    collections::BTreeMap,
    ops::Index,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// By then everything is mended that a fault left behind.
pub const MENDED: Duration = Duration::from_secs(60);
/// What takes longer is worth a line for whoever reads the output.
const SLOW: Duration = Duration::from_secs(3);
/// Between two looks at what takes seconds anyway.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Looks again and again until it holds, and says at the deadline what was wrong last.
pub async fn within(deadline: Duration, what: &str, mut look: impl AsyncFnMut() -> Result<(), String>) -> Duration {
    let (began, mut last) = (Instant::now(), String::new());
    while let Err(why) = look().await {
        assert!(began.elapsed() < deadline, "waited {deadline:?} in vain: {what}: {why}");
        last = why;
        sleep(LOOK_AGAIN).await;
    }
    if began.elapsed() > SLOW {
        note(&format!("{what} after {:?}; last not, since {last}", began.elapsed()));
    }
    began.elapsed()
}

/// Names and values.
type Settings = Vec<(String, String)>;

pub struct Fleet {
    gateways: Vec<Gateway>,
    /// Those that were killed, or have ended, hold nothing any more.
    gone: Vec<bool>,
    /// How each is started again.
    started_with: Vec<Settings>,
    /// Its own, where the fact brought none; it ends after the gateways.
    redis: Option<Server>,
}

impl Index<usize> for Fleet {
    type Output = Gateway;

    fn index(&self, at: usize) -> &Gateway {
        &self.gateways[at]
    }
}

impl Fleet {
    /// web1, web2 and web3, on an empty Redis that is theirs alone.
    pub async fn with(settings: &[(&str, &str)]) -> Self {
        let redis = Server::start();
        let fleet = Self::on(&redis.url(), settings).await;
        Self { redis: Some(redis), ..fleet }
    }

    /// The same, each at a port that it keeps when it is started again, as a proxy knows it.
    pub async fn at_ports(settings: &[(&str, &str)]) -> Self {
        let redis = Server::start();
        let mut started_with = ways_to_start([&redis.url(); 3].map(String::as_str), settings);
        for settings in &mut started_with {
            settings.push(("PORT".to_owned(), servers::free_port().to_string()));
        }
        Self { redis: Some(redis), ..Self::started(started_with).await }
    }

    pub fn redis(&self) -> &Server {
        self.redis.as_ref().expect("a fleet that was started without a Redis of somebody else's")
    }

    /// web1, web2 and web3.
    pub async fn on(url: &str, settings: &[(&str, &str)]) -> Self {
        Self::at([url, url, url], settings).await
    }

    /// Each with its own way to Redis.
    pub async fn at(urls: [&str; 3], settings: &[(&str, &str)]) -> Self {
        Self::started(ways_to_start(urls, settings)).await
    }

    async fn started(started_with: Vec<Settings>) -> Self {
        let gateways = join_all(started_with.iter().map(|settings| start(settings))).await;
        let fleet = Self { gateways, gone: vec![false; 3], started_with, redis: None };
        fleet.hears().await;
        fleet
    }

    /// How it is called.
    pub fn name(at: usize) -> String {
        format!("web{}", at + 1)
    }

    pub fn gateway(&self, at: usize) -> &Gateway {
        &self.gateways[at]
    }

    pub fn gateway_mut(&mut self, at: usize) -> &mut Gateway {
        &mut self.gateways[at]
    }

    /// Those that were not killed and have not ended, with their places.
    pub fn living(&self) -> impl Iterator<Item = (usize, &Gateway)> {
        self.gateways.iter().enumerate().filter(|(at, _)| !self.gone[*at])
    }

    pub fn kill(&mut self, at: usize) {
        self.gateways[at].signal(Signal::KILL);
        self.gone[at] = true;
    }

    /// Waits for the end of one that was told to drain.
    pub async fn ends(&mut self, at: usize) {
        assert_eq!(self.gateways[at].exits().await, 0, "{}", self.gateways[at].output());
        self.gone[at] = true;
    }

    /// Starts the one that ended anew, under the same name.
    pub async fn restart(&mut self, at: usize) {
        assert!(self.gone[at], "{} still runs", Self::name(at));
        self.gateways[at] = start(&self.started_with[at]).await;
        self.gone[at] = false;
        self.hears().await;
    }

    /// Sends to a target, from there.
    pub async fn sends(&self, from: usize, to: Value, data: impl Into<Value>) -> Answer {
        self.gateways[from].post("/api/send", &json!({ "to": to, "data": data.into() })).await
    }

    pub async fn lookup(&self, from: usize, id: &str) -> Answer {
        self.gateways[from].get(&format!("/api/sockets/{id}")).await
    }

    /// The incarnations that hold a lease, by the names of their instances, as one of them sees it.
    pub async fn incarnations(&self, from: usize) -> BTreeMap<String, String> {
        // Between two masters nobody can say.
        let answer = eventually("the instances are listed", async || {
            let answer = self.gateways[from].get("/api/instances").await;
            (answer.status == 200).then_some(answer)
        })
        .await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let instances = answer.json()["instances"].as_array().unwrap().clone();
        instances.iter().map(|one| (text(&one["instance"]), text(&one["incarnation"]))).collect()
    }

    /// The mark by which an instance is known in Redis.
    pub async fn mark(&self, from: usize, of: usize) -> String {
        let incarnations = self.incarnations(from).await;
        let incarnation =
            incarnations.get(&Self::name(of)).unwrap_or_else(|| panic!("{of} is not in {incarnations:?}"));
        incarnation.rsplit('.').next().unwrap().to_owned()
    }

    /// All are ready: letters to any of them are read. Returns how long that took.
    pub async fn hears(&self) -> Duration {
        within(MENDED, "all instances are ready", async || {
            for (at, gateway) in self.living() {
                let ready = gateway.get("/health/ready").await;
                if ready.status != 200 {
                    return Err(format!("{}: {}", Self::name(at), ready.text()));
                }
            }
            Ok(())
        })
        .await
    }

    /// All have run for some seconds, and know whom they deal with.
    pub async fn has_settled_in(&self) {
        within(MENDED, "all run for some seconds", async || {
            for (at, gateway) in self.living() {
                if gateway.get("/health").await.json()["uptime"].as_u64() < Some(2) {
                    return Err(Self::name(at));
                }
            }
            Ok(())
        })
        .await;
    }

    /// What must hold of every living instance at the end of every fact.
    pub async fn is_sound(&self) {
        self.is_sound_but(&[]).await;
    }

    /// The same; where Redis itself lost letters, their holes are counted, and that is no fault of ours.
    pub async fn is_sound_but(&self, excused: &[&str]) {
        for (at, gateway) in self.living() {
            let name = Self::name(at);
            within(MENDED, &format!("{name} sees no drift"), async || {
                let drift = gateway.metric("holdfast_registry_drift").await;
                if drift == 0.0 { Ok(()) } else { Err(drift.to_string()) }
            })
            .await;
            for figure in ["wrong_owner_delivery", "duplicate_write", "inbox_gap_unfilled", "panics"] {
                let value = gateway.metric(&format!("holdfast_{figure}_total")).await;
                if excused.contains(&figure) {
                    note(&format!("{name}: {figure} is {value}"));
                    continue;
                }
                assert_eq!(value, 0.0, "{figure} of {name}:\n{}", gateway.output());
            }
        }
    }
}

fn ways_to_start(urls: [&str; 3], settings: &[(&str, &str)]) -> Vec<Settings> {
    let of = |(url, name): (&&str, &str)| {
        let own = [("REDIS_URL", *url), ("INSTANCE", name), ("LOG_LEVEL", "info")];
        let all = own.into_iter().chain(settings.iter().copied());
        all.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    };
    urls.iter().zip(["web1", "web2", "web3"]).map(of).collect()
}

async fn start(settings: &[(String, String)]) -> Gateway {
    let mut settings = settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let gateway = Gateway::with(settings.clone()).await;
    gateway.with_token(settings.find_map(|(name, value)| (name == "API_TOKEN").then_some(value)))
}
