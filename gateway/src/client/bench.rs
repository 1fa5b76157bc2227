//! `holdfast bench`: what a gateway and all that stands in front of it carry. Sockets come, callers ask them, everybody is
//! sent something each second; how long each of it took, beside the least that a request costs on the same way.

mod callers;
mod crowd;
mod reasons;
mod report;
mod times;
mod way;

use super::{
    address::{Address, Place},
    asking::{Failure, PATIENCE, Remote, ended, printable_json},
    dial::Trust,
    exit,
    given::Given,
    interrupt::interrupted,
    runtime,
    words::{credentials, insecure, json, shown, to_ask_with},
};
use crate::{config::value, listener, metrics::process::cpu_seconds};
use clap::{Arg, ArgAction, Command, builder::NonEmptyStringValueParser, value_parser};
use crowd::Crowd;
use report::Report;
use std::{process::ExitCode, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use way::{Line, Way};

const SPAN: Duration = Duration::from_secs(10);
/// The floor is known sooner.
const FLOOR_MAX: Duration = Duration::from_secs(1);
/// How often it is looked whether all have come, or have heard what was sent.
const LOOK: Duration = Duration::from_millis(10);
/// For what was sent last, and for whoever left last.
const LAST: Duration = Duration::from_secs(10);
/// Connections and files beside those of sockets and callers.
const OTHER_FILES: usize = 50;

const BENCH_HELP: &str = "\
Examples:
  holdfast bench http://127.0.0.1:8080
  API_TOKEN=… holdfast bench https://example.com --sockets 1000 --callers 32 --for 1m
  holdfast bench 'wss://example.com/ws' --key @key.txt --callers 0 --json
  holdfast bench https://example.com --restarts --for 5m        # and deploy meanwhile

Each socket is a user of its own, in a store of its own run, unless a credential or the URL names somebody (then \
MAX_SOCKETS_PER_USER has to let them all in, and nothing is sent). The API_TOKEN is shown to the URL. RATE_CONNECT, if it is set, refuses a crowd from one address. Only sockets of \
this run are asked and sent to.

Exit codes: 0 every socket came and stayed (or came back), every call was answered, every send heard; 1 not so, 69 nobody is there";

pub fn command() -> Command {
    Command::new("bench")
        .about("Measure a gateway through whatever stands in front of it: handshakes, calls, sends")
        .after_help(BENCH_HELP)
        .arg(
            Arg::new("at")
                .value_name("URL")
                .value_parser(NonEmptyStringValueParser::new())
                .help("http(s):// or ws(s)://, as clients write it; the configured listener unless given"),
        )
        .arg(number("sockets", "100", 1, "How many sockets"))
        .arg(number("callers", "8", 0, "How many callers ask at once, each one call after the other"))
        .arg(
            Arg::new("for")
                .long("for")
                .value_name("DURATION")
                .value_parser(|text: &str| match value::duration(text) {
                    Ok(span) if span < Duration::from_secs(1) || span > Duration::from_secs(3600) => {
                        Err("1s to 1h can be measured".to_owned())
                    }
                    span => span,
                })
                .help("How long calls are made [default: 10s]"),
        )
        .arg(
            Arg::new("restarts")
                .long("restarts")
                .action(ArgAction::SetTrue)
                .conflicts_with_all(["key", "token", "cookie"])
                .help("Sockets that end come back, and calls wait for them: whether a deployment costs a call"),
        )
        .args(credentials())
        .args([insecure(), json()])
        .args(to_ask_with())
}

fn number(name: &'static str, default: &'static str, least: i64, help: &'static str) -> Arg {
    let number = Arg::new(name).long(name).value_name("NUMBER").default_value(default);
    number.value_parser(value_parser!(u32).range(least..=50_000)).help(help)
}

/// Exit 0 when all went well, 1 when something did not, 69 when there is no Holdfast.
pub fn run(given: &Given<'_>) -> ExitCode {
    match measure(given) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(exit::FAILED),
        Err(failure) => ended(Err(failure)),
    }
}

