//! A row: what Redis holds of a socket, as fields that a person can read. Short names and values keep it
//! in the compact form of a hash, which is less than half the size of the other.

use crate::{
    names::{Incarnation, RoomName, Session, SocketId, StoreName, UserName},
    owner::says,
    record::{Attempt, Holder, Resumable, SocketRecord},
    rules::State,
    verdict::{Cause, Ending, Gone},
};
use redis::Value;
use std::{collections::HashMap, net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};

/// The fields of a live row, name and value in turn.
pub fn fields(record: &SocketRecord, owner: &Incarnation) -> Vec<String> {
    let mut fields = Vec::with_capacity(28);
    let mut put = |name: &str, value: String| fields.extend([name.to_owned(), value]);
    put("owner", owner.to_string());
    put("session", record.session.to_string());
    put("attempt", record.attempt.n.to_string());
    put("accepted", record.attempt.accepted_at.to_string());
    put("state", State::Live.as_str().to_owned());
    put("connectedAt", record.connected_at.to_string());
    put("address", record.address.to_string());
    if let Some(user) = &record.user {
        put("user", user.to_string());
    }
    if let Some(store) = &record.store {
        put("store", store.to_string());
    }
    if !record.rooms.is_empty() {
        put("rooms", serde_json::to_string(&record.rooms).unwrap_or_default());
    }
    if let Some(client) = &record.client {
        put("client", client.to_string());
    }
    if let Some(resumable) = record.resumable {
        put("window", resumable.window.to_string());
        put("confirmed", resumable.confirmed.to_string());
        put("says", says(record).to_string());
    }
    fields
}

/// How a socket ended, name and value in turn.
pub fn ending(ending: &Ending) -> Vec<String> {
    let mut fields = vec!["cause".to_owned(), ending.cause.as_str().to_owned()];
    if !ending.reason.is_empty() {
        fields.extend(["reason".to_owned(), ending.reason.to_string()]);
    }
    if let Some(code) = ending.code {
        fields.extend(["code".to_owned(), code.to_string()]);
    }
    fields
}

/// The fields that say who holds a socket; fewer cost Redis less than all of them.
pub const OF_HOLDER: [&str; 5] = ["state", "owner", "session", "user", "store"];

/// Reads them; `None` if this is no live row of ours.
pub fn holder(id: SocketId, values: &[Value]) -> Option<Holder> {
    let text = |nth: usize| Some(super::scripts::text(values.get(nth))).filter(|text| !text.is_empty());
    (State::parse(text(0)?)? == State::Live).then_some(())?;
    Some(Holder {
        id,
        owner: Incarnation::parse(text(1)?)?,
        session: Session::parse(text(2)?)?,
        user: text(3).and_then(|user| UserName::parse(user).ok()),
        store: text(4).and_then(|store| StoreName::parse(store).ok()),
    })
}

/// What a row says.
#[derive(Debug)]
pub enum Row {
    Live(Arc<SocketRecord>),
    Gone(Box<Ended>),
}

/// A socket without a connection.
#[derive(Debug)]
pub struct Ended {
    /// As it was with its last connection.
    pub record: Arc<SocketRecord>,
    pub ending: Ending,
    /// By Redis' clock, as is until when it may come back.
    pub at: u64,
    due: Option<u64>,
}

impl Ended {
    /// What is to be said of it, and since when it is so.
    pub fn at(&self, now: u64) -> (Gone, Duration) {
        let Self { record, ending, at, due } = self;
        let within = due.and_then(|due| due.checked_sub(now)).map(|within| within.div_ceil(1000));
        // Two clocks may be a little apart; nobody is promised more than the window.
        let window = record.resumable.map_or(0, |resumable| resumable.window.get());
        let gone = Gone::Closed {
            instance: record.owner.instance().into(),
            connected_at: record.connected_at,
            closed_at: *at,
            store: record.store.clone(),
            user: record.user.clone(),
            ending: ending.clone(),
            back_within: within.and_then(|within| NonZeroU32::new(u32::try_from(within).ok()?.min(window))),
        };
        (gone, Duration::from_millis(now.saturating_sub(*at)))
    }
}

/// Reads HGETALL; `None` if there is no row, or one that nobody of us wrote.
pub fn read(id: SocketId, value: &Value) -> Option<Row> {
    let fields = pairs(value);
    let text = |name: &str| fields.get(name).map(String::as_str);
    let number = |name: &str| text(name).and_then(|text| text.parse::<u64>().ok());
    let state = State::parse(text("state")?)?;
    let resumable = number("window").and_then(|window| NonZeroU32::new(u32::try_from(window).ok()?));
    let confirmed = number("confirmed").and_then(|n| u32::try_from(n).ok()).unwrap_or_default();
    let record = Arc::new(SocketRecord {
        id,
        session: Session::parse(text("session")?)?,
        owner: Incarnation::parse(text("owner")?)?,
        attempt: Attempt {
            n: u32::try_from(number("attempt")?).ok()?,
            accepted_at: number("accepted").unwrap_or_default(),
        },
        user: text("user").and_then(|user| UserName::parse(user).ok()),
        store: text("store").and_then(|store| StoreName::parse(store).ok()),
        rooms: rooms(text("rooms").unwrap_or_default()).into(),
        client: text("client").map(Arc::from),
        address: text("address").and_then(|address| address.parse().ok()).unwrap_or(IpAddr::from([0, 0, 0, 0])),
        connected_at: number("connectedAt").unwrap_or_default(),
        resumable: resumable.map(|window| Resumable { window, confirmed }),
    });
    if state == State::Live {
        return Some(Row::Live(record));
    }
    let ending = Ending {
        cause: Cause::parse(text("cause").unwrap_or_default())?,
        code: number("code").and_then(|code| u16::try_from(code).ok()),
        reason: text("reason").unwrap_or_default().into(),
    };
    let due = number("due").filter(|_| state == State::Away);
    Some(Row::Gone(Box::new(Ended { record, ending, at: number("endedAt").unwrap_or_default(), due })))
}

/// The rooms of a row.
pub fn rooms(text: &str) -> Vec<RoomName> {
    serde_json::from_str(text).unwrap_or_default()
}

/// A hash as RESP2 and RESP3 write it.
pub fn pairs(value: &Value) -> HashMap<String, String> {
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        _ => String::new(),
    };
    match value {
        Value::Map(pairs) => pairs.iter().map(|(name, value)| (text(name), text(value))).collect(),
        Value::Array(flat) => flat.chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
        _ => HashMap::new(),
    }
}
