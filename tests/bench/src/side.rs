//! One server and its load, in a process of their own that takes a sample when told to.
//!
//! What a machine does besides drifts over seconds, and moves the cost of a system call by a third
//! and more. So both servers stay up, and samples of a fraction of a second are taken from them in
//! turn: the drift meets both. Processes of their own, since two fleets would need more open files
//! than one process may have.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::measures::fanout::Hall;
use crate::measures::pingpong::Table;
use crate::measures::{Samples, turns};
use crate::options::Options;
use crate::server::{Kind, Server};
use crate::usage::Spent;

/// A comparison that takes longer is cut short, so that a slow server does not make an endless run.
const COMPARISON_MAX: Duration = Duration::from_secs(60);
const ROUNDS_MIN: usize = 3;

/// Something that samples can be taken of, again and again.
pub trait Load {
    /// `parameter` is what the figures of one load differ in: how deep, how large.
    fn sample(&mut self, parameter: usize) -> Result<Taken>;
}

/// One sample of a server under load.
#[derive(Clone, Copy)]
pub struct Taken {
    /// Processor time of the server, each operation.
    pub cpu: Spent,
    pub per_second: f64,
}

/// Which load a side is, and how large; the spelling of `--side`.
#[derive(Clone)]
pub struct Role {
    kind: Kind,
    measure: String,
    size: usize,
}

impl Role {
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let mut parts = text.split('/');
        let (Some(kind), Some(measure), Some(size)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("expected KIND/MEASURE/SIZE".to_owned());
        };
        let kind = [Kind::Floor, Kind::Holdfast].into_iter().find(|known| known.to_string() == kind);
        Ok(Self {
            kind: kind.ok_or("KIND is floor or holdfast")?,
            measure: measure.to_owned(),
            size: size.parse().map_err(|_| "SIZE is a number")?,
        })
    }
}

/// The side's own main: reads parameters, writes samples, and ends with its input.
pub fn serve(role: &Role, options: &Options) -> Result<()> {
    let server = Server::start(role.kind, &options.gateway, &[])?;
    let mut load: Box<dyn Load> = match role.measure.as_str() {
        "pingpong" => Box::new(Table::lay(server, role.size)?),
        "fanout" => Box::new(Hall::fill(server, role.size)?),
        other => return Err(format!("no load is called {other}").into()),
    };
    println!("ready");
    for line in io::stdin().lines() {
        let Taken { cpu, per_second } = load.sample(line?.parse()?)?;
        println!("{} {} {per_second}", cpu.micros, cpu.user_share);
    }
    Ok(())
}

/// Samples of both sides for each of the parameters, in turn.
pub fn compare(measure: &str, size: usize, parameters: &[usize], rounds: usize) -> Result<Vec<Samples<Taken>>> {
    let mut floor = Side::start(Kind::Floor, measure, size)?;
    let mut holdfast = Side::start(Kind::Holdfast, measure, size)?;
    let mut samples: Vec<_> = parameters.iter().map(|_| Samples::new()).collect();
    let begin = Instant::now();
    for round in 1..=rounds {
        eprintln!("{measure} with {size} sockets, {round} of {rounds}");
        for (parameter, samples) in parameters.iter().zip(&mut samples) {
            for kind in turns(round) {
                let side = if kind == Kind::Floor { &mut floor } else { &mut holdfast };
                samples.push(kind, side.sample(*parameter)?);
            }
        }
        if begin.elapsed() > COMPARISON_MAX && round >= ROUNDS_MIN {
            eprintln!("{measure} with {size} sockets: no more rounds, it has taken a minute");
            break;
        }
    }
    Ok(samples)
}

struct Side {
    kind: Kind,
    child: Child,
    /// `None` once it has been told to end.
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Side {
    /// With the command line of this process, so that it sees the same options.
    fn start(kind: Kind, measure: &str, size: usize) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .arg(format!("--side={kind}/{measure}/{size}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let questions = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().ok_or("a child without stdout")?);
        let mut side = Self { kind, child, questions, answers };
        side.line()?;
        Ok(side)
    }

    fn sample(&mut self, parameter: usize) -> Result<Taken> {
        let mut questions = self.questions.as_ref().ok_or("a child without stdin")?;
        writeln!(questions, "{parameter}")?;
        let line = self.line()?;
        let mut numbers = line.split_whitespace().map(str::parse);
        let mut number = || numbers.next().unwrap_or(Ok(f64::NAN));
        Ok(Taken { cpu: Spent { micros: number()?, user_share: number()? }, per_second: number()? })
    }

    /// A side that fails has said why on stderr, which is ours.
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(format!("the load of {} has failed", self.kind).into());
        }
        Ok(line)
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // The end of its input, at which it ends its server.
        drop(self.questions.take());
        if let Err(error) = self.child.wait() {
            eprintln!("holdfast-bench: cannot wait for process {}: {error}", self.child.id());
        }
    }
}
