//! Sockets that are away: at their time they end, if their client has not come back.

use super::{
    Redis,
    link::Fault,
    rows::{self, Ended, Row},
    scripts::{AWAY, text},
};
use crate::{
    all::Post,
    event::Event,
    names::SocketId,
    owner::{PARTITIONS, partition},
    rules::rank,
    verdict::Ending,
};
use futures_util::future::join_all;
use redis::{Value, cmd};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::sleep;

/// Between two looks for those whose time is over.
const LOOK: Duration = Duration::from_secs(5);
/// Ended at one look at most, of each partition.
const AT_ONCE: usize = 100;

/// What became of one that was to be ended.
enum Over {
    /// Unless nobody can read what it was.
    Ended(Option<Box<Ended>>),
    /// It has time left.
    Waits,
    Gone,
}

impl Redis {
    /// Ends those whose time is over. Never returns.
    pub(super) async fn keep_away(&self) {
        loop {
            sleep(LOOK.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
            let Ok(known) = self.known().await else { continue };
            let (own, marks) = (self.own(), known.iter().map(|(other, _)| other.mark()).collect::<BTreeSet<_>>());
            // Each partition is looked after by one of the fleet. Where two believe it of themselves no harm is done.
            let ours = (0..PARTITIONS).filter(|k| rank(&format!("p{k}"), own.mark(), marks.iter().copied()) == 0);
            let ours: Vec<_> = ours.collect();
            self.outgoing.mind(ours.iter().copied());
            join_all(ours.into_iter().map(|k| self.end_the_due(k))).await;
        }
    }

    async fn end_the_due(&self, k: usize) {
        let mut command = cmd("ZRANGEBYSCORE");
        command.arg(self.keys.ended(k)).arg("-inf").arg(self.now_ms()).arg("LIMIT").arg(0).arg(AT_ONCE);
        let Ok(Value::Array(due)) = self.link.ask(&command).await else { return };
        for id in due.iter().filter_map(|id| SocketId::from_short(text(Some(id)))) {
            match self.end_away(id, "due", Vec::new()).await {
                Ok(Over::Ended(ended)) => self.tell_ended(id, ended).await,
                Ok(Over::Gone | Over::Waits) | Err(_) => {}
            }
        }
    }

    async fn tell_ended(&self, id: SocketId, ended: Option<Box<Ended>>) {
        if let Some(ended) = ended {
            let Ended { record, ending, at, .. } = *ended;
            self.last_no_more(&record).await;
            if self.outgoing.is_wanted() {
                let event = Event::disconnected(&record, &ending, at, self.now_ms());
                if self.log_events(partition(id), vec![event]).await.is_err() {
                    return;
                }
            }
            self.hand_over(Post::Ended { record, ending }).await;
        }
        // Last, so that whoever is interrupted before finds it again.
        let _ = self.end_away(id, "told", Vec::new()).await;
    }

    /// Ends a socket that is away before its time; false if it is not away.
    pub async fn dismiss(&self, id: SocketId, ending: &Ending) -> bool {
        let Ok(Over::Ended(ended)) = self.end_away(id, "now", rows::ending(ending)).await else { return false };
        self.tell_ended(id, ended).await;
        true
    }

    async fn end_away(&self, id: SocketId, when: &str, how: Vec<String>) -> Result<Over, Fault> {
        let (keys, k) = (&self.keys, partition(id));
        let call = AWAY.on([keys.row(id), keys.ended(k)]).arg(id.short()).arg(self.why_ttl_ms()).arg(when).arg(how);
        let said = call.run(&self.link).await?;
        Ok(match text(said.first()) {
            "ended" => match rows::read(id, &Value::Array(said.into_iter().skip(1).collect())) {
                Some(Row::Gone(ended)) => Over::Ended(Some(ended)),
                _ => Over::Ended(None),
            },
            "waits" => Over::Waits,
            _ => Over::Gone,
        })
    }
}
