//! Outcomes that are kept for whoever asks again. The asker tells them to the registry; where the asker is gone,
//! whoever holds the socket does. The first word stands.

use super::{
    Calls, Post,
    given::Given,
    lock,
    told::{self, Answered, Delivered},
};
use crate::kept::Kept;
use bytes::Bytes;
use registry::{
    CallId, Outcome, SocketId,
    envelope::{Keep, Message, Word},
};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// How much longer than its deadline an outcome is of use: then a repeat says that it is lost.
pub const LATE: Duration = Duration::from_secs(4);
/// An asker who was told the end tells the registry in this time, unless they died.
pub const TOLD_WITHIN: Duration = Duration::from_secs(1);
/// Before one that the registry could not be told, or did not take in this time, is told again.
const AGAIN: Duration = Duration::from_millis(500);

/// What has to be known for it, beside the call.
pub struct Owed {
    pub keep: Keep,
    /// The id of the request.
    pub request: Box<str>,
}

impl Calls {
    /// Nobody hears this letter. What came of its call is told to the registry, for whoever asks again. An asker who
    /// only is `deaf` may hear it later, and would go elsewhere if it says that nothing was written. False if
    /// it has to be tried again.
    pub(super) async fn settle_instead(&self, post: &mut Post, deaf: bool) -> bool {
        let (Some(owed), Message::OfCall { call, word }) = (&post.owed, &post.letter.head.message) else {
            return true;
        };
        if deaf && matches!(word, Word::Refused(_)) {
            return false;
        }
        let Some(outcome) = self.outcome(owed, call, (word, &post.letter.body), post.by).await else { return true };
        let settled = self.registry.settle(&owed.keep.ticket, &outcome).await.is_ok();
        if settled {
            post.owed = None;
        }
        settled
    }

    /// Calls whose time is over, and whose askers did not say so. Unless they are settled they come again.
    pub(super) fn overdue(&self) -> impl Iterator<Item = (CallId, Given)> {
        lock(&self.given).overdue(Instant::now(), AGAIN).into_iter()
    }

    /// Settles one of them.
    pub(super) async fn settle_overdue(&self, call: CallId, given: Given) {
        let Given { owed: Some(owed), .. } = &given else { return };
        let delivered = if given.is_written() { Delivered::Yes } else { Delivered::Unknown };
        let outcome = Kept::problem(told::no_reply(&call, delivered), &owed.request).outcome();
        let settled = timeout(AGAIN, self.registry.settle(&owed.keep.ticket, &outcome)).await;
        if let Ok(Ok(_)) = settled {
            self.cancelled(&call, given.asker.as_ref());
        }
    }

    /// What the asker would have kept, if this word says the end.
    async fn outcome(
        &self,
        owed: &Owed,
        call: &CallId,
        (word, data): (&Word, &Bytes),
        until: Instant,
    ) -> Option<Outcome> {
        let owner = self.registry.incarnation();
        let answered = |socket: SocketId, ms: u32| Answered {
            socket,
            instance: owner.instance().to_owned(),
            is_remote: true,
            is_fallback: owed.keep.fallback,
            data: data.clone(),
            lookup: Duration::ZERO,
            client: Duration::from_millis(ms.into()),
        };
        let now_ms = self.registry.now_ms();
        let problem = match word {
            Word::Accepted(_) | Word::Progress(_) => return None,
            Word::Refused(_) => return Some(Outcome::Nothing),
            Word::Reply(socket, ms) => {
                let elapsed = Duration::from_millis(now_ms.saturating_sub(owed.keep.began));
                let body = told::replied(call, &answered(*socket, *ms), elapsed);
                return Some(Kept::new(200, format!("{body}\n").as_bytes()).outcome());
            }
            Word::Failed(socket, ms) => told::failed(call, &answered(*socket, *ms)),
            Word::Lost(lost) => {
                let delivered = if lost.written { Delivered::Yes } else { Delivered::Unknown };
                let verdict = told::verdict(&owner, (**lost).clone(), now_ms);
                told::lost(&self.registry, call, &verdict, delivered, until).await
            }
        };
        Some(Kept::problem(problem, &owed.request).outcome())
    }
}
