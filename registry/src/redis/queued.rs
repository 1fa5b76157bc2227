//! Calls that are kept until somebody comes. Which of them wait, and who has taken one, stands with the group; what is
//! asked and what came of it with the call, in a slot of its own.

use super::{
    Redis, beat,
    scripts::{ANSWER, BACK, CANCEL, GIVE, KEEP, NEXT, OVER, QUEUE, TAKE, number, text},
};
use crate::{
    all::Unknown,
    names::{CallId, GroupKey, Incarnation, SocketId},
    queue::{Cancelled, GRACE, Handed, KEPT, Parcel, QUEUED_MAX, Queued, Standing, Taken, Turn, WasGiven},
};
use bytes::Bytes;
use redis::{Value, cmd};
use std::time::Duration;

/// So long after its time a call is called overdue: by then it is so by Redis' own clock as well, and nobody takes it.
const OVERDUE_MS: u64 = 200;

/// How a call stands in its group's lists: with its patience, so that a script knows when it is due.
fn member(call: &CallId, patience: Duration) -> String {
    format!("{call}|{}", beat::ms(patience))
}

fn read_member(group: GroupKey, member: &Value) -> Option<Taken> {
    let (call, patience) = text(Some(member)).split_once('|')?;
    let patience = Duration::from_millis(patience.parse().ok()?);
    Some(Taken { call: CallId::parse(call)?, group, patience })
}

fn incarnations(said: &[Value]) -> Vec<Incarnation> {
    said.iter().filter_map(|one| Incarnation::parse(text(Some(one)))).collect()
}

fn list(value: Option<&Value>) -> &[Value] {
    match value {
        Some(Value::Array(values)) => values,
        _ => &[],
    }
}

impl Redis {
    /// First the call, then its place in the line: whoever takes it finds it.
    pub(crate) async fn queue(&self, parcel: &Parcel) -> Result<Queued, Unknown> {
        let Parcel { call, group, text: asked, ttl, patience, wants } = parcel;
        let (keys, ttl) = (&self.keys, beat::ms(*ttl));
        let keep = KEEP.on([keys.call(call)]).arg(beat::ms(KEPT) + ttl).arg(ttl);
        let keep = keep.arg("group").arg(group.short()).arg("text").arg(asked.as_ref());
        let keep = keep.arg("patience").arg(beat::ms(*patience)).arg("ttl").arg(ttl);
        let (_, kept) = keep.run_durably(&self.link, *wants).await.map_err(|_| Unknown::Unavailable)?;
        let line = QUEUE.on([keys.queued(*group), keys.given(*group), keys.group(*group)]);
        let line = line.arg(member(call, *patience)).arg(ttl).arg(QUEUED_MAX).arg(beat::ms(KEPT) + ttl);
        let (said, lined) = line.run_durably(&self.link, *wants).await.map_err(|_| Unknown::Unavailable)?;
        match said.split_first() {
            Some((word, holders)) if text(Some(word)) == "ok" => {
                Ok(Queued::Waits(kept.min(lined), incarnations(holders)))
            }
            _ => {
                let _ = self.link.ask(cmd("DEL").arg(keys.call(call))).await;
                Ok(Queued::Full)
            }
        }
    }

    pub(crate) async fn take(&self, group: GroupKey, limit: usize) -> Result<Turn, Unknown> {
        let call = TAKE.on([self.keys.queued(group), self.keys.given(group)]).arg(self.own().to_string());
        let call = call.arg(limit).arg(beat::ms(GRACE)).arg(beat::ms(KEPT));
        let said = call.run(&self.link).await.map_err(|_| Unknown::Unavailable)?;
        let calls = |nth: usize| list(said.get(nth)).iter().filter_map(|member| read_member(group, member)).collect();
        Ok(Turn { calls: calls(0), others: incarnations(list(said.get(1))), before: calls(2) })
    }

    pub(crate) async fn give(&self, call: &CallId, to: SocketId, by: u64) -> Result<Option<Handed>, Unknown> {
        let give = GIVE.on([self.keys.call(call)]).arg(self.own().to_string()).arg(to.to_string()).arg(by);
        let said = give.run(&self.link).await.map_err(|_| Unknown::Unavailable)?;
        let Some(Value::BulkString(asked)) = said.first() else { return Ok(None) };
        if said.len() == 1 {
            return Err(Unknown::Unavailable);
        }
        let attempt = u32::try_from(number(said.get(1))).unwrap_or(u32::MAX);
        Ok(Some(Handed { text: Bytes::from(asked.clone()), attempt, queued_at: number(said.get(2)) }))
    }

