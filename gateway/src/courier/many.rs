//! Reaching groups: the members here at once, and one letter to each other instance that holds some.

use super::{Courier, Receipt};
use crate::{
    clock,
    letters::{LATE, Undelivered, Unheard},
    outbox::Refused,
    sockets::{SLICE, Socket},
};
use bytes::Bytes;
use futures_util::future::join_all;
use registry::{
    Group, Holding, Incarnation, Routed, SocketId, Unknown,
    envelope::{Answer, Message, Refusal, To},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::time::{Instant, timeout_at};

/// Whom something is for.
#[derive(Debug, Clone)]
pub enum Target {
    Group(Group),
    /// The members of any of these; who is in several gets it once.
    AnyOf(Vec<Group>),
    All,
}

impl Target {
    /// Whether sockets that may come back are known by it.
    pub fn can_be_kept_for(&self) -> bool {
        matches!(self, Self::Group(Group::User(_) | Group::Store(_)))
    }

    /// The same, in a letter.
    pub(super) fn in_words(&self) -> To {
        match self {
            Self::Group(group) => To::Group(group.clone()),
            Self::AnyOf(groups) => To::AnyOf(groups.clone()),
            Self::All => To::All,
        }
    }
}

/// What the instances said about a group.
#[derive(Debug, Default)]
pub struct Roll {
    /// Lists as JSON, from those that answered.
    pub said: Vec<Bytes>,
    /// Those that did not.
    pub missing: Vec<Incarnation>,
    /// Why it is not known whether others had to be asked.
    pub blind: Option<Unknown>,
}

impl Courier {
    /// One frame to everybody meant but `except`, wherever they are; encoded once, whoever they are.
    pub async fn to_many(&self, target: &Target, except: Option<SocketId>, frame: &Bytes, by: Instant) -> Receipt {
        let mut receipt = self.to_many_here(target, except, frame);
        if self.registry.is_alone() {
            return receipt;
        }
        let message = Message::Send { to: target.in_words(), except, ack: true };
        let answers = match self.ask_others(target, message, frame, by).await {
            Ok(answers) => answers,
            Err(unknown) => return Receipt { blind: Some(unknown), ..receipt },
        };
        for (holding, answer) in answers {
            let before = receipt.matched;
            match answer {
                Ok((Answer::Sent { matched, delivered, full }, _)) => {
                    receipt.matched += matched;
                    receipt.delivered += delivered;
                    receipt.full += full;
                }
                // Its sockets ended with it, or it was an earlier life of ours.
                Err(Unheard::NotDelivered(Undelivered::Refused(Refusal::NotMine))) => {}
                Err(Unheard::NotDelivered(Undelivered::Unsent)) => receipt.blind = Some(Unknown::Unavailable),
                Err(Unheard::NotDelivered(_)) => receipt.matched = receipt.matched.saturating_add(holding.members),
                Ok(_) | Err(Unheard::Silent) => {
                    receipt.matched = receipt.matched.saturating_add(holding.members);
                    receipt.unknown = receipt.unknown.saturating_add(holding.members);
                }
            }
            receipt.instances += usize::from(receipt.matched > before);
        }
        receipt
    }

    /// The same to those who are here.
    pub fn to_many_here(&self, target: &Target, except: Option<SocketId>, frame: &Bytes) -> Receipt {
        self.to_some_here(target, frame, |socket| except != Some(socket.id))
    }

    /// The same to those of them for whom nothing is logged.
    pub(super) fn to_plain_here(&self, target: &Target, except: Option<SocketId>, frame: &Bytes) -> Receipt {
        self.to_some_here(target, frame, |socket| except != Some(socket.id) && socket.cursor.is_none())
    }

    fn to_some_here(&self, target: &Target, frame: &Bytes, is_meant: impl Fn(&Socket) -> bool) -> Receipt {
        let mut receipt = Receipt::default();
        let now = clock::now_ms();
        self.each(target, |socket| {
            if !is_meant(socket) {
                return;
            }
            match socket.line.send_at(frame.clone(), now) {
                Ok(()) => receipt.delivered += 1,
                Err(Refused::Full) => receipt.full += 1,
                Err(Refused::Closing) => return,
            }
            receipt.matched += 1;
        });
        receipt.instances = usize::from(receipt.matched > 0);
        receipt
    }

    /// The same to those who are elsewhere, without waiting for an answer. What one caller sends
    /// after this has returned comes after it. Returns how many instances could not be told.
    pub async fn tell_others(&self, target: &Target, except: Option<SocketId>, frame: &Bytes) -> usize {
        // Whom to tell is not known, but there is somebody: one is what can be said.
        let Ok(others) = self.others(target).await else { return 1 };
        let tell = |holding: Holding| async move {
            let message = Message::Send { to: target.in_words(), except, ack: false };
            self.letters.tell(&holding.owner, message, frame.clone()).await
        };
        let told = join_all(others.into_iter().map(tell)).await;
        told.into_iter().filter(|routed| !matches!(routed, Routed::Taken | Routed::Gone)).count()
    }

    /// Asks the other instances who of a group is there: up to `limit` each, with ids after `after`.
    pub async fn who(&self, group: &Group, after: SocketId, limit: usize, by: Instant) -> Roll {
        let mut roll = Roll::default();
        if self.registry.is_alone() {
            return roll;
        }
        let after = Some(after).filter(|after| *after != SocketId::FIRST);
        let message = Message::Who { group: group.clone(), after, limit };
        match self.ask_others(&Target::Group(group.clone()), message, &Bytes::new(), by).await {
            Err(unknown) => roll.blind = Some(unknown),
            Ok(answers) => {
                for (holding, answer) in answers {
                    match answer {
                        Ok((Answer::Members, list)) => roll.said.push(list),
                        Err(Unheard::NotDelivered(Undelivered::Unsent)) => roll.blind = Some(Unknown::Unavailable),
                        Ok(_) | Err(_) => roll.missing.push(holding.owner),
                    }
                }
            }
        }
        roll
    }

    /// One letter to each other instance that holds members, all at once.
    pub(super) async fn ask_others(
        &self,
        target: &Target,
        message: Message,
        body: &Bytes,
        by: Instant,
    ) -> Result<Vec<(Holding, Result<(Answer, Bytes), Unheard>)>, Unknown> {
        let others = timeout_at(by + LATE, self.others(target)).await.unwrap_or(Err(Unknown::Unavailable))?;
        let message = &message;
        let ask = |holding: Holding| async move {
            let answer = self.letters.ask(&holding.owner, message.clone(), body.clone(), by).await;
            if let (Target::Group(group), Err(Unheard::NotDelivered(Undelivered::Gone))) = (target, &answer) {
                let _ = timeout_at(by + LATE, self.registry.leave_if_dead(group.key(), &holding.owner)).await;
            }
            (holding, answer)
        };
        Ok(join_all(others.into_iter().map(ask)).await)
    }

    /// The other instances that hold members. An earlier life of this one may be among them; its
    /// lease is gone, so that no letter reaches us by that name.
    pub(super) async fn others(&self, target: &Target) -> Result<Vec<Holding>, Unknown> {
        let mut others = match target {
            Target::Group(group) => self.registry.holders(group.key()).await?,
            Target::AnyOf(groups) => {
                // Who is in several groups is counted in each, so the largest is what is certain.
                let mut most = BTreeMap::<Incarnation, usize>::new();
                for holders in join_all(groups.iter().map(|group| self.registry.holders(group.key()))).await {
                    for Holding { owner, members, .. } in holders? {
                        let known = most.entry(owner).or_default();
                        *known = members.max(*known);
                    }
                }
                most.into_iter().map(|(owner, members)| Holding { owner, members, active_at: 0 }).collect()
            }
            Target::All => {
                let leases = self.registry.instances().await?;
                leases
                    .into_iter()
                    .map(|lease| Holding { owner: lease.incarnation, members: lease.sockets, active_at: 0 })
                    .collect()
            }
        };
        let own = self.registry.incarnation();
        others.retain(|holding| holding.owner != own);
        Ok(others)
    }

    /// Visits those who are meant and are here.
    pub(super) fn each(&self, target: &Target, mut act: impl FnMut(&Arc<Socket>)) {
        match target {
            Target::Group(group) => self.sockets.each_member(group.key(), |socket| act(socket)),
            Target::AnyOf(groups) => {
                let mut members = BTreeMap::new();
                for group in groups {
                    self.sockets.each_member(group.key(), |socket| drop(members.insert(socket.id, socket.clone())));
                }
                members.values().for_each(act);
            }
            Target::All => {
                let mut after = SocketId::FIRST;
                loop {
                    let slice = self.sockets.walk(after, SLICE);
                    let Some(last) = slice.last() else { break };
                    after = last.id;
                    slice.iter().for_each(&mut act);
                }
            }
        }
    }
}
