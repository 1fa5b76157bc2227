//! Sockets: they come one after another, answer what they are asked, note when they hear what is sent, and stay.

use super::{reasons::Reasons, times::Times, way::Way};
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
/// From the 101 to the first frame.
const GREETED_WITHIN: Duration = Duration::from_secs(10);
/// What the event of a send is called; its data is when it was sent.
pub const SENT: &str = "bench.sent";

pub struct Crowd {
    way: Arc<Way>,
    /// What tells these sockets from those of others, and of another run.
    mark: String,
    /// Times of sends are counted from here.
    began: Instant,
    seen: Mutex<Seen>,
}

/// What the sockets have seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub opening: Times,
    pub refused: Reasons,
    /// The ids of those that are there, by their number.
    pub here: BTreeMap<usize, String>,
    pub instances: BTreeMap<String, usize>,
    /// Those that were not closed by us.
    pub ended: Reasons,
    pub heard: Times,
}

impl Crowd {
    /// All of them come; they are there until `over`.
    pub fn comes(way: &Arc<Way>, count: usize, over: &CancellationToken) -> (Arc<Self>, JoinSet<()>) {
        let mark = format!("bench-{:08x}", fastrand::u32(..));
        let (way, began) = (way.clone(), Instant::now());
        let crowd = Arc::new(Self { way, mark, began, seen: Mutex::default() });
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

    /// Whose sockets they are; whoever shows a credential is whom that names.
    pub fn store(&self) -> Option<&str> {
        let is_nobody = self.way.headers.is_empty() && !self.way.place.shows_credential();
        is_nobody.then_some(&*self.mark)
    }

    /// What is sent now, so that those who hear it know how long it took.
    pub fn now(&self) -> Value {
        json!(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    async fn lives(self: Arc<Self>, nth: usize, over: CancellationToken) {
        let turn = sleep(ONE_AFTER_ANOTHER.saturating_mul(u32::try_from(nth).unwrap_or(u32::MAX)));
        let opens = async {
            turn.await;
            let began = Instant::now();
            let opened = self.opens(nth).await;
            (opened, began.elapsed())
        };
        let (opened, took) = tokio::select! {
            () = over.cancelled() => return,
            opened = opens => opened,
        };
        let mut socket = match opened {
            Ok((socket, hi)) => {
                let text = |name: &str| hi[name].as_str().unwrap_or_default().to_owned();
                let mut seen = self.seen();
                seen.opening.add(took);
                seen.here.insert(nth, text("socketId"));
                *seen.instances.entry(text("instance")).or_default() += 1;
                drop(seen);
                socket
            }
            Err(why) => return self.seen().refused.add(&why),
        };
        tokio::select! {
            () = over.cancelled() => {}
            why = self.listens(&mut socket) => {
                let mut seen = self.seen();
                seen.here.remove(&nth);
                seen.ended.add(&why);
                return;
            }
        }
        socket.close().await;
    }

    async fn opens(&self, nth: usize) -> Result<(Socket, Value), String> {
        let mark = &self.mark;
        let names = match self.store() {
            Some(store) => format!("user_id={mark}-{nth}&store_id={store}&client_id={mark}-{nth}"),
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

    /// Until it ends; returns how.
    async fn listens(&self, socket: &mut Socket) -> String {
        loop {
            let text = match socket.next().await {
                Said::Text(text) => text,
                Said::Binary(_) => continue,
                Said::Closed(closed) => return format!("{} {}", closed.code, closed.reason),
            };
            let Ok(frame) = serde_json::from_str::<Value>(&text) else { continue };
            if frame["type"] == SENT {
                let sent = Duration::from_micros(frame["data"].as_u64().unwrap_or_default());
                self.seen().heard.add(self.began.elapsed().saturating_sub(sent));
            } else if frame["type"] != "cancel" && frame["callId"].is_string() {
                let reply = json!({ "type": "reply", "callId": frame["callId"], "data": frame["data"] });
                // One that has just broken says so by its end.
                let _ = socket.say(&reply.to_string()).await;
            }
        }
    }
}
