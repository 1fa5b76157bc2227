//! What the instance counts. Names and labels are fixed here; no user's text ever becomes a label.

pub mod process;

use arc_swap::ArcSwapOption;
use process::Process;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use registry::{Cause, Figures, Health};
use std::{
    hash::Hash,
    sync::{PoisonError, RwLock, atomic::Ordering},
};

/// Every name here begins with it.
const PREFIX: &str = "holdfast";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Request {
    pub route: &'static str,
    pub code: u16,
}

/// A family with one label, whose values come from our own tables.
macro_rules! label {
    ($name:ident, $label:ident) => {
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $name {
            pub $label: &'static str,
        }
    };
}
label!(Reason, reason);
label!(CauseLabel, cause);
label!(VerbClass, verb_class);
label!(Route, route);
label!(Outcome, outcome);
label!(LetterKind, kind);
label!(UpstreamName, upstream);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Upstream {
    pub upstream: &'static str,
    pub outcome: &'static str,
}

/// What an instance is, so that those that should be alike can be compared, and a canary with the rest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Build {
    pub version: &'static str,
    pub instance_name: String,
    pub canary: String,
    pub config: String,
}

/// What the application was told, or not.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Event {
    pub r#type: &'static str,
    pub outcome: &'static str,
}

/// Figures that differ by labels. A label's value comes from our own tables, so that there are few, and to compare them is
/// cheaper than to hash them.
pub struct Labelled<L, M> {
    family: Family<L, M>,
    known: RwLock<Vec<(L, M)>>,
}

impl<L, M> From<Family<L, M>> for Labelled<L, M> {
    fn from(family: Family<L, M>) -> Self {
        Self { family, known: RwLock::default() }
    }
}

impl<L: Clone + Eq + Hash, M: Clone> Labelled<L, M> {
    /// The one with these labels; there from now on.
    pub fn of(&self, labels: L) -> M {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, metric)) = known.iter().find(|(known, _)| *known == labels) {
            return metric.clone();
        }
        drop(known);
        let metric = self.family.get_or_create_owned(&labels);
        self.known.write().unwrap_or_else(PoisonError::into_inner).push((labels, metric.clone()));
        metric
    }
}

/// Every figure of this instance.
pub struct Metrics {
    registry: Registry,
    build: Family<Build, Gauge>,
    pub requests: Labelled<Request, Counter>,
    pub request_seconds: Labelled<Route, Histogram>,
    pub handshakes: Counter,
    pub rejected: Labelled<Reason, Counter>,
    jwks_fetches: Labelled<Outcome, Counter>,
    pub comebacks: Labelled<Outcome, Counter>,
    pub opened: Counter,
    pub closed: Labelled<CauseLabel, Counter>,
    pub hello_seconds: Histogram,
    pub age_seconds: Labelled<CauseLabel, Histogram>,
    pub client_messages: Labelled<VerbClass, Counter>,
    pub client_faults: Counter,
    pub app_pings: Counter,
    pub calls: Labelled<Outcome, Counter>,
    pub call_seconds: Histogram,
    replies_unknown: Counter,
    replies_late: Counter,
    /// Callers who wait here, and calls that sockets here have in their hands; counted when somebody looks.
    calls_asked: Gauge,
    calls_given: Gauge,
    calls_waiting: Gauge,
    pub progress_dropped: Counter,
    pub sends: Labelled<Outcome, Counter>,
    pub room_deliveries: Counter,
    pub room_refusals: Counter,
    /// Letters to other instances, and from them.
    pub letters_sent: Labelled<LetterKind, Counter>,
    pub letters_received: Labelled<LetterKind, Counter>,
    /// Writes to a socket that the request did not mean.
    pub wrong_owner_delivery: Counter,
    /// Frames that a socket got twice for one request.
    pub duplicate_write: Counter,
    pub room_untold: Counter,
    /// Questions to the application.
    pub upstreams: Labelled<Upstream, Counter>,
    pub upstream_seconds: Labelled<UpstreamName, Histogram>,
    /// What the application was told of sockets, and of the fleet.
    pub events: Labelled<Event, Counter>,
    pub events_backlog: Gauge,
    pub panics: Counter,
    pub connections_refused: Counter,
    pub preambles_refused: Counter,
    pub active: Gauge,
    pub healthy: Gauge,
    /// Nothing while it cannot be counted.
    pub fleet: ArcSwapOption<Fleet>,
    pub queued_bytes: Gauge,
    pub drift: Gauge,
    pub http_connections: Gauge,
    shared: Shared,
    log_lines_dropped: Counter,
    process: Process,
}

