//! Several instances on one registry, in either form.

use super::instance;
use registry::{Inbox, Memory, Registry, Retention};
use servers::Server;
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// Generous, since two busy cores may run everything at once.
pub const DEADLINE: Duration = Duration::from_secs(30);

enum Form {
    Memory(Arc<Memory>),
    Redis(Box<Server>),
}

pub struct Fleet {
    form: Form,
    why_ttl: Duration,
    keeping: JoinSet<()>,
}

impl Fleet {
    pub fn in_memory() -> Self {
        let why_ttl = Duration::from_secs(600);
        let memory = Memory::new(Retention { why_ttl, verdicts_max: 100 });
        Self { form: Form::Memory(memory), why_ttl, keeping: JoinSet::new() }
    }

    /// On a server of its own, where a verdict is kept for a time that a test can wait for.
    pub fn on_redis() -> Self {
        Self { form: Form::Redis(Box::new(Server::start())), why_ttl: Duration::from_secs(4), keeping: JoinSet::new() }
    }

    pub fn why_ttl(&self) -> Duration {
        self.why_ttl
    }

    /// What lies in Redis of sockets, users and groups, but for rows, which end by themselves.
    pub fn keys(&self) -> Vec<String> {
        let Form::Redis(server) = &self.form else { return Vec::new() };
        let is_of_sockets = |key: &String| ["{p", "{g:", "{u:"].iter().any(|tag| key.contains(tag));
        let mut keys: Vec<_> = server.keys().into_iter().filter(is_of_sockets).collect();
        keys.retain(|key| !key.ends_with(":born") && !key.contains(":socket:"));
        keys.sort();
        keys
    }

    pub async fn instance(&mut self, name: &str) -> Registry {
        let (registry, mut inbox) = self.with_inbox(name).await;
        // Nobody reads its letters; they must not hold up its bell.
        self.keeping.spawn(async move { while inbox.recv().await.is_some() {} });
        registry
    }

    pub async fn with_inbox(&mut self, name: &str) -> (Registry, Inbox) {
        let (registry, inbox) = match &self.form {
            Form::Memory(memory) => Registry::in_memory(memory, instance::about(name)),
            Form::Redis(server) => instance::on_redis(&server.url(), name, self.why_ttl),
        };
        instance::keep(&registry, &mut self.keeping, DEADLINE).await;
        (registry, inbox)
    }
}

/// Looks again and again until there is something.
pub async fn eventually<T>(mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain");
        sleep(Duration::from_millis(20)).await;
    }
}
