//! Requests that are to be acted upon once: a record a key, which whoever comes first writes.

use super::{
    Redis, beat,
    scripts::{SETTLE, TAKE_ON, number, text},
};
use crate::{
    all::Unknown,
    once::{Errand, KEPT, Once, Outcome, Ticket},
};
use bytes::Bytes;
use redis::Value;

impl Redis {
    pub(crate) async fn take_on(&self, errand: &Errand) -> Result<Once, Unknown> {
        let ticket = &errand.ticket;
        let call = TAKE_ON.on([self.keys.once(ticket.key)]).arg(errand.body.to_string()).arg(&*ticket.token);
        let call = call.arg(errand.asker.to_string()).arg(errand.until).arg(beat::ms(KEPT));
        let said = call.run(&self.link).await.map_err(|_| Unknown::Unavailable)?;
        Ok(match (text(said.first()), text(said.get(1)), said.get(3)) {
            (body, ..) if body != errand.body.to_string() => Once::Other,
            (.., Some(Value::BulkString(outcome))) if !outcome.is_empty() => Once::Done(Bytes::from(outcome.clone())),
            // Also when the script is repeated because its answer was lost.
            (_, token, _) if token == &*ticket.token => Once::Ours,
            (_, token, _) => {
                Once::Running { ticket: Ticket { key: ticket.key, token: token.into() }, until: number(said.get(2)) }
            }
        })
    }

    pub(crate) async fn settle(&self, ticket: &Ticket, outcome: &Outcome) -> Result<bool, Unknown> {
        let outcome = match outcome {
            Outcome::Kept(outcome) => outcome.as_ref(),
            Outcome::Nothing => b"",
        };
        let said = SETTLE.on([self.keys.once(ticket.key)]).arg(&*ticket.token).arg(outcome).run(&self.link).await;
        said.map(|said| number(said.first()) == 1).map_err(|_| Unknown::Unavailable)
    }
}
