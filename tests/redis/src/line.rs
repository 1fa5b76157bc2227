//! The connection over which a server is asked: a Unix socket in its folder. It reaches the server
//! whatever becomes of its ports, needs no certificate, and an answer comes surely from our process
//! and not from another that was faster at the same port.

use crate::patience::hold;
use redis::{Client, Connection, IntoConnectionInfo, ProtocolVersion, RedisError, RedisResult, Value};
use std::{path::Path, sync::Mutex, time::Duration};

/// Longer than any answer takes, so that a question to a stopped server fails and does not hang.
const PATIENCE: Duration = Duration::from_secs(20);
/// A server that has not answered PING by then is stopped, paused, or gone.
const PULSE: Duration = Duration::from_secs(1);

pub struct Line {
    client: Client,
    kept: Mutex<Option<Connection>>,
}

impl Line {
    pub fn new(socket: &Path, password: Option<&str>) -> Self {
        let info = format!("unix://{}", socket.display()).into_connection_info().unwrap();
        // RESP 2, so that answers look the same as in `redis-cli`; and no introduction, since it would be counted.
        let mut settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2).set_skip_set_lib_name();
        if let Some(password) = password {
            settings = settings.set_password(password);
        }
        let client = Client::open(info.set_redis_settings(settings)).unwrap();
        Self { client, kept: Mutex::new(None) }
    }

    /// Asks on the kept connection. Where that has broken since the last question, a new one asks
    /// again; after a timeout it does not, since the server may have understood.
    pub fn ask(&self, words: &[impl AsRef<[u8]>]) -> RedisResult<Value> {
        let mut kept = hold(&self.kept);
        let fresh = kept.is_none();
        let mut answer = self.ask_on(&mut kept, words);
        if answer.as_ref().is_err_and(|error| !fresh && error.is_io_error() && !error.is_timeout()) {
            answer = self.ask_on(&mut kept, words);
        }
        // A child that ends in this moment interrupts us; what tests ask may be asked twice.
        while answer.as_ref().is_err_and(was_interrupted) {
            answer = self.ask_on(&mut kept, words);
        }
        answer
    }

    fn ask_on(&self, kept: &mut Option<Connection>, words: &[impl AsRef<[u8]>]) -> RedisResult<Value> {
        let mut connection = match kept.take() {
            Some(connection) => connection,
            None => self.connect(PATIENCE)?,
        };
        let answer = command(words).query(&mut connection);
        // An answer that comes after its question was given up would be taken for that of the next.
        if !answer.as_ref().is_err_and(RedisError::is_io_error) {
            *kept = Some(connection);
        }
        answer
    }

    /// Whether PING is answered now, asked on a connection of its own.
    pub fn answers(&self) -> bool {
        let pong = self.connect(PULSE).and_then(|mut connection| command(&["PING"]).query::<String>(&mut connection));
        pong.is_ok_and(|pong| pong == "PONG")
    }

    fn connect(&self, patience: Duration) -> RedisResult<Connection> {
        let connection = self.client.get_connection_with_timeout(patience)?;
        connection.set_read_timeout(Some(patience))?;
        connection.set_write_timeout(Some(patience))?;
        Ok(connection)
    }
}

fn was_interrupted(error: &RedisError) -> bool {
    error.is_io_error() && error.to_string().contains("Interrupted system call")
}

fn command(words: &[impl AsRef<[u8]>]) -> redis::Cmd {
    let mut command = redis::Cmd::new();
    words.iter().for_each(|word| {
        command.arg(word.as_ref());
    });
    command
}
