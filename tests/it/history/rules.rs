//! What must be true of every history.

use super::notes::{Note, What, Word};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// The contract gives a call so much more than its budget.
const GRACE: Duration = Duration::from_millis(250);
/// So long may two busy cores need to write an answer, and the caller to read and note it. It is measured
/// here, and not by the gateway.
pub const BUSY: Duration = Duration::from_secs(1);
/// An owner that is not heard is noticed after so long, and what follows from an outage follows within it.
const NOTICED: Duration = Duration::from_secs(6);

/// Which rule was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// A call is written once, to one socket.
    Once,
    /// Nothing is written whose deadline is over, be it only that the client reads it late.
    NotLate,
    /// What a client has seen is not called undelivered.
    NotDenied,
    /// Every call ends within its budget and a little more.
    InTime,
    /// Every call is answered, unless the instance that was asked is killed.
    Answered,
    /// The answer is in the contract's table.
    Listed,
    /// A reply goes to its own caller, and was said by the client that had the call.
    OwnReply,
    /// What is called delivered was seen by some client.
    Seen,
    /// A socket or an owner that is called lost was lost.
    Cause,
    /// Nobody is told that a call is withdrawn that it never had.
    Withdrawn,
}

#[derive(Debug)]
#[expect(dead_code, reason = "it is printed")]
pub struct Fault {
    pub rule: Rule,
    pub key: Option<u64>,
    pub why: String,
}

