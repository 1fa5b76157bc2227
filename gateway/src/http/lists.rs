//! Lists: every socket, those of a group, and the instances that hold them.

use super::{
    Answer, Request, ok,
    paging::{Paging, bad_query},
    sockets::{PATIENCE, bad_name, in_a_word},
};
use crate::{admission::names::Query, courier::Roll, inbox::MEMBERS_MAX, problem::Problem, view};
use registry::{Group, Health, Lease, RoomName, Serving, SocketId, SocketRecord, StoreName, UserName};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::time::Instant;

/// `GET /api/sockets`.
pub async fn list(request: Request) -> Answer {
    let query = Query::of(request.query());
    let paging = Paging::of(&query)?;
    let groups = groups(&query)?;
    let instance = query.one("instance")?;
    let page = match groups.split_first() {
        Some((first, rest)) => members_page(&request, first, rest, instance.as_deref(), &paging).await?,
        None => whole_page(&request, instance.as_deref(), &paging).await?,
    };
    let mut body = json!({ "count": page.sockets.len(), "sockets": page.sockets });
    page.say_what_is_missing(&mut body);
    let mut response = ok(&body);
    paging.link(&request, &mut response, page.next, paging.limit);
    Ok(response)
}

/// Some sockets of a list.
#[derive(Default)]
struct Page {
    sockets: Vec<Value>,
    /// Where to go on, if more may follow.
    next: Option<SocketId>,
    /// Instances that did not say, or could not say all.
    missing: Vec<String>,
    registry: Option<&'static str>,
}

impl Page {
    fn say_what_is_missing(&self, body: &mut Value) {
        if !self.missing.is_empty() {
            body["missing"] = self.missing.clone().into();
        }
        if let Some(registry) = self.registry {
            body["registry"] = registry.into();
        }
    }
}

/// A page of all there are, by their rows.
async fn whole_page(request: &Request, instance: Option<&str>, paging: &Paging) -> Result<Page, Problem> {
    let courier = &request.gateway.courier;
    let rows = courier.registry.page(paging.after, paging.limit).await.map_err(|unknown| Problem::unknown(&unknown))?;
    // Whether more may follow is told by what was looked at, not by what was wanted of it.
    let next = rows.last().map(|record| record.id).filter(|_| rows.len() >= paging.limit);
    let wanted = rows.iter().filter(|record| instance.is_none_or(|name| record.owner.instance() == name));
    let show = |record: &SocketRecord| match courier.sockets.get(record.id) {
        Some(socket) => view::of_socket(&socket),
        None => view::of_record(record),
    };
    Ok(Page { sockets: wanted.map(|record| show(record)).collect(), next, ..Page::default() })
}

/// A page of a group, by their owners. What an instance left out of a full answer comes later, and
/// so does whatever of the others stands behind it.
async fn members_page(
    request: &Request,
    first: &Group,
    rest: &[Group],
    instance: Option<&str>,
    paging: &Paging,
) -> Result<Page, Problem> {
    let wanted = |socket: &Value| {
        instance.is_none_or(|name| socket["instance"] == name) && rest.iter().all(|group| is_in(socket, group))
    };
    let here = request.gateway.courier.sockets.members(first.key());
    let here = here.iter().filter(|socket| socket.id > paging.after).map(|socket| view::of_socket(socket));
    let here: Vec<_> = here.filter(|socket| wanted(socket)).take(paging.limit).collect();
    let mut page = Page::default();
    let mut lists = vec![here];
    let roll = request.gateway.courier.who(first, paging.after, paging.limit, Instant::now() + PATIENCE).await;
    take_roll(roll, &mut lists, &mut page)?;
    (page.sockets, page.next) = merge(lists, paging.limit, wanted);
    Ok(page)
}

/// One list out of several that are each in order, and where to go on. A list as long as was asked
/// for may go on behind its last; what the others hold behind that place waits for the next page.
fn merge(lists: Vec<Vec<Value>>, limit: usize, wanted: impl Fn(&Value) -> bool) -> (Vec<Value>, Option<SocketId>) {
    let full = lists.iter().filter(|list| list.len() >= limit.min(MEMBERS_MAX));
    let mut next = full.filter_map(|list| list.last().and_then(id_of)).min();
    let mut found: Vec<_> = lists.into_iter().flatten().filter_map(|socket| Some((id_of(&socket)?, socket))).collect();
    found.sort_unstable_by_key(|(id, _)| *id);
    found.retain(|(id, socket)| next.is_none_or(|next| *id <= next) && wanted(socket));
    if found.len() > limit {
        found.truncate(limit);
        next = found.last().map(|(id, _)| *id);
    }
    (found.into_iter().map(|(_, socket)| socket).collect(), next)
}

