//! `/api/debug/sockets`: every socket of the fleet in one object, in a form that scripts rely on.

use super::{
    Answer, Request, ok,
    paging::{Paging, bad_query},
};
use crate::{admission::names::Query, clock, gateway::Gateway, problem::Problem, view};
use registry::{RoomName, SocketRecord, StoreName, UserName};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Reads the registry; never waits for another instance.
pub async fn sockets(request: Request) -> Answer {
    let query = Query::of(request.query());
    let paging = Paging::of(&query)?;
    let verbose = query.one("verbose")?.is_some_and(|value| value == "1" || value == "true");
    let local = match query.one("scope")?.as_deref() {
        None | Some("fleet") => false,
        Some("local") => true,
        Some(_) => return Err(bad_query("scope", "scope is local, or left out")),
    };
    let gateway = &request.gateway;
    let registry = &gateway.courier.registry;
    let (page, total) = match local {
        // From the table, so that it is told also while the registry is away.
        true => (records_here(gateway, &paging), gateway.courier.sockets.len()),
        false => {
            let page = registry.page(paging.after, paging.limit).await.map_err(|unknown| Problem::unknown(&unknown))?;
            (page, registry.total().await.map_err(|unknown| Problem::unknown(&unknown))?)
        }
    };
    let now = clock::now_ms();
    let (mut ids, mut states, mut metadata) = (Vec::with_capacity(page.len()), Map::new(), Map::new());
    for record in &page {
        let id = record.id.to_string();
        let mut shown = json!({
            "connectedAt": record.connected_at,
            "storeId": record.store.as_ref().map(StoreName::as_str),
            "readyState": 1,
        });
        if verbose {
            let here = gateway.courier.sockets.get(record.id);
            shown["userId"] = record.user.as_ref().map(UserName::as_str).into();
            shown["rooms"] = record.rooms.iter().map(RoomName::as_str).collect::<Vec<_>>().into();
            shown["instance"] = record.owner.instance().into();
            shown["lastActivity"] = here.as_ref().map(|socket| view::last_activity(socket, now)).into();
            shown["rttMs"] = here.and_then(|socket| socket.line.rtt_ms()).into();
        }
        ids.push(Value::from(id.clone()));
        states.insert(id.clone(), 1.into());
        metadata.insert(id, shown);
    }
    let mut body = json!({
        "timestamp": clock::timestamp(),
        "server": {
            "pid": std::process::id(),
            "uptime": gateway.started.elapsed().as_secs(),
            "platform": std::env::consts::OS,
        },
        "sockets": { "total": total, "ids": ids, "states": states, "metadata": metadata },
    });
    if verbose {
        // Null while nobody can say.
        let leases = registry.instances().await.ok();
        let names = leases.map(|leases| leases.iter().map(|lease| lease.about.instance.clone()).collect::<Vec<_>>());
        body["instances"] = names.into();
        body["drift"] = gateway.metrics.drift.get().into();
    }
    let mut response = ok(&body);
    paging.link(&request, &mut response, page.last().map(|record| record.id), page.len());
    Ok(response)
}

/// A page of those who are connected here, in order; those on their way out are passed over.
fn records_here(gateway: &Gateway, paging: &Paging) -> Vec<Arc<SocketRecord>> {
    let mut page = Vec::new();
    let mut after = paging.after;
    while page.len() < paging.limit {
        let slice = gateway.courier.sockets.walk(after, paging.limit - page.len());
        let Some(last) = slice.last() else { break };
        after = last.id;
        page.extend(slice.iter().filter(|socket| socket.line.is_open()).map(|socket| socket.record()));
    }
    page
}