/// All that is known of one call.
#[derive(Debug, Default)]
struct Story<'a> {
    asked: Option<(Duration, usize, Duration)>,
    ended: Option<(Duration, End<'a>)>,
    deliveries: Vec<(Duration, &'a str, &'a str)>,
    said: Vec<(&'a str, Word)>,
}

#[derive(Debug)]
enum End<'a> {
    Answer(u16, &'a Value),
    Broken,
}

/// When something was amiss: until it was well again, and for as long as that may be felt.
#[derive(Debug, Default)]
struct Troubles {
    killed: Vec<(usize, Duration)>,
    /// An instance that stood still, or was about to end.
    stopped: Vec<(usize, Duration, Duration)>,
    drained: Vec<(usize, Duration, Duration)>,
    redis_away: Vec<(Duration, Duration)>,
}

pub fn judge(history: &[Note]) -> Vec<Fault> {
    let troubles = Troubles::of(history);
    let mut stories: BTreeMap<u64, Story<'_>> = BTreeMap::new();
    let mut parted: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
    let (mut given, mut withdrawn) = (BTreeSet::new(), Vec::new());
    for Note { at, what } in history {
        match what {
            What::Asked { key, asker, budget } => {
                stories.entry(*key).or_default().asked = Some((*at, *asker, *budget));
            }
            What::Answered { key, status, body } => {
                stories.entry(*key).or_default().ended = Some((*at, End::Answer(*status, body)));
            }
            What::Broken { key } => stories.entry(*key).or_default().ended = Some((*at, End::Broken)),
            What::Delivered { key, call, socket } => {
                stories.entry(*key).or_default().deliveries.push((*at, call, socket));
                given.insert((call.as_str(), socket.as_str()));
            }
            What::Said { key, socket, word } => stories.entry(*key).or_default().said.push((socket, *word)),
            What::Withdrawn { call, socket } => withdrawn.push((call.as_str(), socket.as_str())),
            What::Parted { socket } => parted.entry(socket).or_default().push(*at),
            _ => {}
        }
    }
    let mut faults = Vec::new();
    for (key, story) in &stories {
        let mut broken = |rule, why: &str| {
            faults.push(Fault { rule, key: Some(*key), why: format!("{why}: {story:?}") });
        };
        if story.deliveries.len() > 1 {
            broken(Rule::Once, "written more than once");
        }
        let Some((asked, asker, budget)) = story.asked else {
            broken(Rule::Answered, "nobody asked this");
            continue;
        };
        // Who stood still heard the question when it went on.
        let by = |at| asked + budget + BUSY + troubles.stood_still(asker, asked, at);
        if story.deliveries.iter().any(|(at, ..)| *at > by(*at)) {
            broken(Rule::NotLate, "written after its deadline");
        }
        let Some((ended, end)) = &story.ended else {
            broken(Rule::Answered, "no answer");
            continue;
        };
        let limit = budget + GRACE + BUSY + troubles.stood_still(asker, asked, *ended);
        if *ended - asked > limit {
            broken(Rule::InTime, "too late");
        }
        match end {
            End::Broken => {
                let excused = troubles.was_killed(asker, asked, *ended)
                    || story.deliveries.is_empty() && troubles.was_drained(asker, asked, *ended);
                if !excused {
                    broken(Rule::Answered, "hung up on");
                }
            }
            End::Answer(status, body) => {
                told(story, (*status, body), (asked, *ended), &troubles, &parted, &mut broken);
            }
        }
    }
    let groundless = withdrawn.iter().filter(|pair| !given.contains(*pair));
    faults.extend(groundless.map(|pair| Fault {
        rule: Rule::Withdrawn,
        key: None,
        why: format!("withdrawn, though never given: {pair:?}"),
    }));
    faults
}

/// The answer held against what the clients saw, and what was broken.
fn told(
    story: &Story<'_>,
    (status, body): (u16, &Value),
    (asked, ended): (Duration, Duration),
    troubles: &Troubles,
    parted: &BTreeMap<&str, Vec<Duration>>,
    broken: &mut impl FnMut(Rule, &str),
) {
    let code = body["code"].as_str().unwrap_or_default();
    let delivered = &body["delivered"];
    let listed = match status {
        200 => body["status"] == "replied",
        404 => matches!(code, "socket_never_seen" | "socket_forgotten" | "no_live_socket"),
        410 => code == "socket_gone",
        409 => code == "call_failed",
        429 => code == "socket_busy",
        502 => matches!(code, "owner_lost" | "socket_lost" | "instance_ended"),
        503 => {
            matches!(code, "registry_rebuilding" | "registry_unavailable" | "owner_unreachable" | "draining")
        }
        504 => code == "no_reply" && (delivered.is_boolean() || delivered == "unknown"),
        _ => false,
    };
    if !listed {
        broken(Rule::Listed, "not in the table");
    }
    let undelivered = matches!(status, 404 | 410 | 429 | 503) || *delivered == json!(false);
    if undelivered && !story.deliveries.is_empty() {
        broken(Rule::NotDenied, "called undelivered");
    }
    let names_other = story.deliveries.iter().any(|(_, call, _)| body["callId"].as_str().is_some_and(|id| id != *call));
    if names_other {
        broken(Rule::OwnReply, "the answer is another call's");
    }
    if let 200 | 409 = status {
        let (word, payload) =
            if status == 200 { (Word::Reply, &body["result"]) } else { (Word::Failed, &body["failure"]) };
        let socket = body["socketId"].as_str().unwrap_or_default();
        let had_it = story.deliveries.iter().any(|(.., had)| *had == socket);
        if !had_it || !story.said.contains(&(socket, word)) || payload["by"] != body["socketId"] {
            broken(Rule::OwnReply, "nobody who had it said so");
        }
    }
    // Bytes that the kernel had of a process that is killed may be lost on their way.
    let lost_on_the_way = || troubles.any_killed(asked, ended);
    let says_seen = matches!(status, 200 | 409) || *delivered == json!(true);
    if says_seen && story.deliveries.is_empty() && !lost_on_the_way() {
        broken(Rule::Seen, "no client saw it");
    }
    if code == "socket_lost" {
        let socket = body["verdict"]["socketId"].as_str().unwrap_or_default();
        let around = asked.saturating_sub(BUSY)..=ended + BUSY;
        if !parted.get(socket).is_some_and(|times| times.iter().any(|at| around.contains(at))) {
            broken(Rule::Cause, "its socket did not end");
        }
    }
    if matches!(code, "owner_lost" | "instance_ended") && !troubles.explains_a_lost_instance(asked, ended) {
        broken(Rule::Cause, "no instance was lost");
    }
}

impl Troubles {
    fn of(history: &[Note]) -> Self {
        let mut all = Self::default();
        for Note { at, what } in history {
            match what {
                What::Killed { instance } => all.killed.push((*instance, *at)),
                What::Stopped { instance } => all.stopped.push((*instance, *at, Duration::MAX)),
                What::Drained { instance } => all.drained.push((*instance, *at, Duration::MAX)),
                What::RedisAway => all.redis_away.push((*at, Duration::MAX)),
                What::GoesOn { instance } => end_of(&mut all.stopped, *instance, *at),
                What::Ended { instance } => end_of(&mut all.drained, *instance, *at),
                What::RedisBack => {
                    if let Some((_, until)) = all.redis_away.last_mut() {
                        *until = *at;
                    }
                }
                _ => {}
            }
        }
        all
    }

    /// For how much of this time it did not run at all.
    fn stood_still(&self, instance: usize, from: Duration, to: Duration) -> Duration {
        let own = self.stopped.iter().filter(|(who, ..)| *who == instance);
        own.map(|(_, since, until)| (*until).min(to).saturating_sub((*since).max(from))).sum()
    }

    /// It is noted before it is done: who asks in between has a connection that breaks.
    fn was_killed(&self, instance: usize, from: Duration, to: Duration) -> bool {
        let from = from.saturating_sub(BUSY);
        self.killed.iter().any(|(who, at)| *who == instance && (from..=to + BUSY).contains(at))
    }

    fn any_killed(&self, from: Duration, to: Duration) -> bool {
        self.killed.iter().any(|(_, at)| (from..=to).contains(at))
    }

    fn was_drained(&self, instance: usize, from: Duration, to: Duration) -> bool {
        self.drained.iter().any(|(who, since, until)| *who == instance && *since <= to && from <= *until)
    }

    fn explains_a_lost_instance(&self, from: Duration, to: Duration) -> bool {
        let felt = |since: Duration, until: Duration| since <= to && from <= until.saturating_add(NOTICED);
        self.killed.iter().any(|(_, at)| felt(*at, *at))
            || self.stopped.iter().chain(&self.drained).any(|(_, since, until)| felt(*since, *until))
            || self.redis_away.iter().any(|(since, until)| felt(*since, *until))
    }
}

fn end_of(times: &mut [(usize, Duration, Duration)], instance: usize, at: Duration) {
    if let Some((.., until)) = times.iter_mut().rev().find(|(who, ..)| *who == instance) {
        *until = at;
    }
}
