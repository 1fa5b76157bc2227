//! A rolling restart of all instances behind a real nginx, with sockets, calls and durable sends all the while: nobody
//! who calls notices, nothing is lost, and the clients do not come back as a crowd.

use crate::{
    client::Client,
    fleet::{Fleet, within},
    nginx::{Nginx, TOKEN, own},
    patience::note,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    ops::AddAssign,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{interval, sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;

/// Of each close until the next `hi`.
const BACK_WITHIN: Duration = Duration::from_secs(10);
/// Who waits for a client at an instance that ends is answered if the client is back within this; it was told to wait a
/// second at most. A machine that takes longer is too busy to tell.
const IN_TIME: Duration = Duration::from_secs(2);
/// All come and all has come by then, on a busy machine.
const SETTLED: Duration = Duration::from_secs(30);
/// How long a client waits that was refused, or not told how long to wait.
const WAITS: Duration = Duration::from_secs(1);

/// How much goes on.
struct Size {
    /// Sockets that may come back, and such that just connect anew.
    returning: usize,
    plain: usize,
    calls_per_second: u32,
    sends_per_second: u32,
}

/// A client went and came again.
struct Return {
    back: Instant,
    after: Duration,
}

/// What a page that may come back was given and has heard.
#[derive(Default)]
struct Page {
    id: String,
    accepted: BTreeSet<u64>,
    heard: BTreeSet<u64>,
    called: BTreeSet<u64>,
    returns: usize,
}

/// Who knows everything.
#[derive(Default)]
struct Oracle {
    pages: Vec<Page>,
    here: usize,
    returns: Vec<Return>,
    /// Upgrades that were not let in.
    refused: usize,
    slowest_call: Duration,
    replied: usize,
    /// Calls without a reply.
    failed: Vec<String>,
    /// What must not be.
    faults: Vec<String>,
}

#[derive(Clone)]
struct Town {
    nginx: SocketAddr,
    oracle: Arc<Mutex<Oracle>>,
}

impl Town {
    fn oracle(&self) -> MutexGuard<'_, Oracle> {
        self.oracle.lock().unwrap()
    }

    fn objects(&self, fault: String) {
        self.oracle().faults.push(fault);
    }

    /// Lets itself in, however often it is refused.
    async fn knocks(&self, target: &str) -> Client {
        loop {
            match Client::try_open(self.nginx, target, &[]).await {
                Ok(client) => return client,
                Err(_) => self.oracle().refused.add_assign(1),
            }
            sleep(WAITS).await;
        }
    }

    fn came(&self, parted: Option<Instant>) {
        let back = Instant::now();
        let mut oracle = self.oracle();
        oracle.here += 1;
        if let Some(parted) = parted {
            oracle.returns.push(Return { back, after: back - parted });
        }
    }

    /// Its connection has ended, and it waits as it was told to. When it heard that.
    async fn parts(&self, mut client: Client, after_ms: Option<u64>) -> Instant {
        let parted = Instant::now();
        self.oracle().here -= 1;
        // Its answer to the close goes out.
        let _ = timeout(WAITS, async { while client.listens().await.is_some() {} }).await;
        sleep(after_ms.map_or(WAITS, Duration::from_millis)).await;
        parted
    }

    /// A page without a memory.
    async fn plain(self, nth: usize) {
        let mut parted = None;
        loop {
            let mut client = self.knocks(&format!("/ws?user_id=p{nth}")).await;
            client.is_greeted().await;
            self.came(parted);
            let mut after_ms = None;
            while let Some(Message::Text(text)) = client.listens().await {
                let frame: Value = serde_json::from_str(&text).unwrap();
                assert_eq!(frame["type"], "retry", "{frame}");
                after_ms = frame["afterMs"].as_u64();
            }
            parted = Some(self.parts(client, after_ms).await);
        }
    }

    /// A page that keeps its token, answers every call, and notes every delivery.
    async fn returning(self, nth: usize) {
        let (mut token, mut last_seq, mut parted) = (String::new(), 0, None);
        loop {
            let target = format!("/ws?user_id=u{nth}&store_id=s{nth}&resume={token}&last_seq={last_seq}");
            let mut client = self.knocks(&target).await;
            let Some(Message::Text(hi)) = client.listens().await else { continue };
            let hi: Value = serde_json::from_str(&hi).unwrap();
            token = hi["session"].as_str().unwrap_or_else(|| panic!("{hi}")).to_owned();
            let id = hi["socketId"].as_str().unwrap();
            match parted {
                None => {
                    client.hears().await;
                    self.oracle().pages[nth].id = id.to_owned();
                }
                Some(_) => {
                    if hi["resumed"] != true || self.oracle().pages[nth].id != id {
                        self.objects(format!("page {nth} is not what it was: {hi}"));
                    }
                    self.oracle().pages[nth].returns += 1;
                }
            }
            self.came(parted);
            let after_ms = self.listens(nth, &mut client, &mut last_seq).await;
            parted = Some(self.parts(client, after_ms).await);
        }
    }

    /// Until the end of the connection; returns how long it was told to wait.
    async fn listens(&self, nth: usize, client: &mut Client, last_seq: &mut u64) -> Option<u64> {
        let mut after_ms = None;
        while let Some(Message::Text(text)) = client.listens().await {
            let frame: Value = serde_json::from_str(&text).unwrap();
            match frame["type"].as_str() {
                Some("retry") => after_ms = frame["afterMs"].as_u64(),
                Some("ask") => {
                    let reply = json!({"type": "reply", "callId": frame["callId"], "data": frame["data"]});
                    // Whose connection has just broken cannot answer; the caller tells.
                    let _ = client.tries_to_say(reply.to_string()).await;
                    let n = frame["data"].as_u64().unwrap();
                    if !self.oracle().pages[nth].called.insert(n) {
                        self.objects(format!("call {n} was written twice"));
                    }
                }
                Some("order") => {
                    let (seq, n) = (frame["seq"].as_u64().unwrap(), frame["data"].as_u64().unwrap());
                    if seq <= *last_seq {
                        self.objects(format!("page {nth} hears {seq} after {last_seq}"));
                    }
                    *last_seq = seq;
                    if !self.oracle().pages[nth].heard.insert(n) {
                        self.objects(format!("page {nth} hears {n} twice"));
                    }
                    if n.is_multiple_of(3) {
                        let _ = client.tries_to_say(json!({"type": "ack", "seq": seq}).to_string()).await;
                    }
                }
                other => self.objects(format!("page {nth} hears {other:?}: {frame}")),
            }
        }
        after_ms
    }

    /// One page that may come back, by its id, its user or its store.
    fn target(&self, n: u64) -> (usize, Value) {
        let oracle = self.oracle();
        let nth = usize::try_from(n * 7919).unwrap() % oracle.pages.len();
        let target = match n % 3 {
            0 => json!({"socketId": oracle.pages[nth].id}),
            1 => json!({"userId": format!("u{nth}")}),
            _ => json!({"storeId": format!("s{nth}")}),
        };
        (nth, target)
    }

    async fn calls(self, n: u64) {
        let (nth, to) = self.target(n);
        let body = json!({"to": to, "event": "ask", "data": n, "whenOffline": "wait", "timeoutMs": 15_000});
        let asked = Instant::now();
        let answer = own(self.nginx, "POST", "/api/call").json(&body).await;
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let mut oracle = self.oracle();
        oracle.slowest_call = oracle.slowest_call.max(asked.elapsed());
        if answer.status == 200 && said["result"] == n && said["socketId"] == json!(oracle.pages[nth].id) {
            oracle.replied += 1;
        } else {
            oracle.failed.push(format!(
                "call {n} of {to} after {:?}: {} {}",
                asked.elapsed(),
                answer.status,
                answer.text()
            ));
        }
    }

    async fn sends(self, n: u64) {
        let (nth, to) = self.target(n);
        let body = json!({"to": to, "event": "order", "data": n, "durable": true});
        let answer = own(self.nginx, "POST", "/api/send").json(&body).await;
        match answer.status {
            202 => drop(self.oracle().pages[nth].accepted.insert(n)),
            status => self.objects(format!("send {n} to {to}: {status} {}", answer.text())),
        }
    }
}

/// So many a second, each by itself and however long it takes, until it is told to stop; how many they were.
async fn keeps<F>(per_second: u32, stop: watch::Receiver<bool>, each: impl Fn(u64) -> F) -> usize
where
    F: Future<Output = ()> + Send + 'static,
{
    let (mut running, mut ticks) = (JoinSet::new(), interval(Duration::from_secs(1) / per_second));
    let mut n = 0;
    while !*stop.borrow() {
        ticks.tick().await;
        running.spawn(each(n));
        n += 1;
        while let Some(done) = running.try_join_next() {
            done.unwrap();
        }
    }
    running.join_all().await;
    usize::try_from(n).unwrap()
}

/// How many came back in the busiest second.
fn busiest(returns: &[Instant]) -> usize {
    let second = |from: &Instant| {
        let second = *from..*from + Duration::from_secs(1);
        returns.iter().filter(|at| second.contains(*at)).count()
    };
    returns.iter().map(second).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_a_rolling_restart() {
    let size = Size { returning: 60, plain: 60, calls_per_second: 40, sends_per_second: 20 };
    restarts_and_nobody_notices(size).await;
}

#[ignore = "two cores have their fill of it: ./x rolling"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_of_five_hundred_notices_a_rolling_restart() {
    let size = Size { returning: 250, plain: 250, calls_per_second: 200, sends_per_second: 50 };
    restarts_and_nobody_notices(size).await;
}

async fn restarts_and_nobody_notices(size: Size) {
    let mut fleet = Fleet::at_ports(&[("DRAIN_TIMEOUT", "8s"), TOKEN]).await;
    let addresses = [0, 1, 2].map(|at| fleet[at].address());
    let nginx = Nginx::before(&addresses).await;
    let town = Town { nginx: nginx.address, oracle: Arc::default() };
    town.oracle().pages.resize_with(size.returning, Page::default);
    let mut clients = JoinSet::new();
    for nth in 0..size.returning {
        clients.spawn(town.clone().returning(nth));
    }
    for nth in 0..size.plain {
        clients.spawn(town.clone().plain(nth));
    }
    let all = size.returning + size.plain;
    let all_are_here = async |town: &Town| {
        within(SETTLED, "all clients are here", async || {
            let here = town.oracle().here;
            if here == all { Ok(()) } else { Err(format!("{here} of {all}")) }
        })
        .await
    };
    all_are_here(&town).await;

    let (stop, stopped) = watch::channel(false);
    let (caller, sender) = (town.clone(), town.clone());
    let calling = tokio::spawn(keeps(size.calls_per_second, stopped.clone(), move |n| caller.clone().calls(n)));
    let sending = tokio::spawn(keeps(size.sends_per_second, stopped, move |n| sender.clone().sends(n)));
    let (began, mut crowds) = (Instant::now(), Vec::new());
    for at in 0..3 {
        let (before, told) = (town.oracle().returns.len(), Instant::now());
        fleet[at].signal(Signal::TERM);
        fleet.ends(at).await;
        let took = told.elapsed();
        fleet.restart(at).await;
        all_are_here(&town).await;
        let returns: Vec<_> = town.oracle().returns[before..].iter().map(|one| one.back).collect();
        let (busiest, mean) = (busiest(&returns), returns.len() as f64 / took.as_secs_f64());
        note(&format!(
            "{}: {} came back in {took:?}, {busiest} in the busiest second, {mean:.0} a second on average",
            Fleet::name(at),
            returns.len()
        ));
        assert!(returns.len() * 5 > all, "there was somebody to part with");
        crowds.extend((busiest as f64 > 3.0 * mean).then_some(busiest));
    }
    stop.send(true).unwrap();
    let took = began.elapsed();
    let (calls, sends) = (calling.await.unwrap(), sending.await.unwrap());
    within(SETTLED, "every delivery comes", async || {
        let oracle = town.oracle();
        let missing: Vec<_> = oracle.pages.iter().flat_map(|page| page.accepted.difference(&page.heard)).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}, and {:?}", oracle.faults)) }
    })
    .await;
    assert!(clients.try_join_next().is_none(), "a client ended");
    fleet.is_sound().await;
    clients.shutdown().await;
    let oracle = town.oracle();
    let slowest = oracle.returns.iter().map(|one| one.after).max().unwrap();
    let kept: usize = oracle.pages.iter().map(|page| page.accepted.len()).sum();
    note(&format!(
        "{took:?}: {} of {calls} calls replied, the slowest after {:?}; {kept} of {sends} deliveries kept; {} returns, \
         the slowest after {slowest:?}; {} upgrades refused",
        oracle.replied,
        oracle.slowest_call,
        oracle.returns.len(),
        oracle.refused,
    ));
    assert_eq!(kept, sends);
    assert!(oracle.faults.is_empty(), "{}: {:#?}", oracle.faults.len(), &oracle.faults[..oracle.faults.len().min(20)]);
    assert!(slowest <= BACK_WITHIN, "{slowest:?}");
    assert!(oracle.pages.iter().all(|page| page.returns > 0), "somebody was never parted with");
    if slowest > IN_TIME {
        return note(&format!("this machine is too busy to tell: {crowds:?}, {:?}", oracle.failed));
    }
    assert!(crowds.is_empty(), "{crowds:?}");
    assert_eq!((oracle.replied, oracle.failed.len()), (calls, 0), "{:?}", oracle.failed.first());
}