/// Adds what the others said. If they cannot be asked, those here are still an answer; nobody is none.
fn take_roll(roll: Roll, lists: &mut Vec<Vec<Value>>, page: &mut Page) -> Result<(), Problem> {
    // Our own instances write lists that can be read.
    lists.extend(roll.said.iter().filter_map(|list| serde_json::from_slice(list).ok()));
    page.missing.extend(roll.missing.iter().map(|owner| owner.instance().to_owned()));
    page.registry = roll.blind.as_ref().map(in_a_word);
    match roll.blind {
        Some(unknown) if lists.iter().all(Vec::is_empty) => Err(Problem::unknown(&unknown)),
        _ => Ok(()),
    }
}

fn id_of(socket: &Value) -> Option<SocketId> {
    SocketId::parse(socket["socketId"].as_str()?)
}

fn is_in(socket: &Value, group: &Group) -> bool {
    match group {
        Group::User(user) => socket["userId"] == user.as_str(),
        Group::Store(store) => socket["storeId"] == store.as_str(),
        Group::Room(room) => {
            socket["rooms"].as_array().is_some_and(|rooms| rooms.iter().any(|name| name == room.as_str()))
        }
    }
}

/// The groups a list is narrowed to.
fn groups(query: &Query<'_>) -> Result<Vec<Group>, Problem> {
    let mut groups = Vec::new();
    if let Some(name) = query.one("user")? {
        groups.push(Group::User(UserName::parse(&name).map_err(|fault| bad_query("user", &fault.to_string()))?));
    }
    if let Some(name) = query.one("store")? {
        groups.push(Group::Store(StoreName::parse(&name).map_err(|fault| bad_query("store", &fault.to_string()))?));
    }
    if let Some(name) = query.one("room")? {
        groups.push(Group::Room(RoomName::parse(&name).map_err(|fault| bad_query("room", &fault.to_string()))?));
    }
    Ok(groups)
}

/// `GET /api/users/{name}`.
pub async fn user(request: Request) -> Answer {
    let user = UserName::parse(request.path_value()).map_err(|fault| bad_name("user", fault))?;
    members(&request, &Group::User(user)).await
}

/// `GET /api/stores/{name}`.
pub async fn store(request: Request) -> Answer {
    let store = StoreName::parse(request.path_value()).map_err(|fault| bad_name("store", fault))?;
    members(&request, &Group::Store(store)).await
}

/// `GET /api/rooms/{name}`.
pub async fn room(request: Request) -> Answer {
    let room = RoomName::parse(request.path_value()).map_err(|fault| bad_name("room", fault))?;
    members(&request, &Group::Room(room)).await
}

async fn members(request: &Request, group: &Group) -> Answer {
    let courier = &request.gateway.courier;
    let here = courier.sockets.members(group.key()).iter().map(|socket| view::of_socket(socket)).collect();
    let roll = courier.who(group, SocketId::FIRST, MEMBERS_MAX, Instant::now() + PATIENCE).await;
    let mut page = Page::default();
    let mut lists = vec![here];
    take_roll(roll, &mut lists, &mut page)?;
    // Whoever could not say all did not say.
    let cut = lists[1..].iter().filter(|list| list.len() >= MEMBERS_MAX);
    page.missing.extend(cut.filter_map(|list| list.last()?["instance"].as_str().map(str::to_owned)));
    let mut sockets: Vec<_> = lists.into_iter().flatten().collect();
    if !request.gateway.courier.registry.is_alone() {
        sockets.sort_by_cached_key(id_of);
    }
    let mut body = json!({
        "kind": group.kind(),
        "name": group.name(),
        "connected": !sockets.is_empty(),
        "count": sockets.len(),
        "sockets": sockets,
        "missing": [],
    });
    page.say_what_is_missing(&mut body);
    Ok(ok(&body))
}

/// `GET /api/instances`.
pub async fn instances(request: Request) -> Answer {
    let leases = request.gateway.courier.registry.instances().await.map_err(|unknown| Problem::unknown(&unknown))?;
    let shown: Vec<_> = leases
        .iter()
        .map(|lease| {
            json!({
                "instance": lease.about.instance,
                "incarnation": lease.incarnation.to_string(),
                "state": lease.serving.as_str(),
                "version": lease.about.version,
                "pid": lease.about.pid,
                "startedAt": lease.about.started_at,
                "sockets": lease.sockets,
                "canary": lease.about.canary,
                "address": known(&lease.about.address),
                "manager": lease.about.manager,
                "restarts": lease.about.restarts,
                "configuration": known(&lease.configuration),
            })
        })
        .collect();
    Ok(ok(&json!({ "instances": shown, "drift": drift(&leases), "redis": servers(&request) })))
}