/// The fleet, as it was counted some seconds ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fleet {
    pub sockets: usize,
    /// Fewer than `MIN_SOCKETS`.
    pub below_minimum: bool,
}

/// What is kept elsewhere, as it is when somebody looks.
pub struct Snapshot {
    /// Callers who wait here, and calls in the hands of sockets here.
    pub calls: (usize, usize),
    /// Calls that wait for somebody to come.
    pub waiting: usize,
    pub log_lines_dropped: u64,
    pub figures: Figures,
    pub health: Health,
    pub hears: bool,
    pub ready: bool,
}

/// What the registry counts by itself; read when somebody looks.
struct Shared {
    bell_foreign: Counter,
    inbox_gaps: Counter,
    inbox_gaps_unfilled: Counter,
    letters_repeated: Counter,
    beats_failed: Counter,
    fenced: Counter,
    sockets_reaped: Counter,
    events_dropped: Counter,
    deaf: Gauge,
    ready: Gauge,
    /// Not there with a registry in memory: there is no Redis that could be up or down.
    redis_up: Gauge,
    /// Not there while the fleet cannot be counted.
    fleet: Gauge,
    below_minimum: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        macro_rules! counted {
            ($name:literal, $help:literal) => {{
                let metric = <_>::default();
                registry.register($name, $help, Clone::clone(&metric));
                metric
            }};
        }
        macro_rules! labelled {
            ($name:literal, $help:literal) => {{
                let family = Family::default();
                registry.register($name, $help, family.clone());
                Labelled::from(family)
            }};
        }
        macro_rules! timed {
            ($name:literal, $help:literal, $from:literal, $factor:literal, $count:literal) => {{
                let metric = Histogram::new(exponential_buckets($from, $factor, $count));
                registry.register($name, $help, metric.clone());
                metric
            }};
        }
        let request_seconds =
            Family::<Route, Histogram>::new_with_constructor(|| Histogram::new(exponential_buckets(0.0001, 4.0, 9)));
        registry.register("http_request_seconds", "From the whole head to the answer", request_seconds.clone());
        let hello_seconds =
            timed!("hello_seconds", "From the whole head of a handshake to its hi frame", 0.0001, 4.0, 9);
        let call_seconds = timed!("call_seconds", "From the whole head of a call to its answer", 0.0001, 4.0, 10);
        let age_seconds =
            Family::<CauseLabel, Histogram>::new_with_constructor(|| Histogram::new(exponential_buckets(1.0, 4.0, 9)));
        registry.register("socket_age_seconds", "How old sockets are when they end, by cause", age_seconds.clone());
        let upstream_seconds = Family::<UpstreamName, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.001, 4.0, 7))
        });
        registry.register(
            "upstream_request_seconds",
            "From a question to the application to its answer, with the wait for a turn",
            upstream_seconds.clone(),
        );
        Self {
            requests: labelled!("http_requests", "HTTP requests by route and status"),
            request_seconds: request_seconds.into(),
            handshakes: counted!("handshakes", "Attempts to open a socket"),
            rejected: labelled!("handshake_rejected", "Attempts that were refused, by code"),
            jwks_fetches: labelled!("jwks_fetches", "Fetches of JWKS_URL: answered with a set of keys, or failed"),
            comebacks: labelled!("resumes", "Clients that came with a token, by what it was good for"),
            opened: counted!("sockets_opened", "Sockets that were let in"),
            closed: labelled!("sockets_closed", "Sockets that ended, by cause"),
            hello_seconds,
            age_seconds: age_seconds.into(),
            client_messages: labelled!("client_messages", "Messages of clients by class of verb"),
            client_faults: counted!("client_message_faults", "Messages of clients that were answered with an error"),
            app_pings: counted!("app_pings", "Pings answered without any work behind them"),
            calls: labelled!("calls", "Calls over HTTP by outcome"),
            call_seconds,
            replies_unknown: counted!(
                "reply_for_unknown_call",
                "Words about a call that was never theirs to answer; dropped"
            ),
            replies_late: counted!("replies_late", "Words about a call whose caller waits no longer; dropped"),
            calls_asked: counted!("calls_asked", "Callers who wait for the answer of a client"),
            calls_given: counted!("calls_given", "Calls that clients here were given and have not answered"),
            calls_waiting: counted!("calls_waiting", "Calls that wait until somebody comes who can be asked"),
            progress_dropped: counted!("progress_dropped", "Progress that came faster than its caller took it"),
            sends: labelled!("sends", "Sends over HTTP by outcome"),
            room_deliveries: counted!("room_deliveries", "Room messages queued for a member"),
            room_refusals: counted!("room_refusals", "Room messages that found a member's queue full"),
            letters_sent: labelled!("letters_sent", "Letters to other instances, by kind"),
            letters_received: labelled!("letters_received", "Letters from other instances, by kind"),
            wrong_owner_delivery: counted!(
                "wrong_owner_delivery",
                "Writes to a socket that was not meant; must read 0"
            ),
            duplicate_write: counted!("duplicate_write", "Second writes of one request to one socket; must read 0"),
            room_untold: counted!("room_untold", "Room messages that an instance with members could not be sent"),
            upstreams: labelled!("upstream_requests", "Questions to the application, by outcome"),
            upstream_seconds: upstream_seconds.into(),
            events: labelled!(
                "events",
                "Attempts to tell the application of a socket or the fleet, by type and outcome"
            ),
            events_backlog: counted!(
                "events_backlog",
                "Events that wait to be told, of those that this instance minds"
            ),
            panics: counted!("panics", "Bugs: each ended one request or one connection"),
            connections_refused: counted!("connections_refused", "Connections refused for want of open files"),
            preambles_refused: counted!(
                "proxy_header_refused",
                "Connections refused for want of a PROXY header of a trusted proxy"
            ),
            active: counted!("active_connections", "Sockets connected to this instance"),
            healthy: counted!("healthy_connections", "Sockets of this instance heard within interval and timeout"),
            fleet: ArcSwapOption::default(),
            queued_bytes: counted!("queued_bytes", "Bytes that wait in sockets' queues"),
            drift: counted!("registry_drift", "Sockets here that the registry does not hold, or the other way round"),
            http_connections: counted!("http_connections", "Open TCP connections that are no sockets"),
            shared: Shared {
                bell_foreign: counted!("bell_foreign", "Messages on the bell that were no letters of ours; dropped"),
                inbox_gaps: counted!("inbox_gaps", "Gaps in the letters that came, filled from the mailbox"),
                inbox_gaps_unfilled: counted!("inbox_gap_unfilled", "Gaps that could not be filled; must read 0"),
                letters_repeated: counted!("letters_repeated", "Letters that came twice and were taken once"),
                beats_failed: counted!("beats_failed", "Renewals of the lease that failed"),
                fenced: counted!("fenced", "Times that the others took this instance for dead"),
                sockets_reaped: counted!("sockets_reaped", "Sockets of dead instances that this one cleaned up"),
                events_dropped: counted!(
                    "events_dropped",
                    "Events that nobody will tell: too many waited, or too long"
                ),
                deaf: counted!("deaf", "1 while this instance does not hear the others"),
                ready: counted!("ready", "1 while it may be sent new sockets, as /health/ready says"),
                redis_up: Gauge::default(),
                fleet: Gauge::default(),
                below_minimum: Gauge::default(),
            },
            log_lines_dropped: counted!("log_lines_dropped", "Log lines that found no room in the queue"),
            process: Process::default(),
            build: counted!("build_info", "What this instance is"),
            // Last: every line above registers itself in it.
            registry,
        }
    }
}

