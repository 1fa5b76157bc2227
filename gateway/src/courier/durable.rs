//! Deliveries that outlive connections: logged first, then told to whoever holds the socket. So a delivery that was
//! accepted is in the log, whatever becomes of the telling.

use super::{Absent, Courier, Receipt, Target};
use crate::{
    durable::Offered,
    frame,
    letters::{Undelivered, Unheard},
};
use bytes::Bytes;
use futures_util::future::join_all;
use registry::{
    Appended, Delivery, Durability, Group, Incarnation, Left, Lookup, SocketId, Unknown,
    envelope::{Answer, Logged, Message, Refusal, To},
    log::counts,
};
use std::collections::BTreeMap;
use tokio::time::Instant;

/// Sockets of a group for which one delivery is logged at most.
pub const KEPT_MAX: usize = 1000;
/// A group that is found empty and not empty in turn is on its way from one to the other; it is asked so often.
const LOOKS: usize = 3;
/// Sockets that are looked for at once.
const LOOKED_AT_ONCE: usize = 64;

/// Why nothing was logged or written.
#[derive(Debug)]
pub enum Unkept {
    Absent(Absent),
    /// There is no room until clients acknowledge something.
    Full,
    /// The group has more sockets that may come back than one delivery is logged for.
    TooMany,
    /// Nobody may say whom it is for.
    Blind(Unknown),
    /// The registry did not answer: it may have been logged.
    Perhaps,
}

impl Courier {
    /// To one named socket, now or when it is back. One that cannot come back gets it now or never.
    pub async fn to_socket_durably(&self, asked: &str, delivery: &Delivery, by: Instant) -> Result<Receipt, Unkept> {
        let plainly = async || {
            let sent = self.to_socket(asked, frame::unnumbered(&delivery.text), by).await;
            sent.map_err(Unkept::Absent)
        };
        // What is no id of ours has no log; the search says what it is.
        let Some(id) = SocketId::parse(asked) else { return plainly().await };
        match self.registry.append(id, delivery).await {
            Appended::Logged { seq, prev, owner, session, away, durability } => {
                let mut receipt = Receipt { matched: 1, kept: 1, durability: Some(durability), ..Receipt::default() };
                if !away {
                    let told = BTreeMap::from([(owner, vec![Logged { id, session, seq, prev }])]);
                    self.tell_logged(&mut receipt, None, None, told, &delivery.text, by).await;
                }
                Ok(receipt)
            }
            Appended::Plain { .. } => plainly().await,
            Appended::Full => Err(Unkept::Full),
            Appended::Gone(verdict) => Err(Unkept::Absent(Absent::Gone(verdict))),
            Appended::Unknown(unknown) => Err(Unkept::Absent(Absent::Unknown(unknown))),
            Appended::Perhaps => Err(Unkept::Perhaps),
        }
    }

    /// To everybody of a group: those that may come back, live or away, and those that are there. If there is nobody
    /// at all it waits for the first that comes.
    pub async fn to_group_durably(
        &self,
        group: &Group,
        except: Option<SocketId>,
        delivery: &Delivery,
        by: Instant,
    ) -> Result<Receipt, Unkept> {
        let key = group.key();
        for _ in 0..LOOKS {
            let mut kept = self.registry.kept(key, KEPT_MAX + 1).await.map_err(Unkept::Blind)?;
            if kept.len() > KEPT_MAX && self.forget_the_gone(group, &kept).await == 0 {
                return Err(Unkept::TooMany);
            } else if kept.len() > KEPT_MAX {
                continue;
            }
            kept.retain(|id| Some(*id) != except);
            let (mut receipt, told) = self.log_for(group, &kept, delivery).await?;
            self.tell_logged(&mut receipt, Some(group), except, told, &delivery.text, by).await;
            let is_settled = receipt.matched > 0 || receipt.unknown > 0 || receipt.blind.is_some();
            if is_settled || except.is_some() {
                let is_full = receipt.full > 0 && receipt.kept + receipt.delivered + receipt.unknown == 0;
                return if is_full && receipt.blind.is_none() { Err(Unkept::Full) } else { Ok(receipt) };
            }
            match self.registry.leave(key, delivery).await {
                Left::Left(durability) => {
                    return Ok(Receipt { kept: 1, durability: Some(durability), ..receipt });
                }
                Left::Somebody => {}
                Left::Full => return Err(Unkept::Full),
                Left::Unknown(unknown) => return Err(Unkept::Blind(unknown)),
                Left::Perhaps => return Err(Unkept::Perhaps),
            }
        }
        Err(Unkept::Absent(Absent::Unsettled))
    }

    /// Takes those off a group's list that have ended, and were not taken off; says how many these were.
    async fn forget_the_gone(&self, group: &Group, kept: &[SocketId]) -> usize {
        let mut gone = 0;
        for some in kept.chunks(LOOKED_AT_ONCE) {
            let looks = some.iter().map(async |id| {
                let over = match self.registry.whereabouts(&id.to_string()).await {
                    Lookup::Gone(verdict) => !verdict.is_away(),
                    Lookup::Live(_) | Lookup::Unknown(_) => false,
                };
                over && self.registry.unkeep(&[group.key()], *id).await.is_ok()
            });
            gone += join_all(looks).await.into_iter().filter(|over| *over).count();
        }
        gone
    }

