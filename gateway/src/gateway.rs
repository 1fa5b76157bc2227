//! One instance: everything it holds, and the order in which it starts and ends. It owns every task.

use crate::{
    admission::{Room, rate::ConnectRate, trials::Trials},
    auth::{Auth, ends, ends::Ends},
    calls,
    complaints::Complaints,
    config::{Config, Live},
    courier::Courier,
    drain::{self, Stop},
    feed::{self, Feed},
    heartbeat,
    hooks::{Hooks, events},
    http, inbox,
    listener::{self, Listener},
    log::Log,
    manager::Manager,
    metrics::Metrics,
    session::Desk,
    upkeep,
};
use arc_swap::ArcSwap;
use registry::{About, Health, Inbox, Registry, Retention, Serving, epoch_ms};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
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
/// How long open HTTP connections may take to finish, once nothing is asked any more.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long the first subscription may take before clients are let in without it.
const EARS: Duration = Duration::from_secs(3);

/// What the others are told of an instance, whose name may need the port of its listener and its number.
pub fn about(config: &Config, listener: &Listener, manager: &Manager) -> About {
    About {
        instance: config.instance.clone().unwrap_or_else(|| listener.default_instance_name(manager.number)),
        version: VERSION.into(),
        pid: std::process::id(),
        started_at: epoch_ms(),
        canary: config.canary,
        address: listener.address.to_string(),
        manager: manager.kind.map(|kind| kind.as_str().to_owned()),
        restarts: manager.restarts,
    }
}

/// How much of the past a registry in memory keeps.
pub fn retention(config: &Config) -> Retention {
    Retention { why_ttl: config.why_ttl, verdicts_max: VERDICTS_MAX }
}

/// What every part of the instance shares.
pub struct Gateway {
    pub config: Config,
    /// What SIGHUP replaces.
    pub live: ArcSwap<Live>,
    pub instance: Arc<str>,
    pub started: Instant,
    pub sockets_max: usize,
    /// One permit per socket, from before its 101 until its descriptor is closed.
    places: Arc<Semaphore>,
    pub courier: Courier,
    pub desk: Arc<Desk>,
    pub metrics: Arc<Metrics>,
    pub connect_rate: ConnectRate,
    pub trials: Trials,
    pub complaints: Complaints,
    pub auth: Auth,
    /// Sockets whose credential ends.
    pub ends: Ends,
    pub log_dropped: ErrorCounter,
    /// Cancelled when it serves.
    pub ready: CancellationToken,
    /// Cancelled when it is asked to stop, and the drain begins: no new sockets, and none is asked anything new.
    pub draining: CancellationToken,
    /// Cancelled when the sockets are gone: no new connections.
    pub closing: CancellationToken,
    /// Cancelled when the drain is over: no new requests.
    pub stopping: CancellationToken,
    /// Tasks of sockets, from 101 to the last byte.
    pub socket_tasks: TaskTracker,
    /// Tasks of HTTP connections.
    pub http_tasks: TaskTracker,
    /// Requests with an Idempotency-Key run to their end, whether or not their caller is there. They hold no connection.
    pub keyed_tasks: TaskTracker,
}

impl Gateway {
    /// Builds the instance around its place in a registry.
    pub fn new(
        config: Config,
        log: &Log,
        registry: Registry,
        metrics: Arc<Metrics>,
        auth: Auth,
        hooks: Hooks,
    ) -> Arc<Self> {
        let instance = registry.incarnation().instance().into();
        let courier = Courier::new(registry, &metrics);
        let stop = Stop { within: config.drain_timeout, ..Stop::default() };
        let desk = Arc::new(Desk {
            courier: courier.clone(),
            metrics: metrics.clone(),
            feed: Feed::default(),
            hooks,
            rate: config.rate_messages,
            rooms_max: config.rooms_max,
            stop: stop.clone(),
        });
        let sockets_max = config.sockets_max.map_or_else(listener::sockets_max, Into::into).min(Semaphore::MAX_PERMITS);
        Arc::new(Self {
            live: ArcSwap::from_pointee(config.live.clone()),
            instance,
            started: Instant::now(),
            sockets_max,
            places: Arc::new(Semaphore::new(sockets_max)),
            courier,
            desk,
            metrics,
            connect_rate: ConnectRate::new(config.rate_connect),
            trials: Trials::default(),
            complaints: Complaints::default(),
            auth,
            ends: Ends::default(),
            log_dropped: log.dropped(),
            ready: CancellationToken::new(),
            draining: stop.asked,
            closing: CancellationToken::new(),
            stopping: CancellationToken::new(),
            socket_tasks: TaskTracker::new(),
            http_tasks: TaskTracker::new(),
            keyed_tasks: TaskTracker::new(),
            config,
        })
    }