    pub(crate) async fn back(&self, call: &CallId, attempt: u32, was_given: WasGiven) -> Result<bool, Unknown> {
        let back = BACK.on([self.keys.call(call)]).arg(attempt).arg(was_given.as_str());
        back.run(&self.link).await.map(|said| number(said.first()) == 1).map_err(|_| Unknown::Unavailable)
    }

    pub(crate) async fn next(
        &self,
        group: GroupKey,
        of: &Incarnation,
        only: Option<&Taken>,
        ttl: Duration,
    ) -> Result<Vec<Incarnation>, Unknown> {
        let keys = &self.keys;
        let next = NEXT.on([keys.queued(group), keys.given(group), keys.group(group)]).arg(of.to_string());
        let only = only.map(|taken| member(&taken.call, taken.patience)).unwrap_or_default();
        let next = next.arg(beat::ms(ttl)).arg(beat::ms(KEPT + ttl)).arg(only);
        next.run(&self.link).await.map(|said| incarnations(&said)).map_err(|_| Unknown::Unavailable)
    }

    pub(crate) async fn over(&self, taken: &Taken) -> Result<(), Unknown> {
        let over = OVER.on([self.keys.given(taken.group)]).arg(self.own().to_string());
        let over = over.arg(member(&taken.call, taken.patience)).run(&self.link).await;
        over.map(drop).map_err(|_| Unknown::Unavailable)
    }

    pub(crate) async fn answer(&self, call: &CallId, attempt: Option<u32>, outcome: &Bytes) -> Result<bool, Unknown> {
        let attempt = attempt.map(|attempt| attempt.to_string()).unwrap_or_default();
        let answer = ANSWER.on([self.keys.call(call)]).arg(attempt).arg(outcome.as_ref()).arg(beat::ms(KEPT));
        answer.run(&self.link).await.map(|said| number(said.first()) == 1).map_err(|_| Unknown::Unavailable)
    }

    pub(crate) async fn standing(&self, call: &CallId) -> Result<Standing, Unknown> {
        let mut look = cmd("HMGET");
        look.arg(self.keys.call(call));
        look.arg(&["state", "attempt", "socket", "owner", "outcome", "until", "delivered"]);
        let said = self.link.ask(&look).await.map_err(|_| Unknown::Unavailable)?;
        let said = list(Some(&said));
        let attempt = u32::try_from(number(said.get(1))).unwrap_or(u32::MAX);
        let is_over = self.now_ms() > number(said.get(5)) + OVERDUE_MS;
        let given = || Some((SocketId::parse(text(said.get(2)))?, Incarnation::parse(text(said.get(3)))?));
        Ok(match (text(said.first()), said.get(4)) {
            ("done", Some(Value::BulkString(outcome))) => Standing::Done(Bytes::from(outcome.clone())),
            ("waits" | "given", _) if is_over => Standing::Overdue(WasGiven::parse(text(said.get(6))).after(attempt)),
            ("given", _) => given().map_or(Standing::Waits { attempt }, |(socket, owner)| Standing::Given {
                socket,
                owner,
                attempt,
            }),
            ("waits", _) => Standing::Waits { attempt },
            _ => Standing::Unknown,
        })
    }

    pub(crate) async fn cancel(&self, call: &CallId) -> Result<Cancelled, Unknown> {
        let said = CANCEL.on([self.keys.call(call)]).run(&self.link).await.map_err(|_| Unknown::Unavailable)?;
        let cancelled = match (text(said.first()), Incarnation::parse(text(said.get(3)))) {
            ("", _) => return Ok(Cancelled::Unknown),
            ("done", _) => return Ok(Cancelled::Done),
            ("given", Some(owner)) => Cancelled::Given(owner),
            _ => Cancelled::Waited,
        };
        if let Some(group) = GroupKey::parse(text(said.get(1))) {
            let patience = Duration::from_millis(number(said.get(2)));
            let member = member(call, patience);
            let (mut given, mut waits) = (cmd("HDEL"), cmd("ZREM"));
            given.arg(self.keys.given(group)).arg(&member);
            waits.arg(self.keys.queued(group)).arg(&member);
            // Whoever takes one that is left behind finds that it is over.
            let _ = tokio::join!(self.link.ask(&given), self.link.ask(&waits));
        }
        Ok(cancelled)
    }
}
