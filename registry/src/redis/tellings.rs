//! The numbers of our groups, told to Redis: on the first member, on the last, and now and then between them.

use super::{Redis, claims::TOLD_BY_ANOTHER};
use crate::{groups::Telling, names::GroupKey};
use futures_util::future::join_all;
use redis::cmd;
use tokio::time::timeout;

/// Somebody is telling a group, and may be dropped meanwhile.
struct BeingTold<'a> {
    redis: &'a Redis,
    key: GroupKey,
    count: Option<u32>,
    answered: bool,
}

impl Drop for BeingTold<'_> {
    fn drop(&mut self) {
        self.redis.owner().groups.told(self.key, self.count, self.answered);
        self.redis.group_told.notify_waiters();
    }
}

impl Redis {
    /// Tells Redis that there is somebody in these groups, or nobody any more.
    pub(super) async fn tell(&self, groups: impl IntoIterator<Item = GroupKey>) {
        join_all(groups.into_iter().map(|key| self.tell_one(key, false))).await;
    }

    pub fn active(&self, groups: &[GroupKey]) {
        let (now, mut owner) = (self.now_ms(), self.owner());
        groups.iter().for_each(|key| owner.groups.active(*key, now));
    }

    /// With `exact`, numbers count as well.
    pub(super) async fn tell_one(&self, key: GroupKey, exact: bool) {
        loop {
            let another = self.group_told.notified();
            tokio::pin!(another);
            another.as_mut().enable();
            let telling = self.owner().groups.tell(key, exact);
            match telling {
                Telling::Nothing => return,
                Telling::Busy => {
                    if timeout(TOLD_BY_ANOTHER, another).await.is_err() {
                        return;
                    }
                }
                Telling::Tell { count, active_at } => {
                    let mut told = BeingTold { redis: self, key, count, answered: false };
                    let own = self.own();
                    told.answered = match count {
                        Some(count) => self.tell_count(key, &format!("{count}|{active_at}")).await,
                        None => {
                            let mut command = cmd("HDEL");
                            command.arg(self.keys.group(key)).arg(own.to_string());
                            self.link.ask(&command).await.is_ok()
                        }
                    };
                    for former in self.former.load().iter() {
                        self.leave_group(key, former).await;
                    }
                    if !told.answered {
                        return;
                    }
                }
            }
        }
    }
}
