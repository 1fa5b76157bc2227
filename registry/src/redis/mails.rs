//! Durable deliveries to groups: which of their sockets may be resumed, and what waits while a group has no socket.

use super::{
    Redis,
    appends::{Place, STAYS_LONGER},
    beat::ms,
    link::Fault,
    logs::{Said, bytes_of},
    scripts::{LEAVE, TAKE_MAIL, TAKEN, number, text},
};
use crate::{
    all::Unknown,
    log::{Appended, Delivery, Durability, LIMITS, Left, Mail, counts},
    names::{GroupKey, SocketId},
    once::Hashed,
};
use futures_util::future::join_all;
use redis::{Cmd, Value, cmd};
use std::time::Duration;
use tokio::time::timeout;

/// What is taken over at once.
const TAKEN_AT_ONCE: usize = 50;
/// How long somebody waits for Redis to come back who does not know whether a delivery was left.
const BACK_WITHIN: Duration = Duration::from_secs(2);

/// For how long one that is left again is known by its key: longer than anybody tries.
const REPEATED_WITHIN: Duration = Duration::from_secs(60);

/// How a socket fared with what it was to take over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Took {
    /// All that was read; there may be more.
    All,
    /// Its log is full.
    Full,
    /// It is there no more.
    Gone,
}

impl Redis {
    pub async fn keep_for(&self, groups: &[GroupKey], id: SocketId) -> Result<(), Unknown> {
        self.for_each(groups, |key| cmd("ZADD").arg(key).arg(0).arg(id.short()).take()).await
    }

    pub async fn unkeep(&self, groups: &[GroupKey], id: SocketId) -> Result<(), Unknown> {
        self.for_each(groups, |key| cmd("ZREM").arg(key).arg(id.short()).take()).await
    }

    async fn for_each(&self, groups: &[GroupKey], command: impl Fn(String) -> Cmd) -> Result<(), Unknown> {
        let commands: Vec<_> = groups.iter().map(|group| command(self.keys.kept(*group))).collect();
        let said = join_all(commands.iter().map(|command| self.link.ask(command))).await;
        if said.iter().all(Result::is_ok) { Ok(()) } else { Err(Unknown::Unavailable) }
    }

    pub async fn kept(&self, group: GroupKey, limit: usize) -> Result<Vec<SocketId>, Unknown> {
        let Some(last) = limit.checked_sub(1) else { return Ok(Vec::new()) };
        let said = self.link.ask(cmd("ZRANGE").arg(self.keys.kept(group)).arg(0).arg(last)).await;
        let Ok(Value::Array(ids)) = said else { return Err(Unknown::Unavailable) };
        Ok(ids.iter().filter_map(|id| SocketId::from_short(text(Some(id)))).collect())
    }

    pub async fn leave(&self, group: GroupKey, delivery: &Delivery) -> Left {
        let said = match self.try_leave(group, delivery).await {
            // It may have run. Asked again, it says so.
            Err(Fault::Away) => {
                let _ = timeout(BACK_WITHIN, self.link.is_back()).await;
                self.try_leave(group, delivery).await.map_err(|_| Left::Perhaps)
            }
            said => said.map_err(|_| Left::Unknown(Unknown::Unavailable)),
        };
        said.unwrap_or_else(|left| left)
    }

    async fn try_leave(&self, group: GroupKey, delivery: &Delivery) -> Result<Left, Fault> {
        let keys = &self.keys;
        let sent = keys.group_sent(group, delivery.key);
        let keys = [keys.group_mail(group), keys.group_mailed(group), keys.kept(group), keys.group(group), sent];
        let now_us = self.clock.now_us();
        let stays = delivery.ttl.saturating_add(STAYS_LONGER);
        let until = |ttl| (now_us / 1000).saturating_add(ms(ttl));
        let call = LEAVE.on(keys).arg(&*delivery.text).arg(now_us).arg(until(delivery.ttl)).arg(counts(&delivery.text));
        let call = call.arg(LIMITS.bytes).arg(ms(REPEATED_WITHIN)).arg(ms(stays)).arg(until(stays));
        let call = call.arg(delivery.key.to_string());
        let (said, durability) = call.run_durably(&self.link, delivery.wants).await?;
        Ok(match text(said.first()) {
            "left" => Left::Left(durability),
            "full" => Left::Full,
            _ => Left::Somebody,
        })
    }

    /// Whoever began to take it and did not come to the end is helped first: what was logged from a place in the mail
    /// is not logged again, so several may do it at once.
    pub async fn take_mail(&self, group: GroupKey, id: SocketId, wants: Durability) -> Result<Mail, Unknown> {
        let (mut taken, mut gone) = (0, String::new());
        loop {
            let keys = [self.keys.group_mail(group), self.keys.group_mailed(group)];
            let said = TAKE_MAIL.on(keys).arg(id.short()).arg(&gone).arg(TAKEN_AT_ONCE).run(&self.link).await;
            let mut said = said.map_err(|_| Unknown::Unavailable)?.into_iter();
            let Some(by) = said.next() else { return Ok(Mail { taken, waits: false }) };
            // A name that nobody can have is gone.
            let Some(by) = SocketId::from_short(text(Some(&by))) else {
                text(Some(&by)).clone_into(&mut gone);
                continue;
            };
            let (took, count) = self.hand_to(group, by, said, wants).await.map_err(|_| Unknown::Unavailable)?;
            if by == id {
                taken += count;
            }
            match took {
                Took::All => {}
                Took::Gone if by != id => gone = by.short(),
                Took::Full | Took::Gone => return Ok(Mail { taken, waits: took == Took::Full && by == id }),
            }
        }
    }

    /// One after the other: what was logged from a later place counts for all before it.
    async fn hand_to(
        &self,
        group: GroupKey,
        by: SocketId,
        mut mail: impl Iterator<Item = Value>,
        wants: Durability,
    ) -> Result<(Took, usize), Fault> {
        let field = format!("m:{}", group.short());
        let (mut last, mut count, mut took) = (None, 0, Took::All);
        while let (Some(position), Some(until), Some(key), Some(text_of)) =
            (mail.next(), mail.next(), mail.next(), mail.next())
        {
            let position = number(Some(&position));
            let left = number(Some(&until)).saturating_sub(self.now_ms());
            if left > 0 {
                let key = Hashed::parse(text(Some(&key))).unwrap_or(Hashed::of(&[&position.to_be_bytes()]));
                let delivery = Delivery { key, text: bytes_of(text_of), ttl: Duration::from_millis(left), wants };
                match self.append_from(by, &delivery, &Place { field: field.clone(), position }).await? {
                    Said::Told(Appended::Logged { .. }) => count += 1,
                    Said::Again => {}
                    Said::Told(Appended::Full) => {
                        took = Took::Full;
                        break;
                    }
                    Said::Told(_) | Said::Missing => {
                        took = Took::Gone;
                        break;
                    }
                }
            }
            last = Some(position);
        }
        if let Some(last) = last {
            let keys = [self.keys.group_mail(group), self.keys.group_mailed(group)];
            TAKEN.on(keys).arg(by.short()).arg(last.saturating_add(1)).run(&self.link).await?;
        }
        Ok((took, count))
    }
}
