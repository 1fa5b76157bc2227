//! `holdfast connect`: a socket in the terminal. What comes is printed, what is typed is sent.

use super::{
    address::Address,
    asking::{Failure, PATIENCE, Remote, encoded, ended, printable},
    dial::{self, Trust},
    exit,
    given::Given,
    interrupt::interrupted,
    runtime,
    socket::{Closed, Said, Socket, knock},
    talk::{self, Asked, Heard},
    words::{credentials, insecure, origin, shown, to_ask_with, url},
};
use clap::{Arg, ArgAction, Command, builder::NonEmptyStringValueParser};
use serde_json::Value;
use std::{
    io::{self, BufRead, IsTerminal, Write, stdin},
    process::ExitCode,
    time::Duration,
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

/// How long answers are waited for after the last line of a file or pipe.
const LINGER: Duration = Duration::from_secs(1);
/// A refusal is smaller.
const REFUSAL_BYTES_MAX: usize = 1 << 20;
/// Lines that were typed and not sent yet. Whoever types faster waits.
const TYPED_MAX: usize = 64;

const CONNECT_HELP: &str = "\
Examples:
  holdfast connect --user test123 --room lobby
  holdfast connect 'wss://example.com/ws?user_id=test123' --origin https://app.example.com
  echo '{\"evt\":\"ping\"}' | holdfast connect

Frames go to standard output, one a line; what happens goes to standard error. Ctrl-D or Ctrl-C leaves. At the end of a \
file or pipe the answers of one more second are shown; --listen goes on until the socket ends.

Exit codes: 0 left, or ended with 1000 or 1001, 1 refused, or ended otherwise, 69 the gateway cannot be reached";

pub fn command() -> Command {
    let name = |name: &'static str, help: &'static str| {
        let arg = Arg::new(name).long(name).value_name("NAME").value_parser(NonEmptyStringValueParser::new());
        arg.help(help)
    };
    Command::new("connect")
        .about("Open a socket here: frames are printed as they come, lines that are typed are sent")
        .after_help(CONNECT_HELP)
        .arg(
            Arg::new("at")
                .value_name("PATH|URL")
                .value_parser(NonEmptyStringValueParser::new())
                .help("A path, as /ws?user_id=u, or all of the address, as wss://example.com/ws [default: /ws]"),
        )
        .arg(name("user", "user_id"))
        .arg(name("store", "store_id"))
        .arg(name("room", "room_id; may repeat").action(ArgAction::Append))
        .arg(Arg::new("listen").long("listen").action(ArgAction::SetTrue).help("Go on after the end of the input"))
        .arg(origin())
        .args(credentials())
        .args([insecure(), url()])
        .args(to_ask_with())
}

/// Exit 0 when it was left, or ended as it should; 1 when it was refused, or ended otherwise.
pub fn run(given: &Given<'_>) -> ExitCode {
    ended(runtime::run(connect(given)))
}

async fn connect(given: &Given<'_>) -> Result<(), Failure> {
    let at = given.text("at").unwrap_or("/ws");
    let (named, target) = match at.starts_with('/') {
        true => (given.url().cloned(), at.to_owned()),
        false => {
            let (address, path) = Address::split(at).map_err(|why| Failure::new(exit::USAGE, why))?;
            let path = if path.starts_with('/') { path.to_owned() } else { format!("/ws{path}") };
            // A bare address means its usual door.
            (Some(address), if path == "/" { "/ws".to_owned() } else { path })
        }
    };
    let gateway = Remote::without_token(&given.reading(), named.as_ref())?;
    let trust = if given.is_set("insecure") { Trust::Anybody } else { Trust::Checked };
    let mut asked = Asked::new("GET", with_names(target, given)).with("Host", gateway.address.authority());
    for (name, value) in shown(given)?.into_iter().map(|(_, header)| header) {
        asked = asked.with(name, value);
    }
    if let Some(origin) = given.text("origin") {
        asked = asked.with("Origin", origin);
    }
    let (asked, key) = knock(asked);
    let unreached = |why: String| Failure::unreached(&gateway.address, why);
    let dialled = dial::dial(&gateway.address, trust, gateway.preamble, PATIENCE).await;
    let dialled = dialled.map_err(|why| unreached(why.to_string()))?;
    let heard = timeout(PATIENCE, talk::ask(dialled.connection, &asked)).await;
    let heard = heard.map_err(|_| unreached(format!("it did not answer within {} s", PATIENCE.as_secs())))?;
    let heard = heard.map_err(unreached)?;
    if heard.status != 101 {
        return Err(refusal(heard, &gateway.address).await);
    }
    let instance = heard.header("x-holdfast-instance").unwrap_or("a server that is no Holdfast").to_owned();
    let socket = Socket::of(heard, &key).map_err(|why| Failure::new(exit::FAILED, why))?;
    complain!("connected to {} at {}", printable(&instance), gateway.address);
    converse(socket, given.is_set("listen")).await
}

/// The target, and the names that were given beside it.
fn with_names(target: String, given: &Given<'_>) -> String {
    let one = |flag, name| given.text(flag).map(|value| format!("{name}={}", encoded(value)));
    let rooms = given.all("room").into_iter().map(|room| format!("room_id={}", encoded(room)));
    let names: Vec<_> = [one("user", "user_id"), one("store", "store_id")].into_iter().flatten().chain(rooms).collect();
    match (names.is_empty(), target.contains('?')) {
        (true, _) => target,
        (false, true) => format!("{target}&{}", names.join("&")),
        (false, false) => format!("{target}?{}", names.join("&")),
    }
}

async fn refusal(mut heard: Heard, address: &Address) -> Failure {
    let status = heard.status_line().to_owned();
    let body = timeout(PATIENCE, heard.whole(REFUSAL_BYTES_MAX)).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    let said = |name: &str| problem[name].as_str().filter(|text| !text.is_empty());
    let sentence = match (said("title"), said("detail"), said("hint")) {
        (Some(title), detail, hint) => {
            let more = [detail, hint].into_iter().flatten().collect::<Vec<_>>().join("; ");
            format!("refused with {}, {title}: {more}", heard.status)
        }
        _ => format!(
            "{address} answered {status}, and not as a Holdfast does; holdfast doctor {} says more",
            address.url()
        ),
    };
    Failure::new(exit::FAILED, sentence)
}

/// Lines of standard input, read beside everything else: a thread, since a terminal may never say anything.
fn typed() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(TYPED_MAX);
    std::thread::spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

async fn converse(mut socket: Socket, goes_on: bool) -> Result<(), Failure> {
    let mut lines = typed();
    let (mut is_open, mut unsaid, leaves_at_once) = (true, None, stdin().is_terminal());
    let mut stop = std::pin::pin!(interrupted());
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            said = socket.next() => match said {
                Said::Text(text) if shows(&printable(&text)) => {}
                Said::Binary(bytes) if shows(&format!("({} bytes: {})", bytes.len(), hex(&bytes))) => {}
                Said::Closed(closed) => return end(&closed),
                // Whoever reads has left, as head does.
                Said::Text(_) | Said::Binary(_) => break,
            },
            line = lines.recv(), if is_open => match line {
                Some(line) if line.is_empty() => {}
                // Ctrl-C is heard also while nobody takes what is said. What went wrong may be what the socket says next.
                Some(line) => tokio::select! {
                    biased;
                    () = &mut stop => break,
                    said = socket.say(&line) => if let Err(why) = said {
                        (is_open, unsaid) = (false, Some(why));
                    },
                },
                None => is_open = false,
            },
            () = sleep(if leaves_at_once { Duration::ZERO } else { LINGER }),
                if !is_open && (!goes_on || unsaid.is_some()) => break,
        }
    }
    socket.close().await;
    match unsaid {
        Some(why) => {
            Err(Failure::new(exit::FAILED, format!("left, since not all that was typed could be said: {why}")))
        }
        None => {
            complain!("left");
            Ok(())
        }
    }
}

/// Prints a line, while somebody reads.
fn shows(line: &str) -> bool {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).is_ok()
}

/// The beginning of it.
fn hex(bytes: &[u8]) -> String {
    let shown: String = bytes.iter().take(32).map(|byte| format!("{byte:02x}")).collect();
    if bytes.len() > 32 { format!("{shown}…") } else { shown }
}

fn end(closed: &Closed) -> Result<(), Failure> {
    let Closed { code, reason } = closed;
    let reason = if reason.is_empty() { "no reason" } else { reason };
    let sentence = format!("closed with {code}: {reason}");
    if matches!(code, 1000 | 1001) {
        complain!("{}", printable(&sentence));
        return Ok(());
    }
    Err(Failure::new(exit::FAILED, sentence))
}
