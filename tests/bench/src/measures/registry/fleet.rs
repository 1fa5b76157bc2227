//! Instances of the registry, and the sockets that they say they hold.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use registry::{
    About, Admission, Attempt, Cap, Cause, Ending, NameFault, Policy, Post, RedisUrl, Registry, RoomName, Session,
    Settings, SocketId, SocketRecord, StoreName, UserName, epoch_ms,
};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::Result;

/// Longer than any run, so that no verdict expires in the middle of one.
const WHY_TTL: Duration = Duration::from_secs(3600);
const START_MAX: Duration = Duration::from_secs(10);

pub const CAP: Cap = Cap { sockets_max: 5, policy: Policy::EvictOldest };

/// One instance: what it hears is counted, and nothing else is done about it.
pub struct Instance {
    pub registry: Registry,
    letters: Arc<AtomicU64>,
    tasks: [JoinHandle<()>; 2],
}

impl Instance {
    pub async fn start(url: &str, name: &str) -> Result<Self> {
        let settings = Settings {
            url: RedisUrl::parse(url)?,
            namespace: "holdfast".to_owned(),
            why_ttl: WHY_TTL,
            secrets: Vec::new(),
        };
        let about = About {
            instance: name.to_owned(),
            version: "0.1.0".to_owned(),
            pid: std::process::id(),
            started_at: epoch_ms(),
            ..About::default()
        };
        let (registry, mut inbox) = Registry::on_redis(settings, about);
        registry.open().await.map_err(|unusable| unusable.to_string())?;
        let letters = Arc::<AtomicU64>::default();
        let (keeper, counter) = (registry.clone(), letters.clone());
        let tasks = [
            tokio::spawn(async move { keeper.keep().await }),
            tokio::spawn(async move {
                while let Some(post) = inbox.recv().await {
                    counter.fetch_add(u64::from(matches!(post, Post::Letter(_))), Ordering::Relaxed);
                }
            }),
        ];
        timeout(START_MAX, registry.heard()).await.map_err(|_| format!("{name} does not hear its bell"))?;
        Ok(Self { registry, letters, tasks })
    }

    /// Several with names of their own.
    pub async fn start_many(url: &str, count: usize) -> Result<Vec<Self>> {
        let mut instances = Vec::new();
        for number in 1..=count {
            instances.push(Self::start(url, &format!("gateway-{number}:5000")).await?);
        }
        Ok(instances)
    }

    /// How many letters came.
    pub fn letters(&self) -> u64 {
        self.letters.load(Ordering::Relaxed)
    }

    pub fn socket(&self, whose: &Whose) -> Result<Arc<SocketRecord>> {
        let (id, now) = (SocketId::fresh(), self.registry.now_ms());
        Ok(Arc::new(SocketRecord {
            id,
            session: Session::fresh(),
            owner: self.registry.incarnation(),
            attempt: Attempt::first(now),
            user: whose.user.as_deref().map(UserName::parse).transpose().map_err(fault)?,
            store: whose.store.as_deref().map(StoreName::parse).transpose().map_err(fault)?,
            rooms: whose.room.as_deref().map(RoomName::parse).transpose().map_err(fault)?.into_iter().collect(),
            client: None,
            // Somebody else's each time: by it a client without a name is known.
            address: IpAddr::V4(Ipv4Addr::from_bits(0x0A00_0000 | (id.spread() as u32 & 0x00FF_FFFF))),
            connected_at: now,
            resumable: None,
        }))
    }

    pub fn sockets(&self, count: usize, whose: impl Fn(usize) -> Whose) -> Result<Vec<Arc<SocketRecord>>> {
        (0..count).map(|index| self.socket(&whose(index))).collect()
    }

    /// Lets a socket in, as the gateway does at a handshake.
    pub async fn connect(&self, record: &Arc<SocketRecord>) -> Outcome {
        connect(&self.registry, record).await
    }

    pub async fn disconnect(&self, record: &SocketRecord) -> Outcome {
        let ending = Ending { cause: Cause::ClientClosed, code: Some(1000), reason: "".into() };
        match self.registry.unregister(record.id, record.session, ending).await {
            true => Ok(()),
            false => Err("a socket that was registered is not ours".to_owned()),
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// As [`Instance::connect`], for a task that outlives the borrow.
pub async fn connect(registry: &Registry, record: &Arc<SocketRecord>) -> Outcome {
    match registry.admit(record, CAP).await {
        Admission::Welcome { replaced, evicted } if replaced.is_empty() && evicted.is_empty() => Ok(()),
        other => Err(format!("a newcomer under the cap: {other:?}")),
    }
}

/// Of one operation; it travels between tasks.
pub type Outcome = std::result::Result<(), String>;

fn fault(fault: NameFault) -> String {
    format!("a name of ours: {fault:?}")
}

/// The groups of a socket.
#[derive(Default)]
pub struct Whose {
    pub user: Option<String>,
    pub store: Option<String>,
    pub room: Option<String>,
}

impl Whose {
    /// As the sockets are that other measures connect to a gateway.
    pub fn somebody(index: usize) -> Self {
        Self {
            user: Some(format!("u{index}")),
            store: Some(format!("s{}", index % 500)),
            room: Some(format!("r{}", index % 100)),
        }
    }
}

/// Does it with each, so many at once.
pub async fn each<T, F: Future<Output = Outcome>>(
    items: impl IntoIterator<Item = T>,
    width: usize,
    act: impl FnMut(T) -> F,
) -> Outcome {
    stream::iter(items).map(act).buffer_unordered(width).try_for_each(|()| std::future::ready(Ok(()))).await
}
