//! The floor: a connection as the registry has one, and on it what an operation has to write or read,
//! as plain commands that decide nothing.

use std::sync::Arc;

use futures_util::future::try_join_all;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ProtocolVersion, Value, cmd};
use registry::SocketRecord;
use servers::Server;

use super::costs::Act;
use super::fleet::Outcome;
use crate::Result;

/// As many as there are of the registry's own.
const PARTITIONS: u64 = 64;
/// As long as the mark of an instance.
const MARK: &str = "0123456789abcdefghijkl";

/// A connection that all share who use it.
pub struct Line(MultiplexedConnection);

impl Line {
    pub async fn to(server: &Server) -> Result<Self> {
        Ok(Self(client(server)?.get_multiplexed_async_connection().await?))
    }

    pub async fn ask(&self, command: &Cmd) -> std::result::Result<Value, String> {
        command.query_async(&mut self.0.clone()).await.map_err(|error| error.to_string())
    }
}

pub struct Plain {
    pub server: Server,
    pub line: Line,
}

impl Plain {
    pub async fn start() -> Result<Self> {
        let server = Server::start();
        Ok(Self { line: Line::to(&server).await?, server })
    }

    pub async fn act(&self, act: Act, record: &Arc<SocketRecord>) -> Outcome {
        let commands = commands(act, record);
        try_join_all(commands.iter().map(|command| self.line.ask(command))).await.map(drop)
    }
}

/// Speaks what the registry's connections speak.
pub fn client(server: &Server) -> Result<redis::Client> {
    use redis::IntoConnectionInfo;
    let info = server.url().into_connection_info()?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Ok(redis::Client::open(info.set_redis_settings(settings))?)
}

fn commands(act: Act, record: &SocketRecord) -> Vec<Cmd> {
    let id = record.id.short();
    let k = record.id.spread() % PARTITIONS;
    let in_partition = |rest: &str| format!("holdfast:{{p{k}}}:{rest}");
    let (row, owned) = (in_partition(&format!("socket:{id}")), in_partition(&format!("owned:{MARK}")));
    let (live, owner) = (in_partition("live"), record.owner.to_string());
    let session = record.session.to_string();
    let mut commands = match act {
        Act::Connect => vec![
            of("HSET", [row.as_str(), "owner", &owner, "session", &session, "attempt", "1", "accepted"])
                .arg(record.attempt.accepted_at)
                .arg(&["state", "live", "connectedAt"])
                .arg(record.connected_at)
                .arg("address")
                .arg(record.address.to_string())
                .to_owned(),
            of("HSET", [&owned, &id, &format!("{session}|4294967295")]),
            of("ZADD", [&live, "0", &id]),
        ],
        Act::Disconnect => vec![
            of("HSET", [&row, "state", "closed", "endedAt", "1700000000000", "cause", "client_closed", "code", "1000"]),
            of("PEXPIRE", [&row, "3600000"]),
            of("HDEL", [&owned, &id]),
            of("ZREM", [&live, &id]),
        ],
        Act::Find => vec![of("HMGET", [row.as_str(), "state", "owner", "session", "user", "store"])],
        // Whether its owner is heard, besides.
        Act::LookUp => vec![of("HGETALL", [&row]), of("HMGET", ["holdfast:lease", "state", "beat"])],
    };
    let joins = act == Act::Connect;
    if matches!(act, Act::Connect | Act::Disconnect) {
        for group in record.groups() {
            let key = format!("holdfast:{{g:{}}}:instances", group.key().short());
            commands.push(match joins {
                true => of("HSET", [&key, &owner, "1|1700000000000"]),
                false => of("HDEL", [&key, &owner]),
            });
        }
        if let Some(user) = &record.user {
            let (key, member) = (format!("holdfast:{{u:{user}}}:sockets"), format!("{MARK}{id}{session}a01234567"));
            commands.push(match joins {
                true => of("ZADD", [&key, "1700000000000", &member]),
                false => of("ZREM", [&key, &member]),
            });
        }
    }
    commands
}

fn of<const N: usize>(name: &str, words: [&str; N]) -> Cmd {
    let mut command = cmd(name);
    command.arg(words.as_slice());
    command
}
