//! Counts what clients ask of a server. A script counts as one command, whatever it does: of that,
//! `INFO` knows nothing, but `MONITOR` does. It costs the server much, so nothing else is measured
//! meanwhile.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread::{self, JoinHandle};

use servers::Server;

use crate::Result;

/// What the last line of a count says.
const END: &str = "the tap ends";

pub struct Tap<'a> {
    server: &'a Server,
    reader: JoinHandle<std::io::Result<usize>>,
}

impl<'a> Tap<'a> {
    pub fn open(server: &'a Server) -> Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port()))?;
        stream.write_all(b"MONITOR\r\n")?;
        let mut lines = BufReader::new(stream);
        let mut answer = String::new();
        lines.read_line(&mut answer)?;
        if answer.trim() != "+OK" {
            return Err(format!("MONITOR: {answer}").into());
        }
        Ok(Self { server, reader: thread::spawn(move || count(lines)) })
    }

    /// Commands of clients since it was opened.
    pub fn close(self) -> Result<f64> {
        self.server.ask(&["ECHO", END]);
        let counted = self.reader.join().map_err(|_| "the tap broke")?;
        Ok(counted? as f64)
    }
}

fn count(lines: impl BufRead) -> std::io::Result<usize> {
    let mut commands = 0;
    for line in lines.lines() {
        let line = line?;
        if line.contains(END) {
            break;
        }
        // `+<time> [<db> <who>] "<command>" …`; who is an address, `lua`, or the socket by which we ask ourselves.
        commands += usize::from(!line.contains(" lua]") && !line.contains(" unix:"));
    }
    Ok(commands)
}
