//! `holdfast serve`: configuration, start, say every address, wait for a signal, drain, exit code.

use super::{exit, given::Given, words::settings};
use crate::{
    admission::{
        address::{self, Peer},
        origin::Origins,
    },
    auth::{
        Auth,
        book::{Book, Source},
        jwks,
        session::Sessions,
        tokens::Tokens,
    },
    config::{
        ANY_PAGE, Config, Reading, fingerprint,
        sources::{Source as From, Sources},
    },
    gateway::{self, Gateway, VERSION},
    hooks::Hooks,
    listener::{self, Listener},
    log::Log,
    manager::{
        Kind, Manager,
        channel::Channel,
        watchdog::{self, Door},
    },
    metrics::{Build, Metrics},
};
use clap::Command;
use registry::{Inbox, Memory, Registry};
use std::{cell::Cell, io, net::TcpListener, process::ExitCode, sync::Arc};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub fn command() -> Command {
    Command::new("serve").about("Serve; what holdfast does without a command").args(settings())
}

/// Serves until it is told to stop.
pub fn run(given: &Given<'_>) -> ExitCode {
    let Reading { sources, manager, config } = given.reading();
    let mut config = match config {
        Ok(config) => config,
        Err(faults) => {
            complain!(
                "holdfast cannot start, {} to mend:",
                if faults.len() == 1 { "one thing" } else { "several things" }
            );
            faults.iter().for_each(|fault| complain!("  {fault}"));
            return ExitCode::from(exit::CONFIGURATION);
        }
    };
    let (passed, channel) = (manager.take_listener(), manager.take_channel());
    config.drain_timeout = manager.drain_timeout(config.drain_timeout);
    let open_files = listener::raise_open_files();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain!("cannot start: {error}");
            return ExitCode::from(exit::FAILED);
        }
    };
    let code = runtime.block_on(async {
        let listener = match listener(&config, &manager, passed) {
            Ok(listener) => listener,
            Err((code, sentence)) => {
                complain!("{sentence}");
                return ExitCode::from(code);
            }
        };
        let log = Log::start(config.log_format, &config.live.log_filter);
        sources.warnings.iter().for_each(|warning| warn!("{warning}"));
        let about = gateway::about(&config, &listener, &manager);
        let (restarts, configuration) = (about.restarts, fingerprint::of(&sources));
        let (registry, inbox) = match config.redis.clone() {
            None => Registry::in_memory(&Memory::new(gateway::retention(&config)), about),
            Some(url) => {
                let (namespace, why_ttl) = (config.namespace.clone(), config.why_ttl);
                Registry::on_redis(
                    registry::Settings { url, namespace, why_ttl, secrets: config.resume_secrets.clone() },
                    about,
                )
            }
        };
        if config.hooks.events.is_some() {
            registry.want_events();
        }
        registry.configured(configuration.clone());
        if let Err(sentence) = registry.open().await {
            complain!("{sentence}");
            return ExitCode::from(exit::FAILED);
        }
        let instance = registry.incarnation();
        let metrics = Arc::new(Metrics::of(&build(instance.instance(), config.canary, &configuration)));
        let asked = async { Ok((auth(&config, &registry, &metrics).await?, Hooks::new(&config, &metrics)?)) };
        let (auth, hooks) = match asked.await {
            Ok(both) => both,
            Err::<_, String>(sentence) => {
                complain!("{sentence}");
                return ExitCode::from(exit::CONFIGURATION);
            }
        };
        let gateway = Gateway::new(config, &log, registry, metrics, auth, hooks);
        report_panics(&gateway);
        greet(&gateway, &listener, open_files);
        info!(
            version = VERSION,
            pid = std::process::id(),
            instance = &*gateway.instance,
            manager = manager.kind.map(Kind::as_str),
            restarts,
            configuration,
            "instance starts"
        );
        notice_unused(&sources, &listener);
        serve(&gateway, listener, inbox, &log, (&manager, &channel), &sources, || given.reading()).await
    });
    // A thread that waits for a disk, or for somebody's address, is not waited for.
    runtime.shutdown_background();
    code
}

/// What a manager passes, or a sentence on what it should.
type Passed = Result<Option<TcpListener>, String>;

/// The one that the manager passes, or one of our own; else an exit code and a sentence.
fn listener(config: &Config, manager: &Manager, passed: Passed) -> Result<Listener, (u8, String)> {
    match passed.map_err(|sentence| (exit::CONFIGURATION, sentence))? {
        Some(passed) => Listener::lent(passed)
            .map_err(|fault| (exit::FAILED, format!("the socket that systemd passes cannot be used: {fault}"))),
        None => Listener::bind(&config.host, config.port).map_err(|(why, sentence)| match why {
            io::ErrorKind::AddrInUse => (exit::FAILED, format!("{sentence}{}", manager.about_taken_port())),
            _ => (exit::FAILED, sentence),
        }),
    }
}

