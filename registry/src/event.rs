//! What the application is told of sockets: that one came, and how it ended. An event is logged in the step in which it
//! happens, told by whoever logged it, and taken out of the log when the application has it; what stays in the log, since
//! its teller died or the application did not take it, is told by whoever minds that part of the log. So it is told at
//! least once, and each time under the same id: a socket comes once and ends once, however often its connection changes.

use crate::{
    names::{RoomName, SocketId, StoreName, UserName},
    owner::PARTITIONS,
    record::SocketRecord,
    verdict::{Cause, Ending},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};
use tokio::{sync::Notify, time::Instant};

/// Events that wait in each partition of the log: enough for the end of an instance with a hundred thousand sockets, and
/// again for their return. Beyond it the oldest go, and are counted.
pub const EVENTS_MAX: usize = 4000;
/// Rooms in an event.
const ROOM_BYTES_MAX: usize = 2 << 10;
/// How long they wait at most.
pub const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Events are told in so many rows: one after the other in each, so that one socket's stay in order.
pub const LANES: usize = 16;
/// Events that wait in a lane to be told by whoever logged them. Beyond it they are left to whoever minds the log.
const LANE_MAX: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Connected,
    Disconnected,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that happened to a socket, as the application reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The same however often and by whomever it is told.
    pub id: String,
    /// When it was logged first.
    pub timestamp: String,
    pub data: Particulars,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Particulars {
    pub instance: Box<str>,
    pub socket_id: SocketId,
    pub user_id: Option<UserName>,
    pub store_id: Option<StoreName>,
    pub rooms: Box<[RoomName]>,
    pub connected_at: u64,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct End {
    pub cause: Cause,
    pub close_code: Option<u16>,
    pub reason: Box<str>,
    pub closed_at: u64,
}

impl Event {
    /// A socket came.
    pub fn connected(record: &SocketRecord, now_ms: u64) -> Self {
        Self::new(Kind::Connected, record, None, now_ms)
    }

    /// It has ended for good: its connection at `closed_at`, and no other will follow.
    pub fn disconnected(record: &SocketRecord, ending: &Ending, closed_at: u64, now_ms: u64) -> Self {
        let Ending { cause, code, reason } = ending.clone();
        Self::new(Kind::Disconnected, record, Some(End { cause, close_code: code, reason, closed_at }), now_ms)
    }

    fn new(kind: Kind, record: &SocketRecord, end: Option<End>, now_ms: u64) -> Self {
        Self {
            kind,
            id: format!("{}.{kind}", record.id),
            timestamp: humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(now_ms)).to_string(),
            data: Particulars {
                instance: record.owner.instance().into(),
                socket_id: record.id,
                user_id: record.user.clone(),
                store_id: record.store.clone(),
                rooms: first_of(&record.rooms).into(),
                connected_at: record.connected_at,
                end,
            },
        }
    }

    /// As it is told, and as it lies in the log.
    pub fn text(&self) -> String {
        // What it is made of has no map whose keys are no text, so that it can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`Event::text`] writes.
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// The first of them: a socket may have more rooms than anybody would keep in a log for a day, or take in headers.
pub fn first_of(rooms: &[RoomName]) -> &[RoomName] {
    let mut bytes = 0;
    let fits = |room: &&RoomName| {
        bytes += room.as_str().len();
        bytes <= ROOM_BYTES_MAX
    };
    &rooms[..rooms.iter().take_while(fits).count()]
}

/// Where an event lies in its partition of the log; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub u64, pub u64);

impl Place {
    /// Reads the id of an entry of a stream.
    pub fn parse(text: &str) -> Option<Self> {
        let (ms, n) = text.split_once('-')?;
        Some(Self(ms.parse().ok()?, n.parse().ok()?))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// An event that is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    pub event: Event,
    /// Where it lies; none if the log could not be reached, and whoever has this is the only one.
    pub at: Option<Place>,
    /// Since when it waits here.
    pub since: Instant,
}

impl Logged {
    pub fn new(event: Event, at: Option<Place>) -> Self {
        Self { event, at, since: Instant::now() }
    }
}

/// Which lane tells what lies in a partition.
pub fn lane(partition: usize) -> usize {
    partition % LANES
}

/// The partitions whose events a lane tells.
pub fn partitions(lane: usize) -> impl Iterator<Item = usize> {
    (lane..PARTITIONS).step_by(LANES)
}

/// Events that were logged here and are to be told from here.
#[derive(Default)]
pub(crate) struct Outgoing {
    is_wanted: AtomicBool,
    lanes: [Lane; LANES],
    /// One bit for each partition of the log that is minded here.
    minded: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Lane {
    waiting: Mutex<VecDeque<Logged>>,
    came: Notify,
}

impl Lane {
    /// A panic while it was held leaves what can be used: every step is whole.
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Logged>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outgoing {
    /// There is somebody who wants to be told. Until then nothing is logged.
    pub fn want(&self) {
        self.is_wanted.store(true, Ordering::Relaxed);
    }

    pub fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    /// One more that is to be told from here. Without room it is left where it lies.
    pub fn offer(&self, partition: usize, logged: Logged) {
        let lane = &self.lanes[lane(partition)];
        let mut waiting = lane.waiting();
        match waiting.len() < LANE_MAX {
            true => waiting.push_back(logged),
            false if logged.at.is_none() => self.dropped(1),
            false => return,
        }
        drop(waiting);
        lane.came.notify_one();
    }

    /// The next that is to be told in that lane.
    pub async fn next(&self, lane: usize) -> Logged {
        let lane = &self.lanes[lane];
        loop {
            let next = lane.waiting().pop_front();
            if let Some(logged) = next {
                return logged;
            }
            lane.came.notified().await;
        }
    }

    /// So many were given up that nobody will tell.
    pub fn dropped(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    pub fn dropped_so_far(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// From now on these are the partitions that are minded here.
    pub fn mind(&self, partitions: impl Iterator<Item = usize>) {
        self.minded.store(partitions.fold(0, |all, k| all | 1 << k), Ordering::Relaxed);
    }

    pub fn minds(&self, partition: usize) -> bool {
        self.minded.load(Ordering::Relaxed) >> partition & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        names::{Incarnation, Session},
        record::Attempt,
    };
    use std::net::IpAddr;

    fn record() -> SocketRecord {
        SocketRecord {
            id: SocketId::fresh(),
            session: Session::fresh(),
            owner: Incarnation::fresh("web1"),
            attempt: Attempt::first(1),
            user: UserName::parse("ann").ok(),
            store: None,
            rooms: RoomName::parse("lobby").into_iter().collect(),
            client: None,
            address: IpAddr::from([127, 0, 0, 1]),
            connected_at: 1_700_000_000_000,
            resumable: None,
        }
    }

    #[test]
    fn an_event_is_read_as_it_was_written() {
        let record = record();
        let ending = Ending { cause: Cause::Kicked, code: Some(4403), reason: "kicked: \"so\"".into() };
        let came = Event::connected(&record, 1_700_000_000_123);
        let ended = Event::disconnected(&record, &ending, 1_700_000_001_000, 1_700_000_001_001);
        for event in [&came, &ended] {
            assert_eq!(Event::read(&event.text()).as_ref(), Some(event));
        }
        let id = record.id;
        assert_eq!(
            came.text(),
            format!(
                r#"{{"type":"connected","id":"{id}.connected","timestamp":"2023-11-14T22:13:20.123Z","data":{{"instance":"web1","socketId":"{id}","userId":"ann","storeId":null,"rooms":["lobby"],"connectedAt":1700000000000}}}}"#
            )
        );
        assert!(ended.text().ends_with(
            r#","connectedAt":1700000000000,"cause":"kicked","closeCode":4403,"reason":"kicked: \"so\"","closedAt":1700000001000}}"#
        ));
    }

    #[test]
    fn every_partition_has_one_lane() {
        let mut all: Vec<_> = (0..LANES).flat_map(partitions).collect();
        all.sort_unstable();
        assert_eq!(all, (0..PARTITIONS).collect::<Vec<_>>());
        assert!((0..LANES).all(|nth| partitions(nth).all(|k| lane(k) == nth)));
    }

    #[tokio::test]
    async fn a_lane_that_is_full_leaves_the_rest_in_the_log_and_counts_what_is_in_none() {
        let (outgoing, record) = (Outgoing::default(), record());
        let event = |n: u64| Logged::new(Event::connected(&record, 0), Some(Place(n, 0)));
        (0..=LANE_MAX as u64).for_each(|n| outgoing.offer(3, event(n)));
        assert_eq!(outgoing.dropped_so_far(), 0);
        outgoing.offer(3, Logged { at: None, ..event(0) });
        assert_eq!(outgoing.dropped_so_far(), 1);
        for n in 0..LANE_MAX as u64 {
            assert_eq!(outgoing.next(lane(3)).await.at, Some(Place(n, 0)));
        }
        assert!(outgoing.lanes[lane(3)].waiting().is_empty());
    }

    #[test]
    fn what_is_minded_is_told_apart() {
        let outgoing = Outgoing::default();
        outgoing.mind([0, 63].into_iter());
        assert_eq!((0..PARTITIONS).filter(|k| outgoing.minds(*k)).collect::<Vec<_>>(), [0, 63]);
    }
}
