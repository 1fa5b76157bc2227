//! A master, a replica, and three sentinels who watch them: two that agree are enough to fail over.

use crate::{
    patience::until,
    server::{Server, Settings, read},
    tls::Papers,
};
use std::{path::Path, time::Duration};

/// The master's name among the sentinels.
const NAME: &str = "holdfast";
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Sentinels {
    nodes: Vec<Server>,
    sentinels: Vec<Server>,
    scheme: &'static str,
}

impl Sentinels {
    /// Returns when every sentinel knows the replica and the other sentinels.
    pub fn start() -> Self {
        Self::of("redis", |_, _| Vec::new())
    }

    /// The same, and all of them speak TLS alone.
    pub fn with_tls() -> Self {
        let papers = Papers::issue();
        Self::of("rediss", |folder, port| papers.settings(folder, port))
    }

    fn of(scheme: &'static str, own: impl Fn(&Path, u16) -> Settings) -> Self {
        let master = data(&own, &[]);
        let replica = data(&own, &[("replicaof", format!("127.0.0.1 {}", master.port()))]);
        // Sentinels ask a master for its replicas every ten seconds, so the first answer should have it.
        until("the replica follows", PATIENCE, || follows(&replica).then_some(()));
        let sentinels = (0..3).map(|_| sentinel(&own, master.port())).collect();
        let all = Self { nodes: vec![master, replica], sentinels, scheme };
        all.settle();
        all
    }

    /// redis+sentinel://, or rediss, every sentinel, and the master's name.
    pub fn url(&self) -> String {
        let all: Vec<_> = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect();
        format!("{}+sentinel://{}/{NAME}", self.scheme, all.join(","))
    }

    /// The two that hold data.
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    pub fn sentinels(&self) -> &[Server] {
        &self.sentinels
    }

    /// Which of the nodes is master, as the first live sentinel sees it; that may be a dead one for a while.
    pub fn master(&self) -> usize {
        let port = self.master_port();
        self.nodes.iter().position(|node| node.port() == port).expect("one of ours")
    }

    pub fn master_port(&self) -> u16 {
        let sentinel = self.sentinels.iter().find(|sentinel| sentinel.answers()).expect("not one sentinel answers");
        named_by(sentinel).expect("a sentinel names the master")
    }

    /// SIGKILL. The sentinels notice after a second and fail over: see `settle`.
    pub fn kill_master(&self) {
        self.nodes[self.master()].kill();
    }

    /// The replica takes over in good order. Returns it once it is master for all sentinels. The old
    /// master still takes writes, which will be lost, for some ten seconds more: `settle` waits for that.
    pub fn failover(&self) -> usize {
        let old = self.master();
        until("a sentinel starts the failover", PATIENCE, || {
            // Refused while the replica is not known well enough, or another failover is going on.
            self.sentinels.iter().find(|sentinel| sentinel.try_ask(&["SENTINEL", "FAILOVER", NAME]).is_ok())
        });
        until("the sentinels name the other", PATIENCE, || self.agreed().filter(|master| *master != old))
    }

    /// Comes back at its port, empty; where it was master, the sentinels make it a replica after some
    /// ten seconds. Returns when it follows the other.
    pub fn revive(&self, index: usize) {
        self.nodes[index].restart();
        until("who comes back follows", PATIENCE, || follows(&self.nodes[index]).then_some(()));
        self.settle();
    }

    /// Waits until all live sentinels name the same live master, whom the other follows if it lives;
    /// returns the master.
    pub fn settle(&self) -> usize {
        until("the sentinels agree on a live master", PATIENCE, || {
            let master = self.agreed()?;
            let other = &self.nodes[1 - master];
            (!other.answers() || follows(other)).then_some(master)
        })
    }

    /// The master of whom all live sentinels and the node itself say so.
    fn agreed(&self) -> Option<usize> {
        let is_master = |node: &Server| node.info("replication", "role").as_deref() == Some("master");
        self.nodes.iter().position(|node| node.answers() && is_master(node) && self.agree_on(node))
    }

    fn agree_on(&self, master: &Server) -> bool {
        let live: Vec<_> = self.sentinels.iter().filter(|sentinel| sentinel.answers()).collect();
        live.iter().all(|sentinel| {
            let knows = |name: &str, count: &str| facts(sentinel).is_some_and(|facts| has(&facts, name, count));
            named_by(sentinel) == Some(master.port()) && knows("num-slaves", "1") && knows("num-other-sentinels", "2")
        })
    }
}

fn named_by(sentinel: &Server) -> Option<u16> {
    let named = sentinel.try_ask(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).ok()?;
    let (_, port): (String, String) = read(named);
    port.parse().ok()
}

/// Names and values, in turn.
fn facts(sentinel: &Server) -> Option<Vec<String>> {
    sentinel.try_ask(&["SENTINEL", "MASTER", NAME]).ok().map(read)
}

fn has(facts: &[String], name: &str, value: &str) -> bool {
    facts.chunks(2).any(|pair| pair == [name, value])
}

fn follows(node: &Server) -> bool {
    node.info("replication", "master_link_status").as_deref() == Some("up")
}

fn data(own: impl Fn(&Path, u16) -> Settings, more: &[(&'static str, String)]) -> Server {
    Server::launch(&["redis.conf"], None, |folder, port| {
        let mut settings = own(folder, port);
        // A master waits five seconds for more replicas otherwise, before it sends its data.
        settings.push(("repl-diskless-sync-delay", "0".to_owned()));
        settings.extend(more.iter().cloned());
        settings
    })
}

fn sentinel(own: impl Fn(&Path, u16) -> Settings, master: u16) -> Server {
    Server::launch(&["redis.conf", "--sentinel"], None, |folder, port| {
        let mut settings = own(folder, port);
        settings.extend([
            ("sentinel monitor", format!("{NAME} 127.0.0.1 {master} 2")),
            ("sentinel down-after-milliseconds", format!("{NAME} 1000")),
            ("sentinel failover-timeout", format!("{NAME} 3000")),
        ]);
        settings
    })
}