fn measure(given: &Given<'_>) -> Result<bool, Failure> {
    let usage = |why: String| Failure::new(exit::USAGE, why);
    let named = given.text("at").map(Address::split).transpose().map_err(|why| usage(format!("URL: {why}")))?;
    let remote = Remote::of(&given.reading(), named.as_ref().map(|(address, _)| address))?;
    let trust = if given.is_set("insecure") { Trust::Anybody } else { Trust::Checked };
    let count = |name: &str| given.one::<u32>(name).map_or(0, |count| *count as usize);
    let (sockets, callers) = (count("sockets"), count("callers"));
    if trust == Trust::Anybody && callers > 0 && remote.bearer().is_some() {
        return Err(usage(
            "no API_TOKEN is shown where the certificate is not looked at: leave --insecure out, or say --callers 0"
                .into(),
        ));
    }
    let way = Way {
        preamble: remote.preamble && named.is_none(),
        remote,
        place: Place::of(named.as_ref().map_or("", |(_, path)| path)),
        trust,
        headers: shown(given)?.into_iter().map(|(_, header)| header).collect(),
    };
    let restarts = given.is_set("restarts");
    if restarts && !way.is_nobody() {
        return Err(usage(
            "--restarts asks sockets by names of its own: leave names and credentials out of the URL".into(),
        ));
    }
    let (files, wanted) = (listener::raise_open_files(), sockets + callers + OTHER_FILES);
    if files < wanted {
        return Err(usage(format!(
            "{sockets} sockets need more open files than the {files} that are allowed: ulimit -n {wanted}, or fewer --sockets"
        )));
    }
    let span = given.span("for").unwrap_or(SPAN);
    let wanted = Wanted { sockets, callers, span, restarts };
    runtime::run(async { measured(Arc::new(way), wanted, given.as_json()).await })
}

/// What is measured.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    sockets: usize,
    callers: usize,
    span: Duration,
    restarts: bool,
}

async fn measured(way: Arc<Way>, wanted: Wanted, as_json: bool) -> Result<bool, Failure> {
    let Wanted { sockets, callers, span, restarts } = wanted;
    is_there(&way).await?;
    // Asking ends before the sockets leave, or some would be asked while they do.
    let (enough, over) = (CancellationToken::new(), CancellationToken::new());
    let (crowd, mut lives) = Crowd::comes(&way, sockets, restarts, &over);
    let measuring = async {
        comes(&enough, None, || crowd.settled() == sockets).await;
        if callers == 0 {
            let work = Work::begins();
            comes(&enough, Some(span), || false).await;
            comes(&enough, Some(LAST), || crowd.is_at_rest(0)).await;
            return (Default::default(), Default::default(), Default::default(), work.share());
        }
        let floor = callers::floor(&way, callers, span.min(FLOOR_MAX), &enough).await;
        let (work, asked) = (Work::begins(), enough.child_token());
        let calls = async {
            let calls = callers::calls(&way, &crowd, callers, span, &enough).await;
            asked.cancel();
            calls
        };
        let (calls, sent) = tokio::join!(calls, callers::sends(&way, &crowd, &asked));
        let own = work.share();
        comes(&enough, Some(LAST), || crowd.is_at_rest(sent.matched)).await;
        (floor, calls, sent, own)
    };
    let interrupt = async {
        interrupted().await;
        enough.cancel();
        std::future::pending::<()>().await;
    };
    // What was seen until somebody had enough is told, too.
    let (floor, calls, sent, own) = tokio::select! {
        measured = measuring => measured,
        () = interrupt => Default::default(),
    };
    over.cancel();
    while lives.join_next().await.is_some() {}
    let seen = crowd.seen();
    let report = Report {
        url: format!("{}{}", way.address().url(), way.place.prefix),
        wanted: sockets,
        restarts,
        seen: &seen,
        callers,
        floor: &floor,
        calls: &calls,
        sent: &sent,
        own,
    };
    match as_json {
        true => say!("{}", printable_json(&format!("{:#}", report.json()))),
        false => report.lines().iter().for_each(|line| say!("{line}")),
    }
    Ok(report.is_well())
}

/// What this program does itself, which may be all that can be measured.
struct Work {
    since: Instant,
    seconds: Option<f64>,
}

impl Work {
    fn begins() -> Self {
        Self { since: Instant::now(), seconds: cpu_seconds() }
    }

    /// How much of one core it has taken.
    fn share(&self) -> Option<f64> {
        let seconds = cpu_seconds()? - self.seconds?;
        Some(seconds / self.since.elapsed().as_secs_f64().max(1e-9))
    }
}

/// Waits until it is so, or somebody has seen enough; for so long at most, unless it comes about by itself.
async fn comes(enough: &CancellationToken, within: Option<Duration>, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() && !enough.is_cancelled() && within.is_none_or(|within| began.elapsed() < within) {
        sleep(LOOK).await;
    }
}

/// Whether a Holdfast answers there.
async fn is_there(way: &Way) -> Result<(), Failure> {
    let why = match timeout(PATIENCE, Line::of(way).ask(&way.gets("/health/live"))).await {
        Ok(Ok((200, _))) => return Ok(()),
        Ok(Ok((status, _))) => format!("/health/live answers {status}"),
        Ok(Err(why)) => why,
        Err(_) => format!("it did not answer within {} s", PATIENCE.as_secs()),
    };
    Err(Failure::unreached(way.address(), why))
}