impl Metrics {
    /// Those of an instance.
    pub fn of(build: &Build) -> Self {
        let metrics = Self::default();
        // There from the start, so that sums over all causes are right before the first close.
        for cause in Cause::ALL {
            metrics.closed.of(CauseLabel { cause: cause.as_str() }).inc_by(0);
        }
        metrics.is(build);
        metrics
    }

    /// What this instance is from now on.
    pub fn is(&self, build: &Build) {
        self.build.clear();
        self.build.get_or_create(build).set(1);
    }

    pub fn heard(&self, class: &'static str) {
        self.client_messages.of(VerbClass { verb_class: class }).inc();
    }

    pub fn rejected(&self, reason: &'static str) {
        self.rejected.of(Reason { reason }).inc();
    }

    pub fn jwks_fetched(&self, outcome: &'static str) {
        self.jwks_fetches.of(Outcome { outcome }).inc();
    }

    pub fn came_back(&self, outcome: &'static str) {
        self.comebacks.of(Outcome { outcome }).inc();
    }

    pub fn sent(&self, outcome: &'static str) {
        self.sends.of(Outcome { outcome }).inc();
    }

    pub fn called(&self, outcome: &'static str) {
        self.calls.of(Outcome { outcome }).inc();
    }

    /// What a client said about a call and nobody waits for; late, if somebody did before.
    pub fn word_dropped(&self, late: bool) {
        if late {
            self.replies_late.inc()
        } else {
            self.replies_unknown.inc()
        };
    }

