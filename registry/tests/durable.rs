//! What a durable delivery was said to survive, on servers that are killed.

// In a test a failed expectation is the message.
#![allow(clippy::unwrap_used, clippy::panic)]

mod instance;

use futures_util::future::join_all;
use registry::{
    Appended, Cause, Chain, Delivery, Durability, Ending, Group, Hashed, Left, Mail, Registered, Registry, Resumable,
    SocketId, SocketRecord, UserName,
    log::{LIMITS, Page},
};
use servers::{Cluster, Relay, Sentinels, Server};
use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

const DEADLINE: Duration = Duration::from_secs(60);

struct Instance {
    registry: Registry,
    _keeping: JoinSet<()>,
}

async fn instance(url: &str) -> Instance {
    let (registry, mut inbox) = instance::on_redis(url, "web1", Duration::from_secs(600));
    let mut keeping = JoinSet::new();
    keeping.spawn(async move { while inbox.recv().await.is_some() {} });
    instance::keep(&registry, &mut keeping, DEADLINE).await;
    Instance { registry, _keeping: keeping }
}

impl Instance {
    /// A socket that may be resumed.
    async fn socket(&self) -> Arc<SocketRecord> {
        let resumable = NonZeroU32::new(30).map(|window| Resumable { window, confirmed: 0 });
        let record = Arc::new(SocketRecord { resumable, ..instance::record(&self.registry) });
        assert!(matches!(self.registry.register(record.clone()).await, Registered::Fresh));
        record
    }

    async fn send(&self, id: SocketId, text: &str, wants: Durability) -> Appended {
        let key = Hashed::of(&[SocketId::fresh().short().as_bytes()]);
        let delivery = Delivery { key, text: text.to_owned().into(), ttl: Duration::from_secs(600), wants };
        self.registry.append(id, &delivery).await
    }

    /// Its number, and how sure it is.
    async fn logs(&self, id: SocketId, text: &str, wants: Durability) -> (u64, Durability) {
        match self.send(id, text, wants).await {
            Appended::Logged { seq, durability, .. } => (seq, durability),
            other => panic!("{other:?}"),
        }
    }

    /// Logged until a replica says so: it may have come a moment ago, or be held up.
    async fn logs_surely(&self, id: SocketId, text: &str) -> u64 {
        eventually("a replica follows", async || match self.logs(id, text, Durability::Replica).await {
            (seq, Durability::Replica) => Some(seq),
            _ => None,
        })
        .await
    }

