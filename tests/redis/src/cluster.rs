//! Nodes that share the slots, each a process of its own. They may be killed, and come back; a slot
//! may move from master to master while clients use it, or fail over to a replica.

use crate::{
    migration::Migration,
    patience::{until, within},
    port,
    roster::Roster,
    server::{Server, Settings, read},
    tls::Papers,
};
use std::{path::Path, process::Command, time::Duration};

const PATIENCE: Duration = Duration::from_secs(60);
/// After so long without an answer a node counts as failed. Shorter, and two busy cores fail healthy nodes.
const NODE_TIMEOUT_MS: u32 = 2000;
/// Redis gives up a failover by hand after five seconds, so only then is it asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(6);

pub struct Cluster {
    nodes: Vec<Server>,
    scheme: &'static str,
}

impl Cluster {
    /// At least three masters, as Redis wants it, and so many replicas of each; returns when every node
    /// knows all and every replica follows its master. The first nodes are the masters.
    pub fn of(masters: usize, replicas_per_master: usize) -> Self {
        Self::join(
            (0..masters * (1 + replicas_per_master)).map(|_| node(|_, _| Vec::new())).collect(),
            replicas_per_master,
        )
    }

    /// So many masters that speak TLS alone, with their clients and with each other.
    pub fn with_tls(masters: usize) -> Self {
        let papers = Papers::issue();
        let nodes = (0..masters).map(|_| node(|folder, port| papers.settings(folder, port)));
        Self::join(nodes.collect(), 0)
    }

    fn join(nodes: Vec<Server>, replicas_per_master: usize) -> Self {
        let authority = nodes[0].ca_file();
        let mut create = Command::new("redis-cli");
        if authority.exists() {
            create.arg("--tls").arg("--cacert").arg(&authority);
        }
        create.args(["--cluster", "create"]).args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())));
        create.args(["--cluster-replicas", &replicas_per_master.to_string(), "--cluster-yes"]);
        let said = create.output().expect("redis-cli runs (Debian: apt-get install redis-tools)");
        assert!(said.status.success(), "redis-cli --cluster create: {}", String::from_utf8_lossy(&said.stdout));
        let scheme = if authority.exists() { "rediss" } else { "redis" };
        let cluster = Self { nodes, scheme };
        cluster.settle();
        cluster
    }

    /// redis+cluster://, or rediss, and every node.
    pub fn url(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("{}+cluster://{}", self.scheme, nodes.join(","))
    }

    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// The nodes that answer now.
    fn live(&self) -> Vec<&Server> {
        self.nodes.iter().filter(|node| node.answers()).collect()
    }

    /// A node that answers, to ask what all know.
    fn any(&self) -> &Server {
        self.nodes.iter().find(|node| node.answers()).expect("not one node answers")
    }

    pub(crate) fn roster(&self) -> Roster {
        Roster::of(self.any()).expect("a node that answers says what it knows")
    }

    pub(crate) fn index_of(&self, port: u16) -> usize {
        self.nodes.iter().position(|node| node.port() == port).expect("one of ours")
    }

    /// The masters that answer now.
    pub fn masters(&self) -> Vec<usize> {
        let roster = self.roster();
        let masters = roster.entries().iter().filter(|entry| entry.master.is_none());
        masters.map(|entry| self.index_of(entry.port)).filter(|index| self.nodes[*index].answers()).collect()
    }

    pub fn slot_of(&self, key: &str) -> u16 {
        read(self.any().ask(&["CLUSTER", "KEYSLOT", key]))
    }

    /// The node that is master of the slot, as a live node sees it; that may be a dead one for a while.
    pub fn owner_of(&self, slot: u16) -> usize {
        self.index_of(self.roster().owner_of(slot).expect("every slot has a master").port)
    }

    /// Moves the slot with its keys to another master.
    pub fn migrate_slot(&self, slot: u16, to: usize) {
        self.begin_migration(slot, to).finish_with_keys();
    }

    /// Opens both ends and moves nothing yet: until `finish`, clients are sent to and fro with ASK.
    pub fn begin_migration(&self, slot: u16, to: usize) -> Migration<'_> {
        Migration::begin(self, slot, to)
    }

    /// A replica of the slot's master takes over in good order. Returns it once it is master for every
    /// live node.
    pub fn failover(&self, slot: u16) -> usize {
        let roster = self.roster();
        let master = roster.owner_of(slot).expect("every slot has a master");
        let mut replicas = roster.entries().iter().filter(|entry| entry.master.as_ref() == Some(&master.id));
        let heir = replicas.find(|entry| entry.sound).expect("a master without a replica has no heir").port;
        let heir = self.index_of(heir);
        until("a replica takes over", PATIENCE, || {
            // Refused while it does not follow its master yet.
            self.nodes[heir].try_ask(&["CLUSTER", "FAILOVER"]).ok()?;
            let port = self.nodes[heir].port();
            let owns = |roster: &Roster| roster.owner_of(slot).is_some_and(|owner| owner.port == port);
            within(ASK_AGAIN, || self.everyone_says(owns).then_some(()))
        });
        self.settle();
        heir
    }

    /// SIGKILL. The others notice after two seconds and elect a replica, if there is one: see `settle`.
    pub fn kill(&self, index: usize) {
        self.nodes[index].kill();
    }

    /// Comes back at its port, empty, and knows the others as before; returns when all is settled. A master
    /// that comes back before its failover is still master, and its replica takes over that it is empty.
    pub fn revive(&self, index: usize) {
        self.nodes[index].restart();
        self.settle();
    }

    /// Waits until all live nodes are of one mind: every slot has a live master, every live node is
    /// sound to all others, and the replicas among them follow whom all say they follow.
    pub fn settle(&self) {
        until("the nodes are of one mind", PATIENCE, || self.is_settled().then_some(()));
    }

    fn is_settled(&self) -> bool {
        let live = self.live();
        let Some(one) = live.first().and_then(|node| Roster::of(node)) else { return false };
        let ports: Vec<_> = live.iter().map(|node| node.port()).collect();
        let (slots, bonds) = (one.slots(), one.bonds(&ports));
        let is_well = |node: &&Server| {
            let info: Option<String> = node.try_ask(&["CLUSTER", "INFO"]).ok().map(read);
            info.is_some_and(|info| info.contains("cluster_state:ok"))
                && node.info("replication", "master_link_status").is_none_or(|link| link == "up")
        };
        let agrees = |roster: &Roster| {
            let sound = |port: &u16| roster.at(*port).is_some_and(|entry| entry.sound);
            ports.iter().all(sound) && roster.slots() == slots && roster.bonds(&ports) == bonds
        };
        slots.iter().all(|(_, _, port)| ports.contains(port))
            && live.iter().all(is_well)
            && live.iter().all(|node| Roster::of(node).is_some_and(|roster| agrees(&roster)))
    }

    pub(crate) fn everyone_says(&self, what: impl Fn(&Roster) -> bool) -> bool {
        self.live().iter().all(|node| Roster::of(node).is_some_and(|roster| what(&roster)))
    }
}

fn node(more: impl Fn(&Path, u16) -> Settings) -> Server {
    Server::launch(&["redis.conf"], None, |folder, port| {
        let mut settings = vec![
            ("cluster-enabled", "yes".to_owned()),
            ("cluster-node-timeout", NODE_TIMEOUT_MS.to_string()),
            // Not the port and 10000, which may be anybody's.
            ("cluster-port", port::free().to_string()),
            // A master waits five seconds for more replicas otherwise, before it sends its data.
            ("repl-diskless-sync-delay", "0".to_owned()),
        ];
        settings.extend(more(folder, port));
        settings
    })
}
