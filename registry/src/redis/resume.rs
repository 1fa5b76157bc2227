//! Taking a socket over for a client that shows its token. One script decides, and has the rest from the row.

use super::{
    Redis,
    beat::ms,
    claims::LEFT,
    link::Fault,
    rows::{self, Row},
    scripts::{RESUME, text},
};
use crate::{
    owner::{Ticket, partition},
    record::SocketRecord,
    resume::{Back, NotBack},
    rules,
};
use redis::Value;
use std::sync::Arc;

impl Redis {
    /// Takes a socket back. Of the newcomer its id, session, attempt and address count.
    pub(super) async fn take_back(&self, newcomer: &Arc<SocketRecord>) -> Result<Back, NotBack> {
        let k = partition(newcomer.id);
        let ticket = self.owner().start(k);
        let said = self.ask_back(newcomer).await;
        let back = match &said {
            // Nobody knows whether it ran. If it did, the comparison finds a socket that is not here, and it is away.
            Err(_) => Err(NotBack::Unavailable),
            Ok(said) => match text(said.first()) {
                "back" => self.understand_back(newcomer, &said[2..]).ok_or(NotBack::Unavailable),
                "unknown" => Err(NotBack::Rule(rules::NotBack::Unknown)),
                "later" => Err(NotBack::Rule(rules::NotBack::Later)),
                _ => Err(NotBack::Rule(rules::NotBack::Ended)),
            },
        };
        self.settle_back(&ticket, &back);
        let back = back?;
        let ghost = async {
            if let Some(ghost) = &back.ghost {
                self.leave_user(ghost, &ghost.owner).await;
            }
        };
        let groups: Vec<_> = back.record.groups().map(|group| group.key()).collect();
        tokio::join!(self.tell(groups), ghost);
        Ok(back)
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

    /// In one step with the end of the script, so that no comparison sees only one of them.
    fn settle_back(&self, ticket: &Ticket, back: &Result<Back, NotBack>) {
        let mut owner = self.owner();
        if let Ok(back) = back {
            owner.hold(&back.record);
        }
        owner.settle(ticket, !matches!(back, Err(NotBack::Unavailable)));
    }

    /// Reads what the row said before.
    fn understand_back(&self, newcomer: &SocketRecord, fields: &[Value]) -> Option<Back> {
        let row = rows::read(newcomer.id, &Value::Array(fields.to_vec()))?;
        let (before, ghost) = match row {
            Row::Live(ghost) => (ghost.clone(), Some(ghost)),
            Row::Gone(ended) => (ended.record.clone(), None),
        };
        let SocketRecord { session, attempt, address, .. } = newcomer;
        let record = SocketRecord {
            session: *session,
            owner: self.own(),
            attempt: *attempt,
            address: *address,
            ..(*before).clone()
        };
        Some(Back { record: Arc::new(record), ghost, came_from: before.owner.clone() })
    }
}
