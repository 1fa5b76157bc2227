//! The registry compared with the oracle: over HTTP from every instance, and key by key in Redis, where
//! nothing may be left of who is not there.

use super::{
    crowd::{Crowd, Truth},
    fleet::{Fleet, MENDED, within},
};
use crate::gateway::Gateway;
use redis::from_redis_value;
use servers::Server;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::task::block_in_place;

const EVERYTHING: &str = "/api/debug/sockets?verbose=1&limit=10000";

type Told = BTreeMap<String, Truth>;

/// How closely keys are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Numbers of groups may be ten seconds old.
    AtWhoIsThere,
    AtEverything,
}

/// Every instance says the truth about every socket, and so does every key; returns how long that took.
/// `masters`: who holds the keys now.
pub async fn agrees<'a>(fleet: &Fleet, crowd: &Crowd, masters: impl Fn() -> Vec<&'a Server>) -> Duration {
    wait(fleet, crowd, masters, MENDED, Look::AtEverything).await
}

/// The same without the numbers of groups, which are told more slowly.
pub async fn is_told<'a>(
    fleet: &Fleet,
    crowd: &Crowd,
    masters: impl Fn() -> Vec<&'a Server>,
    deadline: Duration,
) -> Duration {
    wait(fleet, crowd, masters, deadline, Look::AtWhoIsThere).await
}

async fn wait<'a>(
    fleet: &Fleet,
    crowd: &Crowd,
    masters: impl Fn() -> Vec<&'a Server>,
    deadline: Duration,
    look: Look,
) -> Duration {
    let truth = crowd.truth();
    within(deadline, "the registry says the truth", async || {
        for (at, gateway) in fleet.living() {
            tells(gateway, &truth).await.map_err(|why| format!("{} {why}", Fleet::name(at)))?;
        }
        let (first, _) = fleet.living().next().expect("somebody lives");
        let marks = marks(&fleet.incarnations(first).await);
        if marks.len() != fleet.living().count() {
            return Err(format!("instances: {marks:?}"));
        }
        block_in_place(|| holds(&masters(), &truth, &marks, look))
    })
    .await
}

/// The instances by their marks.
fn marks(incarnations: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mark = |incarnation: &String| incarnation.rsplit('.').next().unwrap().to_owned();
    incarnations.iter().map(|(instance, incarnation)| (mark(incarnation), instance.clone())).collect()
}

async fn tells(gateway: &Gateway, truth: &Told) -> Result<(), String> {
    let answer = gateway.get(EVERYTHING).await;
    if answer.status != 200 {
        return Err(answer.text());
    }
    let sockets = &answer.json()["sockets"];
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let told = sockets["metadata"].as_object().unwrap().iter().map(|(id, shown)| {
        let mut rooms: Vec<_> = shown["rooms"].as_array().unwrap().iter().filter_map(text).collect();
        rooms.sort_unstable();
        let (instance, user) = (text(&shown["instance"]).unwrap(), text(&shown["userId"]).unwrap_or_default());
        (id.clone(), Truth { instance, user, store: text(&shown["storeId"]), rooms })
    });
    let told: Told = told.collect();
    differs(&told, truth)?;
    match sockets["total"].as_u64() {
        Some(total) if total == truth.len() as u64 => Ok(()),
        total => Err(format!("counts {total:?} of {}", truth.len())),
    }
}

fn differs(told: &Told, truth: &Told) -> Result<(), String> {
    let missing = truth.iter().filter(|(id, _)| !told.contains_key(*id));
    let (missing, example) = (missing.clone().count(), missing.clone().next());
    let ghosts = told.iter().filter(|(id, _)| !truth.contains_key(*id));
    let (ghosts, ghost) = (ghosts.clone().count(), ghosts.clone().next());
    if missing + ghosts > 0 {
        return Err(format!("misses {missing}, as {example:?}, and has {ghosts} that are not there, as {ghost:?}"));
    }
    match truth.iter().find(|(id, true_of_it)| told[*id] != **true_of_it) {
        Some((id, true_of_it)) => Err(format!("says of {id} {:?} instead of {true_of_it:?}", told[id])),
        None => Ok(()),
    }
}

