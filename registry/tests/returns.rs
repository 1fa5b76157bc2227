//! Sockets that come back while something breaks, on a real server: their instance dies, an answer is lost, Redis
//! forgets, or whoever asked hangs up.

// In a test a failed expectation is the message.
#![allow(clippy::unwrap_used, clippy::panic)]

mod instance;

use futures_util::FutureExt;
use registry::{
    Admission, Attempt, Back, Cap, Cause, Ending, Gone, Group, Inbox, Lookup, NotBack, Policy, Registered, Registry,
    Resumable, RoomName, SocketId, SocketRecord, StoreName, UserName,
    event::{Logged, Particulars},
    owner::partition,
};
use servers::{Relay, Server};
use std::{num::NonZeroU32, sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// A dead instance is noticed after a third of it.
const DEADLINE: Duration = Duration::from_secs(90);
const NO_CAP: Cap = Cap { sockets_max: 0, policy: Policy::EvictOldest };

struct Instance {
    registry: Registry,
    inbox: Inbox,
    keeping: JoinSet<()>,
    relay: Relay,
}

async fn instance(server: &Server, name: &str) -> Instance {
    let relay = Relay::to(server.port());
    let url = format!("redis://127.0.0.1:{}", relay.port());
    let (registry, inbox) = instance::on_redis(&url, name, Duration::from_secs(600));
    let mut keeping = JoinSet::new();
    instance::keep(&registry, &mut keeping, DEADLINE).await;
    Instance { registry, inbox, keeping, relay }
}

impl Instance {
    fn socket(&self, nth: usize) -> SocketRecord {
        SocketRecord {
            user: Some(user(nth)),
            store: Some(StoreName::parse(&format!("shop {}", nth % 3)).unwrap()),
            rooms: [RoomName::parse("lobby").unwrap()].into(),
            client: Some("tab".into()),
            resumable: Some(Resumable { window: NonZeroU32::new(600).unwrap(), confirmed: 0 }),
            ..instance::record(&self.registry)
        }
    }

    async fn enters(&self, nth: usize) -> Arc<SocketRecord> {
        let record = Arc::new(self.socket(nth));
        assert!(matches!(self.registry.admit(&record, NO_CAP).await, Admission::Welcome { .. }));
        record
    }

    /// A client of that user shows a token.
    fn newcomer(&self, nth: usize, token: &str) -> Arc<SocketRecord> {
        let (id, n) = self.registry.open_token(token, Some(&user(nth))).unwrap();
        let attempt = Attempt { n, accepted_at: self.registry.now_ms() + 50 };
        Arc::new(SocketRecord { id, attempt, ..self.socket(nth) })
    }

    async fn takes(&self, nth: usize, token: &str) -> Arc<SocketRecord> {
        match self.registry.admit_back(&self.newcomer(nth, token), NO_CAP).await {
            Ok((Back { record, .. }, Admission::Welcome { .. })) => record,
            other => panic!("it may come back: {other:?}"),
        }
    }

    async fn lookup(&self, id: SocketId) -> Lookup {
        self.registry.lookup(&id.to_string()).await
    }

    async fn knows(&self, held: &SocketRecord) -> bool {
        matches!(self.lookup(held.id).await, Lookup::Live(found) if found.session == held.session)
    }

    async fn is_away(&self, id: SocketId) -> bool {
        let Lookup::Gone(verdict) = self.lookup(id).await else { return false };
        matches!(verdict.gone, Gone::Closed { back_within: Some(_), .. })
    }

    async fn ends(&self, held: &SocketRecord, cause: Cause) {
        let ending = Ending { cause, code: None, reason: "".into() };
        assert!(self.registry.unregister(held.id, held.session, ending).await);
    }

    fn mark(&self) -> String {
        self.registry.incarnation().mark().to_owned()
    }
}

fn user(nth: usize) -> UserName {
    UserName::parse(&format!("user {nth}")).unwrap()
}

fn row(server: &Server, id: SocketId, field: &str) -> String {
    let name = format!("}}:socket:{}", id.short());
    let key = server.keys().into_iter().find(|key| key.ends_with(&name));
    key.map(|key| server.text(&["HGET", &key, field])).unwrap_or_default()
}

async fn eventually(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !look().await {
        assert!(Instant::now() < deadline, "{what}: waited {DEADLINE:?} in vain");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Whoever cleans up after it does not meet these sockets any more.
#[tokio::test]
async fn who_comes_back_before_its_instance_is_called_dead_leaves_nothing_with_it() {
    let server = Server::start();
    let (mut web1, web2) = (instance(&server, "web1").await, instance(&server, "web2").await);
    let mut held = Vec::new();
    for nth in 0..8 {
        held.push(web1.enters(nth).await);
    }
    let stays = web1.enters(8).await;
    web1.keeping.shutdown().await;
    let mark = web1.mark();
    server.ask(&["DEL", &format!("test:{{i:{mark}}}:lease")]);
    let mut back = Vec::new();
    for (nth, before) in held.iter().enumerate() {
        back.push(web2.takes(nth, &web1.registry.token(before)).await);
    }
    let of_dead = |key: &String| key.ends_with(&format!("}}:left:{mark}")) || key.ends_with(&format!(":owned:{mark}"));
    assert!(server.keys().iter().any(|key| key.contains(":left:")), "nobody would know of their groups");
    eventually("nothing is left of the dead", async || {
        let groups = back.iter().flat_map(|record| record.groups()).collect::<Vec<_>>();
        let mut clean = !server.keys().iter().any(of_dead);
        for group in groups {
            let holders = web2.registry.holders(group.key()).await.unwrap();
            clean &= holders.iter().all(|holding| holding.owner == web2.registry.incarnation());
        }
        clean
    })
    .await;
    let fields = |group: Group| {
        server.keys().into_iter().find(|key| key.contains(&format!("{{g:{}}}", group.key().short()))).map(|key| {
            let redis::Value::Array(fields) = server.ask(&["HKEYS", &key]) else { panic!() };
            fields.len()
        })
    };
    for record in &back {
        assert!(record.groups().all(|group| fields(group) == Some(1)));
        assert!(web2.knows(record).await);
        let user = Group::User(record.user.clone().unwrap()).key();
        let index = server.keys().into_iter().find(|key| key.contains(&format!("{{u:{}}}", user.short()))).unwrap();
        assert_eq!(server.text(&["ZCARD", &index]), "1");
    }
    assert!(web2.is_away(stays.id).await, "its client may still come");
    web2.takes(8, &web1.registry.token(&stays)).await;
}

/// What is told late of an earlier connection does not end the later one, which Redis has forgotten.
#[tokio::test]
async fn an_end_that_is_told_after_a_loss_does_not_end_who_came_back() {
    let server = Server::start();
    let (web1, mut web2) = (instance(&server, "web1").await, instance(&server, "web2").await);
    let first = web1.enters(1).await;
    let token = web1.registry.token(&first);
    web1.relay.refuse();
    web1.relay.cut();
    let second = web2.takes(1, &token).await;
    web1.ends(&first, Cause::Kicked).await;
    web2.relay.freeze();
    server.ask(&["FLUSHALL"]);
    web1.relay.accept();
    eventually("it is told", async || row(&server, first.id, "state") == "closed").await;
    assert_eq!(row(&server, first.id, "attempt"), "1");
    web2.relay.thaw();
    eventually("it lives on", async || web2.knows(&second).await && web1.knows(&second).await).await;
    assert!(web2.inbox.try_recv().is_err(), "nobody is told to go");
}

#[tokio::test]
async fn tokens_outlive_a_redis_that_forgets() {
    let server = Server::start();
    let (web1, web2) = (instance(&server, "web1").await, instance(&server, "web2").await);
    let secret = || server.text(&["GET", "test:{m}:secret"]);
    let (token, before) = (web1.registry.token(&web1.socket(1)), secret());
    assert!(!before.is_empty() && web2.registry.open_token(&token, Some(&user(1))).is_some());
    assert!(web2.registry.open_token(&token, Some(&user(2))).is_none());
    server.ask(&["FLUSHALL"]);
    eventually("who has it writes it back", async || server.text(&["EXISTS", "test:{m}:secret"]) == "1").await;
    assert_eq!(secret(), before);
    let web3 = instance(&server, "web3").await;
    assert!(web3.registry.open_token(&token, Some(&user(1))).is_some());
    assert!(web1.registry.open_token(&web3.registry.token(&web3.socket(1)), Some(&user(1))).is_some());
}

/// Those that may come back are away, and have not ended.
#[tokio::test]
async fn of_a_dead_instance_it_is_told_which_sockets_have_ended_with_it() {
    let server = Server::start();
    let (mut web1, web2) = (instance(&server, "web1").await, instance(&server, "web2").await);
    web2.registry.want_events();
    let away = web1.enters(0).await;
    let mut lost = Vec::new();
    for nth in 1..8 {
        let record = Arc::new(SocketRecord { resumable: None, ..web1.socket(nth) });
        assert!(matches!(web1.registry.admit(&record, NO_CAP).await, Admission::Welcome { .. }));
        lost.push(record);
    }
    web1.keeping.shutdown().await;
    server.ask(&["DEL", &format!("test:{{i:{}}}:lease", web1.mark())]);
    for record in &lost {
        let k = partition(record.id);
        let logged = async || web2.registry.events(k, None, Duration::ZERO, 99).await.unwrap();
        let is_of = |logged: &Logged| logged.event.data.socket_id == record.id;
        eventually("its end is logged", async || logged().await.iter().any(is_of)).await;
        let events: Vec<_> = logged().await.into_iter().filter(is_of).map(|logged| logged.event).collect();
        assert_eq!(events.len(), 1);
        let Particulars { user_id, store_id, rooms, connected_at, end, instance, .. } = events[0].data.clone();
        assert_eq!((user_id, store_id, rooms), (record.user.clone(), record.store.clone(), record.rooms.clone()));
        assert_eq!((connected_at, &*instance), (record.connected_at, "web1"));
        assert_eq!(end.unwrap().cause, Cause::InstanceCrash);
    }
    eventually("nothing is left of the dead", async || {
        !server.keys().iter().any(|key| key.ends_with(&format!(":owned:{}", web1.mark())))
    })
    .await;
    assert!(web2.is_away(away.id).await);
    let of_away = web2.registry.events(partition(away.id), None, Duration::ZERO, 99).await.unwrap();
    assert!(of_away.iter().all(|logged| logged.event.data.socket_id != away.id));
}

#[tokio::test]
async fn who_came_back_and_was_never_told_may_come_again() {
    let server = Server::start();
    let (web1, web2) = (instance(&server, "web1").await, instance(&server, "web2").await);
    let first = web1.enters(1).await;
    let token = web1.registry.token(&first);
    web1.ends(&first, Cause::ConnectionLost).await;
    for _ in 0..20 {
        // What was written reaches Redis when it goes on, and its answer nobody.
        server.stop();
        let newcomer = web2.newcomer(1, &token);
        let asked = async { web2.registry.admit_back(&newcomer, NO_CAP).await };
        let cut = async {
            sleep(Duration::from_millis(300)).await;
            web2.relay.cut();
        };
        let (back, ()) = tokio::join!(asked, cut);
        assert!(matches!(back, Err(NotBack::Unavailable)), "{back:?}");
        server.cont();
        eventually("the link is up", async || web2.registry.total().await.is_ok()).await;
        if row(&server, first.id, "attempt") == "2" {
            break;
        }
    }
    assert_eq!(row(&server, first.id, "attempt"), "2", "it was heard once in twenty times");
    eventually("it is away again", async || web1.is_away(first.id).await).await;
    let second = web1.takes(1, &token).await;
    eventually("it is where it is", async || {
        web2.knows(&second).await && web1.registry.figures().drift + web2.registry.figures().drift == 0
    })
    .await;
}

/// Its partition is compared again, and what it took is given back.
#[tokio::test]
async fn who_hangs_up_while_it_comes_back_may_come_again() {
    let server = Server::start();
    let (web1, web2) = (instance(&server, "web1").await, instance(&server, "web2").await);
    let first = web1.enters(1).await;
    let token = web1.registry.token(&first);
    web1.ends(&first, Cause::ConnectionLost).await;
    let newcomer = web2.newcomer(1, &token);
    assert!(web2.registry.admit_back(&newcomer, NO_CAP).now_or_never().is_none());
    eventually("it was heard", async || row(&server, first.id, "attempt") == "2").await;
    eventually("it is away again", async || web1.is_away(first.id).await).await;
    assert_eq!(web1.takes(1, &token).await.attempt.n, 2);
}

/// Its owner tells anew what Redis does not know, and another claim of it is the earlier one.
#[tokio::test]
async fn who_came_back_is_told_anew_after_a_loss() {
    let server = Server::start();
    let (web1, web2) = (instance(&server, "web1").await, instance(&server, "web2").await);
    let first = web1.enters(1).await;
    let second = web2.takes(1, &web1.registry.token(&first)).await;
    server.ask(&["FLUSHALL"]);
    assert!(matches!(web1.registry.register(first).await, Registered::Fresh | Registered::Superseded(_)));
    eventually("it is where it is", async || web1.knows(&second).await && web2.knows(&second).await).await;
    let lobby = Group::Room(RoomName::parse("lobby").unwrap()).key();
    eventually("its room knows it there alone", async || {
        let holders = web1.registry.holders(lobby).await.unwrap_or_default();
        holders.len() == 1 && holders[0].owner == web2.registry.incarnation()
    })
    .await;
}
