//! Who counts under a cap, on a real server: members of a user's index behind which nobody is, or not yet, or
//! nobody knows; and what happens while Redis is away.

// In a test a failed expectation is the message.
#![allow(clippy::unwrap_used, clippy::panic)]

mod instance;

use registry::{
    Admission, Attempt, Cap, Cause, Ending, Group, Health, Incarnation, Policy, Registry, Session, SocketId,
    SocketRecord, UserName,
};
use servers::Server;
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

const DEADLINE: Duration = Duration::from_secs(30);
const REJECT_ONE: Cap = Cap { sockets_max: 1, policy: Policy::Reject };
const EVICT_ONE: Cap = Cap { sockets_max: 1, policy: Policy::EvictOldest };
const EVICT_TWO: Cap = Cap { sockets_max: 2, policy: Policy::EvictOldest };
const NO_CAP: Cap = Cap { sockets_max: 0, policy: Policy::EvictOldest };

struct Instance {
    registry: Registry,
    keeping: JoinSet<()>,
}

async fn instance(server: &Server, name: &str) -> Instance {
    let (registry, mut inbox) = instance::on_redis(&server.url(), name, Duration::from_secs(60));
    let mut keeping = JoinSet::new();
    keeping.spawn(async move { while inbox.recv().await.is_some() {} });
    instance::keep(&registry, &mut keeping, DEADLINE).await;
    Instance { registry, keeping }
}

impl Instance {
    fn socket(&self, client: Option<&str>) -> Arc<SocketRecord> {
        let user = Some(UserName::parse("ann").unwrap());
        Arc::new(SocketRecord { user, client: client.map(Into::into), ..instance::record(&self.registry) })
    }

    /// It beats no more, and its lease has lapsed. Returns its mark.
    async fn die(mut self, server: &Server) -> String {
        self.keeping.shutdown().await;
        let mark = self.registry.incarnation().mark().to_owned();
        server.ask(&["DEL", &format!("test:{{i:{mark}}}:lease")]);
        mark
    }

    async fn admit(&self, client: Option<&str>, cap: Cap) -> Admission {
        self.registry.admit(&self.socket(client), cap).await
    }
}

fn key(kind: &str) -> String {
    let user = Group::User(UserName::parse("ann").unwrap()).key();
    format!("test:{{u:{}}}:{kind}", user.short())
}

/// A place of which nobody has told more than that.
fn put_member(server: &Server, of: &Incarnation, accepted_at: u64, client: &str) -> SocketId {
    let id = SocketId::fresh();
    let member = format!("{}{}{}{client}", of.mark(), id.short(), Session::fresh());
    server.ask(&["ZADD", &key("sockets"), &accepted_at.to_string(), &member]);
    id
}

fn count(server: &Server, kind: &str) -> String {
    server.text(&["ZCARD", &key(kind)])
}

fn evicted(admission: &Admission) -> Vec<SocketId> {
    match admission {
        Admission::Welcome { evicted, .. } => evicted.iter().map(|record| record.id).collect(),
        other => panic!("{other:?}"),
    }
}

fn is_welcome(admission: &Admission) -> bool {
    matches!(admission, Admission::Welcome { .. })
}

