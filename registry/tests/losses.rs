//! What is missing, what is wrong, and what is lost, on a real server: somebody writes into Redis, or forgets, and
//! no connection breaks. A rebuild shows in the word that says since when a partition's memory is whole.

// In a test a failed expectation is the message.
#![allow(clippy::unwrap_used, clippy::panic)]

mod instance;

use registry::{
    Attempt, Gone, Inbox, Lookup, Post, Registered, Registry, Session, SocketId, SocketRecord, Superseded, Unknown,
    owner::{h32, partition},
};
use servers::Server;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

/// A round of comparisons takes a third of it.
const DEADLINE: Duration = Duration::from_secs(90);

struct Instance {
    registry: Registry,
    inbox: Inbox,
    _keeping: JoinSet<()>,
}

async fn instance(server: &Server, name: &str) -> Instance {
    let (registry, inbox) = instance::on_redis(&server.url(), name, Duration::from_secs(600));
    let mut keeping = JoinSet::new();
    instance::keep(&registry, &mut keeping, DEADLINE).await;
    Instance { registry, inbox, _keeping: keeping }
}

/// Two that have found out that nothing was lost before them.
async fn two(server: &Server) -> (Instance, Instance) {
    let both = (instance(server, "web1").await, instance(server, "web2").await);
    let born = || server.keys().iter().filter(|key| key.ends_with(":born")).count();
    eventually("every partition is whole", async || born() == 64).await;
    both
}

impl Instance {
    /// A socket of that partition is let in.
    async fn enters(&self, k: usize) -> Arc<SocketRecord> {
        let id = stranger(k);
        let record = Arc::new(SocketRecord { id, connected_at: id.made_at(), ..instance::record(&self.registry) });
        assert!(matches!(self.registry.register(record.clone()).await, Registered::Fresh));
        record
    }

    /// Its client comes back here, and nobody tells who had it before.
    async fn takes(&self, before: &SocketRecord) -> Arc<SocketRecord> {
        let attempt = Attempt { n: before.attempt.n + 1, accepted_at: self.registry.now_ms() };
        let owner = self.registry.incarnation();
        let record = Arc::new(SocketRecord { attempt, session: Session::fresh(), owner, ..before.clone() });
        assert!(matches!(self.registry.register(record.clone()).await, Registered::TakenFrom { .. }));
        record
    }

    async fn lookup(&self, id: SocketId) -> Lookup {
        self.registry.lookup(&id.to_string()).await
    }

    /// It is said to live where it does.
    async fn knows(&self, held: &SocketRecord) {
        match self.lookup(held.id).await {
            Lookup::Live(found) => assert_eq!((found.session, &found.owner), (held.session, &held.owner)),
            other => panic!("{} lives: {other:?}", held.id),
        }
    }

    fn drift(&self) -> usize {
        self.registry.figures().drift
    }

    /// What Redis has of its sockets in the partition of this one.
    fn entries(&self, server: &Server, of: &SocketRecord) -> String {
        beside(server, of, &format!("owned:{}", self.registry.incarnation().mark()))
    }
}

/// An id of that partition that nobody has.
fn stranger(k: usize) -> SocketId {
    std::iter::repeat_with(SocketId::fresh).find(|id| partition(*id) == k).unwrap()
}

fn row(server: &Server, of: &SocketRecord) -> String {
    let name = format!("}}:socket:{}", of.id.short());
    server.keys().into_iter().find(|key| key.ends_with(&name)).unwrap_or_else(|| panic!("no {name}"))
}

/// A key of the partition in which the row lies.
fn beside(server: &Server, of: &SocketRecord, name: &str) -> String {
    let row = row(server, of);
    format!("{}:{name}", row.split_once(":socket:").unwrap().0)
}

/// What the scripts write over these entries.
fn sums(of: &[&SocketRecord]) -> [String; 2] {
    let xor = of.iter().fold(0, |xor, record| xor ^ h32(record));
    [of.len().to_string(), xor.cast_signed().to_string()]
}

fn written_sums(server: &Server, entries: &str) -> [String; 2] {
    ["#n", "#d"].map(|field| server.text(&["HGET", entries, field]))
}

