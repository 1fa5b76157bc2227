//! The logs of sockets: a stream each, beside the socket's row, so that one script sees both.

use super::{
    Redis,
    beat::ms,
    link::Fault,
    scripts::{ACK, APPEND, Call, READ_LOG, number, text},
};
use crate::{
    all::{Lookup, Unknown},
    log::{Acked, Appended, Delivery, Durability, Entry, LIMITS, Limits, Page, REPEATED_WITHIN, counts},
    names::{Incarnation, Session, SocketId},
};
use bytes::Bytes;
use redis::Value;
use std::time::Duration;
use tokio::time::timeout;

/// How long the end of a log is remembered of a socket to which nothing more is sent. It goes with the socket; this is
/// for those whose end Redis was never told of.
pub(super) const END_STAYS: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How much longer a log stays than the entry that was to stay longest when that was last said.
const STAYS_LONGER: Duration = Duration::from_secs(10 * 60);
/// How long somebody waits for Redis to come back who does not know whether a delivery was logged.
const BACK_WITHIN: Duration = Duration::from_secs(2);

/// What the script says, as far as the socket is there.
pub(super) enum Said {
    Told(Appended),
    /// It was logged from a group's mail before.
    Again,
    /// It is there no more, or never was, or cannot be read.
    Missing,
}

/// For a delivery that was left for a group: the name of its place, and its position there.
pub(super) struct Place {
    pub field: String,
    pub position: u64,
}

impl Redis {
    pub async fn append(&self, id: SocketId, delivery: &Delivery) -> Appended {
        let mut is_in_doubt = false;
        // Who is not there is looked at, and may have come meanwhile.
        for _ in 0..2 {
            let said = match self.try_append(id, delivery, None).await {
                // It may have run. Asked again, it says so.
                Err(Fault::Away) => {
                    is_in_doubt = true;
                    let _ = timeout(BACK_WITHIN, self.link.is_back()).await;
                    self.try_append(id, delivery, None).await
                }
                said => said,
            };
            match said {
                Ok(Said::Told(appended)) => return appended,
                Ok(Said::Again | Said::Missing) => {}
                Err(Fault::Away) => return Appended::Perhaps,
                Err(_) => break,
            }
            match self.lookup(&id.to_string()).await {
                Lookup::Live(_) => {}
                Lookup::Gone(verdict) => return Appended::Gone(verdict),
                Lookup::Unknown(_) if is_in_doubt => return Appended::Perhaps,
                Lookup::Unknown(unknown) => return Appended::Unknown(unknown),
            }
        }
        if is_in_doubt { Appended::Perhaps } else { Appended::Unknown(Unknown::Unavailable) }
    }

    pub(super) async fn try_append(
        &self,
        id: SocketId,
        delivery: &Delivery,
        place: Option<&Place>,
    ) -> Result<Said, Fault> {
        let keys = &self.keys;
        let keys = [keys.row(id), keys.log(id), keys.logged(id), keys.sent(id, delivery.key)];
        let (call, until) = self.with(delivery, APPEND.on(keys));
        let call = call.arg(ms(END_STAYS));
        let call = match place {
            Some(place) => call.arg(&place.field).arg(place.position),
            None => call.arg(""),
        };
        let (said, durability) = call.run_durably(&self.link, delivery.wants).await?;
        let said = read_appended(&said, durability);
        if let Said::Told(Appended::Logged { seq, .. }) = &said {
            self.lately.note(id, *seq, until);
        }
        Ok(said)
    }

    /// What both forms of logging are told of a delivery; and until when it is kept.
    pub(super) fn with(&self, delivery: &Delivery, call: Call) -> (Call, u64) {
        let now_us = self.clock.now_us();
        let until = (now_us / 1000).saturating_add(ms(delivery.ttl));
        let call = call.arg(&*delivery.text).arg(now_us).arg(until).arg(counts(&delivery.text)).arg(LIMITS.bytes);
        let call = call.arg(ms(REPEATED_WITHIN)).arg(ms(delivery.ttl.saturating_add(STAYS_LONGER)));
        (call.arg(until.saturating_add(ms(STAYS_LONGER))), until)
    }

    pub async fn ack(&self, id: SocketId, seq: u64) -> Result<Acked, Unknown> {
        let call = ACK.on([self.keys.log(id), self.keys.logged(id)]).arg(seq).arg(seq.saturating_add(1));
        let said = call.run(&self.link).await.map_err(|_| Unknown::Unavailable)?;
        Ok(match text(said.first()) {
            "beyond" => Acked::Beyond { tail: number(said.get(1)) },
            _ => Acked::Done,
        })
    }

    pub async fn read_log(&self, id: SocketId, after: u64, most: Limits) -> Result<Page, Unknown> {
        let call = READ_LOG.on([self.keys.log(id), self.keys.logged(id)]).arg(after).arg(most.entries);
        let call = call.arg(most.entries.saturating_add(1)).arg(most.bytes);
        let said = call.run(&self.link).await.map_err(|_| Unknown::Unavailable)?;
        let (tail, more) = (number(said.first()), number(said.get(1)) == 1);
        let mut rest = said.into_iter().skip(2);
        let mut entries = Vec::new();
        while let (Some(seq), Some(prev), Some(until), Some(text)) =
            (rest.next(), rest.next(), rest.next(), rest.next())
        {
            let number = |value: &Value| number(Some(value));
            entries.push(Entry { seq: number(&seq), prev: number(&prev), until: number(&until), text: bytes_of(text) });
        }
        Ok(Page { tail, entries, more })
    }
}

pub(super) fn bytes_of(value: Value) -> Bytes {
    match value {
        Value::BulkString(bytes) => bytes.into(),
        _ => Bytes::new(),
    }
}

/// What APPEND says.
fn read_appended(said: &[Value], durability: Durability) -> Said {
    let holder = |at: usize| {
        let owner = Incarnation::parse(text(said.get(at)));
        owner.zip(Session::parse(text(said.get(at + 1))))
    };
    match (text(said.first()), holder(1), holder(3)) {
        ("logged", _, Some((owner, session))) => {
            let (seq, prev) = (number(said.get(1)), number(said.get(2)));
            Said::Told(Appended::Logged { seq, prev, owner, session, away: text(said.get(5)) == "away", durability })
        }
        ("plain", Some((owner, session)), _) => Said::Told(Appended::Plain { owner, session }),
        ("full", ..) => Said::Told(Appended::Full),
        ("again", ..) => Said::Again,
        _ => Said::Missing,
    }
}
