//! `holdfast doctor`: looks at a gateway as its clients meet it, through whatever stands in front, and says what mends
//! what is wrong. `reach` comes first; where there is no Holdfast nothing else is looked at. Then, in the order in which
//! they are told: `handshake`, `stream`, `pages`, `guard`, `auth`, `fleet`, `host`, and beside all of them `idle`.

mod auth;
mod fleet;
mod guard;
mod handshake;
mod host;
mod idle;
mod pages;
mod patient;
mod reach;
mod report;
mod stream;

use super::{
    address::{Address, Place},
    asking::{Failure, Remote, ended},
    dial::Trust,
    exit,
    given::Given,
    runtime,
    words::{credentials, insecure, json, origin, shown, to_ask_with},
};
use crate::config::value;
use clap::{Arg, ArgAction, Command, builder::NonEmptyStringValueParser};
use patient::{Patient, Shown};
use report::Report;
use std::{process::ExitCode, time::Duration};

/// How long a socket is held silent.
const REST: Duration = Duration::from_secs(60);
const REST_MAX: Duration = Duration::from_secs(3600);

const DOCTOR_HELP: &str = "\
Examples:
  holdfast doctor https://example.com --origin https://app.example.com
  holdfast doctor 'wss://example.com/ws?room_id=r' --key @key.txt --auth --idle 5m
  holdfast doctor http://127.0.0.1:8080 --quick --json

A ✓ is well, a ✗ is not and says what mends it, a – could not be looked at and says why. With the API_TOKEN of the \
gateway (environment or --config) more can be looked at: it is shown to this machine and the configured listener alone, \
and with --with-token to others behind https://. Sockets that the doctor opens bring the names of the URL alone.

Exit codes: 0 nothing is wrong, 1 something is, 69 nobody is there, or no Holdfast";

pub fn command() -> Command {
    Command::new("doctor")
        .about("Look at a gateway through whatever stands in front of it, and say what mends what is wrong")
        .after_help(DOCTOR_HELP)
        .arg(
            Arg::new("at")
                .value_name("URL")
                .value_parser(NonEmptyStringValueParser::new())
                .help("http(s):// or ws(s)://, as clients write it; the configured listener unless given"),
        )
        .arg(
            Arg::new("idle")
                .long("idle")
                .value_name("DURATION")
                .value_parser(|text: &str| match value::duration(text) {
                    Ok(span) if span.is_zero() || span > REST_MAX => Err("1ms to 1h can be rested".to_owned()),
                    span => span,
                })
                .help("How long a socket is held silent, to see whether something cuts it [default: 60s]"),
        )
        .arg(
            Arg::new("quick")
                .long("quick")
                .action(ArgAction::SetTrue)
                .conflicts_with("idle")
                .help("Hold no socket silent"),
        )
        .arg(
            Arg::new("instances")
                .long("instances")
                .value_name("COUNT")
                .value_parser(clap::value_parser!(u16).range(1..))
                .help("How many instances there should be"),
        )
        .arg(
            Arg::new("direct")
                .long("direct")
                .value_name("URL")
                .action(ArgAction::Append)
                .value_parser(|text: &str| text.parse::<Address>())
                .help("An instance's own listener, for what the proxy does not pass on; may repeat"),
        )
        .arg(
            Arg::new("with-token").long("with-token").action(ArgAction::SetTrue).conflicts_with("insecure").help(
                "Show the configured API_TOKEN also to another machine, behind https:// with a trusted certificate",
            ),
        )
        .arg(
            Arg::new("auth")
                .long("auth")
                .action(ArgAction::SetTrue)
                .help("Also try each credential that is given, none, and a false one"),
        )
        .arg(origin())
        .args(credentials())
        .args([insecure(), json()])
        .args(to_ask_with())
}

/// Exit 0 when nothing is wrong, 1 when something is, 69 when there is no Holdfast.
pub fn run(given: &Given<'_>) -> ExitCode {
    match examine(given) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => ended(Err(failure)),
    }
}

fn examine(given: &Given<'_>) -> Result<u8, Failure> {
    let reading = given.reading();
    let usage = |why: String| Failure::new(exit::USAGE, why);
    let named = given.text("at").map(Address::split).transpose().map_err(|why| usage(format!("URL: {why}")))?;
    // What is configured here is used where it can be read; whoever names the gateway needs none of it.
    let remote = match &named {
        Some((address, _)) => {
            Remote::of(&reading, Some(address)).or_else(|_| Remote::without_token(&reading, Some(address)))
        }
        None => Remote::of(&reading, None),
    }?;
    let place = Place::of(named.as_ref().map_or("", |(_, path)| path));
    if given.is_set("auth") && place.shows_credential() {
        return Err(usage(
            "--auth tries with and without: give the credential with --key, --token or --cookie, and not in the URL"
                .into(),
        ));
    }
    let shown: Vec<_> = shown(given)?.into_iter().map(|(name, header)| Shown { name, header: Some(header) }).collect();
    let Place { prefix, door, query } = place;
    let patient = Patient {
        prefix,
        door,
        query,
        trust: if given.is_set("insecure") { Trust::Anybody } else { Trust::Checked },
        // What stands in front of a gateway does not want to hear it.
        preamble: remote.preamble && named.is_none(),
        shown: shown.first().cloned().unwrap_or_default(),
        bearer: remote.bearer().map(str::to_owned),
        listener: reading.config.as_ref().ok().map(Address::of),
        with_token: given.is_set("with-token"),
        origin: given.text("origin").map(str::to_owned),
        direct: given.behind.get_many::<Address>("direct").into_iter().flatten().cloned().collect(),
        direct_preamble: remote.preamble,
        address: remote.address,
    };
    let rest = (!given.is_set("quick")).then(|| given.span("idle").unwrap_or(REST));
    let wanted = given.one::<u16>("instances").map(|count| usize::from(*count));
    let credentials = given.is_set("auth").then_some(shown);
    let mut report = Report::new(given.as_json());
    let looked = runtime::run(async { Ok(look(&patient, rest, wanted, credentials.as_deref(), &mut report).await) })?;
    let url = format!("{}{}", patient.address.url(), patient.prefix);
    report.finish(&url);
    Ok(match looked {
        Err(code) => code,
        Ok(()) if report.is_well() => 0,
        Ok(()) => exit::FAILED,
    })
}

async fn look(
    patient: &Patient,
    rest: Option<Duration>,
    wanted: Option<usize>,
    credentials: Option<&[Shown]>,
    report: &mut Report,
) -> Result<(), u8> {
    reach::check(patient, report).await?;
    let rests = async {
        match rest {
            Some(rest) => Some(Box::pin(idle::check(patient, rest)).await),
            None => None,
        }
    };
    let looks = Box::pin(async {
        let greeted = handshake::check(patient, report).await;
        handshake::headers(patient, report).await;
        report.add(stream::check(patient).await);
        pages::check(patient, report).await;
        report.add(guard::check(patient).await);
        if let Some(given) = credentials {
            auth::check(patient, given, report).await;
        }
        fleet::check(patient, greeted, wanted, report).await;
        host::check(patient, report).await;
        if let Some(rest) = rest {
            report.remark(&format!(
                "(a socket is held silent for {}; --quick leaves that out)",
                humantime::format_duration(rest)
            ));
        }
    });
    // The rest begins with the others, so that it does not come on top of them.
    let (rested, ()) = tokio::join!(rests, looks);
    report.add(rested.unwrap_or_else(|| report::Check::unseen("idle", "left out (--quick)")));
    Ok(())
}
