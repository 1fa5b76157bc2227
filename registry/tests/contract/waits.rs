//! Calls that wait until somebody comes.

use super::{Fleet, fleet::DEADLINE, record};
use registry::{
    Arrived, Cause, Ending, Group, GroupKey, Inbox, Incarnation, Post, Registry, SocketRecord, StoreName, UserName,
};
use std::{collections::BTreeSet, sync::Arc};
use tokio::time::timeout;

pub fn store(name: &str) -> GroupKey {
    Group::Store(StoreName::parse(name).unwrap()).key()
}

pub fn of(registry: &Registry, store: &str) -> Arc<SocketRecord> {
    let (store, user) = (StoreName::parse(store).ok(), UserName::parse("u").ok());
    Arc::new(SocketRecord { store, user, ..record(registry) })
}

/// What the next who comes there is told.
async fn told(inbox: &mut Inbox) -> (GroupKey, BTreeSet<Incarnation>) {
    loop {
        match timeout(DEADLINE, inbox.recv()).await {
            Ok(Some(Post::Arrived(Arrived { group, by, queued: false }))) => return (group, by.into_iter().collect()),
            Ok(Some(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

pub async fn whoever_comes_is_told_who_waits_for_it(mut fleet: Fleet) {
    let (one, two) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let (three, mut inbox) = fleet.with_inbox("web3").await;
    let both = BTreeSet::from([one.incarnation(), two.incarnation()]);
    // Twice is once.
    for registry in [&one, &two, &one] {
        assert_eq!(registry.wait(store("s")).await, Ok(false));
    }
    assert_eq!(one.wait(store("other")).await, Ok(false));
    three.register(of(&three, "s")).await;
    assert_eq!(told(&mut inbox).await, (store("s"), both.clone()));
    // One who is not the first says so by itself.
    let Ok(Some(Arrived { group, by, queued: false })) = three.came(store("s")).await else { panic!("nobody waits") };
    assert_eq!((group, by.into_iter().collect()), (store("s"), both));
    assert_eq!(three.came(store("elsewhere")).await, Ok(None));
    let ready = async {
        let chosen = of(&three, "t");
        three.register(chosen.clone()).await;
        let moved = Arc::new(SocketRecord { store: StoreName::parse("other").ok(), ..(*chosen).clone() });
        three.update(|| moved.clone()).await
    };
    assert!(ready.await);
    assert_eq!(told(&mut inbox).await, (store("other"), BTreeSet::from([one.incarnation()])));
    assert!(inbox.try_recv().is_err(), "nobody waits for the others");
}

pub async fn who_is_there_already_is_seen_by_whoever_begins_to_wait(mut fleet: Fleet) {
    let (one, two) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let socket = of(&two, "s");
    two.register(socket.clone()).await;
    for registry in [&one, &two] {
        assert_eq!(registry.wait(store("s")).await, Ok(true));
        assert_eq!(registry.wait(GroupKey::of_socket(socket.id)).await, Ok(false));
    }
    let ending = Ending { cause: Cause::ClientClosed, code: None, reason: "".into() };
    assert!(two.unregister(socket.id, socket.session, ending).await);
    assert_eq!(one.wait(store("s")).await, Ok(false));
}
