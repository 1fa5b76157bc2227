//! Whoever asks: first what costs least, as a floor; then the sockets, each time another one; and a send to all each second.

use super::{
    crowd::{Crowd, SENT},
    reasons::{Reasons, refusal, words},
    times::Times,
    way::{Line, Way},
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::{
    cell::RefCell,
    time::{Duration, Instant},
};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

/// What a socket has to answer in, and to come back if it is on its way.
const TIMEOUT_MS: u64 = 15_000;
/// After a failure, so that a gateway that is away is not hammered.
const PAUSE: Duration = Duration::from_millis(100);
const SEND_EVERY: Duration = Duration::from_secs(1);

/// What came of many questions.
#[derive(Debug, Default)]
pub struct Asked {
    pub times: Times,
    pub failed: Reasons,
    pub span: Duration,
    /// Whoever asks may not; what mends it. Nothing more is asked then.
    pub forbidden: Option<String>,
}

impl Asked {
    pub fn per_second(&self) -> f64 {
        self.times.count() as f64 / self.span.as_secs_f64().max(1e-9)
    }
}

/// Asks whether the gateway lives, as fast as `callers` can.
pub async fn floor(way: &Way, callers: usize, span: Duration, over: &CancellationToken) -> Asked {
    let live = way.gets("/health/live");
    all(way, callers, span, over, async |line| match line.ask(&live).await? {
        (200, _) => Ok(()),
        (status, body) => Err(Trouble::of(status, &body)),
    })
    .await
}

/// Calls the sockets that are there, for so long.
pub async fn calls(way: &Way, crowd: &Crowd, callers: usize, span: Duration, over: &CancellationToken) -> Asked {
    all(way, callers, span, over, async |line| {
        let Some(mut call) = crowd.somebody() else { return Err("no socket is there".to_owned().into()) };
        let n = fastrand::u32(..);
        (call["event"], call["data"], call["timeoutMs"]) = (json!("bench.asked"), json!(n), json!(TIMEOUT_MS));
        match line.ask(&way.posts("/api/call", &call)).await? {
            (200, body) if body["result"] == n => Ok(()),
            (200, _) => Err("200 with another's answer".to_owned().into()),
            (status, body) => Err(Trouble::of(status, &body)),
        }
    })
    .await
}

/// Why something failed, and whether it always will.
struct Trouble {
    why: String,
    mend: Option<String>,
}

impl Trouble {
    fn of(status: u16, body: &Value) -> Self {
        let hint = body["hint"].as_str().filter(|_| matches!(status, 401 | 403));
        Self { why: refusal(status, body), mend: hint.map(words) }
    }
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self { why, mend: None }
    }
}

/// So many ask for so long, each the next question when it has the answer to the last.
async fn all<F>(way: &Way, callers: usize, span: Duration, over: &CancellationToken, ask: F) -> Asked
where
    F: AsyncFn(&mut Line<'_>) -> Result<(), Trouble>,
{
    let (asked, began) = (RefCell::new(Asked::default()), Instant::now());
    let asks = async || {
        let mut line = Line::of(way);
        while began.elapsed() < span && !over.is_cancelled() && asked.borrow().forbidden.is_none() {
            let turn = Instant::now();
            match ask(&mut line).await {
                Ok(()) => asked.borrow_mut().times.add(turn.elapsed()),
                Err(Trouble { why, mend }) => {
                    asked.borrow_mut().failed.add(&why);
                    if let Some(mend) = mend {
                        asked.borrow_mut().forbidden.get_or_insert(format!("{why}: {mend}"));
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    };
    join_all((0..callers).map(|_| asks())).await;
    Asked { span: began.elapsed(), ..asked.into_inner() }
}

/// Sends something to all sockets each second, until it is told to stop.
pub async fn sends(way: &Way, crowd: &Crowd, stop: &CancellationToken) -> Sent {
    let (mut sent, mut line, mut seconds) = (Sent::default(), Line::of(way), interval(SEND_EVERY));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let Some(store) = crowd.audience() else { return sent };
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return sent,
            _ = seconds.tick() => {}
        }
        let body = json!({ "storeId": store, "event": SENT, "data": crowd.now() });
        match line.ask(&way.posts("/api/send", &body)).await {
            Ok((200, said)) => {
                sent.count += 1;
                sent.matched += said["matched"].as_u64().unwrap_or_default();
                sent.delivered += said["delivered"].as_u64().unwrap_or_default();
            }
            Ok((status, body)) => sent.failed.add(&Trouble::of(status, &body).why),
            Err(why) => sent.failed.add(&why),
        }
    }
}

/// What the gateway said of the sends.
#[derive(Debug, Default)]
pub struct Sent {
    pub count: u64,
    pub matched: u64,
    pub delivered: u64,
    pub failed: Reasons,
}
