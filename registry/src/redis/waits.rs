//! Calls that wait until somebody comes: which instances have some, and who tells them.

use super::{
    Redis, beat,
    link::Fault,
    scripts::{TELL, WAIT, number, text},
};
use crate::{
    all::{Arrived, Post, Unknown},
    names::{GroupKey, Incarnation},
    waiting::WAITS,
};
use redis::cmd;
use tokio::sync::mpsc::error::TrySendError;

impl Redis {
    /// Notes that calls of this instance wait for somebody of the group, and says whether somebody may be there.
    pub(crate) async fn wait(&self, group: GroupKey) -> Result<bool, Unknown> {
        let call = WAIT.on([self.keys.waiters(group), self.keys.group(group)]);
        let said = call.arg(self.own().to_string()).arg(beat::ms(WAITS)).run(&self.link).await;
        said.map(|said| number(said.first()) == 1).map_err(|_| Unknown::Unavailable)
    }

    /// Who has waited for somebody of the group, who is not the first here or was here before.
    pub(crate) async fn came(&self, group: GroupKey) -> Result<Option<Arrived>, Unknown> {
        self.look_who_waits(group, "").await.map_err(|_| Unknown::Unavailable)
    }

    /// Writes how many of the group are here, and passes on who has waited for one. False if Redis did not hear it, or
    /// if that finds no room: then it is told once more, since of calls that are queued nobody looks by itself.
    pub(super) async fn tell_count(&self, group: GroupKey, count: &str) -> bool {
        match self.look_who_waits(group, count).await {
            Ok(arrived) => {
                let is_full =
                    |arrived| matches!(self.inbox.try_send(Post::Arrived(arrived)), Err(TrySendError::Full(_)));
                !arrived.is_some_and(is_full)
            }
            // Of a right that is missing in a script Redis does not say which it is; of a command it does.
            Err(Fault::Refused(_)) => {
                let mut number = cmd("HSET");
                number.arg(self.keys.group(group)).arg(self.own().to_string()).arg(count);
                self.link.ask(&number).await.is_ok()
            }
            Err(_) => false,
        }
    }

    async fn look_who_waits(&self, group: GroupKey, count: &str) -> Result<Option<Arrived>, Fault> {
        let keys = &self.keys;
        let call = TELL.on([keys.group(group), keys.waiters(group), keys.queued(group), keys.given(group)]);
        let said = call.arg(self.own().to_string()).arg(count).run(&self.link).await?;
        Ok(said.split_first().map(|(queued, by)| {
            let by = by.iter().filter_map(|waiter| Incarnation::parse(text(Some(waiter)))).collect();
            Arrived { group, by, queued: number(Some(queued)) == 1 }
        }))
    }
}