    /// Serves with what others send to `inbox`, until it is asked to stop, then drains; `hurry` ends the
    /// drain at once. Fails if a part of it without which it would be deaf or blind has ended.
    pub async fn run(
        self: &Arc<Self>,
        listener: Listener,
        inbox: Inbox,
        hurry: CancellationToken,
    ) -> Result<(), &'static str> {
        let registry = self.courier.registry.clone();
        registry.announce(self.serving(), self.courier.sockets.len());
        let mut keeping = AbortOnDropHandle::new(tokio::spawn(async move { Box::pin(registry.keep()).await }));
        let mut reading = AbortOnDropHandle::new(tokio::spawn(inbox::run(self.desk.clone(), inbox)));
        let mut calling = AbortOnDropHandle::new(tokio::spawn(calls::run(self.courier.calls.clone())));
        let queue = calls::run_queue(self.desk.clone(), self.config.queue_ttl);
        let mut queueing = AbortOnDropHandle::new(tokio::spawn(queue));
        let mut feeding = AbortOnDropHandle::new(tokio::spawn(feed::run(self.desk.clone(), self.stopping.clone())));
        let mut telling = AbortOnDropHandle::new(tokio::spawn(events::run(self.desk.clone(), self.stopping.clone())));
        let mut upkeep =
            AbortOnDropHandle::new(tokio::spawn(upkeep::run(self.courier.clone(), self.config.durability)));
        let mut guarding = AbortOnDropHandle::new(tokio::spawn(ends::run(self.clone())));
        let mut beating = AbortOnDropHandle::new(tokio::spawn(heartbeat::run(self.clone())));
        if self.courier.registry.health() == Health::Up {
            // First the ears: whoever is let in can be reached. Not for ever: clients come before Redis.
            let _ = timeout(EARS, self.courier.registry.heard()).await;
        }
        let mut accepting = AbortOnDropHandle::new(tokio::spawn(http::accept::run(self.clone(), listener)));
        self.ready.cancel();
        tokio::select! {
            () = self.draining.cancelled() => {}
            _ = &mut beating => return Err("the heartbeat has ended; this is a bug of Holdfast"),
            _ = &mut reading => return Err("nobody reads the inbox any more; this is a bug of Holdfast"),
            _ = &mut calling => return Err("nobody minds the calls any more; this is a bug of Holdfast"),
            _ = &mut queueing => return Err("nobody minds queued calls any more; this is a bug of Holdfast"),
            _ = &mut feeding => return Err("nobody minds the feed any more; this is a bug of Holdfast"),
            _ = &mut telling => return Err("nobody tells the application any more; this is a bug of Holdfast"),
            _ = &mut upkeep => return Err("nobody minds those who may come back any more; this is a bug of Holdfast"),
            _ = &mut guarding => return Err("nobody minds credentials any more; this is a bug of Holdfast"),
            _ = &mut keeping => return Err("nobody keeps the registry any more; this is a bug of Holdfast"),
            _ = &mut accepting => return Err("the listener has ended; this is a bug of Holdfast"),
        }
        tokio::select! {
            biased;
            () = hurry.cancelled() => {}
            () = self.end(accepting, beating, feeding, telling) => {}
        }
        Ok(())
    }

    async fn end(
        self: &Arc<Self>,
        accepting: AbortOnDropHandle<()>,
        beating: AbortOnDropHandle<()>,
        feeding: AbortOnDropHandle<()>,
        telling: AbortOnDropHandle<()>,
    ) {
        let until = Instant::now() + self.config.drain_timeout;
        self.courier.calls.close();
        self.courier.registry.announce(self.serving(), self.courier.sockets.len());
        drain::part(self, until).await;
        // Until here whoever came was served, since a proxy asks nobody else after a refusal; of a port on which nobody
        // listens it knows that nothing was asked.
        self.closing.cancel();
        let _ = accepting.await;
        self.http_tasks.close();
        self.keyed_tasks.close();
        drain::finish(self, until).await;
        // Who still waits is told what is known, while there is somebody to tell it.
        self.courier.calls.cut_off();
        self.stopping.cancel();
        // What clients said before they left is told to the application, and that they left.
        let messages = async {
            if let Some(messages) = &self.desk.hooks.messages {
                messages.finish(until).await;
            }
        };
        // A caller that does not take its answer in this time is not waited for.
        // Nor is a feed elsewhere that does not take the last of what happened here.
        let last_words = async { tokio::join!(self.http_tasks.wait(), self.keyed_tasks.wait(), feeding, telling) };
        let _ = tokio::join!(timeout_at(until.min(Instant::now() + LAST_WORDS), last_words), messages);
        // Last, since a caller may have waited for an answer that comes by letter. First the heart,
        // or it would announce again what was given up.
        drop(beating);
        self.courier.registry.retire().await;
    }

    /// What others must do about this instance.
    pub fn serving(&self) -> Serving {
        if self.draining.is_cancelled() { Serving::Draining } else { Serving::Serving }
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
