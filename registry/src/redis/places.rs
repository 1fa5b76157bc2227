//! What is behind the members of a user's index. Each holds a place under the cap for as long as it is not known
//! that nobody is behind it: ten seconds if its row never came, longer only while its partition is being rebuilt;
//! and until its owner is declared dead if the row is there and its owner is not.

use super::{Redis, beat, link::Fault, rows::Row};
use crate::{
    names::{Incarnation, Session, SocketId},
    record::{Attempt, SocketRecord},
    rules::Absence,
};
use futures_util::future::join_all;
use redis::{Value, cmd};
use std::{net::IpAddr, sync::Arc, time::Duration};

/// How long a newcomer's row may take to follow its place. Any shorter, and it could lose the place that it
/// was just given.
const ROW_FOLLOWS: Duration = Duration::from_secs(10);

/// A member, taken apart.
struct Member<'a> {
    mark: &'a str,
    id: SocketId,
    session: Session,
}

impl<'a> Member<'a> {
    fn parse(member: &'a str) -> Option<Self> {
        let (id, session) = (member.get(22..44)?, member.get(44..55)?);
        Some(Self { mark: member.get(..22)?, id: SocketId::from_short(id)?, session: Session::parse(session)? })
    }
}

/// How a member's client is told from others.
pub fn client_of(member: &str) -> &str {
    member.get(55..).unwrap_or_default()
}

enum Look {
    There {
        record: Arc<SocketRecord>,
        leased: bool,
    },
    /// Its row is not there yet, or cannot be read.
    Unread,
    Stale,
}

/// A member behind which somebody is, as far as anybody knows.
pub struct Place {
    pub member: String,
    pub record: Arc<SocketRecord>,
    /// Whether its owner holds a lease, or may: who is not told to go does not come back for it.
    pub leased: bool,
}

/// Members, each with what is behind it.
#[derive(Default)]
pub struct Places {
    pub stale: Vec<String>,
    /// In the order of the members.
    pub held: Vec<Place>,
}

impl Places {
    pub fn records(self) -> Vec<Arc<SocketRecord>> {
        self.held.into_iter().map(|place| place.record).collect()
    }
}

impl Redis {
    /// Which members are not there any more, and the records of the rest. Who cannot be looked at is there. Without an
    /// index they were taken off it by whoever asks, so that nothing is known of those whose row is not there.
    pub(super) async fn look_at(&self, index: Option<&str>, members: &[String]) -> Places {
        let looks = join_all(members.iter().map(|member| self.look_at_one(index, member, members))).await;
        // Whoever has the socket can be told to part with it all the same, if the list has its name.
        let known = match looks.iter().any(|look| matches!(look, Look::Unread)) {
            true => self.known().await.unwrap_or_default(),
            false => Vec::new(),
        };
        let mut places = Places::default();
        for (member, look) in members.iter().zip(looks) {
            let held = match look {
                Look::There { record, leased } => Some((record, leased)),
                Look::Unread => unread(member, &known).map(|record| (record, true)),
                Look::Stale => {
                    places.stale.push(member.clone());
                    None
                }
            };
            places.held.extend(held.map(|(record, leased)| Place { member: member.clone(), record, leased }));
        }
        places
    }

    async fn look_at_one(&self, index: Option<&str>, text: &str, members: &[String]) -> Look {
        let Some(member) = Member::parse(text) else { return Look::Stale };
        let (lease, tomb) = (self.keys.lease(member.mark), self.keys.tomb(member.mark));
        let (row, lease, tomb) = tokio::join!(self.read_row(member.id), self.exists(&lease), self.exists(&tomb));
        // What cannot be asked lives.
        let (leased, dead) = (lease.unwrap_or(true), tomb.unwrap_or(false));
        match row {
            Ok(Some(Row::Live(record))) if record.session == member.session => {
                // An instance that goes on under another mark gives its sockets a new place, and then takes the
                // old one away.
                let elsewhere = record.owner.mark() != member.mark;
                let twice =
                    || members.iter().any(|other| other.starts_with(record.owner.mark()) && other[22..] == text[22..]);
                match if elsewhere { twice() } else { dead } {
                    true => Look::Stale,
                    false => Look::There { record, leased: leased || elsewhere },
                }
            }
            Ok(Some(_)) => Look::Stale,
            Ok(None) if dead => Look::Stale,
            Ok(None) => match index {
                Some(index) if self.is_on_its_way(index, text, member.id).await == Ok(false) => Look::Stale,
                _ => Look::Unread,
            },
            Err(_) => Look::Unread,
        }
    }

    async fn exists(&self, key: &str) -> Result<bool, Fault> {
        Ok(self.link.ask(cmd("EXISTS").arg(key)).await? == Value::Int(1))
    }

    /// Whether a member without a row may still have one: soon, or again.
    async fn is_on_its_way(&self, index: &str, member: &str, id: SocketId) -> Result<bool, Fault> {
        let mut score = cmd("ZSCORE");
        score.arg(index).arg(member);
        let (accepted_at, absence) = tokio::join!(self.link.ask(&score), self.absence(id));
        let accepted_at = match accepted_at? {
            // It has left meanwhile.
            Value::Nil => return Ok(false),
            score => redis::from_redis_value::<f64>(score).unwrap_or_default(),
        };
        let followed = accepted_at + beat::ms(ROW_FOLLOWS) as f64;
        Ok(absence? == Absence::Rebuilding || followed > self.now_ms() as f64)
    }
}

/// As much of a socket as its member says: enough to tell its owner of it.
fn unread(member: &str, known: &[(Incarnation, u64)]) -> Option<Arc<SocketRecord>> {
    let Member { mark, id, session } = Member::parse(member)?;
    let (owner, _) = known.iter().find(|(owner, _)| owner.mark() == mark)?;
    Some(Arc::new(SocketRecord {
        id,
        session,
        owner: owner.clone(),
        attempt: Attempt::first(0),
        user: None,
        store: None,
        rooms: Box::default(),
        client: None,
        address: IpAddr::from([0, 0, 0, 0]),
        connected_at: 0,
        resumable: None,
    }))
}