/// Instances of an earlier version do not say everything.
fn known(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// In what instances differ that serve side by side and should be alike. A canary is meant to be unlike the rest.
fn drift(leases: &[Lease]) -> Vec<&'static str> {
    let version: fn(&Lease) -> &str = |lease| &lease.about.version;
    let configuration: fn(&Lease) -> &str = |lease| &lease.configuration;
    let differs = |said: fn(&Lease) -> &str| {
        [false, true].into_iter().any(|canary| {
            let alike = |lease: &&Lease| lease.serving == Serving::Serving && lease.about.canary == canary;
            let said = leases.iter().filter(alike).map(said).filter_map(known);
            said.collect::<BTreeSet<_>>().len() > 1
        })
    };
    let all = [("version", version), ("configuration", configuration)];
    all.into_iter().filter(|(_, said)| differs(*said)).map(|(name, _)| name).collect()
}

/// Redis, as the instance that is asked found it when it looked last; null where there is none.
fn servers(request: &Request) -> Value {
    let registry = &request.gateway.courier.registry;
    let servers: Vec<_> = registry
        .servers()
        .into_iter()
        .map(|server| {
            json!({
                "address": server.address,
                "version": server.version,
                "maxmemoryPolicy": Some(server.maxmemory_policy).filter(|policy| !policy.is_empty()),
            })
        })
        .collect();
    match registry.health() {
        Health::Here => Value::Null,
        health => json!({ "state": super::health::word(health), "servers": servers }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks over lists page by page, as a client would.
    fn walk(lists: &[Vec<SocketId>], limit: usize, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let (mut walked, mut after) = (Vec::new(), SocketId::FIRST);
        for _ in 0..100 {
            let rest = |list: &Vec<SocketId>| {
                let ids = list.iter().filter(|id| **id > after).take(limit);
                ids.map(|id| json!({"socketId": id.to_string()})).collect()
            };
            let (found, next) = merge(lists.iter().map(rest).collect(), limit, &wanted);
            assert!(found.len() <= limit);
            walked.extend(found);
            match next {
                Some(next) => after = next,
                None => return walked,
            }
        }
        panic!("the pages do not end")
    }

    #[test]
    fn those_that_should_be_alike_are_compared_and_no_others() {
        let lease = |version: &str, configuration: &str, serving, canary| Lease {
            incarnation: registry::Incarnation::fresh("web"),
            about: registry::About { version: version.into(), canary, ..registry::About::default() },
            serving,
            sockets: 0,
            configuration: configuration.into(),
        };
        let (usual, old) = (lease("1", "a", Serving::Serving, false), lease("0", "", Serving::Serving, false));
        let (going, canary) = (lease("0", "b", Serving::Draining, false), lease("2", "c", Serving::Serving, true));
        assert_eq!(drift(&[usual.clone(), usual.clone(), going, canary.clone()]), [""; 0]);
        // One of an earlier version says nothing of its configuration.
        assert_eq!(drift(&[usual.clone(), old]), ["version"]);
        let other = lease("1", "b", Serving::Serving, false);
        assert_eq!(drift(&[usual, other, canary]), ["configuration"]);
    }

    #[test]
    fn pages_over_several_instances_show_every_socket_once_and_in_order() {
        let ids: Vec<_> = (0..20).map(|_| SocketId::fresh()).collect();
        let (some, others): (Vec<_>, Vec<_>) = ids.iter().enumerate().partition(|(nth, _)| nth % 3 == 0 || *nth > 15);
        let lists = [some, others].map(|list| list.into_iter().map(|(_, id)| *id).collect());
        let shown = |ids: &[SocketId]| ids.iter().map(|id| json!({"socketId": id.to_string()})).collect::<Vec<_>>();
        for limit in [1, 2, 3, 7, 19, 20, 21] {
            assert_eq!(walk(&lists, limit, |_| true), shown(&ids), "{limit}");
            let last = json!({"socketId": ids[19].to_string()});
            assert_eq!(walk(&lists, limit, |socket| *socket == last), std::slice::from_ref(&last), "{limit}");
        }
    }
}
