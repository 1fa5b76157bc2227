//! `holdfast tail`: what happens on all instances, line by line as it happens.

use super::{
    asking::{Failure, PATIENCE, Remote, ended, printable, printable_json},
    dial::{self, Trust},
    events::Events,
    given::Given,
    interrupt::interrupted,
    runtime,
    table::{moment, names, word},
    talk::{self, Asked, Heard},
    words::{json, to_ask_with, url},
};
use clap::{Arg, ArgAction, Command};
use serde_json::Value;
use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};
use tokio::time::{sleep, timeout};

/// Comments come every fifteen seconds; who says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// Between two attempts.
const AGAIN: Duration = Duration::from_secs(1);
/// What one event may take; no gateway writes a larger one.
const EVENT_BYTES_MAX: usize = 4 << 20;
const PROBLEM_BYTES_MAX: usize = 1 << 20;

const TAIL_HELP: &str = "\
Example:
  holdfast tail --url http://web1:8080 | grep disconnected

Sockets that come and go, stores that are selected, what comes of calls. Nothing is told of what was before. A connection \
that breaks is made anew, and that is said on standard error: what happened meanwhile was missed.

Exit codes: 0 stopped by Ctrl-C, or by whoever reads, 1 refused by the gateway, 69 it cannot be reached at the start";

pub fn command() -> Command {
    Command::new("tail")
        .about("Follow what happens on all instances, line by line, until Ctrl-C")
        .after_help(TAIL_HELP)
        .arg(Arg::new("local").long("local").action(ArgAction::SetTrue).help("Only on the instance that is asked"))
        .args([url(), json()])
        .args(to_ask_with())
}

/// Exit 0 when somebody has seen enough.
pub fn run(given: &Given<'_>) -> ExitCode {
    ended(runtime::run(async {
        tokio::select! {
            biased;
            () = interrupted() => Ok(()),
            outcome = Box::pin(follow(given)) => outcome,
        }
    }))
}

/// Why a stream has ended.
enum End {
    /// Whoever reads has left.
    Unread,
    Broken(String),
}

async fn follow(given: &Given<'_>) -> Result<(), Failure> {
    let gateway = Remote::for_admin(&given.reading(), given.url())?;
    let address = &gateway.address;
    let (mut was_there, mut is_lost) = (false, false);
    loop {
        let why = match begin(&gateway, given.is_set("local")).await {
            Ok(heard) if heard.status == 200 => {
                if is_lost {
                    complain!("{address} answers again; what happened meanwhile was missed");
                }
                (was_there, is_lost) = (true, false);
                match read(heard, given.as_json()).await {
                    End::Unread => return Ok(()),
                    End::Broken(why) => why,
                }
            }
            // An instance that starts or stops says so, and is asked again.
            Ok(heard) if heard.status == 503 && was_there => "it cannot say now".to_owned(),
            Ok(heard) => return Err(refused(&gateway, heard).await),
            Err(why) if was_there => why,
            Err(why) => return Err(gateway.unreachable(&why)),
        };
        // Said once, and not every second.
        if !is_lost {
            complain!("{address} is lost ({}); trying again every second", printable(&why));
        }
        is_lost = true;
        sleep(AGAIN).await;
    }
}

async fn begin(gateway: &Remote, is_local: bool) -> Result<Heard, String> {
    let target = if is_local { "/api/events?scope=local" } else { "/api/events" };
    let asked = Asked::new("GET", target).with("Host", gateway.address.authority()).with("Accept", "text/event-stream");
    let asked = match gateway.bearer() {
        Some(bearer) => asked.with("Authorization", bearer),
        None => asked,
    };
    let dialled = dial::dial(&gateway.address, Trust::Checked, gateway.preamble, PATIENCE).await;
    let connection = dialled.map_err(|unreached| unreached.to_string())?.connection;
    let heard = timeout(PATIENCE, talk::ask(connection, &asked)).await;
    heard.map_err(|_| format!("it did not answer within {} s", PATIENCE.as_secs()))?
}

async fn refused(gateway: &Remote, mut heard: Heard) -> Failure {
    let text = timeout(PATIENCE, heard.whole(PROBLEM_BYTES_MAX)).await.ok().and_then(Result::ok).unwrap_or_default();
    gateway.refusal(heard.status, text)
}

async fn read(mut heard: Heard, as_json: bool) -> End {
    let mut events = Events::default();
    loop {
        let bytes = match timeout(SILENCE, heard.next()).await {
            Ok(Ok(Some(bytes))) => bytes,
            Ok(Ok(None)) => return End::Broken("its stream ended".into()),
            Ok(Err(why)) => return End::Broken(why),
            Err(_) => return End::Broken(format!("it said nothing for {} s", SILENCE.as_secs())),
        };
        events.add(&bytes);
        while let Some((name, data)) = events.take() {
            if name.is_empty() {
                continue;
            }
            let line = if as_json {
                let name = Value::from(name).to_string();
                format!("{{\"event\":{},\"data\":{}}}", printable_json(&name), printable_json(&data))
            } else {
                told(&name, &serde_json::from_str(&data).unwrap_or_default())
            };
            let mut out = io::stdout().lock();
            if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {
                return End::Unread;
            }
        }
        if events.unread() > EVENT_BYTES_MAX {
            return End::Broken("what it tells cannot be read".into());
        }
    }
}

/// An event on a line.
fn told(name: &str, data: &Value) -> String {
    let now = moment(&data["at"]);
    let said = |member: &str| Some(&data[member]).filter(|value| !value.is_null());
    if name == "instances" {
        let unheard = names(&data["unheard"]);
        let unheard = if unheard == "-" { String::new() } else { format!("; not heard: {unheard}") };
        return format!("{now} instances        heard: {}{unheard}", names(&data["heard"]));
    }
    let known = [
        ("instance", "on"),
        ("socketId", ""),
        ("userId", "user"),
        ("storeId", "store"),
        ("callId", ""),
        ("outcome", ""),
        ("cause", ""),
        ("closeCode", ""),
        ("code", ""),
        ("reason", ""),
        ("event", ""),
        ("ms", "ms"),
        ("count", "count"),
    ];
    let parts = known.iter().filter_map(|(member, before)| {
        let value = word(said(member)?);
        Some(if before.is_empty() { value } else { format!("{before} {value}") })
    });
    let parts: Vec<_> = parts.collect();
    format!("{now} {:<15}  {}", printable(name), parts.join("  ")).trim_end().to_owned()
}