/// What the keys say, added up over all servers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    live_rows: usize,
    listed: usize,
    members: usize,
    /// Entries of owners, by instance.
    owned: BTreeMap<String, usize>,
    /// Of the index of groups, by instance: groups, and members in them.
    groups: BTreeMap<String, (usize, usize)>,
}

fn expected(truth: &Told) -> Sums {
    let mut sums = Sums { live_rows: truth.len(), listed: truth.len(), members: truth.len(), ..Sums::default() };
    let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for Truth { instance, user, store, rooms } in truth.values() {
        *sums.owned.entry(instance.clone()).or_default() += 1;
        let user = format!("user {user}");
        let store = store.iter().map(|store| format!("store {store}"));
        let all = rooms.iter().map(|room| format!("room {room}")).chain(store).chain([user]);
        for group in all {
            sums.groups.entry(instance.clone()).or_default().1 += 1;
            groups.entry(instance.clone()).or_default().insert(group);
        }
    }
    for (instance, groups) in groups {
        sums.groups.entry(instance).or_default().0 = groups.len();
    }
    sums
}

fn holds(masters: &[&Server], truth: &Told, marks: &BTreeMap<String, String>, look: Look) -> Result<(), String> {
    let mut sums = Sums::default();
    for server in masters {
        for key in server.keys() {
            add(server, &key, marks, &mut sums)?;
        }
    }
    let mut expected = expected(truth);
    if look == Look::AtWhoIsThere {
        sums.groups.values_mut().chain(expected.groups.values_mut()).for_each(|group| group.1 = 0);
    }
    if sums == expected { Ok(()) } else { Err(format!("the keys say {sums:?} instead of {expected:?}")) }
}

/// Adds one key; whatever belongs to nobody who lives is a fault.
fn add(server: &Server, key: &str, marks: &BTreeMap<String, String>, sums: &mut Sums) -> Result<(), String> {
    let of = |mark: &str| marks.get(mark).cloned().ok_or_else(|| format!("{key} is of {mark}, who is not there"));
    let ask = |script: &str| {
        let said = server.try_ask(&["EVAL", script, "1", key]).and_then(|said| Ok(from_redis_value::<String>(said)?));
        let said = said.map_err(|error| format!("{key}: {error}"))?;
        Ok::<_, String>(said.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let kind = key.rsplit_once('}').map_or("", |(_, kind)| kind);
    if kind.starts_with(":socket:") {
        let row = ask("return table.concat(redis.call('HMGET', KEYS[1], 'state', 'owner'), '\\n')")?;
        let [state, owner] = row.as_slice() else { return Err(format!("{key}: {row:?}")) };
        if state == "live" {
            of(owner.rsplit('.').next().unwrap_or_default())?;
            sums.live_rows += 1;
        }
    } else if let Some(mark) = kind.strip_prefix(":owned:") {
        let count = ask("return redis.call('HGET', KEYS[1], '#n') or '0'")?;
        *sums.owned.entry(of(mark)?).or_default() += number(&count);
    } else if kind == ":live" {
        sums.listed += number(&ask("return tostring(redis.call('ZCARD', KEYS[1]))")?);
    } else if key.contains("{g:") {
        let fields = ask("return table.concat(redis.call('HGETALL', KEYS[1]), '\\n')")?;
        for pair in fields.chunks_exact(2) {
            let sum = sums.groups.entry(of(pair[0].rsplit('.').next().unwrap_or_default())?).or_default();
            sum.0 += 1;
            sum.1 += pair[1].split('|').next().and_then(|count| count.parse::<usize>().ok()).unwrap_or_default();
        }
    } else if key.contains("{u:") && kind == ":sockets" {
        let members = ask("return table.concat(redis.call('ZRANGE', KEYS[1], 0, -1), '\\n')")?;
        sums.members += members.len();
        for member in members {
            let known = marks.keys().any(|mark| member.starts_with(mark.as_str()));
            known.then_some(()).ok_or_else(|| format!("{key} has {member}, whose owner is not there"))?;
        }
    } else if let Some((_, mark)) = key.split_once("{i:")
        && kind != ":tomb"
    {
        of(mark.split('}').next().unwrap_or_default())?;
    }
    Ok(())
}

fn number(words: &[String]) -> usize {
    words.first().and_then(|word| word.parse().ok()).unwrap_or_default()
}