async fn eventually(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !look().await {
        assert!(Instant::now() < deadline, "{what}: waited {DEADLINE:?} in vain");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Once an instance has found out that nothing was lost, what has no row is not waited for.
async fn whole(server: &Server) {
    let born = || server.keys().iter().filter(|key| key.ends_with(":born")).count();
    eventually("every partition is whole", async || born() == 64).await;
}

#[tokio::test]
async fn a_newcomer_whose_row_is_on_its_way_keeps_its_place_for_ten_seconds() {
    let server = Server::start();
    let (web1, web2) = (instance(&server, "web1").await, instance(&server, "web2").await);
    whole(&server).await;
    let began = Instant::now();
    let id = put_member(&server, &web1.registry.incarnation(), web2.registry.now_ms(), "cAAAAAAAA");
    let Admission::Full { holders } = web2.admit(None, REJECT_ONE).await else { panic!() };
    assert_eq!(
        holders.iter().map(|held| (held.id, &held.owner)).collect::<Vec<_>>(),
        [(id, &web1.registry.incarnation())]
    );
    eventually("its place is free", async || is_welcome(&web2.admit(None, REJECT_ONE).await)).await;
    let after = began.elapsed();
    assert!((Duration::from_secs(9)..Duration::from_secs(14)).contains(&after), "{after:?}");
    assert_eq!(count(&server, "sockets"), "1");
}

#[tokio::test]
async fn a_newcomer_whose_row_is_on_its_way_can_be_evicted() {
    let server = Server::start();
    let (web1, web2) = (instance(&server, "web1").await, instance(&server, "web2").await);
    let id = put_member(&server, &web1.registry.incarnation(), web2.registry.now_ms(), "cAAAAAAAA");
    assert_eq!(evicted(&web2.admit(None, EVICT_ONE).await), [id]);
}

#[tokio::test]
async fn a_member_of_nobody_known_is_not_evicted_and_the_next_is_in_its_place() {
    let server = Server::start();
    let web1 = instance(&server, "web1").await;
    put_member(&server, &Incarnation::fresh("web9"), web1.registry.now_ms() - 1000, "cAAAAAAAA");
    let next = web1.socket(Some("b"));
    assert_eq!(evicted(&web1.registry.admit(&next, EVICT_TWO).await), []);
    assert_eq!(evicted(&web1.admit(Some("c"), EVICT_TWO).await), [next.id]);
    // Who was evicted cools down, and nobody else.
    assert_eq!(count(&server, "cooling"), "1");
    assert_eq!(server.ask(&["ZSCORE", &key("cooling"), "cAAAAAAAA"]), redis::Value::Nil);
    let again = web1.admit(Some("b"), EVICT_TWO).await;
    assert!(matches!(again, Admission::CoolingDown), "{again:?}");
}

#[tokio::test]
async fn a_lease_that_lapsed_is_no_death_and_a_tomb_is() {
    let server = Server::start();
    let (web1, web2) = (instance(&server, "web1").await, instance(&server, "web2").await);
    assert!(is_welcome(&web1.admit(None, REJECT_ONE).await));
    let mark = web1.die(&server).await;
    assert!(matches!(web2.admit(None, REJECT_ONE).await, Admission::Full { .. }));
    server.ask(&["SET", &format!("test:{{i:{mark}}}:tomb"), "web1"]);
    assert!(is_welcome(&web2.admit(None, REJECT_ONE).await));
    assert_eq!(count(&server, "sockets"), "1");
}

/// Else its client could not come back at once after a crash.
#[tokio::test]
async fn who_is_evicted_and_cannot_be_told_does_not_cool_down() {
    let server = Server::start();
    let (web1, web2) = (instance(&server, "web1").await, instance(&server, "web2").await);
    let held = web1.socket(None);
    assert!(is_welcome(&web1.registry.admit(&held, EVICT_ONE).await));
    web1.die(&server).await;
    assert_eq!(evicted(&web2.admit(None, EVICT_ONE).await), [held.id]);
    assert_eq!(count(&server, "cooling"), "0");
}

#[tokio::test]
async fn nobody_cools_down_for_what_was_not_there() {
    let server = Server::start();
    let web1 = instance(&server, "web1").await;
    whole(&server).await;
    put_member(&server, &web1.registry.incarnation(), web1.registry.now_ms() - 60_000, "cAAAAAAAA");
    assert_eq!(evicted(&web1.admit(Some("b"), EVICT_ONE).await), []);
    assert_eq!((count(&server, "cooling"), count(&server, "sockets")), ("0".into(), "1".into()));
}

#[tokio::test]
async fn of_a_client_with_a_later_connection_the_earlier_one_counts_and_evicts_nobody() {
    let server = Server::start();
    let (web1, web2) = (instance(&server, "web1").await, instance(&server, "web2").await);
    let long_ago = web1.registry.now_ms() - 2000;
    let earlier = SocketRecord { attempt: Attempt::first(long_ago), ..(*web1.socket(Some("tab"))).clone() };
    let earlier = Arc::new(earlier);
    assert!(is_welcome(&web2.admit(Some("tab"), EVICT_TWO).await));
    assert!(is_welcome(&web1.registry.admit(&earlier, EVICT_TWO).await));
    assert_eq!(count(&server, "sockets"), "2");
    let late = Arc::new(SocketRecord { id: SocketId::fresh(), session: Session::fresh(), ..(*earlier).clone() });
    assert!(matches!(web1.registry.admit(&late, EVICT_ONE).await, Admission::CoolingDown));
}

/// Whatever the clocks of the instances say: they tell the time a little apart.
#[tokio::test]
async fn of_two_connections_of_a_client_at_once_the_one_that_asks_last_stays() {
    let server = Server::start();
    let (web1, web2) = (instance(&server, "web1").await, instance(&server, "web2").await);
    let behind =
        SocketRecord { attempt: Attempt::first(web1.registry.now_ms() - 300), ..(*web1.socket(Some("tab"))).clone() };
    assert!(is_welcome(&web2.admit(Some("tab"), EVICT_TWO).await));
    let admission = web1.registry.admit(&Arc::new(behind), EVICT_TWO).await;
    assert!(matches!(&admission, Admission::Welcome { replaced, .. } if replaced.len() == 1), "{admission:?}");
    assert_eq!(count(&server, "sockets"), "1");
}

/// It has its place already, and is let in elsewhere: nobody else would ever tell it to go.
#[tokio::test]
async fn of_two_connections_of_a_client_at_once_the_other_goes_before_its_row_is_there() {
    let server = Server::start();
    let (web1, web2) = (instance(&server, "web1").await, instance(&server, "web2").await);
    whole(&server).await;
    let known = web1.socket(Some("tab"));
    assert!(is_welcome(&web1.registry.admit(&known, EVICT_TWO).await));
    let member = server.text(&["ZRANDMEMBER", &key("sockets")]);
    let ending = Ending { cause: Cause::ClientClosed, code: None, reason: "".into() };
    web1.registry.unregister(known.id, known.session, ending).await;
    let id = put_member(&server, &web1.registry.incarnation(), web2.registry.now_ms(), &member[55..]);
    let admission = web2.admit(Some("tab"), EVICT_TWO).await;
    let Admission::Welcome { replaced, .. } = admission else { panic!("{admission:?}") };
    let told: Vec<_> = replaced.iter().map(|held| (held.id, &held.owner)).collect();
    assert_eq!(told, [(id, &web1.registry.incarnation())]);
}

#[tokio::test]
async fn without_a_cap_only_the_same_client_is_looked_for() {
    let server = Server::start();
    let (web1, web2) = (instance(&server, "web1").await, instance(&server, "web2").await);
    let before = web1.socket(Some("tab"));
    assert!(is_welcome(&web1.registry.admit(&before, NO_CAP).await));
    for client in [None, Some("other")] {
        let Admission::Welcome { replaced, .. } = web1.admit(client, NO_CAP).await else { panic!() };
        assert!(replaced.is_empty());
    }
    let after = web2.socket(Some("tab"));
    let Admission::Welcome { replaced, .. } = web2.registry.admit(&after, NO_CAP).await else { panic!() };
    assert_eq!(replaced.iter().map(|held| held.id).collect::<Vec<_>>(), [before.id]);
    let indexes = || server.keys().into_iter().filter(|key| key.contains(":sockets")).count();
    assert_eq!((count(&server, "sockets"), indexes()), ("0".into(), 2));
    let ending = || Ending { cause: Cause::ClientClosed, code: None, reason: "".into() };
    web2.registry.unregister(after.id, after.session, ending()).await;
    assert_eq!(indexes(), 1, "who leaves takes its place away");
}

#[tokio::test]
async fn with_redis_away_an_evicted_client_cools_down_as_well() {
    let server = Server::start();
    let web1 = instance(&server, "web1").await;
    server.kill();
    eventually("the link is down", async || web1.registry.health() == Health::Down).await;
    let old = web1.socket(Some("a"));
    assert!(is_welcome(&web1.registry.admit(&old, EVICT_ONE).await));
    assert_eq!(evicted(&web1.admit(Some("b"), EVICT_ONE).await), [old.id]);
    let ending = Ending { cause: Cause::Evicted, code: None, reason: "".into() };
    web1.registry.unregister(old.id, old.session, ending).await;
    let again = web1.admit(Some("a"), EVICT_ONE).await;
    assert!(matches!(again, Admission::CoolingDown), "{again:?}");
}

#[tokio::test]
async fn who_was_let_in_without_an_answer_is_counted_later() {
    let server = Server::start();
    let web1 = instance(&server, "web1").await;
    server.ask(&["SET", &key("sockets"), "of somebody else"]);
    assert!(is_welcome(&web1.admit(None, EVICT_ONE).await));
    server.ask(&["DEL", &key("sockets")]);
    eventually("it is counted", async || count(&server, "sockets") == "1").await;
}
