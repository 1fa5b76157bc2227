//! Asks every instance for living sockets without a pause, and notes what was answered. Whoever lives is
//! found, or nobody can say: it is never called gone.

use super::note;
use crate::http::Request;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::watch, task::JoinSet, time::sleep};

/// Between two questions to one instance: two cores have more to do.
const PAUSE: Duration = Duration::from_millis(20);
/// A prime that no crowd's size is a multiple of.
const LEAP: usize = 101;

pub struct Witness {
    asking: JoinSet<Seen>,
    over: watch::Sender<bool>,
    answers: Arc<AtomicU64>,
}

/// What was answered.
#[derive(Debug, Default)]
pub struct Seen {
    /// How often which status and code.
    pub answers: BTreeMap<String, usize>,
    pub slowest: Duration,
    /// The first answers that call a living socket gone.
    pub wrong: Vec<String>,
}

impl Witness {
    pub fn begins(places: impl IntoIterator<Item = SocketAddr>, ids: &[String]) -> Self {
        let (over, ends) = watch::channel(false);
        let answers = Arc::<AtomicU64>::default();
        let mut asking = JoinSet::new();
        for (nth, address) in places.into_iter().enumerate() {
            // In leaps, so that everybody asks for those of all instances in turn.
            let ids = ids.iter().cycle().skip(nth).step_by(LEAP).take(ids.len()).cloned().collect();
            asking.spawn(ask(address, ids, answers.clone(), ends.clone()));
        }
        Self { asking, over, answers }
    }

    /// So many more answers come while the caller waits here.
    pub async fn goes_on(&self, count: u64) {
        let until = self.answers.load(Ordering::Relaxed) + count;
        while self.answers.load(Ordering::Relaxed) < until {
            sleep(PAUSE).await;
        }
    }

    /// What was seen until now. Nobody was called gone.
    pub async fn ends(self, what: &str) -> Seen {
        let _ = self.over.send(true);
        let mut all = Seen::default();
        for seen in self.asking.join_all().await {
            for (answer, count) in seen.answers {
                *all.answers.entry(answer).or_default() += count;
            }
            all.slowest = all.slowest.max(seen.slowest);
            all.wrong.extend(seen.wrong);
        }
        note(&format!("{what}: {:?}, the slowest after {:?}", all.answers, all.slowest));
        assert!(all.wrong.is_empty(), "living sockets were called gone: {:#?} of {:?}", all.wrong, all.answers);
        all
    }
}

async fn ask(address: SocketAddr, ids: Vec<String>, answers: Arc<AtomicU64>, over: watch::Receiver<bool>) -> Seen {
    let (mut seen, began) = (Seen::default(), Instant::now());
    for id in ids.iter().cycle() {
        if *over.borrow() {
            break;
        }
        let asked = Instant::now();
        let answer = Request::new(address, "GET", &format!("/api/sockets/{id}")).await;
        answers.fetch_add(1, Ordering::Relaxed);
        seen.slowest = seen.slowest.max(asked.elapsed());
        let code = if answer.status == 200 { "live".into() } else { answer.json()["code"].to_string() };
        *seen.answers.entry(format!("{} {code}", answer.status)).or_default() += 1;
        if !matches!(answer.status, 200 | 503) && seen.wrong.len() < 5 {
            seen.wrong.push(format!("after {:?} at {address}: {}", began.elapsed(), answer.text()));
        }
        sleep(PAUSE).await;
    }
    seen
}
