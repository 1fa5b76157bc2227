//! The load: HTTP callers at one server and the client at another that answers them, in one thread with
//! one wait for all, so that it costs less than what it measures.
//!
//! Of every caller the client must hear each number once and in order, and every caller must get its own
//! data back; whatever else comes is an error and no slow sample.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Act;
use super::asker::{Asker, DATA_BYTES, sender};
use crate::member::Member;
use crate::poller::Poller;
use crate::server::Server;
use crate::{Result, wire};

/// Waiting is given up after so long without anything that was waited for.
const STALL_MAX: Duration = Duration::from_secs(20);
const TURN_MAX: Duration = Duration::from_millis(20);
/// A second copy of a message would have come by then.
const STRAY: Duration = Duration::from_millis(20);
const SCRATCH_BYTES: usize = 256 * 1024;
const CLIENT: u64 = u64::MAX;

pub struct Crowd {
    poller: Poller,
    askers: Vec<Asker>,
    client: Client,
    scratch: Vec<u8>,
    /// Who waits for nothing.
    free: Vec<usize>,
    heard_at: Instant,
}

/// What came of some time under load.
#[derive(Default)]
pub struct Done {
    pub answered: usize,
    /// What the client was given.
    pub heard: u64,
    pub elapsed: Duration,
    /// In microseconds, in order of size.
    pub waits: Vec<f64>,
}

/// When callers ask.
#[derive(Clone, Copy)]
pub enum Pace {
    /// As soon as they are answered.
    Closed,
    /// So many a second, whether the others are answered or not.
    Open(f64),
}

impl Crowd {
    /// So many callers at one server, the client at the other.
    pub fn gather(callers: usize, asked: &Server, owner: &Server, client: &str) -> Result<Self> {
        let mut poller = Poller::new()?;
        let source = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        let mut member = Member::dial(source, owner.address, client)?;
        poller.watch(member.stream(), CLIENT)?;
        let mut scratch = vec![0; SCRATCH_BYTES];
        let (mut id, mut greeted, mut is_open, began) = ("floor".to_owned(), 0, false, Instant::now());
        while !is_open || greeted < owner.greeting {
            if began.elapsed() > STALL_MAX {
                return Err("the client was not greeted".into());
            }
            poller.wait(Some(TURN_MAX))?;
            // The greeting is read here, since it has the socket's id.
            let heard = member.read(&mut scratch, 0, |text| {
                greeted += 1;
                let frame: Value = serde_json::from_slice(text)?;
                if let Some(named) = frame["socketId"].as_str() {
                    id = named.to_owned();
                }
                Ok(())
            })?;
            is_open |= heard.opened;
        }
        let mut askers = Vec::new();
        for caller in 0..callers {
            let asker = Asker::connect(asked.address, &id, caller)?;
            poller.watch(asker.stream(), caller as u64)?;
            askers.push(asker);
        }
        Ok(Self {
            poller,
            askers,
            client: Client { member, heard: vec![0; callers], out: Vec::new() },
            scratch,
            free: (0..callers).collect(),
            heard_at: Instant::now(),
        })
    }

    /// Lets the callers ask for so long. Those who wait at the end go on waiting: see [`Self::finish`].
    pub fn load(&mut self, act: Act, pace: Pace, time: Duration) -> Result<Done> {
        let (begin, heard) = (Instant::now(), self.client.sum());
        let end = begin + time;
        let (mut done, mut due) = (Done::default(), begin);
        self.heard_at = begin;
        loop {
            let now = Instant::now();
            if now >= end {
                break;
            }
            let patience = match pace {
                Pace::Closed => {
                    while let Some(caller) = self.free.pop() {
                        self.askers[caller].ask(act, Instant::now())?;
                    }
                    TURN_MAX
                }
                Pace::Open(per_second) => {
                    while due <= now {
                        // Nobody is free: it is asked late, and waited for since it was due.
                        let Some(caller) = self.free.pop() else { break };
                        self.askers[caller].ask(act, due)?;
                        due += Duration::from_secs_f64(1.0 / per_second);
                    }
                    due.saturating_duration_since(now).min(TURN_MAX)
                }
            };
            self.turn(patience.min(end - now), &mut done)?;
        }
        done.elapsed = begin.elapsed();
        done.heard = self.client.sum() - heard;
        if let Pace::Open(per_second) = pace {
            self.is_in_time(due, end, per_second)?;
        }
        done.waits.sort_by(f64::total_cmp);
        Ok(done)
    }

