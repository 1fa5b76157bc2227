//! Keeping a call until somebody comes: it is left with the registry, and whoever holds a socket that can be asked takes
//! it from there (`calls/queued.rs`).

use super::{Absent, Courier, Outcome, Whom, call::Way};
use crate::{calls::Asked, letters::LATE};
use bytes::Bytes;
use futures_util::future::join_all;
use registry::{CallId, Cancelled, Group, GroupKey, Incarnation, Parcel, Queued, Unknown, envelope::Message};
use std::time::Duration;
use tokio::time::timeout_at;

impl Courier {
    /// Tells instances that hold members of a group that calls wait for these.
    pub async fn ring_holders(&self, group: GroupKey, holders: Vec<Incarnation>) {
        let own = self.registry.incarnation();
        let tellings = holders.iter().map(async |holder| match *holder == own {
            true => self.queue.look_at(group),
            // One that does not hear it takes them when it looks, or another does.
            false => drop(self.letters.tell(holder, Message::Waits(group), Bytes::new()).await),
        });
        join_all(tellings).await;
    }

    /// A queued call was taken back from whoever had it. The client may finish what it began; what it answers is heard
    /// by nobody.
    pub async fn take_from(&self, owner: &Incarnation, call: &CallId) {
        match *owner == self.registry.incarnation() {
            true => self.calls.cancelled(call, None),
            false => drop(self.letters.tell(owner, Message::Cancel { call: call.clone() }, Bytes::new()).await),
        }
    }
}

impl Way<'_> {
    /// Where nobody is there it is kept for the first who comes; nothing of it was written, or it would not be here.
    pub(super) async fn leave(&mut self, outcome: Outcome, ttl: Duration) -> Outcome {
        let Some(group) = self.kept_for(&outcome) else { return outcome };
        let question = self.question;
        let asked = Asked {
            event: question.event.into(),
            data: question.data.to_owned(),
            store: match &group {
                Group::Store(store) => Some(store.clone()),
                _ => question.store.clone(),
            },
            fallback: matches!(question.whom, Whom::Socket(_)),
            request_id: question.request_id.into(),
            traceparent: question.traceparent.map(Into::into),
        };
        let registry = &self.courier.registry;
        let call = CallId::queued();
        let (patience, wants) = (question.patience, question.wants);
        let parcel = Parcel { call: call.clone(), group: group.key(), text: asked.encode(), ttl, patience, wants };
        match timeout_at(question.by, registry.queue(&parcel)).await {
            Ok(Ok(Queued::Waits(durability, holders))) => {
                // Somebody may have come meanwhile, or could not be asked a moment ago.
                let _ = timeout_at(question.by + LATE, self.courier.ring_holders(parcel.group, holders)).await;
                Outcome::Queued(call, durability)
            }
            Ok(Ok(Queued::Full)) => Outcome::QueueFull(group),
            // It may be kept, and is not to be asked behind the back of a caller who was told that it is not.
            Ok(Err(_)) | Err(_) => match timeout_at(question.by + LATE, registry.cancel(&call)).await {
                Ok(Ok(Cancelled::Waited | Cancelled::Unknown)) => outcome,
                // Somebody was quicker, and may have been asked.
                Ok(Ok(Cancelled::Given(owner))) => {
                    let _ = timeout_at(question.by + LATE, self.courier.take_from(&owner, &call)).await;
                    Outcome::QueueSilent(call)
                }
                Ok(Ok(Cancelled::Done) | Err(_)) | Err(_) => Outcome::QueueSilent(call),
            },
        }
    }

    /// For whom it is kept after this. A named socket that is not there gives way, or nobody ever takes it.
    fn kept_for(&self, outcome: &Outcome) -> Option<Group> {
        match outcome {
            Outcome::Nobody(group) => Some(group.clone()),
            // It would be the one to keep it.
            Outcome::Absent(Absent::Unknown(Unknown::Unavailable)) => None,
            Outcome::Absent(Absent::Gone(_) | Absent::Unknown(_) | Absent::Draining | Absent::Unsettled) => {
                match &self.question.whom {
                    Whom::Group(group) => Some(group.clone()),
                    Whom::Socket(_) => self.instead_of(outcome),
                }
            }
            _ => None,
        }
    }
}
