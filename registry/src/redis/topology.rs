//! Which servers there are, and which of them is the master of what. Asked afresh whenever a connection
//! is rebuilt, since the answer that was right before is why it has to be.

use super::url::{Node, RedisUrl, Topology};
use deadpool_redis::{Manager, Pool, Runtime, Timeouts};
use redis::{Client, Cmd, InfoDict, RedisError, Value, cmd, from_redis_value};
use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// What asking about the servers may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub node: Node,
    /// Changes when it is started anew, and when a replica takes over: then it may have lost writes.
    pub identity: String,
    pub version: String,
    pub eviction: String,
}

/// Asks the servers about themselves, over pooled connections of its own: these questions are rare and
/// slow, and must not stand in the way of the quick ones.
pub struct Servers {
    url: RedisUrl,
    pools: Mutex<BTreeMap<Node, Pool>>,
}

impl Servers {
    pub fn new(url: RedisUrl) -> Self {
        Self { url, pools: Mutex::default() }
    }

    /// All masters.
    pub async fn masters(&self) -> Result<Vec<Node>, RedisError> {
        match &self.url.topology {
            Topology::Standalone => Ok(self.url.nodes.clone()),
            Topology::Sentinel { name } => Ok(vec![self.master_by_sentinel(name).await?]),
            Topology::Cluster => {
                let mut masters: Vec<_> = self.slots().await?.into_iter().map(|(_, node)| node).collect();
                masters.sort();
                masters.dedup();
                Ok(masters)
            }
        }
    }

    /// The master of a slot.
    pub async fn master_of(&self, slot: u16) -> Result<Node, RedisError> {
        let found = match &self.url.topology {
            Topology::Standalone | Topology::Sentinel { .. } => self.masters().await?.pop(),
            Topology::Cluster => {
                self.slots().await?.into_iter().find(|((from, to), _)| (*from..=*to).contains(&slot)).map(|it| it.1)
            }
        };
        found.ok_or_else(|| unreachable("no master serves the slot of this instance"))
    }

    /// What every master says of itself.
    pub async fn look(&self) -> Result<Vec<Server>, RedisError> {
        let mut servers = Vec::new();
        for node in self.masters().await? {
            let info: InfoDict = from_redis_value(self.ask(&node, &cmd("INFO")).await?)?;
            let text = |name: &str| info.get::<String>(name).unwrap_or_default();
            servers.push(Server {
                identity: identity(&info),
                version: text("redis_version"),
                eviction: text("maxmemory_policy"),
                node,
            });
        }
        Ok(servers)
    }

    /// The first sentinel that answers knows.
    async fn master_by_sentinel(&self, name: &str) -> Result<Node, RedisError> {
        let mut last = unreachable("no sentinel is named");
        for sentinel in &self.url.nodes {
            let asked = async {
                let mut connection =
                    Client::open(self.url.sentinel(sentinel)?)?.get_multiplexed_async_connection().await?;
                let named: Option<(String, u16)> =
                    cmd("SENTINEL").arg("get-master-addr-by-name").arg(name).query_async(&mut connection).await?;
                named.ok_or_else(|| unreachable("the sentinels know no master of that name"))
            };
            match tokio::time::timeout(PATIENCE, asked).await {
                Ok(Ok((host, port))) => return Ok(Node { host, port }),
                Ok(Err(error)) => last = error,
                Err(_) => last = unreachable("the sentinels do not answer"),
            }
        }
        Err(last)
    }

    /// Slots and their masters, from the first node that answers.
    async fn slots(&self) -> Result<Vec<((u16, u16), Node)>, RedisError> {
        let known = self.pools.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect::<Vec<_>>();
        let mut last = unreachable("no node is named");
        for node in self.url.nodes.iter().chain(&known) {
            match self.ask(node, cmd("CLUSTER").arg("SLOTS")).await {
                Ok(said) => return Ok(read_slots(&said, node)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask(&self, node: &Node, question: &Cmd) -> Result<Value, RedisError> {
        let mut connection = self.pool(node)?.get().await.map_err(|error| unreachable(error.to_string()))?;
        match tokio::time::timeout(PATIENCE, question.query_async(&mut connection)).await {
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

fn unreachable(why: impl Into<String>) -> RedisError {
    io::Error::new(io::ErrorKind::NotConnected, why.into()).into()
}

/// `CLUSTER SLOTS`: from, to, master, replicas.
fn read_slots(said: &Value, asked: &Node) -> Vec<((u16, u16), Node)> {
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
    ranges.iter().filter_map(range).collect()
}
