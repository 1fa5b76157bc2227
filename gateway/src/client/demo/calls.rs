//! A call a second: to a store, a user or a socket, from anywhere, and it waits if nobody is there.

use super::{doors::Doors, pages::Pages, tally::Tally};
use crate::client::asking::{Answer, Failure, printable};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::{JoinSet, spawn_blocking},
    time::{Instant, interval, sleep},
};
use tokio_util::sync::CancellationToken;

const EVERY: Duration = Duration::from_secs(1);
/// Longer than any socket here is away.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How often a question is put that does no harm twice, and the pause in between.
const TRIES: usize = 4;
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug, Clone)]
pub struct Caller {
    pub doors: Arc<Doors>,
    pub pages: Arc<Pages>,
    pub tally: Arc<Tally>,
}

/// What is to be said of a call.
enum Became {
    Answered(String),
    /// Whoever was asked, or passed it on, was killed meanwhile.
    Cut(String),
    /// The instance that was to pass it on ends. Nothing was written, so another one may.
    Refused(String),
    Failed(String),
}

impl Caller {
    /// Until it is told to stop; returns when all calls have ended.
    pub async fn keeps_calling(&self, stop: &CancellationToken) {
        let (mut calls, mut seconds) = (JoinSet::new(), interval(EVERY));
        for n in 0.. {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = seconds.tick() => drop(calls.spawn(self.clone().calls(n))),
            }
            while calls.try_join_next().is_some() {}
        }
        calls.join_all().await;
    }

    /// Whom to call: what the body says, and how it is shown.
    fn target(&self, n: usize) -> (&'static str, String) {
        let pages = self.pages.all();
        let nth = fastrand::usize(..pages.len());
        match n % 3 {
            0 => ("storeId", Pages::store(nth)),
            1 => ("userId", Pages::user(nth)),
            // One whose id outlives its connection.
            _ => ("socketId", pages[nth - nth % 3].id.clone()),
        }
    }

    async fn calls(self, n: usize) {
        let (kind, name) = self.target(n);
        let whom = format!("{} {name}", kind.trim_end_matches("Id"));
        let body = json!({kind: name, "event": "question", "data": n, "whenOffline": "wait",
            "timeoutMs": TIMEOUT.as_millis()})
        .to_string();
        self.tally.count(|counts| counts.calls += 1);
        let began = Instant::now();
        let mut cut = None;
        for turn in 1..=TRIES {
            match self.asks(body.clone()).await {
                Became::Answered(words) => {
                    let took = began.elapsed();
                    self.tally.count(|counts| {
                        counts.answered += 1;
                        counts.again += u64::from(cut.is_some());
                        counts.slowest = counts.slowest.max(took);
                    });
                    let again = cut.map_or(String::new(), |why: String| format!("{why}; asked again, "));
                    return self.tally.tell(format_args!(
                        "call {n} of {whom}: {again}answered by {words}, {:.0} ms",
                        took.as_secs_f64() * 1000.0
                    ));
                }
                Became::Refused(why) if turn < TRIES => {
                    cut = Some(why);
                    sleep(PAUSE).await;
                }
                // Only after a kill nobody can know what became of it. This question does no harm twice.
                Became::Cut(why) if turn < TRIES && (self.tally.a_kill_is_felt() || !self.has_proxy()) => {
                    cut = Some(why);
                    sleep(PAUSE).await;
                }
                Became::Cut(why) | Became::Refused(why) | Became::Failed(why) => {
                    self.tally.count(|counts| counts.failed += 1);
                    return self.tally.tell(format_args!("call {n} of {whom}: FAILED: {why}"));
                }
            }
        }
    }

    /// Without one, whoever calls has to find an instance that listens.
    fn has_proxy(&self) -> bool {
        self.doors.addresses.len() == 1
    }

    async fn asks(&self, body: String) -> Became {
        let remote = match self.doors.remote() {
            Ok(remote) => remote,
            Err(failure) => return Became::Failed(said_of(&failure)),
        };
        let asked = spawn_blocking(move || remote.post("/api/call", body, TIMEOUT + Duration::from_secs(5)));
        match asked.await {
            Ok(Ok(answer)) => became(&answer),
            Ok(Err(failure)) => Became::Cut(said_of(&failure)),
            Err(error) => Became::Failed(error.to_string()),
        }
    }
}

fn said_of(failure: &Failure) -> String {
    failure.sentences.join("; ")
}

fn became(answer: &Answer) -> Became {
    let text = |name: &str| answer.body[name].as_str().map(printable).unwrap_or_default();
    match (answer.status, &*text("code")) {
        (200, _) => Became::Answered(format!("{} on {}, {}", text("socketId"), text("instance"), text("hop"))),
        (status, code @ ("owner_lost" | "socket_lost" | "instance_ended")) => Became::Cut(format!("{status} {code}")),
        (503, "draining") => Became::Refused("503 draining".into()),
        // nginx itself, whose instance was gone under the request.
        (status @ (502 | 504), _) if answer.body == Value::Null => Became::Cut(format!("{status} by nginx")),
        (status, code) => Became::Failed(format!("{status} {code}: {}", text("detail"))),
    }
}