/// Whoever opened the port has chosen it.
fn notice_unused(sources: &Sources, listener: &Listener) {
    let chosen = sources.get("PORT").filter(|given| listener.is_lent && given.source != From::Default);
    if let Some(port) = chosen.filter(|given| given.text.trim() != listener.address.port().to_string()) {
        warn!("PORT={} is not used: systemd passes a socket that listens on {}", port.text.trim(), listener.address);
    }
}

fn build(instance: &str, canary: bool, configuration: &str) -> Build {
    Build {
        version: VERSION,
        instance_name: instance.to_owned(),
        canary: canary.to_string(),
        config: configuration.to_owned(),
    }
}

/// What decides who clients are.
async fn auth(config: &Config, registry: &Registry, metrics: &Arc<Metrics>) -> Result<Auth, String> {
    let source = match &config.api_keys_file {
        Some(path) => Source::File(path.clone()),
        None => Source::Registry(registry.clone()),
    };
    let book = config.auth.keys.then(|| Book::new(source));
    if let Some(book) = &book {
        book.open().await?;
    }
    let sessions = |rules| Sessions::new(rules, &config.hooks.secrets, config.hooks.within, metrics.clone());
    let sessions = config.session.as_ref().filter(|_| config.auth.session).map(sessions).transpose()?;
    let place = |endpoint| jwks::place(endpoint, metrics.clone());
    let place = config.jwks.clone().filter(|_| config.auth.jwt).map(place).transpose()?;
    let tokens = config.jwt.clone().filter(|_| config.auth.jwt).map(|rules| Tokens::new(rules, place));
    Ok(Auth::new(config.auth, book, tokens, sessions, registry.clone()))
}

/// `reread` reads the configuration again, on SIGHUP.
async fn serve(
    gateway: &Arc<Gateway>,
    listener: Listener,
    inbox: Inbox,
    log: &Log,
    (manager, channel): (&Manager, &Channel),
    start: &Sources,
    reread: impl Fn() -> Reading,
) -> ExitCode {
    let (stop, hurry) = (&gateway.desk.stop, CancellationToken::new());
    let signalled = Cell::new(false);
    let door = Door {
        address: listener.reachable(),
        preamble: gateway.config.proxy_protocol,
        is_open: !gateway.config.proxy_protocol
            || address::is_trusted(Peer::itself(listener.reachable().ip()), &gateway.config.trusted_proxies),
    };
    let watched = async {
        gateway.ready.cancelled().await;
        match manager.watchdog {
            Some(within) => watchdog::feed(&door, within, &gateway.closing).await,
            None => std::future::pending().await,
        }
    };
    let signals = async {
        let (Ok(mut term), Ok(mut int), Ok(mut hup)) =
            (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()))
        else {
            error!("signals cannot be received; stop this process with SIGKILL");
            return std::future::pending().await;
        };
        let begins_to_drain = || {
            info!("asked to stop; draining (a second signal ends at once)");
            manager.stopping(stop.within);
        };
        let (mut told, mut drains) = (false, false);
        loop {
            tokio::select! {
                () = gateway.ready.cancelled(), if !told => {
                    ready(manager, channel);
                    told = true;
                    continue;
                }
                () = stop.asked.cancelled(), if !drains => {
                    begins_to_drain();
                    drains = true;
                    continue;
                }
                _ = hup.recv() => { reload(gateway, log, start, reread()); continue }
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            match (signalled.get(), drains) {
                (true, _) => hurry.cancel(),
                // Whoever had it drain ends the process then, as a matter of course.
                (false, true) => info!("draining already (a second signal ends at once)"),
                (false, false) => {
                    begins_to_drain();
                    stop.asked.cancel();
                }
            }
            signalled.set(true);
            drains = true;
        }
    };
    tokio::select! {
        served = gateway.run(listener, inbox, hurry.clone()) => match served {
            Ok(()) => {
                info!("stopped");
                match manager.kind {
                    Some(Kind::Pm2) if !signalled.get() => ExitCode::from(exit::LEFT),
                    _ => ExitCode::SUCCESS,
                }
            }
            Err(sentence) => {
                error!("{sentence}");
                ExitCode::from(exit::FAILED)
            }
        },
        () = signals => ExitCode::from(exit::FAILED),
        () = watched => ExitCode::from(exit::FAILED),
        () = channel.shows(manager, gateway) => ExitCode::from(exit::FAILED),
    }
}

/// Origins, tokens and the log level, and the keys that somebody publishes; what else has changed waits for a restart.
fn reload(gateway: &Gateway, log: &Log, start: &Sources, reading: Reading) {
    let configuration = fingerprint::after(start, &reading.sources);
    match reading.config {
        // What was read may name another AUTH, which waits for a restart; until then cookies count.
        Ok(Config { live, .. }) if gateway.auth.modes.session && matches!(live.origins, Origins::Any) => {
            error!(
                "not reloaded, the configuration before stays in force, its AUTH until a restart: CORS_ORIGINS=*: {ANY_PAGE}"
            );
        }
        Ok(Config { live, .. }) => {
            log.set_filter(&live.log_filter);
            gateway.live.store(Arc::new(live));
            gateway.courier.registry.configured(configuration.clone());
            gateway.metrics.is(&build(&gateway.instance, gateway.config.canary, &configuration));
            if let Some(tokens) = &gateway.auth.tokens {
                tokens.hurry();
            }
            info!(configuration, "reloaded origins, tokens and log level");
        }
        Err(faults) => {
            let faults = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            error!("not reloaded, the configuration before stays in force: {faults}");
        }
    }
}

