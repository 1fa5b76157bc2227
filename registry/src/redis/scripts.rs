//! The scripts, each with its name and its hash. A server is told them all when we connect; a script is sent by
//! its hash, and as a whole to a server that forgot it.

use super::link::{Fault, Link};
use crate::log::Durability;
use redis::{Cmd, Script, ToRedisArgs, Value, cmd};
use std::sync::LazyLock;

/// One script of `lua/`, and in front of it the functions that it shares with others.
pub struct Lua {
    file: &'static str,
    source: &'static str,
    hash: LazyLock<String>,
}

macro_rules! scripts {
    ($($name:ident $file:literal $($part:literal)*;)*) => {
        $(pub static $name: Lua = Lua {
            file: $file,
            source: concat!(
                $(include_str!(concat!("lua/parts/", $part, ".lua")),)*
                include_str!(concat!("lua/", $file, ".lua"))
            ),
            hash: LazyLock::new(|| Script::new($name.source).get_hash().to_owned()),
        };)*

        static ALL: &[&Lua] = &[$(&$name),*];
    };
}

scripts! {
    REGISTER "register" "entries";
    UNREGISTER "unregister" "entries" "events";
    LOG "log" "events";
    BEAT "beat";
    ROUTE "route";
    HEARD "heard";
    TOMB "tomb";
    REAP "reap";
    RESUME "resume" "entries";
    AWAY "away";
    ADMIT "admit";
    RECOUNT "recount";
    TAKE_ON "take_on";
    SETTLE "settle";
    APPEND "append" "room";
    ACK "ack";
    READ_LOG "read_log";
    LOST "lost";
    LEAVE "leave" "room";
    TAKE_MAIL "take_mail";
    TAKEN "taken";
    DRAIN "drain";
    TELL "tell";
    WAIT "wait";
    KEEP "keep";
    QUEUE "queue";
    TAKE "take";
    NEXT "next";
    GIVE "give";
    BACK "back";
    ANSWER "answer";
    OVER "over";
    CANCEL "cancel";
    WRITE "write";
    REDEEM "redeem";
}

impl Lua {
    /// Starts a call with its keys; arguments are added with [`Call::arg`].
    pub fn on(&'static self, keys: impl Into<Vec<String>>) -> Call {
        let keys: Vec<String> = keys.into();
        let mut command = cmd("EVALSHA");
        command.arg(self.hash.as_str()).arg(keys.len()).arg(keys);
        Call { lua: self, command }
    }
}

/// One call of a script.
pub struct Call {
    lua: &'static Lua,
    command: Cmd,
}

impl Call {
    pub fn arg(mut self, arg: impl ToRedisArgs) -> Self {
        self.command.arg(arg);
        self
    }

    /// Runs it. A fault leaves open whether it ran.
    pub async fn run(self, link: &Link) -> Result<Vec<Value>, Fault> {
        let said = match link.ask(&self.command).await {
            Err(Fault::NoScript) => link.ask(&self.whole()).await,
            said => said,
        };
        said.map(values)
    }

    /// The same for what has to survive its server, and how sure that is.
    pub async fn run_durably(self, link: &Link, wants: Durability) -> Result<(Vec<Value>, Durability), Fault> {
        let said = match link.ask_durably(&self.command, wants).await {
            Err(Fault::NoScript) => link.ask_durably(&self.whole(), wants).await,
            said => said,
        };
        said.map(|(value, durability)| (values(value), durability))
    }

    fn whole(&self) -> Cmd {
        let mut whole = cmd("EVAL");
        whole.arg(self.lua.source);
        for arg in self.command.args_iter().skip(2) {
            if let redis::Arg::Simple(bytes) = arg {
                whole.arg(bytes);
            }
        }
        whole
    }
}

/// The source of a script, for tests and measures that run it alone.
pub fn script(file: &str) -> Option<&'static str> {
    ALL.iter().find(|lua| lua.file == file).map(|lua| lua.source)
}

/// What tells a server all of them, so that none has to be sent as a whole later.
pub fn load() -> Vec<Cmd> {
    let load = |lua: &&Lua| {
        let mut load = cmd("SCRIPT");
        load.arg("LOAD").arg(lua.source);
        load
    };
    ALL.iter().map(load).collect()
}

fn values(said: Value) -> Vec<Value> {
    match said {
        Value::Array(values) => values,
        value => vec![value],
    }
}

/// A word, number or nothing in an answer.
pub fn text(value: Option<&Value>) -> &str {
    match value {
        Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).unwrap_or_default(),
        Some(Value::SimpleString(text)) => text,
        _ => "",
    }
}

pub fn number(value: Option<&Value>) -> u64 {
    match value {
        Some(Value::Int(number)) => u64::try_from(*number).unwrap_or(0),
        other => text(other).parse().unwrap_or(0),
    }
}
