//! Taking a socket over for a client that shows its token. One script decides, and has the rest from the row.

use super::{
    Redis,
    beat::ms,
    claims::LEFT,
    link::Fault,
    rows::{self, Row},
    scripts::{RESUME, number, text},
};
use crate::{
    names::{Session, SocketId},
    owner::{Answered, Ticket, partition},
    record::{Attempt, SocketRecord},
    resume::{Back, NotBack},
    rules,
};
use redis::Value;
use std::sync::Arc;

/// A question for a socket on its way. Whatever happens to who waits for it, it is accounted for.
struct AskedBack<'a> {
    redis: &'a Redis,
    asked: (SocketId, Session),
    ticket: Ticket,
    is_settled: bool,
}

impl AskedBack<'_> {
    fn settle(&mut self, back: Answered<&Arc<SocketRecord>>) -> bool {
        self.is_settled = true;
        self.redis.owner().settle_back(&self.ticket, self.asked, back)
    }
}

impl Drop for AskedBack<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.settle(Answered::Nobody);
            // It may be nobody's now, and its client has not given it up.
            self.redis.mend_now.notify_one();
        }
    }
}

impl Redis {
    /// Takes a socket back. Of the newcomer its id, session, attempt and address count.
    pub(super) async fn take_back(&self, newcomer: &Arc<SocketRecord>) -> Result<Back, NotBack> {
        let asked = (newcomer.id, newcomer.session);
        let ticket = self.owner().ask_back(newcomer.id, newcomer.session);
        let mut on_its_way = AskedBack { redis: self, asked, ticket, is_settled: false };
        // Nobody knows whether it ran. If it did, the comparison finds a socket that is not here, and it is away.
        let said = self.ask_back(newcomer).await.map_err(|_| NotBack::Unavailable)?;
        let why_not = match text(said.first()) {
            "back" => None,
            "unknown" => Some(rules::NotBack::Unknown),
            "later" => Some(rules::NotBack::Later),
            _ => Some(rules::NotBack::Ended),
        };
        if let Some(why_not) = why_not {
            on_its_way.settle(Answered::No);
            return Err(NotBack::Rule(why_not));
        }
        let mut back = self.understand_back(newcomer, &said).ok_or(NotBack::Unavailable)?;
        back.is_overtaken = !on_its_way.settle(Answered::Yes(&back.record));
        Ok(back)
    }

    /// Its groups hear of it, and the place of the ghost goes.
    pub(super) async fn settle_in(&self, back: &Back) {
        let groups: Vec<_> = match back.is_overtaken {
            true => Vec::new(),
            false => back.record.groups().map(|group| group.key()).collect(),
        };
        let ghost = async {
            if let Some(ghost) = &back.ghost {
                self.leave_user(ghost, &ghost.owner).await;
            }
        };
        tokio::join!(self.tell(groups), ghost);
    }

    async fn ask_back(&self, newcomer: &SocketRecord) -> Result<Vec<Value>, Fault> {
        let (own, k, keys) = (self.own(), partition(newcomer.id), &self.keys);
        RESUME
            .on([keys.row(newcomer.id), keys.owned(k, own.mark()), keys.live(k), keys.ended(k)])
            .arg(newcomer.id.short())
            .arg(newcomer.session.to_string())
            .arg(newcomer.attempt.n)
            .arg(newcomer.attempt.accepted_at)
            .arg(own.to_string())
            .arg(newcomer.address.to_string())
            .arg(newcomer.session.fold())
            .arg(ms(LEFT))
            .run(&self.link)
            .await
    }

    /// Reads what the row said before.
    fn understand_back(&self, newcomer: &SocketRecord, said: &[Value]) -> Option<Back> {
        let row = rows::read(newcomer.id, &Value::Array(said.get(3..)?.to_vec()))?;
        let (before, ghost) = match row {
            Row::Live(before) => (before.clone(), Some(before).filter(|ghost| ghost.session != newcomer.session)),
            Row::Gone(ended) => (ended.record.clone(), None),
        };
        let SocketRecord { session, attempt, address, .. } = newcomer;
        let record = SocketRecord {
            session: *session,
            owner: self.own(),
            attempt: Attempt { accepted_at: number(said.get(2)), ..*attempt },
            address: *address,
            ..(*before).clone()
        };
        Some(Back { record: Arc::new(record), ghost, came_from: before.owner.clone(), is_overtaken: false })
    }
}
