//! Sockets that are away, in memory: they wait for their client, come back with its token, or end at their time.

use super::{Local, Memory, Retention, Tables};
use crate::{
    admit::{Admission, Cap},
    all::{Post, epoch_ms},
    names::SocketId,
    record::SocketRecord,
    resume::{Back, NotBack},
    rules::{self, Held, State},
    verdict::{Ending, Gone},
};
use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// Between two looks for those whose time is over.
const LOOK: Duration = Duration::from_secs(1);

/// Those who are away.
#[derive(Default)]
pub(super) struct Away {
    by_id: BTreeMap<SocketId, Waiting>,
}

struct Waiting {
    record: Arc<SocketRecord>,
    ending: Ending,
    at: Instant,
    closed_at: u64,
}

impl Waiting {
    /// For how many seconds it may still come back.
    fn left(&self) -> Option<NonZeroU32> {
        let left = self.record.resumable?.window().checked_sub(self.at.elapsed())?;
        NonZeroU32::new(u32::try_from(left.as_millis().div_ceil(1000)).ok()?)
    }
}

impl Away {
    /// How a socket is said to be, and since when.
    pub(super) fn verdict(&self, id: SocketId) -> Option<(Gone, Duration)> {
        let Waiting { record, ending, at, closed_at } = self.by_id.get(&id)?;
        let gone = Gone::Closed {
            instance: record.owner.instance().into(),
            connected_at: record.connected_at,
            closed_at: *closed_at,
            store: record.store.clone(),
            user: record.user.clone(),
            ending: ending.clone(),
            back_within: self.by_id.get(&id)?.left(),
        };
        Some((gone, at.elapsed()))
    }

    pub(super) fn held(&self, id: SocketId) -> Option<&Arc<SocketRecord>> {
        self.by_id.get(&id).map(|waiting| &waiting.record)
    }

    /// The same, unless its time is over.
    pub(super) fn waiting(&self, id: SocketId) -> Option<&Arc<SocketRecord>> {
        self.by_id.get(&id).filter(|waiting| waiting.left().is_some()).map(|waiting| &waiting.record)
    }

    pub(super) fn take(&mut self, id: SocketId) {
        self.by_id.remove(&id);
    }
}

impl Tables {
    /// Its connection has ended. False if it has to end with it.
    pub(super) fn goes_away(&mut self, record: &Arc<SocketRecord>, ending: &Ending, retention: Retention) -> bool {
        let away = record.leaves(ending) == State::Away && self.away.by_id.len() < retention.verdicts_max;
        if away {
            let waiting =
                Waiting { record: record.clone(), ending: ending.clone(), at: Instant::now(), closed_at: epoch_ms() };
            self.away.by_id.insert(record.id, waiting);
        }
        away
    }

    /// Ends those that are meant.
    fn end_away(
        &mut self,
        retention: Retention,
        is_meant: impl Fn(&SocketId, &Waiting) -> bool,
        how: Option<&Ending>,
    ) -> Vec<Post> {
        let over: Vec<_> = self.away.by_id.extract_if(.., |id, waiting| is_meant(id, waiting)).collect();
        let end = |(_, waiting): (SocketId, Waiting)| {
            let ending = how.cloned().unwrap_or(waiting.ending);
            self.bury(&waiting.record, ending.clone(), retention);
            Post::Ended { record: waiting.record, ending }
        };
        over.into_iter().map(end).collect()
    }
}

impl Memory {
    pub(crate) fn admit_back(&self, newcomer: &Arc<SocketRecord>, cap: Cap) -> Result<(Back, Admission), NotBack> {
        let (id, mut tables) = (newcomer.id, self.tables());
        let live = tables.live.get(&id).map(|record| (record.clone(), State::Live));
        let away = || tables.away.by_id.get(&id).filter(|waiting| waiting.left().is_some());
        let (before, state) = match live.or_else(|| away().map(|waiting| (waiting.record.clone(), State::Away))) {
            Some(found) => found,
            None if tables.ended.contains_key(&id) || tables.away.held(id).is_some() => {
                return Err(NotBack::Rule(rules::NotBack::Ended));
            }
            None => return Err(NotBack::Rule(rules::NotBack::Unknown)),
        };
        let confirmed = before.resumable.map_or(0, |resumable| resumable.confirmed);
        let held = Held { session: before.session, attempt: before.attempt, confirmed, state };
        let attempt = rules::resume(Some(&held), before.resumable.is_some(), newcomer.session, newcomer.attempt)
            .map_err(NotBack::Rule)?;
        let SocketRecord { session, address, owner, .. } = (**newcomer).clone();
        let record = Arc::new(SocketRecord { session, attempt, address, owner, ..(*before).clone() });
        let admission = tables.admit(&record, cap);
        let came_from = before.owner.clone();
        let ghost = (state == State::Live).then_some(before);
        Ok((Back { record, ghost, came_from, is_overtaken: false }, admission))
    }
}

impl Local {
    /// Ends those whose time is over. Never returns.
    pub(crate) async fn keep_away(&self) {
        loop {
            sleep(LOOK).await;
            let over = {
                let mut tables = self.memory.tables();
                tables.end_away(self.memory.retention, |_, waiting| waiting.left().is_none(), None)
            };
            self.hand_over(over).await;
        }
    }

    pub(crate) async fn dismiss(&self, id: SocketId, ending: &Ending) -> bool {
        let over = {
            let mut tables = self.memory.tables();
            tables.end_away(self.memory.retention, |one, _| *one == id, Some(ending))
        };
        let any = !over.is_empty();
        self.hand_over(over).await;
        any
    }

    async fn hand_over(&self, posts: Vec<Post>) {
        let inbox = self.memory.tables().instances.get(&self.own).map(|member| member.inbox.clone());
        let Some(inbox) = inbox else { return };
        for post in posts {
            // A gateway that is gone takes nothing any more.
            let _ = inbox.send(post).await;
        }
    }
}
