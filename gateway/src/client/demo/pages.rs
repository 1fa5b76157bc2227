//! Simulated sockets: pages that answer calls, and that come back when their connection breaks. Every third one resumes.

use super::{doors::Doors, tally::Tally};
use crate::client::{
    dial::Connection,
    socket::{self, Said, Socket},
    talk::{self, Asked},
};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

/// A handshake that takes longer is given up.
const OPEN_WITHIN: Duration = Duration::from_secs(10);
/// Between the first connections, so that many are no storm.
const ONE_AFTER_ANOTHER: Duration = Duration::from_millis(2);
/// How long a page waits that was not told how long, in ms.
const WAITS_MS: std::ops::Range<u64> = 200..1200;
const PER_STORE: usize = 10;
const PER_USER: usize = 2;
const ROOMS: usize = 5;

#[derive(Debug)]
pub struct Pages {
    doors: Arc<Doors>,
    tally: Arc<Tally>,
    pages: Mutex<Vec<Page>>,
}

/// As a page knows itself.
#[derive(Debug, Default, Clone)]
pub struct Page {
    pub id: String,
    pub instance: String,
    pub is_here: bool,
}

/// What a page keeps from one connection to the next.
#[derive(Default)]
struct Memory {
    token: String,
    was_here: bool,
}

impl Pages {
    /// They open one after another; each is there as long as the set.
    pub fn open(doors: &Arc<Doors>, tally: &Arc<Tally>, count: usize) -> (Arc<Self>, JoinSet<()>) {
        let (doors, tally) = (doors.clone(), tally.clone());
        let pages = Arc::new(Self { doors, tally, pages: Mutex::new(vec![Page::default(); count]) });
        let mut tasks = JoinSet::new();
        for nth in 0..count {
            tasks.spawn(pages.clone().lives(nth));
        }
        (pages, tasks)
    }

    pub fn all(&self) -> MutexGuard<'_, Vec<Page>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn here(&self) -> usize {
        self.all().iter().filter(|page| page.is_here).count()
    }

    pub fn resumes(nth: usize) -> bool {
        nth.is_multiple_of(3)
    }

    pub fn store(nth: usize) -> String {
        format!("store-{}", nth / PER_STORE)
    }

    pub fn user(nth: usize) -> String {
        format!("user-{}", nth / PER_USER)
    }

    async fn lives(self: Arc<Self>, nth: usize) {
        sleep(ONE_AFTER_ANOTHER.saturating_mul(u32::try_from(nth).unwrap_or_default())).await;
        let mut memory = Memory::default();
        loop {
            let told = self.visits(nth, &mut memory).await;
            self.all()[nth].is_here = false;
            sleep(told.unwrap_or_else(|| Duration::from_millis(fastrand::u64(WAITS_MS)))).await;
        }
    }

    /// One connection from its handshake to its end. How long to wait before the next one, if it was told.
    async fn visits(&self, nth: usize, memory: &mut Memory) -> Option<Duration> {
        let mut line = timeout(OPEN_WITHIN, self.knocks(nth, memory)).await.ok()?.ok()?;
        let mut told = None;
        loop {
            let text = match line.next().await {
                Said::Text(text) => text,
                Said::Binary(_) => continue,
                Said::Closed(_) => return told,
            };
            let Ok(frame) = serde_json::from_str::<Value>(&text) else { continue };
            match (frame["type"].as_str(), &frame["callId"]) {
                (Some("hi"), _) => self.is_greeted(nth, memory, &frame),
                (Some("retry"), _) => told = frame["afterMs"].as_u64().map(Duration::from_millis),
                (Some("cancel"), _) | (_, Value::Null) => {}
                (_, call) => {
                    let said = json!({"page": nth, "heard": frame["data"]});
                    let reply = json!({"type": "reply", "callId": call, "data": said}).to_string();
                    // One whose connection has just broken cannot answer; its caller is told.
                    let _ = line.say(&reply).await;
                }
            }
        }
    }

    async fn knocks(&self, nth: usize, memory: &Memory) -> Result<Socket, String> {
        let address = self.doors.next().ok_or("there is no door")?;
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        let (store, user, room) = (Self::store(nth), Self::user(nth), nth % ROOMS);
        let resume = match Self::resumes(nth) {
            true => format!("&resume={}", memory.token),
            false => String::new(),
        };
        let target = format!("/ws?store_id={store}&user_id={user}&room_id=room-{room}&client_id=page-{nth}{resume}");
        let (asked, key) = socket::knock(Asked::new("GET", target).with("Host", address.to_string()));
        Socket::of(talk::ask(Connection::Plain(stream), &asked).await?, &key)
    }

    fn is_greeted(&self, nth: usize, memory: &mut Memory, hi: &Value) {
        let text = |name: &str| hi[name].as_str().unwrap_or_default().to_owned();
        memory.token = text("session");
        self.all()[nth] = Page { id: text("socketId"), instance: text("instance"), is_here: true };
        if std::mem::replace(&mut memory.was_here, true) {
            self.tally.count(|counts| {
                counts.returns += 1;
                counts.resumed += u64::from(hi["resumed"] == true);
            });
        }
    }
}
