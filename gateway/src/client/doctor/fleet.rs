//! Who else is there: which instances answer, and whether one of them reaches a socket that another holds.

use super::{
    patient::{Answer, Knock, Patient},
    report::{Check, Report},
};
use crate::client::{asking::PATIENCE, socket::Socket};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::timeout;

/// So many strangers ask. A proxy that chooses among three by chance leaves one of them out once in a hundred times.
const TRIES: usize = 12;
/// Sockets that are opened until a call has to go from one instance to another.
const SOCKETS: usize = 4;
/// What the doctor's own socket is asked.
const EVENT: &str = "holdfast_doctor";
/// How long a call may take; nobody has to think about it.
const CALL_MS: u64 = 3000;

const UPSTREAM_LINES: &str = "name every instance in the upstream, and no ip_hash or sticky (nothing needs it):\nupstream holdfast { zone holdfast 64k; least_conn; server 127.0.0.1:8081 max_fails=0; server 127.0.0.1:8082 max_fails=0; }";

/// Which instances answer, and whether they reach each other's sockets.
pub async fn check(patient: &Patient, greeted: Option<String>, wanted: Option<usize>, report: &mut Report) {
    let known = patient.told("/api/instances").await;
    let is_alone = known.as_ref().is_ok_and(|answer| serving(answer).len() == 1);
    report.add(instances(patient, greeted, wanted, known).await);
    report.add(match across(patient).await {
        Ok(Called::Judged(check)) => check,
        Ok(Called::ByItself(seen)) if is_alone => Check::well("call", format!("{seen}; no other instance serves")),
        Ok(Called::ByItself(seen)) => {
            let mend = "no other instance was met, so name one with --direct http://host:port";
            Check::unseen("call", format!("{seen}; {mend}"))
        }
        Err(why) => Check::unseen("call", why),
    });
}

/// What came of calls.
enum Called {
    /// One went from an instance to another, or failed.
    Judged(Check),
    /// All were asked where the socket is held.
    ByItself(String),
}

/// Held against those that the fleet knows of, where it may be asked (checklist 220).
async fn instances(
    patient: &Patient,
    greeted: Option<String>,
    wanted: Option<usize>,
    known: Result<Answer, String>,
) -> Check {
    let (mut reached, mut is_direct): (BTreeSet<String>, _) = (greeted.into_iter().collect(), true);
    for _ in 0..TRIES {
        if let Ok(answer) = patient.get("/health").await
            && let Some(name) = answer.instance()
        {
            reached.insert(name.to_owned());
            is_direct &= patient.is_direct(&answer.heard);
        }
    }
    let names = |set: &BTreeSet<String>| set.iter().cloned().collect::<Vec<_>>().join(", ");
    let serving = known.as_ref().ok().map(serving);
    let all = serving.as_ref().map_or(reached.len(), BTreeSet::len);
    let seen = format!("{TRIES} requests and a handshake were answered by: {}", names(&reached));
    let wanted = wanted.unwrap_or(1);
    if reached.is_empty() {
        return Check::unseen("instances", "no instance names itself (X-Holdfast-Instance is not passed on)");
    }
    if all < wanted {
        return Check::ill(
            "instances",
            format!(
                "{all} of the {wanted} instances that should serve are there: {}",
                names(serving.as_ref().unwrap_or(&reached))
            ),
            "start the others; all of them need the same REDIS_URL and NAMESPACE, and an INSTANCE of their own",
        );
    }
    let missed: BTreeSet<_> = serving.iter().flatten().filter(|name| !reached.contains(*name)).cloned().collect();
    match (&serving, reached.len()) {
        (Some(_), 1) if is_direct && !missed.is_empty() => Check::unseen(
            "instances",
            format!(
                "{seen}; the fleet has {}, too: ask through the proxy to see whether it reaches them",
                names(&missed)
            ),
        ),
        (Some(_), _) if !missed.is_empty() => Check::ill(
            "instances",
            format!("{seen}; never by {}, which serves as well", names(&missed)),
            UPSTREAM_LINES,
        ),
        (Some(_), 1) => Check::well("instances", format!("one instance serves: {}", names(&reached))),
        (Some(_), count) => Check::well("instances", format!("all {count} are reached: {}", names(&reached))),
        (None, 1) => Check::unseen(
            "instances",
            format!(
                "{seen}; whether there are more cannot be seen: {}, or say how many there should be with --instances",
                known.err().unwrap_or_default()
            ),
        ),
        (None, count) => Check::well("instances", format!("{count} are reached: {}", names(&reached))),
    }
}

