//! Does a socket survive a rest. Browsers say nothing while nothing happens; proxies cut what says nothing.

use super::{patient::Patient, report::Check};
use crate::client::socket::{Closed, Said, Socket};
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// For the answer of a socket that has rested.
const SOON: Duration = Duration::from_secs(5);
/// Beside `WS_PING_TIMEOUT`, whose default this is, in seconds.
const PING_TIMEOUT: f64 = 10.0;

/// Holds a socket and says nothing for so long. Whose instance leaves meanwhile has shown nothing of what is in between,
/// and rests once more, elsewhere.
pub async fn check(patient: &Patient, rest: Duration) -> Check {
    match once(patient, rest).await {
        Rested::Judged(check) => check,
        Rested::SentAway(first) => match once(patient, rest).await {
            Rested::Judged(check) => check,
            Rested::SentAway(second) => Check::unseen(
                "idle",
                format!("{first}; another: {second}; instances were restarted meanwhile, so look again when they stay"),
            ),
        },
    }
}

/// What came of a rest.
enum Rested {
    Judged(Check),
    /// The instance has ended it, as it does when it is restarted.
    SentAway(String),
}

/// Protocol pings are answered, as a browser does by itself.
async fn once(patient: &Patient, rest: Duration) -> Rested {
    let unseen = |why: String| Rested::Judged(Check::unseen("idle", why));
    let socket = match patient.knock().await {
        Ok(knock) => knock.answer,
        Err(why) => return unseen(format!("no socket could be opened: {why}")),
    };
    let Ok(mut socket) = socket else { return unseen("no socket could be opened".into()) };
    let began = Instant::now();
    let mut every = None;
    let rests = async {
        loop {
            match socket.next().await {
                Said::Closed(closed) => return closed,
                Said::Text(text) => every = every.or_else(|| interval(&text)),
                Said::Binary(_) => {}
            }
        }
    };
    let closed = timeout(rest, rests).await;
    let after = began.elapsed().as_secs_f64();
    match closed {
        Ok(closed) => died(&closed, after, every),
        Err(_) => Rested::Judged(still_answers(socket, rest, every).await),
    }
}

/// How often the gateway pings, as `hi` says.
fn interval(text: &str) -> Option<f64> {
    serde_json::from_str::<Value>(text).ok()?["pingInterval"].as_f64()
}

async fn still_answers(mut socket: Socket, rest: Duration, every: Option<f64>) -> Check {
    let rested = humantime::format_duration(rest);
    let answered = match socket.say(r#"{"evt":"ping"}"#).await {
        Ok(()) => socket.hear(SOON).await,
        Err(why) => Err(why),
    };
    socket.close().await;
    match answered {
        Ok(_) => Check::well("idle", format!("a socket that rested for {rested} still answers")),
        Err(why) => Check::ill(
            "idle",
            format!("a socket that rested for {rested} does not answer any more: {why}"),
            proxy_lines(every),
        ),
    }
}

fn died(closed: &Closed, after: f64, every: Option<f64>) -> Rested {
    let Closed { code, reason } = closed;
    let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let seen = format!("a socket that said nothing ended after {after:.1} s with {code}{reason}");
    Rested::Judged(match code {
        1012 | 1001 => return Rested::SentAway(seen),
        // Without a close frame: the gateway never leaves so.
        1006 => Check::ill(
            "idle",
            format!("{seen}; something in between ends what rests for {:.0} s", after.round()),
            proxy_lines(every),
        ),
        4100 => {
            Check::ill("idle", seen, "pings or pongs do not come through: see what the proxy does with control frames")
        }
        _ => Check::ill(
            "idle",
            seen,
            "the gateway ended it itself: its log says more (holdfast why, with the socket's id)",
        ),
    })
}

fn proxy_lines(every: Option<f64>) -> String {
    let every = every.unwrap_or(30.0);
    let least = (every + PING_TIMEOUT).mul_add(1.5, 15.0).round();
    format!(
        "the proxy must wait longer than WS_PING_INTERVAL + WS_PING_TIMEOUT (pings come every {every} s). In nginx:\nproxy_read_timeout {least:.0}s;\nproxy_send_timeout {least:.0}s;\nelsewhere: timeout tunnel (HAProxy), idle timeout (a cloud's balancer); or a lower WS_PING_INTERVAL"
    )
}
