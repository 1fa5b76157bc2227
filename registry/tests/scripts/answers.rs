//! What the model says, in words that a real answer can be brought into as well.

use crate::{
    model::{
        Admitted, Answer, Asker, Beaten, Ended, Newcomer, Over, Place, Registered, Row, Said, Sent, Store, To, When,
    },
    steps::{LISTENERS, PARTITIONS, Step, Universe, WINDOW},
};
use registry::{
    Attempt, Cap, Cause, Ending, Incarnation, SocketRecord, Superseded,
    owner::{h32, partition, says},
    rules::{Digest, NotBack, State},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// For how long an ended row stays; longer than any test.
pub const KEEP_MS: u64 = 600_000;
/// In the place of a moment that lies within the test.
pub const THEN: &str = "a moment ago";

/// Until when somebody cools down for whom a step says so: for longer than the test, or not any more.
pub const STILL: u64 = u32::MAX as u64 * 1000;
pub const OVER: u64 = 1;

/// A key's content. What is foreign is a string.
pub type Dump = BTreeMap<String, BTreeMap<String, String>>;

fn words<T>(said: Said<T>, words: impl FnOnce(T) -> Vec<String>) -> Vec<String> {
    said.map_or_else(|_| vec!["error".to_owned()], words)
}

fn text<T: ToString + Copy>(word: T) -> Vec<String> {
    vec![word.to_string()]
}

pub fn ending(to: usize) -> To {
    let ending = |cause, code| Ending { cause, code, reason: "so".into() };
    match to % 7 {
        0 | 1 => To::Closed(ending(Cause::ClientClosed, Some(1000))),
        2 => To::Away(ending(Cause::ConnectionLost, None)),
        3 => To::Away(ending(Cause::InstanceRestart, Some(1012))),
        4 => To::Closed(ending(Cause::Kicked, Some(4403))),
        5 => To::Forgotten,
        _ => To::Dropped(ending(Cause::ConnectionLost, None)),
    }
}

/// Whether what is closed by it is logged.
pub fn is_logged(to: usize) -> bool {
    to >= 7
}

/// Events that are kept of each partition.
pub const EVENTS_MAX: usize = 3;

/// What an event says is of no matter to a script.
pub fn event(of: impl std::fmt::Display) -> String {
    format!("event of {of}")
}

fn log(store: &mut Store, k: usize, event: String) -> [String; 2] {
    let (logged, gone) = store.log_event(k, EVENTS_MAX, event);
    [if logged { "logged" } else { "" }.to_owned(), gone.to_string()]
}

/// When one that is away is to end, and what the script is told of that.
pub fn when(nth: usize) -> (When, &'static str) {
    let kicked = || Ending { cause: Cause::Kicked, code: Some(4403), reason: "so".into() };
    [(When::Due, "due"), (When::Now(kicked()), "now"), (When::Told, "told")][nth].clone()
}

/// Who asks for a socket, from another address than before.
pub fn asker(universe: &Universe, id: usize, session: usize, by: usize, attempt: Attempt) -> Asker {
    Asker {
        id: universe.ids[id],
        session: universe.sessions[session],
        attempt,
        owner: universe.incarnations[by].clone(),
        address: [10, 0, 0, 8].into(),
    }
}

/// A letter's text; large ones lie beside the bell, and the bell has their name.
pub fn letter(to: usize, large: bool) -> Arc<str> {
    if large { format!("@large {to}").into() } else { format!("letter to {to}").into() }
}

/// What the model says, and what it rings.
pub fn of_model(
    store: &mut Store,
    universe: &Universe,
    step: &Step,
    now: u64,
) -> (Vec<String>, Option<(usize, String)>) {
    let life = |nth: usize| &universe.incarnations[nth];
    let said = match step {
        Step::Register { id, session, by, n, accepted, dress } => {
            let attempt = Attempt { n: *n, accepted_at: *accepted };
            let record = universe.record(*id, *session, *by, attempt, *dress);
            words(store.register(&record, life(*by), h32(&record)), |(registered, bad)| {
                let bad = bad.map(|place| key(&place)).unwrap_or_default();
                match registered {
                    Registered::Ok => vec!["ok".into(), bad],
                    Registered::Taken { owner, session } => {
                        vec!["taken".into(), bad, owner.to_string(), session.to_string()]
                    }
                    Registered::Superseded(Superseded::ByLater) => vec!["superseded".into(), "later".into()],
                    Registered::Superseded(Superseded::Ended) => vec!["superseded".into(), "ended".into()],
                }
            })
        }
        Step::Unregister { id, session, by, to } => {
            let (id, session) = (universe.ids[*id], universe.sessions[*session]);
            let ended = store.unregister(id, session, life(*by), &ending(*to), now);
            let closed = ended == Ok(Ended::Row) && store.rows.get(&id).is_some_and(|row| row.state == State::Closed);
            let mut said = words(ended, |ended| {
                text(match ended {
                    Ended::Nothing => 0,
                    Ended::Row => 1,
                    Ended::Elsewhere => 2,
                })
            });
            if closed && is_logged(*to) {
                said.extend(log(store, partition(id), event(session)));
            }
            said
        }
        Step::Log { partition: k, count } => {
            (0..*count).flat_map(|nth| log(store, PARTITIONS[*k], event(nth))).collect()
        }
        Step::Resume { id, session, by, n, accepted } => {
            let asker = asker(universe, *id, *session, *by, Attempt { n: *n, accepted_at: *accepted });
            words(store.resume(&asker, now), |back| match back {
                Ok((was, attempt, bad)) => {
                    let bad = bad.map(|place| key(&place)).unwrap_or_default();
                    ["back".into(), bad, attempt.accepted_at.to_string()]
                        .into_iter()
                        .chain(said_fields(row_fields(&was)))
                        .collect()
                }
                Err(NotBack::Unknown) => text("unknown"),
                Err(NotBack::Ended) => text("ended"),
                Err(NotBack::Later) => text("later"),
            })
        }
        Step::Away { id, when: nth } => words(store.away(universe.ids[*id], &when(*nth).0, now), |over| match over {
            Over::Ended(row) => ["ended".into()].into_iter().chain(said_fields(row_fields(&row))).collect(),
            Over::Waits => text("waits"),
            Over::Gone => text("gone"),
        }),
        Step::Overdue { id } => {
            let id = universe.ids[*id];
            if let Some(row) = store.rows.get_mut(&id).filter(|row| row.state == State::Away) {
                row.due = Some(OVER);
                if store.ended.contains_key(&id) {
                    store.ended.insert(id, OVER);
                }
            }
            Vec::new()
        }
        Step::Beat { by, serving } => {
            let said = store.beat(life(*by), *serving, 3, LISTENERS[*by], now);
            if let Ok(Beaten::Held { new, n, since, .. }) = &said {
                let mark = if *new { "!" } else { "" };
                let words = vec![
                    if *new { "new" } else { "renewed" }.into(),
                    n.to_string(),
                    LISTENERS[*by].to_string(),
                    since.to_string(),
                ];
                return (words, Some((*by, format!("{n}\n{mark}"))));
            }
            words(said, |_| text("fenced"))
        }
        Step::Route { to, large } => {
            let letter = letter(*to, *large);
            let said = store.route(life(*to), &letter, LISTENERS[*to], now);
            if let Ok(Sent::Ok { n, kept }) = &said {
                let mut words = text("ok");
                if !kept {
                    words.push(key(&Place::Mail(life(*to).clone())));
                }
                return (words, Some((*to, format!("{n}\n{letter}"))));
            }
            words(said, |sent| text(if sent == Sent::Gone { "gone" } else { "deaf" }))
        }
        Step::Heard { of } => words(store.heard(life(*of), now), |(lease, dead)| {
            let state = lease.map(|lease| lease.serving.as_str().to_owned()).unwrap_or_default();
            let beat = lease.map(|lease| lease.beat.to_string()).unwrap_or_default();
            vec![state, beat, LISTENERS[*of].to_string(), u8::from(dead).to_string()]
        }),
        Step::Tomb { of } => text(u8::from(store.tomb(life(*of), now))),
        Step::Reap { of, partition: k } => {
            let ids: Vec<_> = universe.ids.iter().copied().filter(|id| partition(*id) == PARTITIONS[*k]).collect();
            let found = store.reap(life(*of), &ids, now);
            found.iter().flat_map(|record| [lost(record), lost_with(record)].concat()).collect()
        }
        Step::Recount { of, partition: k, seen, count } => {
            let (k, of) = (PARTITIONS[*k], life(*of));
            let (was, right) = counts(store, k, of, *seen, *count);
            words(store.ours(Place::Owned(k, of.clone())), |()| text(u8::from(store.recount(k, of, was, right))))
        }
        Step::Admit { user, who, cap, policy, stale } => {
            let newcomer = Newcomer { member: universe.member(who), since: 1000 + 700 * who.session as u64 };
            let stale: Vec<_> = stale.iter().map(|who| universe.member(who)).collect();
            let cap = Cap { sockets_max: *cap, policy: *policy };
            let said = store.admit(universe.user(*user), &newcomer, cap, KEEP_MS, &stale, now);
            words(said, |Admitted { answer, replaced, cooled, others }| {
                let word = match answer {
                    Answer::Welcome => "welcome",
                    Answer::Full => "full",
                    Answer::Cooling => "cooling",
                };
                let mut words = vec![word.to_owned(), replaced.len().to_string(), cooled.len().to_string()];
                words.extend(replaced);
                words.extend(cooled);
                words.extend(others);
                words
            })
        }
        Step::Confirm { id, n } => {
            if let Some(row) = store.rows.get_mut(&universe.ids[*id]) {
                row.confirmed = Some(*n);
            }
            Vec::new()
        }
        Step::Cool { user, client, still } => {
            let key = universe.user(*user);
            if !store.is_foreign(&Place::Cooling(key)) {
                let until = if *still { STILL } else { OVER };
                store.cooling.insert((key, universe.client(*client)), until);
            }
            Vec::new()
        }
        Step::Lapse { of } => {
            store.leases.remove(life(*of));
            store.foreign.remove(&Place::Lease(life(*of).clone()));
            Vec::new()
        }
        Step::Spoil(spot) => {
            let place = universe.place(spot);
            if !dump(store, universe).contains_key(&key(&place)) {
                store.foreign.insert(place);
            }
            Vec::new()
        }
    };
    (said, None)
}

fn lost(record: &SocketRecord) -> Vec<String> {
    let field = |name: &str| fields(record).remove(name).unwrap_or_default();
    let mut said = vec![record.id.short(), record.session.to_string()];
    said.extend(["user", "store", "rooms", "client", "address"].map(field));
    said
}

/// What is told of one that was lost besides that.
fn lost_with(record: &SocketRecord) -> Vec<String> {
    let state = if record.resumable.is_some() { State::Away } else { State::Lost };
    vec![record.connected_at.to_string(), state.as_str().to_owned()]
}

/// A live row, field by field.
pub fn fields(record: &SocketRecord) -> BTreeMap<String, String> {
    let mut fields: BTreeMap<_, _> = [
        ("owner", record.owner.to_string()),
        ("session", record.session.to_string()),
        ("attempt", record.attempt.n.to_string()),
        ("accepted", record.attempt.accepted_at.to_string()),
        ("state", "live".to_owned()),
        ("connectedAt", record.connected_at.to_string()),
        ("address", record.address.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            fields.insert(name.to_owned(), value);
        }
    };
    put("user", record.user.as_ref().map(ToString::to_string));
    put("store", record.store.as_ref().map(ToString::to_string));
    put("rooms", (!record.rooms.is_empty()).then(|| serde_json::to_string(&record.rooms).unwrap()));
    put("client", record.client.as_ref().map(ToString::to_string));
    put("window", record.resumable.map(|resumable| resumable.window.to_string()));
    put("confirmed", record.resumable.map(|resumable| resumable.confirmed.to_string()));
    put("says", record.resumable.map(|_| says(record).to_string()));
    fields
}

/// A row as it stands, field by field.
fn row_fields(row: &Row) -> BTreeMap<String, String> {
    let mut fields = fields(&row.record);
    fields.insert("state".into(), row.state.as_str().into());
    fields.extend(row.confirmed.map(|n| ("confirmed".to_owned(), n.to_string())));
    fields.extend(row.says.map(|says| ("says".to_owned(), says.to_string())));
    if let Some((_, ending)) = &row.ended {
        fields.insert("endedAt".into(), THEN.into());
        fields.extend(ending.iter().flat_map(ending_fields));
    }
    fields.extend(row.due.map(|due| ("due".to_owned(), due_in_words(due))));
    fields
}

/// In their order, as no script has any.
pub fn said_fields(fields: BTreeMap<String, String>) -> impl Iterator<Item = String> {
    fields.into_iter().map(|(name, value)| format!("{name}={value}"))
}

fn due_in_words(due: u64) -> String {
    if due == OVER { due.to_string() } else { THEN.to_owned() }
}

/// How long a row without a connection stays; one that is away until somebody has ended it, too.
pub fn stays(away: bool) -> u64 {
    if away { KEEP_MS + u64::from(WINDOW.get()) * 1000 + 60_000 } else { KEEP_MS }
}

/// How an ending stands in a row.
pub fn ending_fields(ending: &Ending) -> Vec<(String, String)> {
    let mut fields = vec![("cause".to_owned(), ending.cause.to_string())];
    if ending.cause != Cause::InstanceCrash {
        fields.push(("reason".to_owned(), ending.reason.to_string()));
    }
    fields.extend(ending.code.map(|code| ("code".to_owned(), code.to_string())));
    fields
}

/// The same names as in `keys.rs`, whose tags are of no matter to a script.
pub fn key(place: &Place) -> String {
    match place {
        Place::Row(id) => format!("t:{{p{}}}:socket:{}", partition(*id), id.short()),
        Place::Owned(k, by) => format!("t:{{p{k}}}:owned:{}", by.mark()),
        Place::Left(k, of) => format!("t:{{p{k}}}:left:{}", of.mark()),
        Place::Live(k) => format!("t:{{p{k}}}:live"),
        Place::Ended(k) => format!("t:{{p{k}}}:ended"),
        Place::Events(k) => format!("t:{{p{k}}}:events"),
        Place::Lease(of) => format!("t:{{i:{}}}:lease", of.mark()),
        Place::Tomb(of) => format!("t:{{i:{}}}:tomb", of.mark()),
        Place::Mail(of) => format!("t:{{i:{}}}:mail", of.mark()),
        Place::User(user) => format!("t:{{u:{}}}:sockets", user.short()),
        Place::Cooling(user) => format!("t:{{u:{}}}:cooling", user.short()),
    }
}

/// What a recount goes by, and what it comes to.
pub fn counts(store: &Store, k: usize, of: &Incarnation, seen: bool, count: u32) -> (Digest, Digest) {
    let is = store.digest(k, of);
    let was = if seen { is } else { Digest { count: is.count + 1, ..is } };
    (was, Digest { count, xor: is.xor ^ 0x8000_0001 })
}

/// As the scripts write them; nothing over no entries.
pub fn sums(digest: Digest) -> [String; 2] {
    match digest.count {
        0 => Default::default(),
        count => [count.to_string(), digest.xor.cast_signed().to_string()],
    }
}

/// All keys of the model, as Redis would have them.
pub fn dump(store: &Store, universe: &Universe) -> Dump {
    let mut dump = Dump::new();
    let mut put = |place: Place, field: String, value: String| {
        dump.entry(key(&place)).or_default().insert(field, value);
    };
    for (id, row) in &store.rows {
        let mut fields = row_fields(row);
        if row.ended.is_some() {
            fields.insert("ttl".into(), stays(row.state == State::Away).to_string());
        }
        assert!((row.state == State::Live) == row.ended.is_none());
        fields.into_iter().for_each(|(name, value)| put(Place::Row(*id), name, value));
    }
    for ((k, by), owned) in &store.owned {
        let place = || Place::Owned(*k, by.clone());
        put(place(), "#n".into(), owned.digest.count.to_string());
        put(place(), "#d".into(), owned.digest.xor.cast_signed().to_string());
        for (id, (session, h32)) in &owned.entries {
            put(place(), id.short(), format!("{session}|{h32}"));
        }
    }
    store.live.iter().for_each(|id| put(Place::Live(partition(*id)), id.short(), "0".into()));
    store.ended.iter().for_each(|(id, due)| put(Place::Ended(partition(*id)), id.short(), due_in_words(*due)));
    for (k, events) in &store.events {
        events.iter().enumerate().for_each(|(nth, event)| put(Place::Events(*k), nth.to_string(), event.clone()));
        put(Place::Events(*k), "ttl".into(), "yes".into());
    }
    for ((k, of), notes) in &store.left {
        for (id, record) in notes {
            let note = serde_json::to_string(&lost(record)).unwrap();
            put(Place::Left(*k, of.clone()), id.short(), note);
        }
        put(Place::Left(*k, of.clone()), "ttl".into(), "yes".into());
    }
    for (of, lease) in &store.leases {
        let numbers = [("n", lease.n), ("since", lease.since), ("beat", lease.beat), ("sockets", lease.sockets as u64)];
        numbers.into_iter().for_each(|(name, value)| put(Place::Lease(of.clone()), name.into(), value.to_string()));
        put(Place::Lease(of.clone()), "state".into(), lease.serving.as_str().into());
        put(Place::Lease(of.clone()), "configuration".into(), lease.serving.as_str().into());
        put(Place::Lease(of.clone()), "name".into(), of.instance().into());
        put(Place::Lease(of.clone()), "ttl".into(), "yes".into());
    }
    for of in &store.tombs {
        put(Place::Tomb(of.clone()), of.to_string(), "string".into());
        put(Place::Tomb(of.clone()), "ttl".into(), "yes".into());
    }
    for (of, letters) in &store.mail {
        letters.iter().for_each(|(n, letter)| put(Place::Mail(of.clone()), format!("{n}-0"), letter.to_string()));
    }
    for (user, members) in &store.users {
        members.iter().for_each(|(since, member)| put(Place::User(*user), member.clone(), since.to_string()));
    }
    for ((user, client), until) in &store.cooling {
        let until = if [STILL, OVER].contains(until) { until.to_string() } else { THEN.to_owned() };
        put(Place::Cooling(*user), client.clone(), until);
        put(Place::Cooling(*user), "ttl".into(), "yes".into());
    }
    store.foreign.iter().for_each(|place| put(place.clone(), "foreign".into(), "string".into()));
    let known: BTreeSet<_> = universe.incarnations.iter().collect();
    assert!(store.leases.keys().all(|of| known.contains(of)));
    dump
}
