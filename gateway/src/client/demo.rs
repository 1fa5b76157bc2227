//! `holdfast demo`: instances, Redis, nginx, sockets and calls in one command, and nothing left of them afterwards.

mod calls;
mod doors;
mod folder;
mod pages;
mod parts;
mod programs;
mod story;
mod tally;
mod town;
mod why;

use super::{exit, given::Given};
use crate::{config::value, listener};
use clap::{Arg, ArgAction, Command, value_parser};
use programs::Programs;
use std::{env, fmt, io, process::ExitCode, sync::Arc, time::Duration};
use tally::Tally;
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};
use town::Town;

/// A call that waits in a thread of its own is not waited for longer, once everything else is gone.
const CALLS_END_WITHIN: Duration = Duration::from_millis(500);

pub fn command() -> Command {
    Command::new("demo")
        .about(
            "Show everything at work on this machine: instances, Redis, nginx, sockets, calls; Ctrl-C removes it all",
        )
        .arg(
            Arg::new("sockets")
                .long("sockets")
                .value_name("NUMBER")
                .value_parser(value_parser!(u16).range(1..=10_000))
                .default_value("300")
                .help("How many simulated sockets"),
        )
        .arg(
            Arg::new("instances")
                .long("instances")
                .value_name("NUMBER")
                .value_parser(value_parser!(u16).range(1..=9))
                .default_value("3")
                .help("How many instances"),
        )
        .arg(Arg::new("for").long("for").value_name("DURATION").value_parser(span).help("End after so long, as 30s"))
        .arg(
            Arg::new("no-kill")
                .long("no-kill")
                .action(ArgAction::SetTrue)
                .help("Only restart instances as they wish, and kill none"),
        )
}

fn span(text: &str) -> Result<Duration, String> {
    match value::duration(text) {
        Ok(span) if span < Duration::from_secs(1) || span > Duration::from_secs(24 * 3600) => {
            Err("1s to 24h can be shown".to_owned())
        }
        span => span,
    }
}

/// What is shown.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    sockets: usize,
    instances: usize,
    span: Option<Duration>,
    kills: bool,
}

/// Exit 0 when it was ended, or whoever reads has left; 1 when something failed that must not.
pub fn run(given: &Given<'_>) -> ExitCode {
    let number = |name: &str| given.one::<u16>(name).copied().map_or(1, usize::from);
    let wanted = Wanted {
        sockets: number("sockets"),
        instances: number("instances"),
        span: given.span("for"),
        kills: !given.is_set("no-kill"),
    };
    let programs = Programs::on(given.env.get("PATH").map_or("", String::as_str));
    match show(wanted, &programs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            complain!("{sentence}");
            ExitCode::from(exit::FAILED)
        }
    }
}

fn show(wanted: Wanted, programs: &Programs) -> Result<(), String> {
    // One for each page here; nginx and the instances inherit it.
    let open_files = listener::raise_open_files();
    if open_files < wanted.sockets * 2 + 100 {
        return Err(format!(
            "{} sockets need more open files than the {open_files} that are allowed: ulimit -n {}, or --sockets {}",
            wanted.sockets,
            wanted.sockets * 2 + 100,
            open_files.saturating_sub(100) / 2
        ));
    }
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(cannot("cannot start"))?;
    let outcome = runtime.block_on(async {
        // Heard before there is anything that could be left behind.
        let end = End::heard().map_err(cannot("signals cannot be received"))?;
        let exe = env::current_exe().map_err(cannot("this program cannot be found, to be started again"))?;
        let (town, tally) = (Town::of(wanted.sockets)?, Arc::new(Tally::default()));
        let outcome = tokio::select! {
            biased;
            () = end.comes() => Ok(()),
            () = tally.unread() => Ok(()),
            outcome = story::tell(&town, &tally, wanted, programs, &exe) => outcome,
        };
        let sum = tally.sum_up();
        // Whatever failed, everything goes; what failed first is told.
        outcome.and(town.remove()).and(sum)
    });
    runtime.shutdown_timeout(CALLS_END_WITHIN);
    outcome
}

/// Whoever started this wants its end: Ctrl-C, a manager, or a terminal that is closed.
struct End([Signal; 3]);

impl End {
    fn heard() -> io::Result<Self> {
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?]))
    }

    async fn comes(mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// What is wrong, and what the system says about it.
fn cannot<E: fmt::Display>(what: &str) -> impl FnOnce(E) -> String {
    move |error| format!("{what}: {error}")
}
