//! Durable deliveries on their way into the logs. Those that come while a script is on its way go together in the next,
//! each socket's in a run: looking who holds it, and the script itself, are most of what one alone costs.

use super::{
    Redis,
    beat::ms,
    keys::slot,
    lanes::{Together, Waits},
    link::Fault,
    logs::Said,
    scripts::{APPEND, number, text},
};
use crate::{
    log::{Appended, Delivery, Durability, LIMITS, counts},
    names::{Incarnation, Session, SocketId},
    once::Hashed,
};
use bytes::Bytes;
use redis::Value;
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::oneshot;

/// How long the end of a log is remembered of a socket to which nothing more is sent. It goes with the socket; this is
/// for those whose end Redis was never told of.
pub(super) const END_STAYS: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How much longer a log stays than the entry that was to stay longest when that was last said.
pub(super) const STAYS_LONGER: Duration = Duration::from_secs(10 * 60);
/// A script with so much takes Redis less than a millisecond.
const TOGETHER: Together = Together { bytes: 64 * 1024, count: 64 };

/// A delivery that is to be logged for one socket.
#[derive(Clone)]
pub(super) struct Asked {
    id: SocketId,
    text: Bytes,
    key: Hashed,
    /// When that was, in microseconds of Redis' clock. Its number will not be less.
    at_us: u64,
    until: u64,
}

impl Asked {
    pub fn new(id: SocketId, delivery: &Delivery, at_us: u64) -> Self {
        let until = (at_us / 1000).saturating_add(ms(delivery.ttl));
        Self { id, text: delivery.text.clone(), key: delivery.key, at_us, until }
    }
}

/// One that waits for others.
pub(super) struct Waiting {
    asked: Asked,
    told: oneshot::Sender<Result<Said, Fault>>,
}

impl Waits for Waiting {
    fn bytes(&self) -> usize {
        self.asked.text.len()
    }
}

/// What goes together: of one slot, as sure as each other.
pub(super) type To = (u16, Durability);

/// For a delivery that was left for a group: the name of its place, and its position there.
pub(super) struct Place {
    pub field: String,
    pub position: u64,
}

impl Redis {
    /// For the first time: it was never asked for.
    pub(super) async fn append_with_others(&self, asked: Asked, wants: Durability) -> Result<Said, Fault> {
        // Without a cluster all is in one place.
        let slot = if self.link.is_cluster() { slot(&self.keys.row(asked.id)) } else { 0 };
        let (told, said) = oneshot::channel();
        if self.appends.join(&(slot, wants), Waiting { asked, told }).is_some() {
            return Err(Fault::Down);
        }
        said.await.unwrap_or(Err(Fault::Away))
    }

    /// It may have been logged already.
    pub(super) async fn append_again(&self, asked: &Asked, wants: Durability) -> Result<Said, Fault> {
        only(self.log(&[asked], &[&asked.at_us.to_string()], wants).await?)
    }

    /// What was left for a group.
    pub(super) async fn append_from(&self, id: SocketId, delivery: &Delivery, place: &Place) -> Result<Said, Fault> {
        let asked = Asked::new(id, delivery, self.clock.now_us());
        only(self.log(&[&asked], &[&place.field, &place.position.to_string()], delivery.wants).await?)
    }

    /// Brings what waits to its logs. Never returns.
    pub(super) async fn keep_appending(&self) {
        self.appends.keep(TOGETHER, |to, waiting| self.append_all(to, waiting)).await;
    }

    async fn append_all(&self, (_, wants): To, waiting: Vec<Waiting>) {
        let asked: Vec<_> = waiting.iter().map(|waiting| &waiting.asked).collect();
        let said = self.log(&asked, &[], wants).await;
        match said {
            Ok(said) => {
                for (waiting, said) in waiting.into_iter().zip(said) {
                    let _ = waiting.told.send(said);
                }
            }
            Err(fault) => {
                for waiting in waiting {
                    let _ = waiting.told.send(Err(fault.clone()));
                }
            }
        }
    }

    /// One script for all of them, which are of one slot; what became of each, in their order. One alone may say since
    /// when it may have been logged, or its field and position in a group's mail.
    async fn log(
        &self,
        asked: &[&Asked],
        alone: &[&str],
        wants: Durability,
    ) -> Result<Vec<Result<Said, Fault>>, Fault> {
        let mut runs = BTreeMap::<SocketId, Vec<usize>>::new();
        for (nth, asked) in asked.iter().enumerate() {
            runs.entry(asked.id).or_default().push(nth);
        }
        let keys: Vec<_> =
            runs.keys().flat_map(|id| [self.keys.row(*id), self.keys.log(*id), self.keys.logged(*id)]).collect();
        let mut call = APPEND.on(keys).arg(LIMITS.bytes).arg(ms(END_STAYS)).arg(ms(STAYS_LONGER));
        for run in runs.values() {
            call = call.arg(run.len());
            for Asked { text, key, at_us, until, .. } in run.iter().filter_map(|nth| asked.get(*nth)) {
                call = call.arg(&**text).arg(at_us).arg(until).arg(counts(text)).arg(key.to_string());
            }
        }
        let (said, durability) = call.arg(alone).run_durably(&self.link, wants).await?;
        let mut became: Vec<_> = asked.iter().map(|_| Ok(Said::Missing)).collect();
        for (run, said) in runs.values().zip(&said) {
            let Value::Array(said) = said else { continue };
            if text(said.first()) == "refused" {
                self.link.was_refused("a durable delivery", text(said.get(1)));
            }
            let mut prev = number(said.get(4));
            for (nth, place) in run.iter().zip(5..) {
                let told = read(said, prev, place, durability);
                if let (Ok(Said::Told(Appended::Logged { seq, .. })), Some(asked)) = (&told, asked.get(*nth)) {
                    self.lately.note(asked.id, *seq, asked.until);
                    prev = *seq;
                }
                if let Some(became) = became.get_mut(*nth) {
                    *became = told;
                }
            }
        }
        Ok(became)
    }
}

fn only(said: Vec<Result<Said, Fault>>) -> Result<Said, Fault> {
    said.into_iter().next().unwrap_or(Ok(Said::Missing))
}

/// What the script says of one delivery of a run, whose number stands at a place of the answer.
fn read(said: &[Value], prev: u64, place: usize, durability: Durability) -> Result<Said, Fault> {
    let holder = Incarnation::parse(text(said.get(1))).zip(Session::parse(text(said.get(2))));
    Ok(match (text(said.first()), holder) {
        ("logged", _) if text(said.get(place)) == "full" => Said::Told(Appended::Full),
        ("logged", Some((owner, session))) => {
            let (seq, away) = (number(said.get(place)), text(said.get(3)) == "away");
            Said::Told(Appended::Logged { seq, prev, owner, session, away, durability })
        }
        ("plain", Some((owner, session))) => Said::Told(Appended::Plain { owner, session }),
        ("perhaps", _) => Said::Told(Appended::Perhaps),
        ("again", _) => Said::Again,
        ("refused", _) => return Err(Fault::Refused(text(said.get(1)).to_owned())),
        _ => Said::Missing,
    })
}
