//! The budgets of Holdfast, measured: one load generator drives the gateway and the *floor* (a bare
//! epoll server without features) through the same code, taking turns in one run. Absolute numbers
//! belong to a machine; the ratio of the two does not, so that is what most budgets are about.
//!
//! In reading order:
//!
//! * [`options`]: the command line
//! * [`measures`]: what is measured, one file each, and how the two servers take turns
//! * [`figure`]: figures and budgets; [`report`]: the table and the JSON
//! * [`side`]: a server and its load in a process of their own, for samples in quick turns
//! * [`server`]: a server as a child process; [`usage`]: what it costs
//! * [`load`]: the fleet of client sockets; [`member`]: one of them; [`visitor`]: one that comes alone;
//!   [`caller`]: the one HTTP caller
//! * [`floor`]: the server to compare with; [`relay`]: one half of the floor of a call, with what it speaks
//!   to Redis in [`resp`]
//! * [`wire`] and [`poller`]: frames and epoll, shared by the fleet and the floor
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod caller;
mod figure;
mod floor;
mod load;
mod measures;
mod member;
mod options;
mod poller;
mod relay;
mod report;
mod resp;
mod server;
mod side;
mod usage;
mod visitor;
mod wire;

use std::error::Error;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let outcome = match arguments.get(1).map(String::as_str) {
        Some(floor::COMMAND) => floor::serve(),
        Some(relay::COMMAND) => relay::serve(&arguments[2..]),
        Some(server::LEASH) => server::leash(&arguments[2..]),
        _ => bench(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let options = options::parse();
    let files_max = raise_file_limit()?;
    if let Some(role) = &options.side {
        return side::serve(role, &options);
    }
    options.check(files_max)?;
    let report = measures::run(&options)?;
    print!("{report}");
    if let Some(path) = &options.json {
        std::fs::write(path, report.to_json()).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
}

/// Children inherit the limit, so this is also what the servers run with.
fn raise_file_limit() -> Result<u64> {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard })?;
    Ok(hard.unwrap_or(u64::MAX))
}