    pub fn letter_sent(&self, kind: &'static str) {
        self.letters_sent.of(LetterKind { kind }).inc();
    }

    pub fn letter_received(&self, kind: &'static str) {
        self.letters_received.of(LetterKind { kind }).inc();
    }

    /// Everything, as Prometheus reads it.
    pub fn text(&self, now: &Snapshot) -> String {
        self.log_lines_dropped.inner().store(now.log_lines_dropped, Ordering::Relaxed);
        self.shared.read(now);
        self.calls_asked.set(now.calls.0 as i64);
        self.calls_given.set(now.calls.1 as i64);
        self.calls_waiting.set(now.waiting as i64);
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        // The names that every Prometheus dashboard knows carry no prefix.
        let mut process = Registry::default();
        let ours = process.sub_registry_with_prefix(PREFIX);
        let shared = &self.shared;
        if now.health != Health::Here {
            ours.register("redis_up", "1 while Redis answers, 0 while it does not", shared.redis_up.clone());
        }
        if let Some(fleet) = self.fleet.load().as_deref() {
            shared.fleet.set(fleet.sockets as i64);
            shared.below_minimum.set(i64::from(fleet.below_minimum));
            let (total, below) = (shared.fleet.clone(), shared.below_minimum.clone());
            ours.register("fleet_connections", "Sockets in the registry, over all instances; absent if unknown", total);
            ours.register("sockets_below_minimum", "1 while the fleet holds fewer than MIN_SOCKETS", below);
        }
        self.process.register(&mut process);
        text.truncate(text.len() - text.strip_suffix("# EOF\n").map_or(0, |_| "# EOF\n".len()));
        let _ = encode(&mut text, &process);
        text
    }
}

impl Shared {
    fn read(&self, now: &Snapshot) {
        let set = |counter: &Counter, value: u64| counter.inner().store(value, Ordering::Relaxed);
        let figures = &now.figures;
        set(&self.bell_foreign, figures.foreign);
        set(&self.inbox_gaps, figures.gaps);
        set(&self.inbox_gaps_unfilled, figures.gaps_unfilled);
        set(&self.letters_repeated, figures.repeated);
        set(&self.beats_failed, figures.beats_failed);
        set(&self.fenced, figures.fenced);
        set(&self.sockets_reaped, figures.reaped);
        set(&self.events_dropped, figures.events_dropped);
        self.deaf.set(i64::from(!now.hears));
        self.ready.set(i64::from(now.ready));
        self.redis_up.set(i64::from(now.health == Health::Up));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn seen(health: Health) -> Snapshot {
        let figures = Figures { gaps: 2, ..Figures::default() };
        Snapshot { calls: (0, 0), waiting: 0, log_lines_dropped: 0, figures, health, hears: false, ready: true }
    }

    #[test]
    fn the_text_ends_once_and_holds_all_parts() {
        let metrics = Metrics::default();
        metrics.active.set(3);
        let text = metrics.text(&seen(Health::Here));
        assert!(text.contains("holdfast_active_connections 3\n"), "{text}");
        assert!(text.contains("holdfast_inbox_gaps_total 2\n") && text.contains("holdfast_deaf 1\n"), "{text}");
        assert!(text.contains("process_resident_memory_bytes "));
        assert_eq!(text.matches("# EOF").count(), 1);
    }

    #[test]
    fn a_fleet_that_cannot_be_counted_has_no_figures() {
        let metrics = Metrics::default();
        assert!(!metrics.text(&seen(Health::Up)).contains("fleet_connections"));
        metrics.fleet.store(Some(Arc::new(Fleet { sockets: 3, below_minimum: true })));
        let text = metrics.text(&seen(Health::Up));
        assert!(text.contains("\nholdfast_fleet_connections 3\n"), "{text}");
        assert!(text.contains("\nholdfast_sockets_below_minimum 1\n"), "{text}");
    }

    #[test]
    fn redis_is_up_or_down_only_where_there_is_one() {
        let metrics = Metrics::default();
        assert!(!metrics.text(&seen(Health::Here)).contains("redis"));
        assert!(metrics.text(&seen(Health::Up)).contains("\nholdfast_redis_up 1\n"));
        assert!(metrics.text(&seen(Health::Down)).contains("\nholdfast_redis_up 0\n"));
    }
}
