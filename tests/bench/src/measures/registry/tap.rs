//! Counts what clients ask of a server. A script counts as one command, whatever it does: of that,
//! `INFO` knows nothing, but `MONITOR` does. It costs the server much, so nothing else is measured
//! meanwhile.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::thread::{self, JoinHandle};

use servers::Server;

use crate::Result;

/// What the last line of a count says.
const END: &str = "the tap ends";

pub struct Tap<'a> {
    server: &'a Server,
    reader: JoinHandle<std::io::Result<Heard>>,
}

/// What came by since the tap was opened.
#[derive(Default)]
pub struct Heard {
    /// Of clients.
    pub commands: u64,
    /// By channel, whether a script or a client did it; without the rings by which an instance shows itself
    /// that it hears its own bell.
    pub published: HashMap<String, u64>,
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
        Ok(Self { server, reader: thread::spawn(move || listen(lines)) })
    }

    pub fn close(self) -> Result<Heard> {
        self.server.ask(&["ECHO", END]);
        Ok(self.reader.join().map_err(|_| "the tap broke")??)
    }
}

fn listen(lines: impl BufRead) -> std::io::Result<Heard> {
    let mut heard = Heard::default();
    for line in lines.lines() {
        let line = line?;
        if line.contains(END) {
            break;
        }
        // `+<time> [<db> <who>] "<command>" …`; who is an address, `lua`, or the socket by which we ask ourselves.
        heard.commands += u64::from(!line.contains(" lua]") && !line.contains(" unix:"));
        if let Some(channel) = published(&line) {
            *heard.published.entry(channel.to_owned()).or_default() += 1;
        }
    }
    Ok(heard)
}

/// The channel of a message that is no ring.
fn published(line: &str) -> Option<&str> {
    let (_, command) = line.split_once("] \"")?;
    let rest = command.strip_prefix("PUBLISH\" \"").or_else(|| command.strip_prefix("SPUBLISH\" \""))?;
    let (channel, message) = rest.split_once("\" \"")?;
    let is_ring = message.ends_with("\\n\"") || message.ends_with("\\n!\"");
    (!is_ring).then_some(channel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_told_from_rings_and_other_commands() {
        let text = concat!(
            "+1.0 [0 127.0.0.1:1] \"EVALSHA\" \"PUBLISH\" \"bell\"\n",
            "+1.0 [0 lua] \"PUBLISH\" \"bell\" \"7\\n{\\\"v\\\":1}\\n\\x81x\"\n",
            "+1.0 [0 lua] \"PUBLISH\" \"bell\" \"7\\n\"\n",
            "+1.0 [0 lua] \"PUBLISH\" \"bell\" \"7\\n!\"\n",
            "+1.0 [0 127.0.0.1:1] \"PUBLISH\" \"other\" \"c1 x\"\n",
            "+1.0 [0 unix:/a] \"ECHO\" \"the tap ends\"\n",
        );
        let heard = listen(text.as_bytes()).unwrap();
        assert_eq!(heard.commands, 2);
        assert_eq!(heard.published, HashMap::from([("bell".to_owned(), 1), ("other".to_owned(), 1)]));
    }
}