    async fn read(&self, id: SocketId) -> Option<Page> {
        self.registry.read_log(id, 0, LIMITS).await.ok()
    }
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn texts(page: &Page) -> Vec<String> {
    page.entries.iter().map(|entry| String::from_utf8(entry.text.to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn without_a_replica_or_a_disk_it_is_said_to_be_in_memory() {
    let server = Server::start();
    let web1 = instance(&server.url()).await;
    let record = web1.socket().await;
    let levels = Durability::ALL;
    for (wants, text) in levels.into_iter().zip(["a", "b", "c"]) {
        assert_eq!(web1.logs(record.id, text, wants).await.1, Durability::Memory, "{wants:?}");
    }
    assert_eq!(texts(&web1.read(record.id).await.unwrap()), ["a", "b", "c"]);
}

#[tokio::test]
async fn what_was_asked_for_on_a_connection_that_broke_is_logged_once() {
    let server = Server::start();
    let relay = Relay::to(server.port());
    let web1 = instance(&format!("redis://127.0.0.1:{}", relay.port())).await;
    let record = web1.socket().await;
    let looked_for =
        || server.info("commandstats", "cmdstat_xrange").map(|line| line.split(',').next().map(str::to_owned));
    // Until one was looked for, since its answer was lost.
    let before = looked_for();
    let is_enough = AtomicBool::new(false);
    let cuts = async {
        let deadline = Instant::now() + DEADLINE;
        while looked_for() == before && Instant::now() < deadline {
            sleep(Duration::from_millis(30)).await;
            relay.cut();
        }
        is_enough.store(true, Ordering::Relaxed);
    };
    // As many as fit into the log in all.
    let sends = join_all((0..8).map(async |sender| {
        let mut said = Vec::new();
        while said.len() < 1000 && !is_enough.load(Ordering::Relaxed) {
            let text = format!("{sender}.{}", said.len());
            let wants = [Durability::Memory, Durability::Fsync][said.len() % 2];
            said.push((text.clone(), web1.send(record.id, &text, wants).await));
            sleep(Duration::from_millis(2)).await;
        }
        said
    }));
    let ((), said) = tokio::join!(cuts, sends);
    assert_ne!(looked_for(), before, "no cut hit a delivery");
    let page = eventually("it can be read again", async || web1.read(record.id).await).await;
    let seqs: BTreeMap<_, _> = page.entries.iter().zip(texts(&page)).map(|(entry, text)| (text, entry.seq)).collect();
    assert_eq!(seqs.len(), page.entries.len(), "none is there twice");
    for (text, said) in said.into_iter().flatten() {
        match said {
            Appended::Logged { seq, .. } => assert_eq!(seqs.get(&text), Some(&seq), "{text}"),
            Appended::Unknown(_) => assert_eq!(seqs.get(&text), None, "{text}"),
            Appended::Perhaps => {}
            other => panic!("{text}: {other:?}"),
        }
    }
    assert_eq!(page.follows(0, web1.registry.now_ms()), Chain::Whole);
}

#[tokio::test]
async fn what_a_replica_has_survives_the_master() {
    let all = tokio::task::spawn_blocking(Sentinels::start).await.unwrap();
    let web1 = instance(&all.url()).await;
    let record = web1.socket().await;
    web1.logs_surely(record.id, "x").await;
    let said = join_all((0..300).map(|_| web1.logs(record.id, "x", Durability::Replica))).await;
    let sure: Vec<_> = said.iter().filter(|(_, level)| *level == Durability::Replica).map(|(seq, _)| *seq).collect();
    let waits = all.nodes()[all.master()].text(&["INFO", "commandstats"]);
    let waits = waits.lines().find_map(|line| line.strip_prefix("cmdstat_wait:calls=")).unwrap();
    let waits: usize = waits.split_once(',').unwrap().0.parse().unwrap();
    assert!(waits < 100, "{waits} waits for 300 deliveries: they go together");

    let all = tokio::task::spawn_blocking(move || {
        all.kill_master();
        all.settle();
        all
    });
    let _all = all.await.unwrap();
    // Whoever tries meanwhile is not told that it was refused, nor that it is sure.
    let page = eventually("the replica answers", async || web1.read(record.id).await).await;
    let numbers: Vec<_> = page.entries.iter().map(|entry| entry.seq).collect();
    assert!(!sure.is_empty() && sure.iter().all(|seq| numbers.contains(seq)), "{sure:?} are among {numbers:?}");
    if said.iter().all(|(seq, _)| numbers.contains(seq)) {
        assert_eq!(page.follows(0, web1.registry.now_ms()), Chain::Whole);
    }
    let sent = eventually("it is logged again", async || match web1.send(record.id, "y", Durability::Replica).await {
        Appended::Logged { durability, .. } => Some(durability),
        _ => None,
    });
    assert_eq!(sent.await, Durability::Memory, "there is no replica any more");
}

#[tokio::test]
async fn what_no_replica_had_is_lost_with_the_master_and_never_silently() {
    let all = tokio::task::spawn_blocking(Sentinels::start).await.unwrap();
    let web1 = instance(&all.url()).await;
    let record = web1.socket().await;
    let had = web1.logs_surely(record.id, "had").await;
    let master = all.master();
    // Its replica hears nothing more; what was sent to it would wait in the kernel.
    all.nodes()[1 - master].stop();
    all.nodes()[master].ask(&["CLIENT", "KILL", "TYPE", "replica"]);
    for wants in [Durability::Memory, Durability::Replica] {
        assert_eq!(web1.logs(record.id, "lost", wants).await.1, Durability::Memory);
    }
    let all = tokio::task::spawn_blocking(move || {
        all.nodes()[master].kill();
        all.nodes()[1 - master].cont();
        all.settle();
        all
    });
    let all = all.await.unwrap();
    assert_eq!(all.master(), 1 - master);
    let page = eventually("the loss is noticed", async || {
        web1.read(record.id).await.filter(|page| page.follows(had, web1.registry.now_ms()) == Chain::Broken)
    });
    let page = page.await;
    assert!(texts(&page).iter().all(|text| text == "had"), "{:?}", texts(&page));
    // What comes next is no successor of what was had, and from there on all is well.
    let (next, _) =
        eventually("it is logged again", async || match web1.send(record.id, "new", Durability::Memory).await {
            Appended::Logged { seq, prev, .. } => Some((seq, prev)),
            _ => None,
        })
        .await;
    let page = web1.read(record.id).await.unwrap();
    assert_eq!(page.follows(had, web1.registry.now_ms()), Chain::Broken);
    assert_eq!(page.follows(next, web1.registry.now_ms()), Chain::Whole);
}

#[tokio::test]
async fn an_empty_server_breaks_the_logs_of_those_who_are_there_still() {
    let server = Server::start();
    let web1 = instance(&server.url()).await;
    let record = web1.socket().await;
    let (had, _) = web1.logs(record.id, "x", Durability::Memory).await;
    let server = tokio::task::spawn_blocking(move || {
        server.kill();
        server.restart();
        server
    });
    let _server = server.await.unwrap();
    let page = eventually("the loss is noticed", async || web1.read(record.id).await.filter(|page| page.tail > had));
    let page = page.await;
    assert_eq!(page.follows(had, web1.registry.now_ms()), Chain::Broken);
    assert_eq!(page.follows(page.tail, web1.registry.now_ms()), Chain::Whole);
}

#[tokio::test]
async fn every_master_of_a_cluster_waits_for_its_own_replica() {
    let cluster = tokio::task::spawn_blocking(|| Cluster::of(3, 1)).await.unwrap();
    let web1 = instance(&cluster.url()).await;
    let mut ids = Vec::new();
    for _ in 0..12 {
        ids.push(web1.socket().await.id);
    }
    let key = Hashed::of(&[b"one"]);
    let delivery = |text: &'static str| Delivery {
        key,
        text: text.into(),
        ttl: Duration::from_secs(60),
        wants: Durability::Replica,
    };
    // Tried again it is the same, and as sure.
    let mut numbers = Vec::new();
    eventually("the replicas follow", async || {
        let said = web1.registry.append_many(&ids, &delivery("x")).await;
        let number = |said: &Appended| match said {
            Appended::Logged { seq, prev, durability, .. } => ((*seq, *prev), *durability),
            other => panic!("{other:?}"),
        };
        let (now, levels): (Vec<_>, Vec<_>) = said.iter().map(number).unzip();
        if numbers.is_empty() {
            numbers.clone_from(&now);
        }
        assert_eq!(numbers, now);
        levels.iter().all(|level| *level == Durability::Replica).then_some(())
    })
    .await;
    for id in &ids {
        let page = web1.read(*id).await.unwrap();
        assert_eq!(texts(&page), ["x"]);
        web1.registry.ack(*id, page.tail).await.unwrap();
        assert!(web1.read(*id).await.unwrap().entries.is_empty());
    }
    // What waits for a group lies on another master than the logs.
    let ann = Group::User(UserName::parse("ann").unwrap()).key();
    for text in ["1", "2"] {
        let key = Hashed::of(&[text.as_bytes()]);
        let left = Delivery { key, ..delivery(text) };
        eventually("a replica has it", async || {
            (web1.registry.leave(ann, &left).await == Left::Left(Durability::Replica)).then_some(())
        })
        .await;
    }
    web1.registry.keep_for(&[ann], ids[0]).await.unwrap();
    assert_eq!(web1.registry.kept(ann, 10).await.unwrap(), [ids[0]]);
    assert_eq!(
        web1.registry.take_mail(ann, ids[0], Durability::Replica).await.unwrap(),
        Mail { taken: 2, waits: false }
    );
    assert_eq!(texts(&web1.read(ids[0]).await.unwrap()), ["1", "2"]);
}

#[tokio::test]
async fn what_was_logged_from_the_mail_is_nobody_elses_even_if_its_mover_died_and_its_socket_ended() {
    let server = Server::start();
    let web1 = instance(&server.url()).await;
    let ann = Group::User(UserName::parse("ann").unwrap()).key();
    for text in ["1", "2"] {
        let key = Hashed::of(&[text.as_bytes()]);
        let delivery = Delivery { key, text: text.into(), ttl: Duration::from_secs(60), wants: Durability::Memory };
        assert_eq!(web1.registry.leave(ann, &delivery).await, Left::Left(Durability::Memory));
    }
    let key = |end: &str| server.keys().into_iter().find(|key| key.ends_with(end)).unwrap();
    let (mail, mailed) = (key("}:mail"), key("}:mailed"));
    server.ask(&["COPY", &mail, "copy"]);
    let first = web1.socket().await;
    assert_eq!(
        web1.registry.take_mail(ann, first.id, Durability::Memory).await.unwrap(),
        Mail { taken: 2, waits: false }
    );
    // As if whoever moved it had died before it was taken out of the mail, and one more was left meanwhile.
    server.ask(&["COPY", "copy", &mail, "REPLACE"]);
    let now = web1.registry.now_ms();
    let (place, until) = (format!("{}-0", (now + 1000) * 1000), (now + 60_000).to_string());
    server.ask(&["XADD", &mail, &place, "m", "3", "k", &Hashed::of(&[b"3"]).to_string(), "u", &until, "c", "3"]);
    server.ask(&["HSET", &mailed, "by", &first.id.short()]);
    let ending = Ending { cause: Cause::ClientClosed, code: Some(1000), reason: "".into() };
    assert!(web1.registry.unregister(first.id, first.session, ending).await);
    let second = web1.socket().await;
    assert_eq!(
        web1.registry.take_mail(ann, second.id, Durability::Memory).await.unwrap(),
        Mail { taken: 1, waits: false }
    );
    assert_eq!(texts(&web1.read(second.id).await.unwrap()), ["3"]);
    assert_eq!(server.text(&["XLEN", &mail]), "0");
}
