//! One instance: everything it holds, and the order in which it starts and ends. It owns every task.

use crate::{
    admission::{Room, rate::ConnectRate},
    config::{Config, Live},
    courier::Courier,
    drain, heartbeat, http,
    listener::{self, Listener},
    log::Log,
    metrics::Metrics,
    session::Desk,
    sockets::Sockets,
};
use arc_swap::ArcSwap;
use registry::{Incarnation, Lease, Registry, Retention, Serving, epoch_ms};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tracing_appender::non_blocking::ErrorCounter;

/// The version, as every answer and command says it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Verdicts kept in memory at most.
const VERDICTS_MAX: usize = 100_000;
/// How long open HTTP connections may take to finish, once the sockets are gone.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What every part of the instance shares.
pub struct Gateway {
    pub config: Config,
    /// What SIGHUP replaces.
    pub live: ArcSwap<Live>,
    pub instance: String,
    pub incarnation: Incarnation,
    pub started: Instant,
    pub started_at: u64,
    pub sockets_max: usize,
    /// One permit per socket, from before its 101 until its descriptor is closed.
    places: Arc<Semaphore>,
    pub courier: Courier,
    pub desk: Arc<Desk>,
    pub metrics: Arc<Metrics>,
    pub connect_rate: ConnectRate,
    pub log_dropped: ErrorCounter,
    /// Cancelled when the drain begins: no new sockets.
    pub draining: CancellationToken,
    /// Cancelled when the drain is over: no new requests.
    pub stopping: CancellationToken,
    /// Tasks of sockets, from 101 to the last byte.
    pub socket_tasks: TaskTracker,
    /// Tasks of HTTP connections.
    pub http_tasks: TaskTracker,
}

impl Gateway {
    /// Builds the instance around a bound listener, whose port its name may need.
    pub fn new(config: Config, listener: &Listener, log: &Log) -> Arc<Self> {
        let instance = config.instance.clone().unwrap_or_else(|| listener.default_instance_name());
        let incarnation = Incarnation::fresh(&instance);
        let retention = Retention { why_ttl: config.why_ttl, verdicts_max: VERDICTS_MAX };
        let courier = Courier { sockets: Arc::new(Sockets::default()), registry: Registry::in_memory(retention) };
        let mut metrics = Metrics::default();
        metrics.describe(VERSION, &instance, config.canary);
        let metrics = Arc::new(metrics);
        let desk = Arc::new(Desk {
            courier: courier.clone(),
            metrics: metrics.clone(),
            rate: config.rate_messages,
            rooms_max: config.rooms_max,
        });
        let sockets_max = config.sockets_max.map_or_else(listener::sockets_max, Into::into).min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            live: ArcSwap::from_pointee(config.live.clone()),
            instance,
            incarnation,
            started: Instant::now(),
            started_at: epoch_ms(),
            sockets_max,
            places: Arc::new(Semaphore::new(sockets_max)),
            courier,
            desk,
            metrics,
            connect_rate: ConnectRate::new(config.rate_connect),
            log_dropped: log.dropped(),
            draining: CancellationToken::new(),
            stopping: CancellationToken::new(),
            socket_tasks: TaskTracker::new(),
            http_tasks: TaskTracker::new(),
            config,
        })
    }

    /// Serves until `stop` is cancelled, then drains; `hurry` ends the drain at once. Fails if a
    /// part of it without which it would be deaf or blind has ended.
    pub async fn run(
        self: &Arc<Self>,
        listener: Listener,
        stop: CancellationToken,
        hurry: CancellationToken,
    ) -> Result<(), &'static str> {
        self.courier.registry.announce(self.lease()).await;
        let mut beating = AbortOnDropHandle::new(tokio::spawn(heartbeat::run(self.clone())));
        let mut accepting = AbortOnDropHandle::new(tokio::spawn(http::accept::run(self.clone(), listener)));
        tokio::select! {
            () = stop.cancelled() => {}
            _ = &mut beating => return Err("the heartbeat has ended; this is a bug of Holdfast"),
            _ = &mut accepting => return Err("the listener has ended; this is a bug of Holdfast"),
        }
        tokio::select! {
            biased;
            () = hurry.cancelled() => {}
            () = self.end(beating) => {}
        }
        Ok(())
    }

    async fn end(self: &Arc<Self>, beating: AbortOnDropHandle<()>) {
        let until = Instant::now() + self.config.drain_timeout;
        self.draining.cancel();
        self.courier.registry.announce(self.lease()).await;
        drain::run(self, until).await;
        // First the heart, or it would announce again what was given up.
        drop(beating);
        self.courier.registry.retire(&self.incarnation).await;
        self.stopping.cancel();
        self.http_tasks.close();
        // A caller that does not take its answer in this time is not waited for.
        let _ = timeout_at(until.min(Instant::now() + LAST_WORDS), self.http_tasks.wait()).await;
    }

    /// What this instance says of itself.
    pub fn lease(&self) -> Lease {
        let serving = if self.draining.is_cancelled() { Serving::Draining } else { Serving::Serving };
        Lease {
            incarnation: self.incarnation.clone(),
            serving,
            version: VERSION,
            pid: std::process::id(),
            started_at: self.started_at,
            sockets: self.courier.sockets.len(),
            canary: self.config.canary,
        }
    }

    /// A place for one more socket, if there is one: taken before it is promised.
    pub fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().ok()
    }

    /// What admission asks about, once a place was tried for.
    pub fn room(&self, place: Option<&OwnedSemaphorePermit>) -> Room {
        Room { draining: self.draining.is_cancelled(), full: place.is_none() }
    }
}
