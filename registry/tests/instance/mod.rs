//! An instance of a test, as a process would make it, and a socket of it.

use registry::{About, Attempt, Inbox, RedisUrl, Registry, Session, Settings, SocketId, SocketRecord};
use std::{net::IpAddr, time::Duration};
use tokio::{task::JoinSet, time::timeout};

pub fn about(name: &str) -> About {
    About { instance: name.to_owned(), version: "1".to_owned(), pid: 1, started_at: 0, ..About::default() }
}

pub fn on_redis(url: &str, name: &str, why_ttl: Duration) -> (Registry, Inbox) {
    let url = RedisUrl::parse(url).unwrap();
    Registry::on_redis(Settings { url, namespace: "test".into(), why_ttl, secrets: Vec::new() }, about(name))
}

/// It beats, and hears its bell, until the task ends.
pub async fn keep(registry: &Registry, keeping: &mut JoinSet<()>, deadline: Duration) {
    registry.open().await.unwrap();
    let kept = registry.clone();
    keeping.spawn(async move { kept.keep().await });
    timeout(deadline, registry.heard()).await.unwrap();
}

/// A socket that it might let in: nobody's, in no group, not to be resumed.
pub fn record(registry: &Registry) -> SocketRecord {
    let id = SocketId::fresh();
    SocketRecord {
        id,
        session: Session::fresh(),
        owner: registry.incarnation(),
        attempt: Attempt::first(registry.now_ms()),
        user: None,
        store: None,
        rooms: Box::default(),
        client: None,
        address: IpAddr::from([127, 0, 0, 1]),
        connected_at: id.made_at(),
        resumable: None,
    }
}
