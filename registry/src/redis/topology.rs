//! Which servers there are, and which of them is the master of what. Asked afresh whenever a connection
//! is rebuilt, since the answer that was right before is why it has to be.

use super::url::{Login, Node, RedisUrl, Topology};
use deadpool_redis::{Manager, Pool, Runtime, Timeouts};
use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use redis::{Client, Cmd, ErrorKind, InfoDict, RedisError, Value, cmd, from_redis_value};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout, timeout_at};

/// What asking about the servers may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long the others have to answer once one has.
const OTHERS: Duration = Duration::from_millis(50);

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub node: Node,
    pub version: String,
    pub eviction: String,
    pub is_of_cluster: bool,
}

/// Asks the servers about themselves, over pooled connections of its own: these questions are rare and
/// slow, and must not stand in the way of the quick ones.
pub struct Servers {
    pub url: RedisUrl,
    pools: Mutex<BTreeMap<Node, Pool>>,
    /// As they were when they were looked at last.
    known: Mutex<Vec<Server>>,
}

/// A range of slots, and its master.
pub type Served = ((u16, u16), Node);

impl Servers {
    pub fn new(url: RedisUrl) -> Self {
        Self { url, pools: Mutex::default(), known: Mutex::default() }
    }

    pub fn are_named_by_sentinels(&self) -> bool {
        matches!(self.url.topology, Topology::Sentinel { .. })
    }

    /// The one master, where there is one.
    pub async fn master(&self) -> Result<Node, RedisError> {
        match &self.url.topology {
            Topology::Sentinel { name } => self.master_by_sentinels(name).await,
            Topology::Standalone | Topology::Cluster => {
                self.url.nodes.first().cloned().ok_or_else(|| unreachable("no server is named"))
            }
        }
    }

    /// The master of a slot.
    pub async fn master_of(&self, slot: u16) -> Result<Node, RedisError> {
        match &self.url.topology {
            Topology::Standalone | Topology::Sentinel { .. } => self.master().await,
            Topology::Cluster => {
                let mut slots = self.slots().await?.into_iter();
                let found = slots.find(|((from, to), _)| (*from..=*to).contains(&slot));
                found.map(|(_, node)| node).ok_or_else(|| unreachable("no master serves the slot of this instance"))
            }
        }
    }

    /// What every master says of itself.
    pub async fn look(&self) -> Vec<Result<Server, RedisError>> {
        let masters = match &self.url.topology {
            Topology::Standalone | Topology::Sentinel { .. } => self.master().await.map(|master| vec![master]),
            Topology::Cluster => self.slots().await.map(|slots| {
                let masters: BTreeSet<_> = slots.into_iter().map(|(_, node)| node).collect();
                masters.into_iter().collect()
            }),
        };
        let looked = match masters {
            Ok(masters) => join_all(masters.into_iter().map(|node| self.look_at(node))).await,
            Err(error) => vec![Err(error)],
        };
        let found: Vec<_> = looked.iter().flatten().cloned().collect();
        if !found.is_empty() {
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = found;
        }
        looked
    }

    async fn look_at(&self, node: Node) -> Result<Server, RedisError> {
        let info: InfoDict = from_redis_value(self.ask(&node, &cmd("INFO")).await?)?;
        let text = |name: &str| info.get::<String>(name).unwrap_or_default();
        Ok(Server {
            version: text("redis_version"),
            eviction: text("maxmemory_policy"),
            is_of_cluster: text("cluster_enabled") == "1",
            node,
        })
    }

    /// Those that were found, without asking them again.
    pub fn known(&self) -> Vec<Server> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Of the sentinels that answer, the one that has seen the latest failover knows.
    async fn master_by_sentinels(&self, name: &str) -> Result<Node, RedisError> {
        let answers = join_all(self.url.nodes.iter().map(|sentinel| self.ask_sentinel(sentinel, name))).await;
        let mut last = unreachable("no sentinel is named");
        let mut latest: Option<(u64, Node)> = None;
        for answer in answers {
            match answer {
                Ok((epoch, node)) if latest.as_ref().is_none_or(|(known, _)| *known < epoch) => {
                    latest = Some((epoch, node));
                }
                Ok(_) => {}
                Err(error) => last = error,
            }
        }
        latest.map(|(_, node)| node).ok_or(last)
    }

    /// The failovers that a sentinel knows of, and the master since the last.
    async fn ask_sentinel(&self, sentinel: &Node, name: &str) -> Result<(u64, Node), RedisError> {
        let mut answer = Err(unreachable("the sentinels do not answer"));
        for login in Login::ALL {
            answer = self.ask_sentinel_as(login, sentinel, name).await;
            if !answer.as_ref().is_err_and(is_refusal) {
                break;
            }
        }
        answer
    }

    async fn ask_sentinel_as(&self, login: Login, sentinel: &Node, name: &str) -> Result<(u64, Node), RedisError> {
        let asked = async {
            let client = Client::open(self.url.sentinel(sentinel, login)?)?;
            let mut connection = client.get_multiplexed_async_connection().await?;
            let said: BTreeMap<String, String> =
                cmd("SENTINEL").arg("MASTER").arg(name).query_async(&mut connection).await?;
            let text = |name: &str| said.get(name).cloned().unwrap_or_default();
            let port = text("port").parse().map_err(|_| unreachable("the sentinels know no master of that name"))?;
            Ok((text("config-epoch").parse().unwrap_or(0), Node { host: text("ip"), port }))
        };
        let answered = timeout(PATIENCE, asked).await;
        answered.unwrap_or_else(|_| Err(unreachable("the sentinels do not answer")))
    }

