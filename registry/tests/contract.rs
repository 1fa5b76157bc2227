//! The contract battery: what every form of the registry has to keep, told as facts.
//! Each fact runs once per form.

// In a test a failed expectation is the message.
#![allow(clippy::unwrap_used, clippy::panic)]

use registry::{
    Admission, Cap, Cause, Ending, Gone, Group, Incarnation, Lease, Lookup, Policy, Registered, Registry, Retention,
    RoomName, Serving, Session, SocketId, SocketRecord, StoreName, UserName, Verdict,
};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio::time::advance;

const RETENTION: Retention = Retention { why_ttl: Duration::from_secs(600), verdicts_max: 100 };

macro_rules! facts {
    ($($(#[$doc:meta])* $fact:ident)*) => {
        mod memory {
            $($(#[$doc])* #[tokio::test(start_paused = true)]
            async fn $fact() {
                super::$fact(super::Registry::in_memory(super::RETENTION)).await;
            })*
        }
    };
}

facts! {
    a_registered_socket_is_found_by_its_id
    an_id_that_was_never_given_out_was_never_seen
    an_id_from_before_the_registry_is_forgotten
    an_ended_socket_leaves_its_verdict
    a_verdict_is_kept_for_its_time_and_then_forgotten
    a_storm_of_endings_forgets_the_oldest_and_says_so
    a_later_attempt_takes_the_socket_over
    an_earlier_attempt_never_replaces_a_later_one
    only_its_own_session_updates_or_removes_a_socket
    a_registration_overtaken_by_its_ending_is_too_late
    groups_name_the_instances_that_hold_members
    a_socket_that_changes_its_store_changes_its_group
    pages_follow_the_order_of_connection
    the_oldest_beyond_the_cap_is_evicted
    two_newcomers_at_once_cannot_both_be_the_last
    the_same_client_replaces_itself
    an_evicted_client_cannot_evict_for_ten_seconds
    with_reject_the_holders_are_named
    nobody_is_not_counted
    an_instance_is_listed_until_it_retires
}

fn record(owner: &Incarnation) -> SocketRecord {
    SocketRecord {
        id: SocketId::fresh(),
        session: Session::fresh(),
        owner: owner.clone(),
        attempt: 1,
        user: None,
        store: None,
        rooms: Box::default(),
        client: None,
        address: IpAddr::from([127, 0, 0, 1]),
        connected_at: registry_now(),
    }
}

fn registry_now() -> u64 {
    SocketId::fresh().made_at()
}

fn of_user(owner: &Incarnation, user: &str, client: Option<&str>) -> Arc<SocketRecord> {
    let user = Some(UserName::parse(user).unwrap());
    Arc::new(SocketRecord { user, client: client.map(Into::into), ..record(owner) })
}

fn ending(cause: Cause) -> Ending {
    Ending { cause, code: Some(1000), reason: "bye".into() }
}

fn web1() -> Incarnation {
    Incarnation::fresh("web1")
}

async fn live(registry: &Registry, id: SocketId) -> Arc<SocketRecord> {
    match registry.lookup(&id.to_string()).await {
        Lookup::Live(record) => record,
        Lookup::Gone(verdict) => panic!("{id} should live: {verdict:?}"),
    }
}

async fn verdict(registry: &Registry, asked: &str) -> Verdict {
    match registry.lookup(asked).await {
        Lookup::Gone(verdict) => verdict,
        Lookup::Live(record) => panic!("{asked} should be gone: {record:?}"),
    }
}

async fn a_registered_socket_is_found_by_its_id(registry: Registry) {
    let record = Arc::new(record(&web1()));
    assert!(matches!(registry.register(record.clone()).await, Registered::Fresh));
    assert_eq!(live(&registry, record.id).await.session, record.session);
    assert_eq!(registry.total().await, 1);
}

async fn an_id_that_was_never_given_out_was_never_seen(registry: Registry) {
    for asked in ["ws_123", "", "nonsense", &SocketId::fresh().to_string()] {
        // An id made in the very millisecond in which the registry began may be either.
        std::thread::sleep(Duration::from_millis(2));
        let asked = if asked.len() > 30 { SocketId::fresh().to_string() } else { asked.to_owned() };
        assert_eq!(verdict(&registry, &asked).await.state(), "never_seen", "{asked}");
    }
}

async fn an_id_from_before_the_registry_is_forgotten(registry: Registry) {
    let old = "ws_018f0000-0000-7000-8000-000000000000";
    assert_eq!(verdict(&registry, old).await.state(), "forgotten");
}

async fn an_ended_socket_leaves_its_verdict(registry: Registry) {
    let store = Some(StoreName::parse("s").unwrap());
    let record = Arc::new(SocketRecord { store, ..record(&web1()) });
    registry.register(record.clone()).await;
    assert!(registry.unregister(record.id, record.session, ending(Cause::Kicked)).await);
    advance(Duration::from_secs(12)).await;
    let verdict = verdict(&registry, &record.id.to_string()).await;
    assert_eq!(verdict.state(), "closed");
    assert_eq!(verdict.since.as_secs(), 12);
    let Gone::Closed { instance, store, ending, .. } = verdict.gone else { panic!("{verdict:?}") };
    assert_eq!((&*instance, store.unwrap().as_str()), ("web1", "s"));
    assert_eq!((ending.cause, ending.code, &*ending.reason), (Cause::Kicked, Some(1000), "bye"));
    assert_eq!(registry.total().await, 0);
}

async fn a_verdict_is_kept_for_its_time_and_then_forgotten(registry: Registry) {
    let record = Arc::new(record(&web1()));
    registry.register(record.clone()).await;
    registry.unregister(record.id, record.session, ending(Cause::ClientClosed)).await;
    advance(Duration::from_secs(599)).await;
    assert_eq!(verdict(&registry, &record.id.to_string()).await.state(), "closed");
    advance(Duration::from_secs(2)).await;
    assert_eq!(verdict(&registry, &record.id.to_string()).await.state(), "forgotten");
}

async fn a_storm_of_endings_forgets_the_oldest_and_says_so(registry: Registry) {
    let records: Vec<_> = (0..150).map(|_| Arc::new(record(&web1()))).collect();
    for record in &records {
        registry.register(record.clone()).await;
        registry.unregister(record.id, record.session, ending(Cause::ClientClosed)).await;
    }
    assert_eq!(verdict(&registry, &records[0].id.to_string()).await.state(), "forgotten");
    assert_eq!(verdict(&registry, &records[149].id.to_string()).await.state(), "closed");
}

async fn a_later_attempt_takes_the_socket_over(registry: Registry) {
    let first = Arc::new(record(&web1()));
    let second = Arc::new(SocketRecord {
        attempt: 2,
        session: Session::fresh(),
        owner: Incarnation::fresh("web2"),
        ..(*first).clone()
    });
    registry.register(first.clone()).await;
    let Registered::TakenFrom(previous) = registry.register(second.clone()).await else { panic!() };
    assert_eq!(previous.session, first.session);
    assert_eq!(live(&registry, first.id).await.owner.instance(), "web2");
}

async fn an_earlier_attempt_never_replaces_a_later_one(registry: Registry) {
    let first = Arc::new(record(&web1()));
    let second = Arc::new(SocketRecord { attempt: 2, session: Session::fresh(), ..(*first).clone() });
    registry.register(second.clone()).await;
    assert!(matches!(registry.register(first.clone()).await, Registered::Superseded));
    assert_eq!(live(&registry, first.id).await.session, second.session);
}

async fn only_its_own_session_updates_or_removes_a_socket(registry: Registry) {
    let ours = Arc::new(record(&web1()));
    registry.register(ours.clone()).await;
    let stranger = Arc::new(SocketRecord { session: Session::fresh(), ..(*ours).clone() });
    assert!(!registry.update(stranger.clone()).await);
    assert!(!registry.unregister(ours.id, stranger.session, ending(Cause::Kicked)).await);
    assert_eq!(live(&registry, ours.id).await.session, ours.session);
    assert!(registry.update(ours.clone()).await);
    assert!(registry.unregister(ours.id, ours.session, ending(Cause::Kicked)).await);
    assert!(!registry.unregister(ours.id, ours.session, ending(Cause::Kicked)).await);
    assert!(!registry.update(ours).await);
}

async fn a_registration_overtaken_by_its_ending_is_too_late(registry: Registry) {
    let record = Arc::new(record(&web1()));
    registry.register(record.clone()).await;
    registry.unregister(record.id, record.session, ending(Cause::ClientClosed)).await;
    assert!(matches!(registry.register(record).await, Registered::Superseded));
    assert_eq!(registry.total().await, 0);
}

async fn groups_name_the_instances_that_hold_members(registry: Registry) {
    let (web1, web2) = (web1(), Incarnation::fresh("web2"));
    let room = RoomName::parse("r").unwrap();
    let in_room = |owner: &Incarnation| Arc::new(SocketRecord { rooms: [room.clone()].into(), ..record(owner) });
    let (a, b, c) = (in_room(&web1), in_room(&web1), in_room(&web2));
    for record in [&a, &b, &c] {
        registry.register(record.clone()).await;
    }
    let key = Group::Room(room).key();
    let mut held: Vec<_> = registry.holders(key).await.into_iter().map(|h| (h.owner, h.members)).collect();
    held.sort();
    assert_eq!(held, [(web1.clone(), 2), (web2, 1)]);
    registry.unregister(c.id, c.session, ending(Cause::Kicked)).await;
    registry.unregister(b.id, b.session, ending(Cause::Kicked)).await;
    let held: Vec<_> = registry.holders(key).await.into_iter().map(|h| (h.owner, h.members)).collect();
    assert_eq!(held, [(web1, 1)]);
}

async fn a_socket_that_changes_its_store_changes_its_group(registry: Registry) {
    let store = |name| Some(StoreName::parse(name).unwrap());
    let before = Arc::new(SocketRecord { store: store("old"), ..record(&web1()) });
    registry.register(before.clone()).await;
    let after = Arc::new(SocketRecord { store: store("new"), ..(*before).clone() });
    assert!(registry.update(after).await);
    let holders = async |name| registry.holders(Group::Store(StoreName::parse(name).unwrap()).key()).await.len();
    assert_eq!((holders("old").await, holders("new").await), (0, 1));
}

async fn pages_follow_the_order_of_connection(registry: Registry) {
    let records: Vec<_> = (0..25).map(|_| Arc::new(record(&web1()))).collect();
    for record in records.iter().rev() {
        registry.register(record.clone()).await;
    }
    let mut seen = Vec::new();
    let mut after = SocketId::FIRST;
    loop {
        let page = registry.page(after, 10).await;
        let Some(last) = page.last() else { break };
        after = last.id;
        seen.extend(page.iter().map(|record| record.id));
    }
    assert_eq!(seen, records.iter().map(|record| record.id).collect::<Vec<_>>());
}

async fn the_oldest_beyond_the_cap_is_evicted(registry: Registry) {
    let cap = Cap { sockets_max: 2, policy: Policy::EvictOldest };
    let (web1, web2) = (web1(), Incarnation::fresh("web2"));
    let sockets: Vec<_> = [&web1, &web2, &web1].map(|owner| of_user(owner, "ann", None)).into_iter().collect();
    for socket in &sockets[..2] {
        let Admission::Welcome { evicted, .. } = registry.admit(socket, cap).await else { panic!() };
        assert!(evicted.is_empty());
    }
    let Admission::Welcome { evicted, .. } = registry.admit(&sockets[2], cap).await else { panic!() };
    assert_eq!(evicted.iter().map(|held| held.id).collect::<Vec<_>>(), [sockets[0].id]);
}

async fn two_newcomers_at_once_cannot_both_be_the_last(registry: Registry) {
    let cap = Cap { sockets_max: 1, policy: Policy::Reject };
    let (a, b) = (of_user(&web1(), "ann", None), of_user(&web1(), "ann", None));
    assert!(matches!(registry.admit(&a, cap).await, Admission::Welcome { .. }));
    assert!(matches!(registry.admit(&b, cap).await, Admission::Full { .. }));
}

async fn the_same_client_replaces_itself(registry: Registry) {
    let cap = Cap { sockets_max: 1, policy: Policy::Reject };
    let (before, after) = (of_user(&web1(), "ann", Some("tab")), of_user(&web1(), "ann", Some("tab")));
    registry.admit(&before, cap).await;
    let Admission::Welcome { replaced, evicted } = registry.admit(&after, cap).await else { panic!() };
    assert_eq!(replaced[0].id, before.id);
    assert!(evicted.is_empty());
}

async fn an_evicted_client_cannot_evict_for_ten_seconds(registry: Registry) {
    let cap = Cap { sockets_max: 1, policy: Policy::EvictOldest };
    let (old, new) = (of_user(&web1(), "ann", Some("a")), of_user(&web1(), "ann", Some("b")));
    registry.admit(&old, cap).await;
    registry.admit(&new, cap).await;
    registry.unregister(old.id, old.session, ending(Cause::Evicted)).await;
    let again = of_user(&web1(), "ann", Some("a"));
    assert!(matches!(registry.admit(&again, cap).await, Admission::CoolingDown));
    advance(Duration::from_secs(11)).await;
    assert!(matches!(registry.admit(&again, cap).await, Admission::Welcome { .. }));
}

async fn with_reject_the_holders_are_named(registry: Registry) {
    let cap = Cap { sockets_max: 2, policy: Policy::Reject };
    let holders = [of_user(&web1(), "ann", None), of_user(&web1(), "ann", None)];
    for holder in &holders {
        registry.admit(holder, cap).await;
    }
    let Admission::Full { holders: named } = registry.admit(&of_user(&web1(), "ann", None), cap).await else {
        panic!()
    };
    assert_eq!(named.iter().map(|held| held.id).collect::<Vec<_>>(), holders.map(|held| held.id));
    assert!(matches!(registry.admit(&of_user(&web1(), "bob", None), cap).await, Admission::Welcome { .. }));
}

async fn nobody_is_not_counted(registry: Registry) {
    let cap = Cap { sockets_max: 1, policy: Policy::Reject };
    for _ in 0..3 {
        let nobody = Arc::new(record(&web1()));
        assert!(matches!(registry.admit(&nobody, cap).await, Admission::Welcome { .. }));
        registry.register(nobody).await;
    }
    assert_eq!(registry.total().await, 3);
}

async fn an_instance_is_listed_until_it_retires(registry: Registry) {
    let lease = Lease {
        incarnation: web1(),
        serving: Serving::Serving,
        version: "1",
        pid: 1,
        started_at: 0,
        sockets: 0,
        canary: false,
    };
    registry.announce(lease.clone()).await;
    registry.announce(Lease { sockets: 7, ..lease.clone() }).await;
    let listed = registry.instances().await;
    assert_eq!((listed.len(), listed[0].sockets), (1, 7));
    registry.retire(&lease.incarnation).await;
    assert!(registry.instances().await.is_empty());
}