async fn eventually(what: &str, mut look: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !look().await {
        assert!(Instant::now() < deadline, "{what}: waited {DEADLINE:?} in vain");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn never_was(at: &Instance, k: usize) -> bool {
    matches!(at.lookup(stranger(k)).await, Lookup::Gone(verdict) if matches!(verdict.gone, Gone::NeverSeen))
}

async fn may_have_been(at: &Instance, k: usize) -> bool {
    matches!(at.lookup(stranger(k)).await, Lookup::Unknown(Unknown::Rebuilding))
}

/// The former owner finds its entries gone, and out why.
#[tokio::test]
async fn what_another_instance_took_over_is_no_loss() {
    let server = Server::start();
    let (mut web1, web2) = two(&server).await;
    let (mut stay, mut taken, mut untold) = (Vec::new(), Vec::new(), BTreeMap::new());
    for k in (0..64).step_by(8) {
        stay.push(web1.enters(k).await);
        let before = web1.enters(k).await;
        taken.push(web2.takes(&before).await);
        untold.insert(before.id, before.session);
    }
    eventually("their former owner finds all of it out", async || {
        while let Ok(post) = web1.inbox.try_recv() {
            match post {
                Post::Superseded { id, session, why: Superseded::ByLater } => {
                    assert_eq!(untold.remove(&id), Some(session));
                }
                other => panic!("{other:?}"),
            }
        }
        for held in stay.iter().chain(&taken) {
            web1.knows(held).await;
            web2.knows(held).await;
            assert_eq!(server.text(&["GET", &beside(&server, held, "born")]), "0", "what lives was called lost");
        }
        untold.is_empty() && web1.drift() + web2.drift() == 0
    })
    .await;
    for (stays, goes) in stay.iter().zip(&taken) {
        for (owner, held) in [(&web1, stays), (&web2, goes)] {
            assert_eq!(written_sums(&server, &owner.entries(&server, held)), sums(&[held]));
        }
    }
    eventually("who never was is called so", async || never_was(&web2, 0).await && never_was(&web1, 8).await).await;
}

#[tokio::test]
async fn a_count_that_is_wrong_by_itself_is_put_right() {
    let server = Server::start();
    let (web1, web2) = two(&server).await;
    let held = [web1.enters(5).await, web1.enters(5).await, web1.enters(6).await];
    let [more, other, _] = held.each_ref().map(|held| web1.entries(&server, held));
    assert_eq!(more, other);
    let flipped = web1.entries(&server, &held[2]);
    let ours = |key: &String| held.iter().any(|held| *key == beside(&server, held, "born"));
    let empty = server.keys().into_iter().find(|key| key.ends_with(":born") && !ours(key)).unwrap();
    let empty = empty.replace("born", &format!("owned:{}", web1.registry.incarnation().mark()));
    server.ask(&["HINCRBY", &more, "#n", "5"]);
    server.ask(&["HINCRBY", &flipped, "#d", "1"]);
    server.ask(&["HINCRBY", &empty, "#n", "1"]);
    let right = || {
        written_sums(&server, &more) == sums(&[&held[0], &held[1]])
            && written_sums(&server, &flipped) == sums(&[&held[2]])
            && !server.keys().contains(&empty)
    };
    eventually("they are right", async || {
        for held in &held {
            web2.knows(held).await;
            assert_eq!(server.text(&["GET", &beside(&server, held, "born")]), "0", "nothing was lost");
        }
        right() && web1.drift() == 0
    })
    .await;
    eventually("who never was is called so", async || never_was(&web2, 5).await && never_was(&web2, 6).await).await;
}

/// As a server has it that missed the last registration but for its row.
#[tokio::test]
async fn an_entry_that_is_lost_is_told_again_and_nobody_is_called_unseen() {
    let server = Server::start();
    let (web1, web2) = two(&server).await;
    let held = [web1.enters(9).await, web1.enters(9).await];
    let (entries, born) = (web1.entries(&server, &held[0]), beside(&server, &held[0], "born"));
    let [count, digest] = sums(&[&held[0]]);
    server.ask(&["HDEL", &entries, &held[1].id.short()]);
    server.ask(&["HSET", &entries, "#n", &count, "#d", &digest]);
    eventually("it is there again", async || {
        for held in &held {
            web1.knows(held).await;
            web2.knows(held).await;
        }
        let is_reborn = server.text(&["GET", &born]) != "0";
        assert!(!is_reborn || may_have_been(&web2, 9).await, "a loss was known, and a stranger called one");
        is_reborn && written_sums(&server, &entries) == sums(&[&held[0], &held[1]]) && web1.drift() == 0
    })
    .await;
    eventually("nothing else was lost", async || never_was(&web2, 10).await).await;
}

/// What Redis lost in silence it cannot know of. From when on its owner does, nobody is called unseen.
#[tokio::test]
async fn rows_that_are_lost_are_told_again_and_not_called_unseen_meanwhile() {
    let server = Server::start();
    let (web1, web2) = two(&server).await;
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(web1.enters(12).await);
    }
    let (entries, born) = (web1.entries(&server, &held[0]), beside(&server, &held[0], "born"));
    let rows: Vec<_> = held.iter().map(|held| row(&server, held)).collect();
    let lost: Vec<_> = ["DEL", &entries].into_iter().chain(rows.iter().map(String::as_str)).collect();
    server.ask(&lost);
    eventually("all are found again", async || {
        let mut found = 0;
        for held in &held {
            let is_reborn = server.text(&["GET", &born]) != "0";
            match web2.lookup(held.id).await {
                Lookup::Live(there) => found += usize::from(there.session == held.session),
                Lookup::Unknown(Unknown::Rebuilding) => {}
                other => assert!(!is_reborn, "its owner knows of the loss: {other:?}"),
            }
        }
        assert!(found == 0 || server.text(&["GET", &born]) != "0", "told again, and the loss was not");
        found == held.len() && web1.drift() == 0
    })
    .await;
    assert_eq!(written_sums(&server, &entries), sums(&held.iter().map(Arc::as_ref).collect::<Vec<_>>()));
    assert!(may_have_been(&web2, 12).await);
}
