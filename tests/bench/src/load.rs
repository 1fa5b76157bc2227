//! The fleet: thousands of client sockets in one thread, which must stay cheaper than the servers.
//! One wait for all, one read per ready socket, one write for all that a read calls for.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use crate::Result;
use crate::member::Member;
use crate::poller::Poller;
use crate::server::Server;

/// Handshakes under way at once: enough that neither side waits for the other, far below the backlog.
const IN_FLIGHT: usize = 128;

/// Waiting is given up after this long without anything that was waited for.
const STALL_MAX: Duration = Duration::from_secs(20);

/// A turn that heard nothing comes back after this long, so that whoever takes turns can look at
/// the clock.
const TURN_MAX: Duration = Duration::from_millis(20);

/// Of one source address. When half of an address's ports are taken, the kernel's search for a free
/// one costs ten times the handshake that is to be measured.
const PORTS_PER_SOURCE: usize = 5_000;

const SCRATCH_BYTES: usize = 64 * 1024;

/// The token of the one stream that is no member.
const GUEST: u64 = u64::MAX;

/// What is done with what the fleet hears.
pub trait Listener {
    fn heard(&mut self, member: usize, text: &[u8]) -> Result<()>;

    /// What a member writes after a read that brought so many text frames.
    fn answer(&mut self, _frames: usize) -> &[u8] {
        &[]
    }

    /// The stream given to [`Fleet::watch`] can be read.
    fn ready(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Hears everything and does nothing.
pub struct Nobody;

impl Listener for Nobody {
    fn heard(&mut self, _member: usize, _text: &[u8]) -> Result<()> {
        Ok(())
    }
}

pub struct Fleet {
    address: SocketAddr,
    greeting: usize,
    poller: Poller,
    members: Vec<Member>,
    open: usize,
    pings: usize,
    scratch: Vec<u8>,
    /// Pings do not count, lest a server that only pings should be waited for for ever.
    heard_at: Instant,
}

impl Fleet {
    pub fn new(server: &Server) -> Result<Self> {
        Ok(Self {
            address: server.address,
            greeting: server.greeting,
            poller: Poller::new()?,
            members: Vec::new(),
            open: 0,
            pings: 0,
            scratch: vec![0; SCRATCH_BYTES],
            heard_at: Instant::now(),
        })
    }

    /// Adds members, and returns when each has its 101 and its greeting.
    pub fn gather(&mut self, more: usize, target: impl Fn(usize) -> String) -> Result<()> {
        let size = self.members.len() + more;
        self.heard_at = Instant::now();
        while self.open < size {
            while self.members.len() < size && self.members.len() - self.open < IN_FLIGHT {
                self.dial(&target(self.members.len()))?;
            }
            self.turn(&mut Nobody)?;
            self.check_stall(|| format!("only {} sockets of {size} are open", self.open))?;
        }
        Ok(())
    }

    /// `state` says how far it came, should the waiting never end.
    pub fn turn_while<L: Listener>(
        &mut self,
        listener: &mut L,
        waiting: impl Fn(&L) -> bool,
        state: impl Fn(&L) -> String,
    ) -> Result<()> {
        self.heard_at = Instant::now();
        while waiting(listener) {
            self.turn(listener)?;
            self.check_stall(|| state(listener))?;
        }
        Ok(())
    }

    pub fn turn_until(&mut self, end: Instant, listener: &mut impl Listener) -> Result<()> {
        while Instant::now() < end {
            self.turn(listener)?;
        }
        Ok(())
    }

    /// Lets one more stream, that of an HTTP caller, wake the fleet's turns.
    pub fn watch(&self, stream: &TcpStream) -> Result<()> {
        self.poller.watch(stream, GUEST)
    }

    pub fn say_everywhere(&self, bytes: &[u8]) -> Result<()> {
        self.members.iter().try_for_each(|member| member.write(bytes))
    }

    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// Protocol pings heard and answered so far.
    pub fn pings(&self) -> usize {
        self.pings
    }

    fn dial(&mut self, target: &str) -> Result<()> {
        let index = self.members.len();
        let member = Member::dial(source(index), self.address, target)?;
        self.poller.watch(member.stream(), index as u64)?;
        self.members.push(member);
        Ok(())
    }

    /// Hears whatever is there now, or a moment later.
    fn turn(&mut self, listener: &mut impl Listener) -> Result<()> {
        for index in 0..self.poller.wait(Some(TURN_MAX))? {
            match self.poller.token(index) {
                GUEST => {
                    listener.ready()?;
                    self.heard_at = Instant::now();
                }
                member => {
                    let member = member as usize;
                    self.read(member, listener).map_err(|error| format!("socket {member}: {error}"))?;
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, index: usize, listener: &mut impl Listener) -> Result<()> {
        let member = &mut self.members[index];
        let heard = member.read(&mut self.scratch, self.greeting, |text| listener.heard(index, text))?;
        self.pings += heard.pings;
        self.open += usize::from(heard.opened);
        if heard.texts > 0 {
            let answer = listener.answer(heard.texts);
            if !answer.is_empty() {
                member.write(answer)?;
            }
        }
        if heard.opened || heard.texts > 0 {
            self.heard_at = Instant::now();
        }
        Ok(())
    }

    fn check_stall(&self, state: impl Fn() -> String) -> Result<()> {
        if self.heard_at.elapsed() < STALL_MAX {
            return Ok(());
        }
        Err(format!("nothing heard for {} s: {}", STALL_MAX.as_secs(), state()).into())
    }
}

/// Out of 127.0.0.0/8, a part for each process, so that two fleets never look for the same ports.
fn source(member: usize) -> SocketAddrV4 {
    let [.., high, low] = std::process::id().to_be_bytes();
    let host = 1 + member / PORTS_PER_SOURCE % 254;
    SocketAddrV4::new(Ipv4Addr::new(127, 1 + high % 254, low, host as u8), 0)
}
