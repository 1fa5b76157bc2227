//! Calls that wait until somebody comes: which instances have some, and who tells them.

use super::{
    Redis, beat,
    scripts::{TELL, WAIT, number, text},
};
use crate::{
    all::{Awaited, Post, Unknown},
    names::{GroupKey, Incarnation},
    waiting::WAITS,
};

impl Redis {
    /// Notes that calls of this instance wait for somebody of the group, and says whether somebody may be there.
    pub(crate) async fn wait(&self, group: GroupKey) -> Result<bool, Unknown> {
        let call = WAIT.on([self.keys.waiters(group), self.keys.group(group)]);
        let said = call.arg(self.own().to_string()).arg(beat::ms(WAITS)).run(&self.link).await;
        said.map(|said| number(said.first()) == 1).map_err(|_| Unknown::Unavailable)
    }

    /// Somebody of the group came here who is not the first, so that nobody was told of it.
    pub(crate) async fn came(&self, group: GroupKey) {
        self.look_who_waits(group, "").await;
    }

    /// Writes how many of the group are here, unless that stands there, and passes on who waits for one. A word that
    /// finds no room is lost: they look by themselves as well. False if Redis did not hear it.
    pub(super) async fn look_who_waits(&self, group: GroupKey, count: &str) -> bool {
        let keys = &self.keys;
        let call = TELL.on([keys.group(group), keys.waiters(group), keys.queued(group), keys.given(group)]);
        let Ok(said) = call.arg(self.own().to_string()).arg(count).run(&self.link).await else { return false };
        if let Some((queued, by)) = said.split_first() {
            let by = by.iter().filter_map(|waiter| Incarnation::parse(text(Some(waiter)))).collect();
            let queued = number(Some(queued)) == 1;
            let _ = self.inbox.try_send(Post::Awaited(Awaited { group, by, queued }));
        }
        true
    }
}
