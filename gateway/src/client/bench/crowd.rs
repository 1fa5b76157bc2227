//! Sockets: they come one after another, answer what they are asked, note when they hear what is sent, and stay; or come
//! back, where it is measured what restarts cost.

use super::{
    reasons::{Reasons, words},
    times::Times,
    way::Way,
};
use crate::client::socket::{Said, Socket};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// From one newcomer to the next: a crowd, and no storm.
const ONE_AFTER_ANOTHER: Duration = Duration::from_millis(2);
/// How long one waits that was not told how long, in ms, or was not let in.
const WAITS_MS: std::ops::Range<u64> = 200..1200;
/// From the 101 to the first frame.
const GREETED_WITHIN: Duration = Duration::from_secs(10);
/// Longer than a gateway tells anybody to wait.
const RETRY_MAX: Duration = Duration::from_secs(10);
/// What the event of a send is called; its data is when it was sent.
pub const SENT: &str = "bench.sent";

pub struct Crowd {
    way: Arc<Way>,
    /// What tells these sockets from those of others, and of another run.
    mark: String,
    comes_back: bool,
    /// Times of sends are counted from here.
    began: Instant,
    seen: Mutex<Seen>,
}

/// What the sockets have seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub opening: Times,
    pub refused: Reasons,
    /// The ids of those that can be asked, by their number.
    pub ids: BTreeMap<usize, String>,
    pub instances: BTreeMap<String, usize>,
    /// Those that were not closed by us.
    pub ended: Reasons,
    /// From the end of one connection to the greeting of the next.
    pub returning: Times,
    /// Those that have ended and may come back.
    pub away: usize,
    pub heard: Times,
}

impl Crowd {
    /// All of them come; they are there until `over`.
    pub fn comes(way: &Arc<Way>, count: usize, comes_back: bool, over: &CancellationToken) -> (Arc<Self>, JoinSet<()>) {
        let mark = format!("bench-{:08x}", fastrand::u32(..));
        let (way, began) = (way.clone(), Instant::now());
        let crowd = Arc::new(Self { way, mark, comes_back, began, seen: Mutex::default() });
        let mut lives = JoinSet::new();
        for nth in 0..count {
            lives.spawn(crowd.clone().lives(nth, over.clone()));
        }
        (crowd, lives)
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are there, or will never be.
    pub fn settled(&self) -> usize {
        let seen = self.seen();
        seen.opening.count() as usize + seen.refused.count() as usize
    }

    /// Whether nobody is still to come back, and so much that was sent was heard.
    pub fn is_at_rest(&self, sent: u64) -> bool {
        let seen = self.seen();
        seen.away == 0 && seen.heard.count() >= sent
    }

    /// Whose sockets they are; whoever shows a credential is whom that names.
    fn store(&self) -> Option<&str> {
        self.way.is_nobody().then_some(&*self.mark)
    }

    fn user(&self, nth: usize) -> String {
        format!("{}-{nth}", self.mark)
    }

    /// Who hears what is sent: nobody can say it of those that come and go.
    pub fn audience(&self) -> Option<&str> {
        self.store().filter(|_| !self.comes_back)
    }

    /// How somebody is asked, each time another one. Whoever is away for a moment is waited for.
    pub fn somebody(&self) -> Option<Value> {
        let seen = self.seen();
        let (last, _) = seen.ids.last_key_value()?;
        let (nth, id) = seen.ids.range(fastrand::usize(..=*last)..).next()?;
        Some(match self.comes_back {
            true => json!({ "userId": self.user(*nth), "whenOffline": "wait" }),
            false => json!({ "socketId": id }),
        })
    }

    /// What is sent now, so that those who hear it know how long it took.
    pub fn now(&self) -> Value {
        json!(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    async fn lives(self: Arc<Self>, nth: usize, over: CancellationToken) {
        let mut wait = ONE_AFTER_ANOTHER.saturating_mul(u32::try_from(nth).unwrap_or(u32::MAX));
        let mut left = None;
        loop {
            let opens = async {
                sleep(wait).await;
                let began = Instant::now();
                (self.opens(nth).await, began)
            };
            let Some((opened, began)) = over.run_until_cancelled(opens).await else { return };
            let mut socket = match opened {
                Ok((socket, hi)) => {
                    self.came(nth, &hi, began, left);
                    socket
                }
                Err(why) if left.is_none() => return self.seen().refused.add(&why),
                // Not yet.
                Err(_) => {
                    wait = pause();
                    continue;
                }
            };
            let listens = over.run_until_cancelled(self.listens(&mut socket)).await;
            let Some((why, after)) = listens else { return socket.close().await };
            self.went(nth, &why);
            if !self.comes_back {
                return;
            }
            (left, wait) = (Some(Instant::now()), after);
        }
    }

    fn came(&self, nth: usize, hi: &Value, began: Instant, left: Option<Instant>) {
        let text = |name: &str| words(hi[name].as_str().unwrap_or_default());
        let mut seen = self.seen();
        match left {
            Some(left) => {
                seen.returning.add(left.elapsed());
                seen.away -= 1;
            }
            None => {
                seen.opening.add(began.elapsed());
                *seen.instances.entry(text("instance")).or_default() += 1;
            }
        }
        seen.ids.insert(nth, text("socketId"));
    }

    fn went(&self, nth: usize, why: &str) {
        let mut seen = self.seen();
        seen.ended.add(why);
        match self.comes_back {
            true => seen.away += 1,
            false => drop(seen.ids.remove(&nth)),
        }
    }

    async fn opens(&self, nth: usize) -> Result<(Socket, Value), String> {
        let user = self.user(nth);
        let names = match self.store() {
            Some(store) => format!("user_id={user}&store_id={store}&client_id={user}"),
            None => String::new(),
        };
        let mut socket = self.way.opens(&names).await?;
        let hi = timeout(GREETED_WITHIN, socket.next()).await.map_err(|_| "no greeting".to_owned())?;
        let Said::Text(hi) = hi else { return Err("closed before its greeting".into()) };
        let hi: Value = serde_json::from_str(&hi).unwrap_or_default();
        if hi["type"] != "hi" {
            return Err("its greeting is not a Holdfast's".into());
        }
        Ok((socket, hi))
    }

    /// Until it ends; returns how, and when it may come back.
    async fn listens(&self, socket: &mut Socket) -> (String, Duration) {
        let mut after = pause();
        loop {
            let text = match socket.next().await {
                Said::Text(text) => text,
                Said::Binary(_) => continue,
                Said::Closed(closed) => return (format!("{} {}", closed.code, closed.reason), after),
            };
            let Ok(frame) = serde_json::from_str::<Value>(&text) else { continue };
            match (frame["type"].as_str(), &frame["callId"]) {
                (Some(SENT), _) => {
                    let sent = Duration::from_micros(frame["data"].as_u64().unwrap_or_default());
                    self.seen().heard.add(self.began.elapsed().saturating_sub(sent));
                }
                (Some("retry"), _) => {
                    after = frame["afterMs"].as_u64().map_or(after, Duration::from_millis).min(RETRY_MAX);
                }
                (Some("cancel"), _) | (_, Value::Null) => {}
                (_, call) => {
                    let reply = json!({ "type": "reply", "callId": call, "data": frame["data"] });
                    // One that has just broken says so by its end.
                    let _ = socket.say(&reply.to_string()).await;
                }
            }
        }
    }
}

fn pause() -> Duration {
    Duration::from_millis(fastrand::u64(WAITS_MS))
}
