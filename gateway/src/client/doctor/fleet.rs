//! Who else is there: which instances answer, and whether one of them reaches a socket that another holds.

use super::{
    patient::{Answer, Knock, Patient},
    report::{Check, Report},
};
use crate::client::{asking::PATIENCE, socket::Socket};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::timeout;

/// So many strangers ask. A proxy that chooses among three by chance leaves one of them out once in a hundred times.
const TRIES: usize = 12;
/// Sockets that are opened until a call has to go from one instance to another.
const SOCKETS: usize = 4;
/// Sockets that are held at once until every instance is met: a proxy with least_conn goes by who holds fewest.
const HELD_MAX: usize = 12;
/// How far off the counts of a fleet may be: each is as old as the last heartbeat.
const SLACK: u64 = 3;
/// What the doctor's own socket is asked.
const EVENT: &str = "holdfast_doctor";
/// How long a call may take; nobody has to think about it.
const CALL_MS: u64 = 3000;

const UPSTREAM_LINES: &str = "name every instance in the upstream, and no ip_hash or sticky (nothing needs it):\nupstream holdfast { zone holdfast 64k; least_conn; server 127.0.0.1:8081 max_fails=0; server 127.0.0.1:8082 max_fails=0; }";

/// Which instances answer, and whether they reach each other's sockets.
pub async fn check(patient: &Patient, greeted: Option<String>, wanted: Option<usize>, report: &mut Report) {
    let known = patient.told("/api/instances").await;
    let serving = known.as_ref().ok().map(serving);
    let is_alone = serving.as_ref().is_some_and(|serving| serving.len() == 1);
    let mut met = Met { names: greeted.into_iter().collect(), is_direct: true, held: BTreeMap::new() };
    met.ask(patient).await;
    let mut sockets = met.hold(patient, serving.as_ref(), wanted).await;
    let called = across(patient, &mut met, &mut sockets).await;
    for socket in sockets {
        socket.close().await;
    }
    report.add(instances(&met, wanted, serving, known.err()));
    report.add(match called {
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

/// Instances that are there, and how many sockets each of them held when it was asked.
type Serving = BTreeMap<String, u64>;

/// Who has answered where the doctor was sent.
struct Met {
    names: BTreeSet<String>,
    is_direct: bool,
    /// Sockets of the doctor's own.
    held: BTreeMap<String, u64>,
}

impl Met {
    fn has(&mut self, patient: &Patient, answer: &Answer) {
        if let Some(name) = answer.instance() {
            self.names.insert(name.to_owned());
            self.is_direct &= patient.is_direct(&answer.heard);
        }
    }

    async fn ask(&mut self, patient: &Patient) {
        for _ in 0..TRIES {
            if let Ok(answer) = patient.get("/health").await {
                self.has(patient, &answer);
            }
        }
    }

    /// What is short goes to whoever is least busy, always the same one, until sockets that stay weigh as much elsewhere.
    async fn hold(&mut self, patient: &Patient, serving: Option<&Serving>, wanted: Option<usize>) -> Vec<Socket> {
        let mut sockets = Vec::new();
        while sockets.len() < HELD_MAX && self.misses_some(serving, wanted) {
            let Ok(Knock { answer: Ok(socket), instance, .. }) = patient.knock().await else { break };
            sockets.push(socket);
            if let Some(name) = instance {
                *self.held.entry(name.clone()).or_default() += 1;
                self.names.insert(name);
            }
        }
        sockets
    }

    fn misses_some(&self, serving: Option<&Serving>, wanted: Option<usize>) -> bool {
        let is_missed = |serving: &Serving| serving.keys().any(|name| !self.names.contains(name));
        serving.map_or_else(|| wanted.is_some_and(|wanted| self.names.len() < wanted), is_missed)
    }

    /// Whether a proxy that goes by who holds fewest would have passed this one over all the time.
    fn was_busier(&self, serving: &Serving, name: &str) -> bool {
        let sockets = |name: &String| Some(serving.get(name)? + self.held.get(name).copied().unwrap_or_default());
        let least = self.names.iter().filter_map(sockets).min().unwrap_or_default();
        serving.get(name).is_some_and(|sockets| sockets + SLACK > least)
    }
}

fn joined<'a>(names: impl IntoIterator<Item = &'a String>) -> String {
    names.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// Held against those that the fleet knows of, where it may be asked (checklist 220).
fn instances(met: &Met, wanted: Option<usize>, serving: Option<Serving>, untold: Option<String>) -> Check {
    let names = joined(&met.names);
    let all = serving.as_ref().map_or(met.names.len(), BTreeMap::len);
    let mut seen = format!("{TRIES} requests and a handshake were answered by: {names}");
    let wanted = wanted.unwrap_or(1);
    if met.names.is_empty() {
        return Check::unseen("instances", "no instance names itself (X-Holdfast-Instance is not passed on)");
    }
    if all < wanted {
        let there = serving.as_ref().map_or(names, |serving| joined(serving.keys()));
        return Check::ill(
            "instances",
            format!("{all} of the {wanted} instances that should serve are there: {there}"),
            "start the others; all of them need the same REDIS_URL and NAMESPACE, and an INSTANCE of their own",
        );
    }
    let Some(serving) = serving else {
        return match met.names.len() {
            1 => Check::unseen(
                "instances",
                format!(
                    "{seen}; whether there are more cannot be seen: {}, or say how many there should be with --instances",
                    untold.unwrap_or_default()
                ),
            ),
            count => Check::well("instances", format!("{count} are reached: {names}")),
        };
    };
    let missed: Vec<_> = serving.keys().filter(|name| !met.names.contains(*name)).collect();
    if missed.is_empty() {
        return Check::well(
            "instances",
            match met.names.len() {
                1 => format!("one instance serves: {names}"),
                count => format!("all {count} are reached: {names}"),
            },
        );
    }
    if met.is_direct && met.names.len() == 1 {
        let others = joined(missed);
        return Check::unseen(
            "instances",
            format!("{seen}; the fleet has {others}, too: ask through the proxy to see whether it reaches them"),
        );
    }
    let held: u64 = met.held.values().sum();
    if held > 0 {
        seen = format!("{seen} (with {held} sockets held meanwhile)");
    }
    let (busier, passed_over): (Vec<_>, Vec<_>) = missed.into_iter().partition(|name| met.was_busier(&serving, name));
    if passed_over.is_empty() {
        return Check::unseen(
            "instances",
            format!(
                "{seen}; not by {}, with more sockets: least_conn sends whoever is new to the others first, as it does after a restart. Look again when they hold as many",
                joined(busier)
            ),
        );
    }
    let (serves, never) = (if passed_over.len() == 1 { "serves" } else { "serve" }, joined(passed_over));
    Check::ill("instances", format!("{seen}; never by {never}, which {serves} as well"), UPSTREAM_LINES)
}

/// Those that serve, by what the fleet says of itself.
fn serving(answer: &Answer) -> Serving {
    let listed = answer.body["instances"].as_array().into_iter().flatten();
    let serving = listed.filter(|instance| instance["state"] == "serving");
    let told = |instance: &Value| {
        Some((instance["instance"].as_str()?.to_owned(), instance["sockets"].as_u64().unwrap_or_default()))
    };
    serving.filter_map(told).collect()
}

/// Calls the doctor's own socket until somebody else than its holder has passed the call on.
async fn across(patient: &Patient, met: &mut Met, sockets: &mut Vec<Socket>) -> Result<Called, String> {
    let mut called = with_one(patient, met, sockets).await?;
    // A socket that is held where the call is asked says nothing of the way between them. The next may be held elsewhere.
    for _ in 1..SOCKETS {
        if matches!(called, Called::Judged(_)) {
            break;
        }
        called = with_one(patient, met, sockets).await?;
    }
    Ok(called)
}

/// With one more, which is held like those before it.
async fn with_one(patient: &Patient, met: &mut Met, sockets: &mut Vec<Socket>) -> Result<Called, String> {
    let Knock { answer, .. } = patient.knock().await?;
    let Ok(mut socket) = answer else { return Err("no socket could be opened".into()) };
    let called = ask_for(patient, met, &mut socket).await;
    sockets.push(socket);
    called
}

async fn ask_for(patient: &Patient, met: &mut Met, socket: &mut Socket) -> Result<Called, String> {
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
            if nth == 0 {
                met.has(patient, &answer);
            }
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
                    let hint = answer.hint().unwrap_or_else(|| "the logs of both instances say more".to_owned());
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
