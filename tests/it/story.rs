//! The whole story as people run it: the real nginx in front of three instances and a real Redis, clients that come back
//! by themselves, and calls all the while. `rolling.rs` has the restart of all of them.

use crate::{
    client::Client,
    fleet::{Fleet, MENDED, within},
    http::Answer,
    nginx::{Nginx, TOKEN, own},
    patience::{eventually, note},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{task::JoinSet, time::sleep};
use tokio_tungstenite::tungstenite::Message;

const CLIENTS: usize = 30;
const CALLS: usize = 1000;
/// Who asks at once.
const CALLERS: usize = 20;
/// Until a client that was dropped comes again.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Clone)]
struct Street {
    nginx: SocketAddr,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    /// The sockets that are there, with their instances.
    here: BTreeMap<String, String>,
    /// Those that ended.
    dropped: Vec<String>,
}

/// A call, and what it came to instead of a reply.
#[derive(Debug)]
struct Failed {
    n: usize,
    answer: Answer,
}

impl Street {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap()
    }

    /// A client of a store of its own, who answers whatever it is asked and never gives up.
    async fn lives(self, nth: usize) {
        loop {
            let Ok(mut client) = Client::try_open(self.nginx, &format!("/ws?store_id=s{nth}"), &[]).await else {
                sleep(PAUSE).await;
                continue;
            };
            let hi = client.is_greeted().await;
            let id = client.id.clone();
            self.known().here.insert(id.clone(), hi["instance"].as_str().unwrap().to_owned());
            while let Some(Message::Text(text)) = client.listens().await {
                let call: Value = serde_json::from_str(&text).unwrap();
                let reply = json!({"type": "reply", "callId": call["callId"], "data": call["data"]});
                let _ = client.tries_to_say(reply.to_string()).await;
            }
            self.known().here.remove(&id);
            self.known().dropped.push(id);
            sleep(PAUSE).await;
        }
    }

    /// Asks one after another, and returns what was no reply to it.
    async fn asks(self, next: Arc<AtomicUsize>, until: usize) -> Vec<Failed> {
        let mut failed = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= until {
                return failed;
            }
            let answer = self.ask(n).await;
            if answer.status != 200 || answer.json()["result"] != n {
                failed.push(Failed { n, answer });
            }
        }
    }

    /// A call that waits for its client where it is away.
    async fn ask(&self, n: usize) -> Answer {
        let call = json!({
            "storeId": format!("s{}", n % CLIENTS), "event": "ask", "data": n, "whenOffline": "wait", "timeoutMs": 15_000,
        });
        own(self.nginx, "POST", "/api/call").json(&call).await
    }

    /// So many calls from all callers; they are begun when this returns, and counted by `next`.
    fn are_asked(&self, calls: usize) -> (Arc<AtomicUsize>, JoinSet<Vec<Failed>>) {
        let next = Arc::new(AtomicUsize::new(0));
        let callers = (0..CALLERS).map(|_| self.clone().asks(next.clone(), calls)).collect();
        (next, callers)
    }

    async fn is_full(&self) {
        eventually("all clients are here", async || (self.known().here.len() == CLIENTS).then_some(())).await;
    }
}

/// Checklist 225, 278, 279.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_find_their_clients_while_nginx_reloads_and_an_instance_is_killed() {
    let mut fleet = Fleet::with(&[TOKEN]).await;
    let nginx = Nginx::before(&[0, 1, 2].map(|at| fleet[at].address())).await;
    let street = Street { nginx: nginx.address, known: Arc::default() };
    let mut clients: JoinSet<_> = (0..CLIENTS).map(|nth| street.clone().lives(nth)).collect();
    street.is_full().await;
    for at in 0..3 {
        let held = street.known().here.values().filter(|name| **name == Fleet::name(at)).count();
        assert!(held > 3, "{} has {held} of {CLIENTS}", Fleet::name(at));
    }

    // New workers come and take the callers; the old ones keep their clients.
    let (next, callers) = street.are_asked(CALLS);
    for begun in [CALLS / 4, CALLS / 2] {
        eventually("some are asked", async || (next.load(Ordering::Relaxed) > begun).then_some(())).await;
        nginx.reloads().await;
    }
    let failed = callers.join_all().await.into_iter().flatten().collect::<Vec<_>>();
    assert!(failed.is_empty(), "{} of {CALLS}: {:?}", failed.len(), failed[0]);
    assert!(street.known().dropped.is_empty(), "a reload drops nobody");

    // A call that a client of the killed instance has, or may have, is told to have ended, since nobody is asked twice
    // unasked; and where the killed instance was the one that asked, nginx can only say that it broke. No other call fails,
    // and none of those a second time.
    let (next, callers) = street.are_asked(200);
    eventually("some are asked", async || (next.load(Ordering::Relaxed) > 50).then_some(())).await;
    let at_web1: Vec<_> =
        street.known().here.iter().filter(|(_, at)| *at == "web1").map(|(id, _)| id.clone()).collect();
    fleet.kill(0);
    let told = callers.join_all().await.into_iter().flatten().collect::<Vec<_>>();
    assert!(told.len() <= CALLERS, "each caller had one under way: {told:?}");
    for &Failed { n, ref answer } in &told {
        assert_eq!(answer.status, 502, "{n}: {}", answer.text());
        if answer.header("X-Holdfast-Instance").is_none() {
            assert!(answer.text().contains("<h1>502 Bad Gateway</h1>"), "{n}: {answer:?}");
        } else {
            let body = answer.json();
            let is_lost = ["owner_lost", "socket_lost"].iter().any(|code| body["code"] == *code);
            let may_be_done = body["delivered"] == true || body["delivered"] == "unknown";
            assert!(is_lost && may_be_done, "{n}: {body}");
        }
        let again = street.ask(n).await;
        assert_eq!((again.status, &again.json()["result"]), (200, &json!(n)), "{}", again.text());
    }
    street.is_full().await;
    let (_, callers) = street.are_asked(200);
    let failed = callers.join_all().await.into_iter().flatten().collect::<Vec<_>>();
    assert!(failed.is_empty(), "{}: {:?}", failed.len(), failed[0]);

    let mut dropped = street.known().dropped.clone();
    dropped.sort();
    assert_eq!(dropped, at_web1, "whoever was there was dropped, and nobody else");
    let took = within(MENDED, "every drop has its verdict", async || {
        for id in &dropped {
            let answer = fleet.lookup(1, id).await;
            if answer.status != 410 || answer.json()["verdict"]["cause"] != "instance_crash" {
                return Err(format!("{id}: {} {}", answer.status, answer.text()));
            }
        }
        Ok(())
    })
    .await;
    note(&format!(
        "{} calls were under way at web1 when it was killed; its {} verdicts took {took:?}",
        told.len(),
        dropped.len()
    ));
    assert!(clients.try_join_next().is_none(), "a client ended");
    clients.shutdown().await;
    fleet.is_sound().await;
}
