//! Where Redis is, as the operator wrote it. Parsed once; shown without its secret.

use percent_encoding::percent_decode_str;
use redis::{
    Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisError, cmd,
    io::tcp::TcpSettings,
};
use socket2::{SockRef, TcpKeepalive};
use std::{fmt, io, time::Duration};

/// The port of a server, and of a sentinel.
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// A peer that takes no bytes for so long is gone; else a half-open connection would hang for ever.
const USER_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(10);

/// How several servers, or one, are one registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    Standalone,
    /// The sentinels say who the master of this name is.
    Sentinel {
        name: String,
    },
    Cluster,
}

/// A node's address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    pub host: String,
    pub port: u16,
}

/// As whom a sentinel is asked. Most want to know nothing; some want the password, few the user as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    Nobody,
    Password,
    User,
}

impl Login {
    pub const ALL: [Self; 3] = [Self::Nobody, Self::Password, Self::User];
}

/// A `REDIS_URL` that could be read.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    pub topology: Topology,
    pub nodes: Vec<Node>,
    tls: bool,
    user: Option<String>,
    password: Option<String>,
    db: i64,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl RedisUrl {
    /// Reads `redis://`, `redis+sentinel://…/name`, `redis+cluster://…`, and each with `rediss`. What
    /// is wrong is told without the text itself, which may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("it wants the form redis://host:port")?;
        let (tls, kind) = match scheme.split_once('+').unwrap_or((scheme, "")) {
            ("redis", kind) => (false, kind),
            ("rediss", kind) => (true, kind),
            _ => return Err("it begins with none of redis://, rediss://, redis+sentinel://, redis+cluster://".into()),
        };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (decoded(user)?, decoded(password)?),
            None => (decoded(credentials)?, None),
        };
        let (topology, port) = match kind {
            "" => (Topology::Standalone, PORT),
            "cluster" => (Topology::Cluster, PORT),
            "sentinel" => {
                let name = decoded(path.split('/').next().unwrap_or_default())?;
                let name = name.ok_or("it wants the name of the master: redis+sentinel://host:port/name")?;
                (Topology::Sentinel { name }, SENTINEL_PORT)
            }
            _ => return Err(format!("redis+{kind} is none of redis+sentinel and redis+cluster")),
        };
        let db = match &topology {
            Topology::Standalone => path,
            Topology::Sentinel { .. } => path.split_once('/').map_or("", |(_, db)| db),
            Topology::Cluster if path.is_empty() => path,
            Topology::Cluster => return Err("a cluster has one database, so nothing may follow its nodes".into()),
        };
        let db = match db {
            "" => 0,
            number => number.parse().map_err(|_| "the database behind the slash is no number")?,
        };
        let nodes = hosts.split(',').map(|node| parse_node(node, port)).collect::<Result<Vec<_>, _>>()?;
        if nodes.len() > 1 && topology == Topology::Standalone {
            return Err("several hosts are for redis+sentinel:// or redis+cluster://".into());
        }
        Ok(Self { topology, nodes, tls, user, password, db })
    }

    /// For people: without user and password.
    pub fn shown(&self) -> String {
        let tls = if self.tls { "rediss" } else { "redis" };
        let nodes = self.nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let db = if self.db == 0 { String::new() } else { format!("/{}", self.db) };
        match &self.topology {
            Topology::Standalone => format!("{tls}://{nodes}{db}"),
            Topology::Sentinel { name } => format!("{tls}+sentinel://{nodes}/{name}{db}"),
            Topology::Cluster => format!("{tls}+cluster://{nodes}"),
        }
    }

    /// How a node of this registry is reached.
    pub fn server(&self, node: &Node) -> Result<ConnectionInfo, RedisError> {
        let mut settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_db(self.db);
        if let Some(user) = &self.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        Ok(self.address(node).into_connection_info()?.set_redis_settings(settings).set_tcp_settings(tcp()))
    }

    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// What a server is told first.
    pub fn greeting(&self) -> Vec<Cmd> {
        let mut hello = cmd("HELLO");
        hello.arg(3);
        if let Some(password) = &self.password {
            hello.arg("AUTH").arg(self.user.as_deref().unwrap_or("default")).arg(password);
        }
        let mut greeting = vec![hello];
        if self.db != 0 {
            let mut select = cmd("SELECT");
            select.arg(self.db);
            greeting.push(select);
        }
        greeting
    }

    /// How a sentinel is reached. It has no databases; it may ask for a password, and may have users of its own.
    pub fn sentinel(&self, node: &Node, login: Login) -> Result<ConnectionInfo, RedisError> {
        let mut settings = RedisConnectionInfo::default();
        if let Some(user) = self.user.as_ref().filter(|_| login == Login::User) {
            settings = settings.set_username(user);
        }
        if let Some(password) = self.password.as_ref().filter(|_| login != Login::Nobody) {
            settings = settings.set_password(password);
        }
        Ok(self.address(node).into_connection_info()?.set_redis_settings(settings).set_tcp_settings(tcp()))
    }

    fn address(&self, node: &Node) -> ConnectionAddr {
        let (host, port) = (node.host.clone(), node.port);
        match self.tls {
            true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            false => ConnectionAddr::Tcp(host, port),
        }
    }
}