    /// Into the log of each, and who is to be told of it.
    async fn log_for(
        &self,
        group: &Group,
        kept: &[SocketId],
        delivery: &Delivery,
    ) -> Result<(Receipt, BTreeMap<Incarnation, Vec<Logged>>), Unkept> {
        let (mut receipt, mut told) = (Receipt::default(), BTreeMap::<_, Vec<_>>::new());
        for (id, appended) in kept.iter().zip(self.registry.append_many(kept, delivery).await) {
            match appended {
                Appended::Logged { seq, prev, owner, session, away, durability } => {
                    receipt.matched += 1;
                    receipt.kept += 1;
                    // As sure as the least sure of them.
                    receipt.durability =
                        Some(receipt.durability.map_or(durability, |all: Durability| all.min(durability)));
                    if !away {
                        told.entry(owner).or_default().push(Logged { id: *id, session, seq, prev });
                    }
                }
                Appended::Full => {
                    receipt.matched += 1;
                    receipt.full += 1;
                }
                // It ended meanwhile; whoever meets it takes it off the list.
                Appended::Gone(_) | Appended::Plain { .. } => {
                    let _ = self.registry.unkeep(&[group.key()], *id).await;
                }
                Appended::Unknown(unknown) => receipt.blind = Some(unknown),
                Appended::Perhaps => {
                    receipt.matched += 1;
                    receipt.unknown += 1;
                }
            }
        }
        Ok((receipt, told))
    }

    /// Tells those who hold the sockets, and everybody of the group for whom nothing is logged.
    async fn tell_logged(
        &self,
        receipt: &mut Receipt,
        group: Option<&Group>,
        except: Option<SocketId>,
        mut told: BTreeMap<Incarnation, Vec<Logged>>,
        text: &Bytes,
        by: Instant,
    ) {
        let own = self.registry.incarnation();
        let ours = told.remove(&own).unwrap_or_default();
        let mut plain_there = BTreeMap::new();
        let target = group.cloned().map(Target::Group);
        let (plain, written) = self.deliver_here(target.as_ref(), except, &ours, text);
        receipt.add(&plain, written);
        if let Some(target) = target.as_ref().filter(|_| !self.registry.is_alone()) {
            match self.others(target).await {
                Ok(others) => others.into_iter().for_each(|other| {
                    // As far as is known, those for whom nothing is logged.
                    let logged = told.entry(other.owner.clone()).or_default().len();
                    plain_there.insert(other.owner, other.members.saturating_sub(logged));
                }),
                Err(unknown) => receipt.blind = Some(unknown),
            }
        }
        let letters = told.into_iter().map(async |(owner, logged)| {
            let message = Message::Deliver { to: group.cloned().map(To::Group), except, logged };
            let answer = self.letters.ask(&owner, message, text.clone(), by).await;
            (plain_there.get(&owner).copied().unwrap_or_default(), answer)
        });
        for (plain, answer) in join_all(letters).await {
            match answer {
                Ok((Answer::Delivered { matched, delivered, full, written }, _)) => {
                    receipt.add(&Receipt { matched, delivered, full, ..Receipt::default() }, written);
                }
                // What is logged is read from there; this is of the rest. Those of the dead ended with them.
                Err(Unheard::NotDelivered(Undelivered::Gone | Undelivered::Refused(Refusal::NotMine))) => {}
                Err(Unheard::NotDelivered(_)) => receipt.matched += plain,
                Ok(_) | Err(Unheard::Silent) => {
                    receipt.matched += plain;
                    receipt.unknown += plain;
                }
            }
        }
    }

    /// To those here for whom nothing is logged, and to those for whom it was; how many of these took it now.
    pub fn deliver_here(
        &self,
        target: Option<&Target>,
        except: Option<SocketId>,
        logged: &[Logged],
        text: &Bytes,
    ) -> (Receipt, usize) {
        let plain = match target {
            Some(target) => self.to_plain_here(target, except, &frame::unnumbered(text)),
            None => Receipt::default(),
        };
        let mut written = 0;
        for Logged { id, session, seq, prev } in logged {
            // One that is just taking its seat reads its log then.
            let Some(socket) = self.sockets.get(*id).filter(|socket| socket.record().session == *session) else {
                continue;
            };
            let Some(cursor) = &socket.cursor else { continue };
            match cursor.offer(*seq, *prev, counts(text), || socket.line.send(frame::numbered(text, *seq))) {
                Offered::Written | Offered::Old => written += 1,
                Offered::FallsBehind => self.upkeep.behind(&socket),
                Offered::Behind => {}
            }
        }
        (plain, written)
    }
}

impl Receipt {
    /// What one instance made of it; what was `written` there was logged, and counted as kept until now.
    fn add(&mut self, plain: &Self, written: usize) {
        self.matched += plain.matched;
        self.delivered += plain.delivered + written;
        self.full += plain.full;
        self.kept = self.kept.saturating_sub(written);
        self.instances += usize::from(plain.matched + written > 0);
    }
}
