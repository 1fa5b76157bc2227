//! `CONNECT_URL`: the application decides whether a socket is opened, under which names, and what its client is greeted
//! with. It is asked last, when everything else is well.

use super::{Hook, Who};
use crate::{
    admission::names::Names,
    auth::{
        grants::{Granted, NotYours},
        name_in, somebody,
    },
    upstream::Fault,
};
use registry::{RoomName, SocketId, StoreName, UserName};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc};

/// Somebody who would come in.
pub struct Visitor<'a> {
    pub socket: SocketId,
    pub names: &'a Names,
    pub address: IpAddr,
    pub agent: Option<&'a str>,
    /// Without what is secret in it.
    pub query: Value,
    pub traceparent: Option<&'a str>,
}

/// Why nobody comes in.
#[derive(Debug)]
pub enum Denied {
    /// The application does not want it.
    Refused,
    /// Nobody knows what the application wants; how it failed is for the log.
    Failed { retry_after: u64 },
    /// Neither it nor the credential grants this name.
    NotYours(NotYours),
}

/// What the application may say to it.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Said<'a> {
    #[serde(borrow)]
    state: Option<&'a RawValue>,
    #[serde(alias = "user_id")]
    user_id: Option<Value>,
    #[serde(alias = "store_id")]
    store_id: Option<String>,
    stores: Option<Vec<String>>,
    rooms: Option<Vec<String>>,
}

/// What an application may give a socket.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// So that the greeting fits its queue.
    pub state_bytes_max: usize,
    pub rooms_max: usize,
}

/// The names with which somebody comes in, as the application wants them.
pub async fn ask(hook: &Hook, visitor: &Visitor<'_>, bounds: Bounds) -> Result<Names, Denied> {
    let Visitor { socket, names, address, agent, query, traceparent } = visitor;
    let body = json!({
        "socketId": socket.to_string(),
        "userId": names.user.as_ref().map(UserName::as_str),
        "storeId": names.store.as_ref().map(StoreName::as_str),
        "rooms": names.rooms.iter().map(RoomName::as_str).collect::<Vec<_>>(),
        "remoteAddr": address.to_string(),
        "userAgent": agent,
        "query": query,
    });
    let who = Who { socket: *socket, user: names.user.as_ref(), store: names.store.as_ref(), rooms: &names.rooms };
    let answer = hook.post(&format!("{socket}.connect"), body.to_string().into(), &who, *traceparent).await;
    let said = match &answer {
        Ok(answer) => match answer.status {
            200..=299 => {
                let in_words = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/plain"));
                // Some say OK so.
                let body = if in_words { b"" } else { &*answer.body };
                understood(names, body, bounds).map(Some).map_err(str::to_owned)
            }
            401 | 403 => Ok(None),
            status => Err(format!("status {status} neither lets a client in nor keeps it out")),
        },
        Err(fault) => Err(fault.to_string()),
    };
    hook.fares(said.as_ref().map(drop).map_err(|why| why as &dyn fmt::Display));
    match said {
        Ok(Some(names)) => {
            // A store that somebody asks for has to be granted by one or the other.
            names.grants.iter().try_for_each(|grants| grants.check_store(&names)).map_err(Denied::NotYours)?;
            Ok(names)
        }
        Ok(None) => Err(Denied::Refused),
        Err(_) => Err(Denied::Failed { retry_after: answer.err().map_or(1, Fault::retry_after) }),
    }
}

fn understood(names: &Names, body: &[u8], bounds: Bounds) -> Result<Names, &'static str> {
    let said = match body.trim_ascii() {
        b"" => Said::default(),
        body => serde_json::from_slice(body)
            .map_err(|_| "the answer is no JSON object with state, userId, storeId, stores or rooms")?,
    };
    let mut names = names.clone();
    if let Some(state) = said.state.filter(|state| state.get() != "null") {
        if !state.get().starts_with('{') {
            return Err("the answer's state is no object");
        }
        if state.get().len() > bounds.state_bytes_max {
            return Err("the answer's state is too large for a greeting: raise MAX_QUEUE_BYTES, or say less");
        }
        names.state = Some(Arc::from(state.get()));
    }
    let store = |text: &String| StoreName::parse(text).map_err(|_| "a store in the answer is no name");
    let mut granted = Granted::default();
    if let Some(user) = said.user_id.filter(|user| !user.is_null()) {
        let user =
            name_in(&user).and_then(|user| somebody(&user).ok()).ok_or("the answer's userId is nobody's name")?;
        granted.user = Some(user.clone());
        names.user = Some(user);
    }
    granted.stores = said.stores.iter().flatten().map(store).collect::<Result<_, _>>()?;
    if let Some(text) = said.store_id {
        let store = store(&text)?;
        granted.stores.push(store.clone());
        names.store = Some(store);
    }
    if let Some(rooms) = said.rooms {
        let rooms: Result<Vec<_>, _> = rooms.iter().map(|room| RoomName::parse(room)).collect();
        let mut rooms = rooms.map_err(|_| "a room in the answer is no name")?;
        let mut seen = BTreeSet::new();
        rooms.retain(|room| seen.insert(room.clone()));
        if rooms.len() > bounds.rooms_max {
            return Err("the answer has more rooms than MAX_ROOMS");
        }
        granted.rooms = rooms.clone();
        names.rooms = rooms;
    }
    if let Some(grants) = &mut names.grants
        && granted != Granted::default()
    {
        Arc::make_mut(grants).more = Some(Box::new(granted));
    }
    Ok(names)
}
