//! Do server-sent events arrive as they are written.

use super::{patient::Patient, reach::ms, report::Check};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// The first event is written at once. Whoever waits longer for it waits for a buffer that fills.
const AT_ONCE: Duration = Duration::from_secs(3);
const PATH: &str = "/sse/stream";
const LINES: &str = "in the nginx location that leads to the gateway:\nproxy_buffering off;\nproxy_cache off;\ngzip off;\nand no proxy_ignore_headers X-Accel-Buffering";

/// Listens, until the first event is there.
pub async fn check(patient: &Patient) -> Check {
    let user = if patient.query.contains("user_id=") || patient.query.contains("userId=") {
        ""
    } else {
        "user_id=holdfast-doctor"
    };
    let asked = patient.at_door(PATH, user, &patient.shown).with("Accept", "text/event-stream");
    // As browsers say it: a proxy that compresses does so only for who understands it.
    let asked = asked.with("Accept-Encoding", "gzip");
    let began = Instant::now();
    let mut heard = match patient.begin(&asked).await {
        Ok(heard) => heard,
        Err(why) => {
            return Check::ill(
                "events",
                format!("GET {PATH}: {why}; not even a head arrives, so it is held back"),
                LINES,
            );
        }
    };
    let is_ours = heard.header("x-holdfast-instance").is_some();
    match heard.status {
        200 if is_ours => {}
        401 => {
            return Check::unseen(
                "events",
                format!("{PATH} wants a credential: give one with --key, --token or --cookie"),
            );
        }
        403 if patient.origin.is_none() => {
            return Check::unseen(
                "events",
                format!("{PATH} lets only known pages listen: name one with --origin https://app.example.com"),
            );
        }
        _ if !is_ours => {
            let seen = format!("{PATH} is answered by something else than the gateway ({})", heard.status_line());
            return Check::ill("events", seen, "pass it on: location /sse/ { proxy_pass http://holdfast; … }");
        }
        _ => return Check::unseen("events", format!("{PATH} answers {}", heard.status_line())),
    }
    let coding = heard.header("content-encoding").map(str::to_owned);
    let accel = heard.header("x-accel-buffering").map_or("passed over by the proxy", |_| "no");
    let first = timeout(AT_ONCE, heard.next()).await;
    let took = began.elapsed();
    match (first, coding) {
        (_, Some(coding)) => {
            Check::ill("events", format!("events come compressed ({coding}), and so held back"), LINES)
        }
        (Ok(Ok(Some(bytes))), None) if bytes.starts_with(b"event:") || bytes.starts_with(b":") => Check::well(
            "events",
            format!(
                "the first event is there after {}, nothing holds them back (X-Accel-Buffering: {accel})",
                ms(took)
            ),
        ),
        (Ok(Ok(Some(_))), None) => Check::ill("events", "what comes is no event", LINES),
        (Ok(Ok(None)), None) => Check::ill("events", "the stream ends at once", "the log of the gateway says why"),
        (Ok(Err(why)), None) => Check::ill("events", why, "the error log of the proxy says why"),
        (Err(_), None) => Check::ill(
            "events",
            format!(
                "the head arrives and no event within {} s: the proxy buffers them (X-Accel-Buffering: {accel})",
                AT_ONCE.as_secs()
            ),
            LINES,
        ),
    }
}