/// A panic is a bug that ends one request or one connection; it is counted, and told in one line.
fn report_panics(gateway: &Arc<Gateway>) {
    let metrics = gateway.metrics.clone();
    std::panic::set_hook(Box::new(move |panic| {
        metrics.panics.inc();
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        // Not the message: it may hold what a client sent.
        error!("panicked at {place}; this is a bug of Holdfast");
    }));
}

fn greet(gateway: &Gateway, listener: &Listener, open_files: usize) {
    let at = listener.address;
    let live = gateway.live.load();
    let api = match (&live.api_token, &live.admin_token) {
        (None, None) => "protected mode: only direct calls to localhost; set API_TOKEN to open it".to_owned(),
        (None, Some(_)) => "ADMIN_TOKEN for what reveals or changes the fleet, localhost for the rest".to_owned(),
        (Some(_), _) => "API_TOKEN is wanted".to_owned(),
    };
    let registry = match &gateway.config.redis {
        None => "in memory, one instance".to_owned(),
        Some(url) => format!("{}, namespace {}", url.shown(), gateway.config.namespace),
    };
    say!("holdfast {VERSION}, instance {}", gateway.instance);
    say!("  websocket       ws://{at}/ws  /ws/{{code}}  /websocket  /connect");
    say!("  http            http://{at}  (/health  /metrics  /openapi.json)");
    say!("  registry        {registry}");
    match gateway.auth.modes {
        modes if modes.is_none() => say!("  authentication  none: every client is believed"),
        modes => say!("  authentication  {modes}"),
    }
    let Config { session, jwks, hooks, .. } = &gateway.config;
    if let Some(session) = session.as_ref().filter(|_| gateway.auth.modes.session) {
        say!("  sessions        {}", session.endpoint);
    }
    if let Some(jwks) = jwks.as_ref().filter(|_| gateway.auth.modes.jwt) {
        say!("  keys of tokens  {jwks}");
    }
    for (name, endpoint) in [("connect", &hooks.connect), ("message", &hooks.message), ("events", &hooks.events)] {
        if let Some(endpoint) = endpoint {
            say!("  {:<15} {endpoint}", format!("{name} hook"));
        }
    }
    if listener.is_lent {
        say!("  port            lent by systemd, which keeps it open over restarts");
    }
    say!("  http api        {api}");
    if gateway.config.proxy_protocol {
        say!("  PROXY protocol  on: whoever sends no header, or is none of TRUSTED_PROXIES, is refused");
    }
    say!("  WebSocket auto-response set: {{\"evt\":\"ping\"}}  {{\"type\":\"ping\"}}  {{\"action\":\"ping\"}}");
    say!("  open file limit {open_files}, {} sockets at most", gateway.sockets_max);
    if gateway.config.proxy_protocol {
        // None of the lines below could be tried.
        return;
    }
    let near = listener.reachable();
    let token = live.api_token.as_ref().map_or("", |_| " -H \"Authorization: Bearer $API_TOKEN\"");
    say!("try it:");
    match gateway.auth.modes {
        modes if modes.is_none() => say!("  npx wscat -c \"ws://{near}/ws?user_id=test123\""),
        modes if modes.keys => {
            say!("  KEY=$(holdfast keys add --user test123)");
            say!("  npx wscat -c ws://{near}/ws -H \"X-API-Key: $KEY\"");
        }
        modes if modes.jwt => say!("  npx wscat -c ws://{near}/ws -H \"Authorization: Bearer $TOKEN\""),
        modes if modes.session => match gateway.auth.session_cookie() {
            Some(name) => say!("  npx wscat -c ws://{near}/ws -H \"Cookie: {name}=$SID\""),
            None => say!("  npx wscat -c ws://{near}/ws -H \"Cookie: $COOKIE\""),
        },
        _ if address::is_trusted(Peer::itself(near.ip()), &gateway.config.trusted_proxies) => {
            say!("  npx wscat -c ws://{near}/ws -H \"X-User-ID: test123\"");
        }
        // Only a proxy elsewhere can say who somebody is.
        _ => {}
    }
    say!(
        "  curl -X POST http://{near}/sse/push{token} -H 'Content-Type: application/json' -d '{{\"user_id\":\"test123\",\"data\":{{\"hello\":\"world\"}}}}'"
    );
}

fn ready(manager: &Manager, channel: &Channel) {
    say!("ready");
    manager.ready(channel);
}
