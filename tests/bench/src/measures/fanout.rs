//! One caller sends to a room, and every member hears it exactly once.

use std::time::{Duration, Instant};

use crate::Result;
use crate::caller::Caller;
use crate::figure::{Budget, Figure};
use crate::load::{Fleet, Listener};
use crate::options::Options;
use crate::server::Server;
use crate::side::{self, Load, Taken};

pub const MEMBERS_MAX: usize = 10_000;

/// Bytes of the message's `data`.
const BODIES: [usize; 2] = [128, 1024];

/// Of one sample, whatever the size of the room.
const DELIVERIES: usize = 100_000;

/// A second copy of a message would have come by then.
const STRAY: Duration = Duration::from_millis(50);

pub fn measure(options: &Options) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for members in [MEMBERS_MAX / 10, MEMBERS_MAX] {
        let samples = side::compare("fanout", members, &BODIES, options.rounds(6, 20))?;
        for (body, samples) in BODIES.iter().zip(samples) {
            let cost = format!("server CPU per delivery, {members} × {body} B");
            figures.push(Figure::new(&cost, "µs", samples.map(|s| s.cpu.into())).within(Budget::RatioAtMost(1.3)));
            let rate = format!("deliveries, {members} × {body} B");
            figures.push(Figure::new(&rate, "1/s", samples.map(|s| s.per_second.into())));
        }
    }
    Ok(figures)
}

/// A room with its members, and somebody who sends to it.
pub struct Hall {
    server: Server,
    fleet: Fleet,
    send: Send,
}

impl Hall {
    pub fn fill(server: Server, members: usize) -> Result<Self> {
        let mut fleet = Fleet::new(&server)?;
        fleet.gather(members, |index| format!("/ws?user_id=u{index}&store_id=s{}&room_id=hall", index % 500))?;
        let caller = Caller::connect(server.address)?;
        fleet.watch(caller.stream())?;
        Ok(Self { server, fleet, send: Send::new(caller, members) })
    }
}

impl Load for Hall {
    fn sample(&mut self, bytes: usize) -> Result<Taken> {
        let Self { server, fleet, send } = self;
        send.complete(fleet, bytes)?;

        let sends = DELIVERIES / fleet.size();
        let (cpu, begin) = (server.cpu()?, Instant::now());
        for _ in 0..sends {
            send.complete(fleet, bytes)?;
        }
        let (spent, elapsed) = (server.cpu()?.since(&cpu), begin.elapsed());

        fleet.turn_until(Instant::now() + STRAY, send)?;
        let delivered = (sends * fleet.size()) as f64;
        Ok(Taken { cpu: spent.per(delivered), per_second: delivered / elapsed.as_secs_f64() })
    }
}

/// The send under way, and what the members have heard.
struct Send {
    caller: Caller,
    /// Sends so far; the number is in the message, so an old one is not taken for a new one.
    number: usize,
    expected: Vec<u8>,
    /// Messages heard so far, by member.
    heard: Vec<usize>,
    /// Members that have the latest message.
    reached: usize,
    answered: bool,
}

impl Send {
    fn new(caller: Caller, members: usize) -> Self {
        Self { caller, number: 0, expected: Vec::new(), heard: vec![0; members], reached: 0, answered: false }
    }

    /// The next one, until everybody has it and the caller its answer.
    fn complete(&mut self, fleet: &mut Fleet, bytes: usize) -> Result<()> {
        self.number += 1;
        let data = format!("{:x<bytes$}", self.number);
        self.expected = format!(r#"{{"type":"m","data":"{data}"}}"#).into_bytes();
        self.reached = 0;
        self.answered = false;
        self.caller.post("/api/rooms/hall/send", &format!(r#"{{"event":"m","data":"{data}"}}"#))?;
        fleet.turn_while(self, Self::is_under_way, Self::state)
    }

    fn is_under_way(&self) -> bool {
        self.reached < self.heard.len() || !self.answered
    }

    fn state(&self) -> String {
        let (members, number) = (self.heard.len(), self.number);
        let answer = if self.answered { "an answer" } else { "no answer" };
        format!("{} of {members} members have message {number}, the caller has {answer}", self.reached)
    }
}

impl Listener for Send {
    fn heard(&mut self, member: usize, text: &[u8]) -> Result<()> {
        self.heard[member] += 1;
        if text != self.expected || self.heard[member] != self.number {
            return Err(format!(
                "heard this as frame {} while message {} was on its way: {}",
                self.heard[member],
                self.number,
                String::from_utf8_lossy(text)
            )
            .into());
        }
        self.reached += 1;
        Ok(())
    }

    fn ready(&mut self) -> Result<()> {
        self.answered |= self.caller.answered()?;
        Ok(())
    }
}
