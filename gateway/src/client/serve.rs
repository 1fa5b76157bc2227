//! `holdfast serve`: configuration, start, say every address, wait for a signal, drain, exit code.

use super::exit;
use crate::{
    auth::{
        Auth,
        book::{Book, Source},
    },
    config::{Config, Reading, sources::Environment},
    gateway::{self, Gateway, VERSION},
    listener::{self, Listener},
    log::Log,
    manager::Manager,
};
use registry::{Inbox, Memory, Registry};
use std::{process::ExitCode, sync::Arc};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// Serves until it is told to stop. `reread` reads the configuration again, on SIGHUP.
pub fn run(reading: Reading, reread: impl Fn() -> Reading, env: &Environment) -> ExitCode {
    let mut config = match reading.config {
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
    let manager = Manager::from_env(env);
    config.drain_timeout = manager.drain_timeout(config.drain_timeout);
    let open_files = listener::raise_open_files();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain!("cannot start: {error}");
            return ExitCode::from(exit::FAILED);
        }
    };
    runtime.block_on(async {
        let listener = match Listener::bind(&config.host, config.port) {
            Ok(listener) => listener,
            Err(sentence) => {
                complain!("{sentence}");
                return ExitCode::from(exit::FAILED);
            }
        };
        let log = Log::start(config.log_format, &config.live.log_filter);
        reading.sources.warnings.iter().for_each(|warning| warn!("{warning}"));
        let about = gateway::about(&config, &listener);
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
        if let Err(sentence) = registry.open().await {
            complain!("{sentence}");
            return ExitCode::from(exit::FAILED);
        }
        let auth = match auth(&config, &registry).await {
            Ok(auth) => auth,
            Err(sentence) => {
                complain!("{sentence}");
                return ExitCode::from(exit::CONFIGURATION);
            }
        };
        let gateway = Gateway::new(config, &log, registry, auth);
        report_panics(&gateway);
        greet(&gateway, &listener, open_files);
        serve(&gateway, listener, inbox, &log, &manager, reread).await
    })
}

/// What decides who clients are.
async fn auth(config: &Config, registry: &Registry) -> Result<Auth, String> {
    let source = match &config.api_keys_file {
        Some(path) => Source::File(path.clone()),
        None => Source::Registry(registry.clone()),
    };
    let book = config.auth.keys.then(|| Book::new(source));
    if let Some(book) = &book {
        book.open().await?;
    }
    Ok(Auth::new(config.auth, book, config.jwt.clone().filter(|_| config.auth.jwt), registry.clone()))
}

async fn serve(
    gateway: &Arc<Gateway>,
    listener: Listener,
    inbox: Inbox,
    log: &Log,
    manager: &Manager,
    reread: impl Fn() -> Reading,
) -> ExitCode {
    let (stop, hurry) = (&gateway.desk.stop, CancellationToken::new());
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
        let (mut told, mut drains, mut signalled) = (false, false, false);
        loop {
            tokio::select! {
                () = gateway.ready.cancelled(), if !told => {
                    ready(manager);
                    told = true;
                    continue;
                }
                () = stop.asked.cancelled(), if !drains => {
                    begins_to_drain();
                    drains = true;
                    continue;
                }
                _ = hup.recv() => { reload(gateway, log, reread()); continue }
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            match (signalled, drains) {
                (true, _) => hurry.cancel(),
                // Whoever had it drain ends the process then, as a matter of course.
                (false, true) => info!("draining already (a second signal ends at once)"),
                (false, false) => {
                    begins_to_drain();
                    stop.asked.cancel();
                }
            }
            (signalled, drains) = (true, true);
        }
    };
    tokio::select! {
        served = gateway.run(listener, inbox, hurry.clone()) => match served {
            Ok(()) => {
                info!("stopped");
                ExitCode::SUCCESS
            }
            Err(sentence) => {
                error!("{sentence}");
                ExitCode::from(exit::FAILED)
            }
        },
        () = signals => ExitCode::from(exit::FAILED),
    }
}

/// Origins, tokens and the log level; what else has changed waits for a restart.
fn reload(gateway: &Gateway, log: &Log, reading: Reading) {
    match reading.config {
        Ok(Config { live, .. }) => {
            log.set_filter(&live.log_filter);
            gateway.live.store(Arc::new(live));
            info!("reloaded origins, tokens and log level");
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
    say!("  http api        {api}");
    say!("  WebSocket auto-response set: {{\"evt\":\"ping\"}}  {{\"type\":\"ping\"}}  {{\"action\":\"ping\"}}");
    say!("  open file limit {open_files}, {} sockets at most", gateway.sockets_max);
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
        _ => say!("  npx wscat -c ws://{near}/ws -H \"X-User-ID: test123\""),
    }
    say!(
        "  curl -X POST http://{near}/sse/push{token} -H 'Content-Type: application/json' -d '{{\"user_id\":\"test123\",\"data\":{{\"hello\":\"world\"}}}}'"
    );
}

fn ready(manager: &Manager) {
    say!("ready");
    manager.ready();
}
