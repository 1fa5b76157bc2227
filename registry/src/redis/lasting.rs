//! What is kept of sockets that may come back, wherever they are: their names among those of their groups, and a log.

use super::Redis;
use crate::{names::GroupKey, owner::partition, record::SocketRecord};
use redis::cmd;
use std::sync::atomic::Ordering;

impl Redis {
    /// Its groups know of it from now on. Told again with its partition, should it be lost.
    pub(super) async fn last(&self, record: &SocketRecord) {
        if record.resumable.is_some() {
            let groups: Vec<_> = record.called_by().collect();
            if self.keep_for(&groups, record.id).await.is_err() {
                self.is_untold_of(record);
            }
        }
    }

    /// What its groups know of it is told again with its partition.
    fn is_untold_of(&self, record: &SocketRecord) {
        let k = partition(record.id);
        self.owner().suspect(k);
        self.indexes_suspect[k].store(true, Ordering::Relaxed);
    }

    /// It has left some of its groups.
    pub(super) async fn last_elsewhere(&self, before: &SocketRecord, after: &SocketRecord) {
        if after.resumable.is_some() {
            let groups: Vec<GroupKey> = after.called_by().collect();
            let left: Vec<_> = before.called_by().filter(|group| !groups.contains(group)).collect();
            let (kept, _) = tokio::join!(self.keep_for(&groups, after.id), self.unkeep(&left, after.id));
            if kept.is_err() {
                self.is_untold_of(after);
            }
        }
    }

    /// It has ended for good. What stays behind goes by its time, or when somebody meets it.
    pub(super) async fn last_no_more(&self, record: &SocketRecord) {
        if record.resumable.is_some() {
            let groups: Vec<_> = record.called_by().collect();
            let (mut log, mut logged) = (cmd("DEL"), cmd("PEXPIRE"));
            log.arg(self.keys.log(record.id));
            // As long as its row: how far it took the mail of its groups is not to be taken by another again.
            logged.arg(self.keys.logged(record.id)).arg(self.why_ttl_ms());
            let _ = tokio::join!(self.unkeep(&groups, record.id), self.link.ask(&log), self.link.ask(&logged));
        }
    }
}