    /// Slots and their masters, as most nodes see it: one that is cut off from the others may not know better.
    /// One that hangs keeps nobody waiting.
    pub async fn slots(&self) -> Result<Vec<Served>, RedisError> {
        let known: BTreeSet<_> =
            self.pools.lock().unwrap_or_else(PoisonError::into_inner).keys().chain(&self.url.nodes).cloned().collect();
        let ask = async |node: Node| Ok(read_slots(&self.ask(&node, cmd("CLUSTER").arg("SLOTS")).await?, &node));
        let mut answers: FuturesUnordered<_> = known.into_iter().map(ask).collect();
        let mut views: BTreeMap<Vec<Served>, usize> = BTreeMap::new();
        let mut last = unreachable("no node is named");
        let mut until = Instant::now() + PATIENCE * 3;
        while let Ok(Some(answer)) = timeout_at(until, answers.next()).await {
            match answer {
                Ok(slots) if slots.is_empty() => last = unreachable("the node that answers knows of nobody's slots"),
                Ok(slots) => {
                    until = until.min(Instant::now() + OTHERS);
                    *views.entry(slots).or_default() += 1;
                }
                Err(error) if is_refusal(&error) => return Err(error),
                Err(error) => last = error,
            }
        }
        let (slots, _) = views.into_iter().max_by_key(|(_, nodes)| *nodes).ok_or(last)?;
        self.ask_only(&slots)?;
        Ok(slots)
    }

    /// Masters are asked from now on; nodes that left the cluster are not, but the named ones always are.
    fn ask_only(&self, slots: &[Served]) -> Result<(), RedisError> {
        let serves = |node: &Node| slots.iter().any(|(_, master)| master == node);
        let is_known = |node: &Node| serves(node) || self.url.nodes.contains(node);
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).retain(|node, _| is_known(node));
        slots.iter().try_for_each(|(_, master)| self.pool(master).map(drop))
    }

    /// A failure in words, with what mends it.
    pub fn told(&self, error: &RedisError) -> String {
        let shown = self.url.shown();
        let text = error.to_string();
        let login = error.kind() == ErrorKind::AuthenticationFailed;
        match error.kind() {
            _ if login || text.contains("WRONGPASS") || text.contains("NOAUTH") => {
                format!("Redis at {shown} refused our login: {text}; mend user and password in REDIS_URL")
            }
            _ if text.contains("NOPERM") => {
                format!(
                    "Redis at {shown} does not permit what is needed: {text}; deploy/redis/holdfast.acl has what suffices"
                )
            }
            _ if text.contains(NO_CLUSTER) => {
                format!("Redis at {shown} is no cluster: {text}; write redis:// in REDIS_URL")
            }
            ErrorKind::RESP3NotSupported | ErrorKind::Parse => {
                format!("what answers at {shown} is no Redis of 6.2 or later: {text}")
            }
            _ if is_refusal(error) => format!("Redis at {shown} cannot be used: {text}"),
            _ => text,
        }
    }

    async fn ask(&self, node: &Node, question: &Cmd) -> Result<Value, RedisError> {
        let mut connection = self.pool(node)?.get().await.map_err(|error| unreachable(error.to_string()))?;
        match timeout(PATIENCE, question.query_async(&mut connection)).await {
            Ok(said) => said,
            Err(_) => Err(unreachable("it does not answer")),
        }
    }

    fn pool(&self, node: &Node) -> Result<Pool, RedisError> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = pools.get(node) {
            return Ok(pool.clone());
        }
        let manager = Manager::new(self.url.server(node)?)?;
        let timeouts = Timeouts { wait: Some(PATIENCE), create: Some(PATIENCE), recycle: Some(PATIENCE) };
        let pool = Pool::builder(manager).max_size(1).timeouts(timeouts).runtime(Runtime::Tokio1).build();
        let pool = pool.map_err(|error| unreachable(error.to_string()))?;
        pools.insert(node.clone(), pool.clone());
        Ok(pool)
    }
}

/// Of INFO: what changes when the server is started anew, and when a replica takes over.
pub fn identity(info: &InfoDict) -> String {
    let text = |name: &str| info.get::<String>(name).unwrap_or_default();
    format!("{} {}", text("run_id"), text("master_replid"))
}

/// What a server says that is asked for slots and has none.
const NO_CLUSTER: &str = "cluster support disabled";

/// Whether the server was reached and would not have us.
pub fn is_refusal(error: &RedisError) -> bool {
    let text = error.to_string();
    matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::RESP3NotSupported | ErrorKind::Parse)
        || ["WRONGPASS", "NOAUTH", "NOPERM", "unknown command", NO_CLUSTER].iter().any(|word| text.contains(word))
}

pub fn unreachable(why: impl Into<String>) -> RedisError {
    io::Error::new(io::ErrorKind::NotConnected, why.into()).into()
}

/// `CLUSTER SLOTS`: from, to, master, replicas.
fn read_slots(said: &Value, asked: &Node) -> Vec<Served> {
    let Value::Array(ranges) = said else { return Vec::new() };
    let range = |range: &Value| {
        let Value::Array(parts) = range else { return None };
        let number = |value: &Value| match value {
            Value::Int(number) => u16::try_from(*number).ok(),
            _ => None,
        };
        let [from, to, Value::Array(master), ..] = parts.as_slice() else { return None };
        let host = match master.first() {
            // A node that knows no name of its own is the one that was asked.
            Some(Value::BulkString(host)) if !host.is_empty() && host != b"?" => String::from_utf8_lossy(host).into(),
            _ => asked.host.clone(),
        };
        Some(((number(from)?, number(to)?), Node { host, port: number(master.get(1)?)? }))
    };
    let mut ranges: Vec<_> = ranges.iter().filter_map(range).collect();
    ranges.sort();
    ranges
}