    /// A server that does not keep up with an open load has no tail that could be told.
    fn is_in_time(&self, due: Instant, end: Instant, per_second: f64) -> Result<()> {
        if end.saturating_duration_since(due) > Duration::from_millis(500) {
            return Err(format!("{} callers are not enough for {per_second} calls/s", self.askers.len()).into());
        }
        Ok(())
    }

    /// Every caller gets its answer and every message its hearer, and no more than that.
    pub fn finish(&mut self) -> Result<Done> {
        let mut done = Done::default();
        self.heard_at = Instant::now();
        let asked: u64 = self.askers.iter().map(|asker| asker.number).sum();
        while self.free.len() < self.askers.len() || self.client.sum() < asked {
            self.turn(TURN_MAX, &mut done)?;
        }
        let end = Instant::now() + STRAY;
        while Instant::now() < end {
            self.turn(STRAY, &mut done)?;
        }
        Ok(done)
    }

    /// So many calls one after the other at every caller, and nothing of them left over.
    pub fn exactly(&mut self, act: Act, count: usize) -> Result<()> {
        let (mut asked, mut done) = (0, Done::default());
        self.heard_at = Instant::now();
        while done.answered < count {
            while asked < count
                && let Some(caller) = self.free.pop()
            {
                self.askers[caller].ask(act, Instant::now())?;
                asked += 1;
            }
            self.turn(TURN_MAX, &mut done)?;
        }
        self.finish().map(drop)
    }

    fn turn(&mut self, patience: Duration, done: &mut Done) -> Result<()> {
        for index in 0..self.poller.wait(Some(patience))? {
            match self.poller.token(index) {
                CLIENT => self.client.hear(&mut self.scratch)?,
                caller => {
                    let caller = caller as usize;
                    let Some((_, since)) = self.askers[caller].answered(&mut self.scratch)? else { continue };
                    done.waits.push(since.elapsed().as_secs_f64() * 1e6);
                    done.answered += 1;
                    self.free.push(caller);
                }
            }
            self.heard_at = Instant::now();
        }
        if self.heard_at.elapsed() < STALL_MAX {
            return Ok(());
        }
        let waiting = self.askers.len() - self.free.len();
        Err(format!("nothing heard for {} s, and {waiting} callers wait", STALL_MAX.as_secs()).into())
    }
}

/// The one WebSocket, which answers with what it was asked, and acknowledges the last that it read of what was logged.
struct Client {
    member: Member,
    /// The last number of each caller.
    heard: Vec<u64>,
    out: Vec<u8>,
}

impl Client {
    fn sum(&self) -> u64 {
        self.heard.iter().sum()
    }

    fn hear(&mut self, scratch: &mut [u8]) -> Result<()> {
        let Self { member, heard, out } = self;
        out.clear();
        let mut logged = None;
        member.read(scratch, 0, |text| {
            let asked = text.strip_prefix(br#"{"type":"m","callId":""#);
            let call = asked.and_then(|rest| rest.split(|byte| *byte == b'"').next());
            let data = wire::find(text, br#""data":"#).and_then(|at| text.get(at + 7..at + 7 + DATA_BYTES));
            let (Some(data), true) = (data, call.is_some() || text.starts_with(br#"{"type":"m","data":"#)) else {
                return Err(format!("the client was told {}", String::from_utf8_lossy(text)).into());
            };
            let sender = sender(data).and_then(|(caller, number)| Some((heard.get_mut(caller)?, number)));
            match sender {
                Some((last, number)) if number == *last + 1 => *last = number,
                _ => return Err(format!("out of order, twice or lost: {}", String::from_utf8_lossy(text)).into()),
            }
            if let Some(at) = wire::find(text, br#","seq":"#) {
                logged = Some(text[at + 7..text.len() - 1].to_vec());
            }
            if let Some(call) = call {
                let reply = [br#"{"type":"reply","callId":""#, call, br#"","data":"#, data, b"}"].concat();
                out.extend(wire::masked(wire::TEXT, &reply));
            }
            Ok(())
        })?;
        if let Some(seq) = logged {
            out.extend(wire::masked(wire::TEXT, &[br#"{"type":"ack","seq":"#, &seq[..], b"}"].concat()));
        }
        if out.is_empty() { Ok(()) } else { member.write(out) }
    }
}
