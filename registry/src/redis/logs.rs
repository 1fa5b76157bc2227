//! The logs of sockets: a stream each, beside the socket's row, so that one script sees both.

use super::{
    Redis,
    appends::Asked,
    link::Fault,
    scripts::{ACK, READ_LOG, number, text},
};
use crate::{
    all::{Lookup, Unknown},
    log::{Acked, Appended, Delivery, Entry, Limits, Page},
    names::SocketId,
};
use bytes::Bytes;
use redis::Value;
use std::time::Duration;
use tokio::time::timeout;

/// How long somebody waits for Redis to come back who does not know whether a delivery was logged.
const BACK_WITHIN: Duration = Duration::from_secs(2);

/// What the script says.
pub(super) enum Said {
    Told(Appended),
    /// It was logged from a group's mail before.
    Again,
    /// It is there no more, or never was, or cannot be read.
    Missing,
}

impl Redis {
    pub async fn append(&self, id: SocketId, delivery: &Delivery) -> Appended {
        let asked = Asked::new(id, delivery, self.clock.now_us());
        let mut is_in_doubt = false;
        // Who is not there is looked at, and may have come meanwhile.
        for _ in 0..2 {
            let said = match is_in_doubt {
                false => self.append_with_others(asked.clone(), delivery.wants).await,
                true => self.append_again(&asked, delivery.wants).await,
            };
            let said = match said {
                // It may have run.
                Err(Fault::Away) => {
                    is_in_doubt = true;
                    let _ = timeout(BACK_WITHIN, self.link.is_back()).await;
                    self.append_again(&asked, delivery.wants).await
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