/// What every connection to Redis has.
fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true).set_keepalive(keepalive()).set_user_timeout(USER_TIMEOUT)
}

/// The same for one that is there already.
pub fn tune(connection: &SockRef<'_>) -> io::Result<()> {
    connection.set_tcp_nodelay(true)?;
    connection.set_tcp_keepalive(&keepalive())?;
    connection.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3)
}

fn decoded(text: &str) -> Result<Option<String>, String> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| "its user or password is not UTF-8")?;
    Ok(Some(text.into_owned()).filter(|text| !text.is_empty()))
}

fn parse_node(text: &str, default: u16) -> Result<Node, String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').ok_or("an IPv6 address wants its closing bracket")?,
        None => text.find(':').map_or((text, ""), |colon| text.split_at(colon)),
    };
    let port = match port.strip_prefix(':') {
        None => default,
        Some(port) => port.parse().map_err(|_| "a port is a number from 1 to 65535")?,
    };
    if host.is_empty() || port == 0 {
        return Err("it names no host, or port 0".into());
    }
    Ok(Node { host: host.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_reads_and_shows_no_secret() {
        for (text, shown) in [
            ("redis://localhost", "redis://localhost:6379"),
            ("rediss://me:hush%40@r.example.com:7000/2", "rediss://r.example.com:7000/2"),
            ("redis://:hush@[::1]:1", "redis://[::1]:1"),
            ("redis+sentinel://a,b:1/main", "redis+sentinel://a:26379,b:1/main"),
            ("redis+sentinel://a/main/3", "redis+sentinel://a:26379/main/3"),
            ("rediss+cluster://:hush@a:1,b:2", "rediss+cluster://a:1,b:2"),
        ] {
            assert_eq!(RedisUrl::parse(text).unwrap().shown(), shown, "{text}");
        }
        let url = RedisUrl::parse("redis://me:hush%40@h").unwrap();
        assert_eq!((url.user.as_deref(), url.password.as_deref()), (Some("me"), Some("hush@")));
        assert!(!format!("{url:?}").contains("hush"));
    }

    #[test]
    fn what_cannot_be_read_is_told_without_the_text() {
        for text in [
            "",
            "localhost:6379",
            "http://hush",
            "redis://",
            "redis://hush:port",
            "redis://a,hush",
            "redis://h/hush",
            "redis://h:0",
            "redis+sentinel://hush",
            "redis+cluster://a/1",
            "redis://[::1",
        ] {
            let fault = RedisUrl::parse(text).unwrap_err();
            assert!(!fault.contains("hush"), "{text}: {fault}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}") {
            let _ = RedisUrl::parse(&text);
            let _ = RedisUrl::parse(&format!("redis+sentinel://{text}"));
        }
    }
}
