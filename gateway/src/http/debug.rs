//! `/api/debug/sockets`: every socket of the fleet in one object, in a form that scripts rely on.

use super::{
    Answer, Call, ok,
    paging::{Paging, bad_query},
};
use crate::{admission::names::Query, clock};
use registry::{RoomName, StoreName, UserName, epoch_ms};
use serde_json::{Map, Value, json};

/// Reads the registry; never waits for another instance.
pub async fn sockets(call: Call) -> Answer {
    let query = Query::of(call.query());
    let paging = Paging::of(&query)?;
    let verbose = query.one("verbose")?.is_some_and(|value| value == "1" || value == "true");
    let local = match query.one("scope")?.as_deref() {
        None | Some("fleet") => false,
        Some("local") => true,
        Some(_) => return Err(bad_query("scope", "scope is local, or left out")),
    };
    let gateway = &call.gateway;
    let registry = &gateway.courier.registry;
    let mut page = registry.page(paging.after, paging.limit).await;
    let count = page.len();
    let last = page.last().map(|record| record.id);
    let mut total = registry.total().await;
    if local {
        page.retain(|record| record.owner == gateway.incarnation);
        total = gateway.courier.sockets.len();
    }
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
            let heard = here.as_ref().map(|socket| epoch_ms().saturating_sub(u64::from(socket.line.silent_ms(now))));
            shown["lastActivity"] = heard.into();
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
        let leases = registry.instances().await;
        body["instances"] = leases.iter().map(|lease| lease.incarnation.instance()).collect::<Vec<_>>().into();
        body["drift"] = gateway.metrics.drift.get().into();
    }
    let mut response = ok(&body);
    paging.link(&call, &mut response, last, count);
    Ok(response)
}