fn serving(answer: &Answer) -> BTreeSet<String> {
    let listed = answer.body["instances"].as_array().into_iter().flatten();
    let serving = listed.filter(|instance| instance["state"] == "serving");
    serving.filter_map(|instance| instance["instance"].as_str().map(str::to_owned)).collect()
}

/// Calls the doctor's own socket until somebody else than its holder has passed the call on.
async fn across(patient: &Patient) -> Result<Called, String> {
    let mut called = with_one(patient).await?;
    // A socket that is held where the call is asked says nothing of the way between them. The next may be held elsewhere.
    for _ in 1..SOCKETS {
        if matches!(called, Called::Judged(_)) {
            break;
        }
        called = with_one(patient).await?;
    }
    Ok(called)
}

async fn with_one(patient: &Patient) -> Result<Called, String> {
    let Knock { answer, .. } = patient.knock().await?;
    let Ok(mut socket) = answer else { return Err("no socket could be opened".into()) };
    let called = ask_for(patient, &mut socket).await;
    socket.close().await;
    called
}

async fn ask_for(patient: &Patient, socket: &mut Socket) -> Result<Called, String> {
    let hi: Value = serde_json::from_str(&socket.hear(PATIENCE).await?).unwrap_or_default();
    let Some(id) = hi["socketId"].as_str() else { return Err("the first frame is no hi".into()) };
    let holder = hi["instance"].as_str().unwrap_or_default();
    let (mut local, mut closed) = (None, String::new());
    for (nth, place) in patient.places().enumerate() {
        // Behind a proxy each request may meet another instance; an instance is always itself.
        for _ in 0..if nth == 0 { TRIES } else { 1 } {
            let body = json!({ "socketId": id, "event": EVENT, "data": "hello", "timeoutMs": CALL_MS });
            let answer = answering(socket, place.post_as_server("/api/call", &body)).await?;
            let is_ours = answer.instance().is_some();
            match (answer.status, answer.body["hop"].as_str()) {
                (200, Some("remote")) => {
                    let (by, took) = (answer.instance().unwrap_or("another instance"), &answer.body["elapsedMs"]);
                    let seen = format!("asked at {by}, answered by a socket on {holder} after {took} ms");
                    return Ok(Called::Judged(Check::well("call", seen)));
                }
                (200, _) => local = answer.body["elapsedMs"].as_u64(),
                (status, _) if matches!(status, 401 | 403) || !is_ours => {
                    closed = place.closed("/api/call", &answer);
                    break;
                }
                _ => {
                    let hint = answer.hint().unwrap_or("the logs of both instances say more").to_owned();
                    let seen = format!("a call to a socket on {holder} fails: {}", answer.problem());
                    return Ok(Called::Judged(Check::ill("call", seen, hint)));
                }
            }
        }
    }
    match local {
        Some(took) => Ok(Called::ByItself(format!("answered on {holder} itself after {took} ms"))),
        None => Err(closed),
    }
}

/// The answer to a call, while its socket says what it is asked for.
async fn answering(
    socket: &mut Socket,
    asking: impl Future<Output = Result<Answer, String>>,
) -> Result<Answer, String> {
    let mut asking = std::pin::pin!(asking);
    let hears = Duration::from_millis(CALL_MS) + PATIENCE;
    loop {
        tokio::select! {
            answer = &mut asking => return answer,
            heard = timeout(hears, socket.hear(hears)) => {
                let text = heard.map_err(|_| "the call does not arrive".to_owned())??;
                let frame: Value = serde_json::from_str(&text).unwrap_or_default();
                if frame["type"] == EVENT {
                    let reply = json!({ "type": "reply", "callId": frame["callId"], "data": frame["data"] });
                    socket.say(&reply.to_string()).await?;
                }
            }
        }
    }
}
