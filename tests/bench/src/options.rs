//! The command line.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Command, value_parser};

use crate::Result;
use crate::measures::{cycles, fanout, registry};
use crate::server::Gateway;
use crate::side::Role;

const MEASURES: [&str; 11] = [
    "memory",
    "pingpong",
    "fanout",
    "handshakes",
    "idle",
    "call",
    "durable",
    "resume",
    cycles::NAME,
    registry::NAME,
    "all",
];

/// Asked for by name: one takes as long as all others together, the other is a proof and no figure of speed.
const BY_NAME: [&str; 2] = [registry::NAME, cycles::NAME];

/// Files that a process holds besides the sockets that are counted.
const FILES_RESERVED: u64 = 200;

pub struct Options {
    pub gateway: Gateway,
    pub json: Option<PathBuf>,
    pub sockets: usize,
    pub quick: bool,
    rounds: Option<usize>,
    /// Not for people: this process is one side of a comparison.
    pub side: Option<Role>,
    measures: Vec<String>,
}

impl Options {
    pub fn wants(&self, measure: &str) -> bool {
        self.measures.iter().any(|asked| asked == measure || (asked == "all" && !BY_NAME.contains(&measure)))
    }

    /// How many samples of each server a measure takes, that has these counts of its own.
    pub fn rounds(&self, quick: usize, full: usize) -> usize {
        self.rounds.unwrap_or(if self.quick { quick } else { full })
    }

    /// Whatever would otherwise fail in the middle of a run.
    pub fn check(&self, files_max: u64) -> Result<()> {
        // The gateway leaves 5 % of the open files free (`MAX_SOCKETS`).
        let sockets_max = (files_max / 100 * 95).saturating_sub(FILES_RESERVED) as usize;
        let wants_many = ["memory", "handshakes", "idle"].iter().any(|measure| self.wants(measure));
        if wants_many && !(1..=sockets_max).contains(&self.sockets) {
            return Err(format!(
                "--sockets {} is not within 1..={sockets_max}, which is what a limit of {files_max} open files allows",
                self.sockets
            )
            .into());
        }
        if self.wants("fanout") && sockets_max < fanout::MEMBERS_MAX {
            return Err(format!(
                "fanout needs {} sockets, and a limit of {files_max} open files allows {sockets_max}",
                fanout::MEMBERS_MAX
            )
            .into());
        }
        let wants_gateway = self.measures.iter().any(|asked| asked != registry::NAME);
        if wants_gateway { self.gateway.check() } else { Ok(()) }
    }
}

pub fn parse() -> Options {
    let mut given = command().get_matches();
    let mut measures: Vec<String> = given.remove_many("measure").into_iter().flatten().collect();
    if measures.is_empty() {
        measures.push("all".to_owned());
    }
    Options {
        gateway: Gateway {
            path: given.remove_one("gateway").unwrap_or_else(beside_this_binary),
            settings: given.remove_many("set").into_iter().flatten().collect(),
        },
        json: given.remove_one("json"),
        sockets: given.remove_one("sockets").unwrap_or_default(),
        quick: given.get_flag("quick"),
        rounds: given.remove_one("rounds"),
        side: given.remove_one("side"),
        measures,
    }
}

fn command() -> Command {
    Command::new("holdfast-bench")
        .about("Measures a gateway against the floor: a bare epoll server driven by the same load")
        .arg(
            Arg::new("measure")
                .value_parser(MEASURES)
                .num_args(0..)
                .help("What to measure; registry and cycles are not among all [default: all]"),
        )
        .arg(Arg::new("gateway").long("gateway").value_name("PATH").value_parser(value_parser!(PathBuf)).help(
            "The holdfast binary [default: the one beside this]; `floor` compares the floor \
                     with itself, which shows how far this machine's noise moves a ratio from 1",
        ))
        .arg(
            Arg::new("set")
                .long("set")
                .value_name("NAME=VALUE")
                .action(ArgAction::Append)
                .value_parser(setting)
                .help("A setting for the gateway, over those of the benchmark; may repeat"),
        )
        .arg(
            Arg::new("json")
                .long("json")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("Write every figure with all its samples"),
        )
        .arg(
            Arg::new("sockets")
                .long("sockets")
                .value_name("N")
                .default_value("15000")
                .value_parser(value_parser!(usize))
                .help("Sockets of memory, handshakes and idle"),
        )
        .arg(
            Arg::new("rounds")
                .long("rounds")
                .value_name("N")
                .value_parser(value_parser!(usize))
                .help("Samples of each server [default: 1 to 20, by measure]"),
        )
        .arg(
            Arg::new("quick")
                .long("quick")
                .action(ArgAction::SetTrue)
                .help("Fewer samples, and pings every 10 s instead of 30 s in idle"),
        )
        .arg(Arg::new("side").long("side").hide(true).value_parser(Role::parse))
}

fn setting(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// Cargo puts the binaries of a workspace side by side.
fn beside_this_binary() -> PathBuf {
    std::env::current_exe().map_or_else(|_| "holdfast".into(), |path| path.with_file_name("holdfast"))
}
