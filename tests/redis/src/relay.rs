//! A link that can be cut, frozen, or refused: a TCP relay in front of a port of 127.0.0.1. What
//! neither end can do by itself happens here: bytes that do not arrive on a connection that stays open.

use crate::patience::hold;
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread::{self, JoinHandle},
};

pub struct Relay {
    port: u16,
    gate: Arc<Gate>,
    listening: Option<JoinHandle<()>>,
}

/// What every connection looks at before it moves bytes.
#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    frozen: bool,
    refusing: bool,
    ended: bool,
    /// How often all was cut: who was accepted before the last time, ends.
    cuts: u64,
    /// Both ends of each connection by its number, so that a cut wakes whoever reads or writes there.
    streams: BTreeMap<u64, Vec<TcpStream>>,
}

impl Relay {
    /// Relays to a port of 127.0.0.1.
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let gate = Arc::<Gate>::default();
        let theirs = Arc::clone(&gate);
        let listening = Some(thread::spawn(move || listen(&listener, target, &theirs)));
        Self { port, gate, listening }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Closes all connections of now; new ones are welcome.
    pub fn cut(&self) {
        self.gate.change(State::cut);
    }

    /// From now on connections stay open and nothing moves, not even an end; new ones are accepted and
    /// go nowhere. Bytes on their way wait here.
    pub fn freeze(&self) {
        self.gate.change(|state| state.frozen = true);
    }

    /// What waits, moves.
    pub fn thaw(&self) {
        self.gate.change(|state| state.frozen = false);
    }

    /// From now on a new connection is closed at once; those of now go on.
    pub fn refuse(&self) {
        self.gate.change(|state| state.refusing = true);
    }

    /// New connections are welcome again.
    pub fn accept(&self) {
        self.gate.change(|state| state.refusing = false);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.gate.change(|state| {
            state.ended = true;
            state.cut();
        });
        // Wakes the listener, which then looks.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        let _ = self.listening.take().map(JoinHandle::join);
    }
}

impl State {
    fn cut(&mut self) {
        self.cuts += 1;
        for stream in std::mem::take(&mut self.streams).into_values().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Gate {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut hold(&self.state));
        self.changed.notify_all();
    }

    /// Waits while all is frozen; whether a connection may go on.
    fn pass(&self, link: &Link) -> bool {
        let frozen = |state: &mut State| state.frozen && state.cuts == link.cuts;
        self.changed.wait_while(hold(&self.state), frozen).is_ok_and(|state| state.cuts == link.cuts)
    }

    /// Notes an end of a connection; `false` when that was cut meanwhile.
    fn note(&self, link: &Link, stream: &TcpStream) -> bool {
        let mut state = hold(&self.state);
        let current = state.cuts == link.cuts;
        if let (true, Ok(stream)) = (current, stream.try_clone()) {
            state.streams.entry(link.number).or_default().push(stream);
        }
        current
    }
}

/// One connection: its number, and how often all had been cut when it came.
struct Link {
    number: u64,
    cuts: u64,
}

/// Accepts until the end; the scope waits for all connections.
fn listen(listener: &TcpListener, target: u16, gate: &Gate) {
    thread::scope(|scope| {
        for (number, client) in (0..).zip(listener.incoming().flatten()) {
            let (refusing, ended, cuts) = {
                let state = hold(&gate.state);
                (state.refusing, state.ended, state.cuts)
            };
            if ended {
                break;
            }
            let link = Link { number, cuts };
            if !refusing && gate.note(&link, &client) {
                scope.spawn(move || relay(&client, target, gate, &link));
            }
        }
    });
}

/// One connection, until both directions have ended. Towards the target it opens only when bytes may move.
fn relay(client: &TcpStream, target: u16, gate: &Gate, link: &Link) {
    if gate.pass(link)
        && let Ok(server) = TcpStream::connect(("127.0.0.1", target))
        && gate.note(link, &server)
    {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        thread::scope(|scope| {
            scope.spawn(|| pump(client, &server, gate, link));
            pump(&server, client, gate, link);
        });
    }
    gate.change(|state| drop(state.streams.remove(&link.number)));
}

/// Moves bytes one way, then the end.
fn pump(mut from: &TcpStream, mut to: &TcpStream, gate: &Gate, link: &Link) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        if !gate.pass(link) || read == 0 || to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
