//! One call: to whom it goes, and what comes of it. It is written to one socket at most; it goes on to another
//! only when it is certain that nothing was written.

use super::{Absent, Awaited, Courier, Found};
use crate::{
    calls::{
        Ears, News, Place,
        told::{self, Answered, Delivered},
    },
    clock, frame,
    letters::{LATE, Undelivered},
    sockets::Socket,
};
use bytes::Bytes;
use registry::{
    CallId, Durability, Gone, Group, Holder, Holding, Incarnation, SocketId, StoreName, Ticket, Unknown, UserName,
    Verdict,
    envelope::{Keep, Message, Refusal, To},
};
use serde_json::value::RawValue;
use std::{cmp::Reverse, sync::Arc, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};

/// Places tried for one call to a group in one round, and rounds.
const TRIES_MAX: usize = 5;
const ROUNDS_MAX: u32 = 5;
/// Before another round, since somebody was about to close; longer at each.
const AGAIN: Duration = Duration::from_millis(10);

/// Whom a call is for.
#[derive(Debug, Clone)]
pub enum Whom {
    Socket(String),
    /// Its most recently active socket.
    Group(Group),
}

/// Who else may have it, when the named socket is not reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fallback {
    #[default]
    None,
    Store,
    User,
}

/// What is done where nobody is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenOffline {
    /// The caller is told so at once.
    #[default]
    Fail,
    /// It is waited for, as long as the caller waits.
    Wait,
    /// The call is kept for whoever comes, so long, and nobody waits for what comes of it.
    Queue(Duration),
}

/// How the client is told of it.
#[derive(Debug)]
pub enum Wording {
    Call,
    /// As a message that may be answered, with who wrote it where that is somebody else than it seems.
    Message {
        sender: Option<Box<RawValue>>,
    },
}

/// What is asked.
pub struct Question<'a> {
    pub whom: Whom,
    pub event: &'a str,
    pub data: &'a RawValue,
    /// The store it is about; without it the one that the socket has.
    pub store: Option<StoreName>,
    pub fallback: Fallback,
    pub when_offline: WhenOffline,
    /// How long whoever has it may think.
    pub patience: Duration,
    /// What is waited for where it is kept.
    pub wants: Durability,
    pub by: Instant,
    pub request_id: &'a str,
    pub traceparent: Option<&'a str>,
    pub wording: &'a Wording,
    /// What came of it is kept for whoever asks again, and may be said with this.
    pub ticket: Option<&'a Ticket>,
    /// Where progress goes, if somebody listens.
    pub progress: Option<mpsc::Sender<Step>>,
}

/// What happens before the end.
#[derive(Debug)]
pub enum Step {
    Accepted { socket: SocketId, instance: String },
    Progress(Bytes),
}

/// What came of a call.
#[derive(Debug)]
pub enum Outcome {
    Replied(Answered),
    /// The client said that it could not.
    Failed(Answered),
    /// No queue had room; nothing was written.
    Busy,
    Absent(Absent),
    /// There is no socket in this group.
    Nobody(Group),
    /// It was waited for as long as the caller waits. Nothing was written.
    NobodyCame {
        awaited: Awaited,
        last: Box<Outcome>,
    },
    /// As many calls wait here as may.
    TooManyWait,
    /// It is kept, under this name.
    Queued(CallId, Durability),
    /// As many calls are kept for this group as may.
    QueueFull(Group),
    /// The registry did not say whether it keeps the call.
    QueueSilent(CallId),
    OwnerLost {
        owner: Incarnation,
        delivered: Delivered,
    },
    /// Its socket ended with the call in its hands, or on the way to them.
    SocketLost(Verdict, Delivered),
    /// We end, or go on under another name: what its client says is not heard here any more.
    AskerEnded(Delivered),
    NoReply(Delivered),
}

/// Where a call came to rest, or why it did not.
enum Placed {
    Over(Outcome),
    /// Nothing was written there, or will be.
    Missed(Refusal),
    /// There was nobody to write to.
    Unreached(Undelivered),
}

impl Courier {
    /// Asks, and waits for what comes of it.
    pub async fn call(&self, question: &Question<'_>, ears: &mut Ears) -> Outcome {
        let mut way =
            Way { courier: self, question, ears, began: Instant::now(), lookup: None, named: None, is_fallback: false };
        let outcome = way.reach().await;
        match question.when_offline {
            WhenOffline::Fail => outcome,
            WhenOffline::Wait => way.go_on(outcome).await,
            WhenOffline::Queue(ttl) => way.leave(outcome, ttl).await,
        }
    }
}

/// One call on its way.
pub(super) struct Way<'a> {
    pub(super) courier: &'a Courier,
    pub(super) question: &'a Question<'a>,
    pub(super) ears: &'a mut Ears,
    began: Instant,
    lookup: Option<Duration>,
    /// What is known of the named socket, if it was there.
    named: Option<Holder>,
    pub(super) is_fallback: bool,
}

impl<'a> Way<'a> {
    /// One search for whom it is for.
    pub(super) async fn reach(&mut self) -> Outcome {
        self.is_fallback = false;
        let question: &'a Question<'a> = self.question;
        match &question.whom {
            Whom::Group(group) => self.reach_group(group, None).await,
            Whom::Socket(asked) => {
                let outcome = self.reach_socket(asked).await;
                self.fall_back(asked, outcome).await
            }
        }
    }

    async fn reach_socket(&mut self, asked: &str) -> Outcome {
        let mut search = self.courier.search(asked, self.question.by);
        loop {
            let found = match search.next().await {
                Ok(found) => found,
                Err(absent) => return Outcome::Absent(absent),
            };
            self.named = Some(match &found {
                Found::Here(socket) => Holder::of(&socket.record()),
                Found::There(holder) => holder.clone(),
            });
            match found {
                Found::Here(socket) => match self.give(&socket).await {
                    Placed::Over(outcome) => return outcome,
                    Placed::Missed(Refusal::Slow) => return Outcome::Busy,
                    Placed::Missed(Refusal::Draining) => return Outcome::Absent(Absent::Draining),
                    Placed::Missed(Refusal::Expired) => return Outcome::NoReply(Delivered::No),
                    Placed::Missed(_) | Placed::Unreached(_) => search.missed_here(),
                },
                Found::There(record) => {
                    let to = To::Socket { id: record.id, session: record.session };
                    let store = self.question.store.clone().or_else(|| record.store.clone());
                    match self.send(&record.owner, to, None, store.as_ref()).await {
                        Placed::Over(outcome) => return outcome,
                        Placed::Missed(Refusal::Slow) => return Outcome::Busy,
                        Placed::Missed(Refusal::Draining) => return Outcome::Absent(Absent::Draining),
                        Placed::Missed(refusal) => search.missed(&record, Undelivered::Refused(refusal)),
                        Placed::Unreached(why) => search.missed(&record, why),
                    }
                }
            }
        }
    }

    /// Only where it is certain that the named socket did not get it.
    async fn fall_back(&mut self, asked: &str, outcome: Outcome) -> Outcome {
        let certain = match &outcome {
            Outcome::Busy => true,
            Outcome::Absent(absent) => !matches!(absent, Absent::Silent(_) | Absent::OutOfTime),
            _ => false,
        };
        let Some(group) = self.instead_of(&outcome).filter(|_| certain) else { return outcome };
        self.is_fallback = true;
        match self.reach_group(&group, SocketId::parse(asked)).await {
            // What is true of the named one says more.
            Outcome::Nobody(_) => outcome,
            instead => instead,
        }
    }

    /// Who else may have it.
    pub(super) fn instead_of(&self, outcome: &Outcome) -> Option<Group> {
        match self.question.fallback {
            Fallback::None => None,
            Fallback::Store => self.store(outcome).map(Group::Store),
            Fallback::User => self.user(outcome).map(Group::User),
        }
    }

    /// The store of the question, or the one that the socket has or had.
    fn store(&self, outcome: &Outcome) -> Option<StoreName> {
        let had = match outcome {
            Outcome::Absent(Absent::Gone(Verdict { gone: Gone::Closed { store, .. }, .. })) => store.clone(),
            _ => self.named.as_ref().and_then(|named| named.store.clone()),
        };
        self.question.store.clone().or(had)
    }

    fn user(&self, outcome: &Outcome) -> Option<UserName> {
        match outcome {
            Outcome::Absent(Absent::Gone(Verdict { gone: Gone::Closed { user, .. }, .. })) => user.clone(),
            _ => self.named.as_ref().and_then(|named| named.user.clone()),
        }
    }

    /// To the most recently active socket of a group, wherever it is.
    async fn reach_group(&mut self, group: &Group, except: Option<SocketId>) -> Outcome {
        for nth in 1..=ROUNDS_MAX {
            if let Some(outcome) = self.try_group(group, except).await {
                return outcome;
            }
            sleep(AGAIN * nth).await;
        }
        Outcome::Absent(Absent::Unsettled)
    }

    /// One round over those who may have it. `None` if somebody may be left: one was about to close, and hid
    /// the others of its instance, or there were too many.
    async fn try_group(&mut self, group: &Group, except: Option<SocketId>) -> Option<Outcome> {
        let (mut busy, mut draining, mut unreached) = (false, false, None);
        let candidates = match self.candidates(group, except).await {
            Ok(candidates) => candidates,
            Err(unknown) => return Some(Outcome::Absent(Absent::Unknown(unknown))),
        };
        let mut is_any_left = candidates.len() > TRIES_MAX;
        for candidate in candidates.into_iter().take(TRIES_MAX) {
            let (placed, owner) = match candidate {
                Candidate::Here(socket) => (self.give(&socket).await, None),
                Candidate::There(owner) => {
                    let store = match group {
                        Group::Store(store) => Some(store.clone()),
                        _ => self.question.store.clone(),
                    };
                    (self.send(&owner, To::Group(group.clone()), except, store.as_ref()).await, Some(owner))
                }
            };
            match (placed, owner) {
                (Placed::Over(outcome), _) => return Some(outcome),
                (Placed::Missed(Refusal::Slow), _) => busy = true,
                (Placed::Missed(Refusal::Closing), _) => is_any_left = true,
                (Placed::Missed(Refusal::Draining), _) => draining = true,
                // By its clock, which may be ahead of ours.
                (Placed::Missed(Refusal::Expired), _) => return Some(Outcome::NoReply(Delivered::No)),
                (Placed::Missed(Refusal::NotMine), _) | (Placed::Unreached(_), None) => {}
                (Placed::Unreached(Undelivered::Gone), Some(owner)) if self.is_dead(group, &owner).await => {}
                (Placed::Unreached(Undelivered::Unsent), _) => unreached = Some(Unknown::Unavailable),
                (Placed::Unreached(_), Some(owner)) => unreached = Some(Unknown::OwnerUnreachable(owner)),
            }
            if Instant::now() >= self.question.by {
                return Some(Outcome::NoReply(Delivered::No));
            }
        }
        match unreached {
            _ if is_any_left => None,
            _ if busy => Some(Outcome::Busy),
            Some(unknown) => Some(Outcome::Absent(Absent::Unknown(unknown))),
            None if draining => Some(Outcome::Absent(Absent::Draining)),
            None => Some(Outcome::Nobody(group.clone())),
        }
    }

    /// Whether an owner is gone for good, and its sockets with it.
    async fn is_dead(&self, group: &Group, owner: &Incarnation) -> bool {
        let looks = self.courier.registry.leave_if_dead(group.key(), owner);
        timeout_at(self.question.by + LATE, looks).await.unwrap_or(false)
    }

    /// Who may have it, the most recently active first.
    async fn candidates(&mut self, group: &Group, except: Option<SocketId>) -> Result<Vec<Candidate>, Unknown> {
        let courier = self.courier;
        let (now, now_ms) = (clock::now_ms(), courier.registry.now_ms());
        let bytes = self.frame(self.question.store.as_ref()).len();
        let here = courier.sockets.most_active(group.key(), except, bytes);
        let mut candidates: Vec<_> = here
            .into_iter()
            .map(|socket| (now_ms.saturating_sub(u64::from(socket.line.quiet_ms(now))), Candidate::Here(socket)))
            .collect();
        if !courier.registry.is_alone() {
            let holders = timeout_at(self.question.by + LATE, courier.registry.holders(group.key())).await;
            let own = courier.registry.incarnation();
            match holders.unwrap_or(Err(Unknown::Unavailable)) {
                Ok(holders) => candidates.extend(
                    holders
                        .into_iter()
                        .filter(|holding| holding.owner != own)
                        .map(|Holding { owner, active_at, .. }| (active_at, Candidate::There(owner))),
                ),
                // Those who are here can be asked all the same.
                Err(_) if !candidates.is_empty() => {}
                Err(unknown) => return Err(unknown),
            }
        }
        candidates.sort_by_key(|(active_at, _)| Reverse(*active_at));
        Ok(candidates.into_iter().map(|(_, candidate)| candidate).collect())
    }

    /// Gives it to a socket here.
    async fn give(&mut self, socket: &Arc<Socket>) -> Placed {
        if self.courier.calls.are_cut_off() {
            return Placed::Missed(Refusal::Draining);
        }
        if Instant::now() >= self.question.by {
            return Placed::Missed(Refusal::Expired);
        }
        let record = socket.record();
        let store = self.question.store.as_ref().or(record.store.as_ref());
        let frame = self.frame(store);
        self.sent();
        self.ears.point_to(Place::Here, Some(record.id));
        let calls = &self.courier.calls;
        let given =
            calls.give(&self.ears.id, None, (record.id, record.session, &socket.line), frame, self.question.by, None);
        if let Err(refusal) = given {
            self.ears.point_nowhere();
            return Placed::Missed(refusal);
        }
        let owner = self.courier.registry.incarnation();
        self.wait(&owner, Delivered::Unknown).await
    }

    /// Sends it to another instance.
    async fn send(
        &mut self,
        owner: &Incarnation,
        to: To,
        except: Option<SocketId>,
        store: Option<&StoreName>,
    ) -> Placed {
        if self.courier.calls.are_cut_off() {
            return Placed::Missed(Refusal::Draining);
        }
        let keep = self.question.ticket.map(|ticket| {
            let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let began = self.courier.registry.now_ms().saturating_sub(elapsed);
            Box::new(Keep { ticket: ticket.clone(), began, fallback: self.is_fallback })
        });
        let request = self.question.request_id.into();
        let socket = if let To::Socket { id, .. } = &to { Some(*id) } else { None };
        let message = Message::Call { call: self.ears.id.clone(), to, except, request, keep };
        let life = self.question.by.saturating_duration_since(Instant::now());
        if life.is_zero() {
            return Placed::Missed(Refusal::Expired);
        }
        let letter = self.courier.letters.compose(message, self.frame(store), life);
        self.sent();
        let place = Place::There(owner.clone());
        self.ears.point_to(place.clone(), socket);
        let (calls, id) = (self.courier.calls.clone(), self.ears.id.clone());
        self.courier.registry.post(owner, &letter, move |routed| {
            if let Some(why) = Undelivered::of(routed) {
                calls.hear(&id, &place, News::Undelivered(why));
            }
        });
        self.wait(owner, Delivered::Unknown).await
    }

    /// Waits for the end, and passes on what comes before it.
    async fn wait(&mut self, owner: &Incarnation, mut delivered: Delivered) -> Placed {
        let outcome = loop {
            let news = self.ears.next(self.question.by).await;
            if let Some(socket) = news.as_ref().and_then(News::socket).filter(|_| delivered != Delivered::Yes) {
                // Whatever is heard first of it says that somebody has it.
                delivered = Delivered::Yes;
                self.step(Step::Accepted { socket, instance: owner.instance().to_owned() }).await;
            }
            match news {
                None => break Outcome::NoReply(self.at_last(delivered)),
                Some(News::CutOff) => break self.cut_off(owner, self.at_last(delivered)),
                Some(News::Accepted(_)) => {}
                Some(News::Progress(_, data)) => self.step(Step::Progress(data)).await,
                Some(News::Reply(socket, ms, data)) => break Outcome::Replied(self.answered(owner, socket, ms, data)),
                Some(News::Failed(socket, ms, data)) => break Outcome::Failed(self.answered(owner, socket, ms, data)),
                Some(News::Lost(lost)) => {
                    let verdict = told::verdict(owner, *lost, self.courier.registry.now_ms());
                    break Outcome::SocketLost(verdict, delivered);
                }
                Some(News::OwnerLost) => break Outcome::OwnerLost { owner: owner.clone(), delivered },
                Some(News::Refused(refusal)) => return Placed::Missed(refusal),
                Some(News::Undelivered(why)) => return Placed::Unreached(why),
            }
        };
        Placed::Over(outcome)
    }

    /// Whoever holds the socket elsewhere goes on with the call. What is held here ends with us.
    fn cut_off(&self, owner: &Incarnation, delivered: Delivered) -> Outcome {
        match *owner == self.courier.registry.incarnation() {
            true => Outcome::OwnerLost { owner: owner.clone(), delivered },
            false => Outcome::AskerEnded(delivered),
        }
    }

    /// A socket here can be looked at; of one elsewhere we know what was told.
    fn at_last(&self, delivered: Delivered) -> Delivered {
        match delivered {
            Delivered::Unknown if self.courier.calls.is_written(&self.ears.id) => Delivered::Yes,
            known => known,
        }
    }

    fn answered(&self, owner: &Incarnation, socket: SocketId, client_ms: u32, data: Bytes) -> Answered {
        Answered {
            socket,
            instance: owner.instance().to_owned(),
            is_remote: *owner != self.courier.registry.incarnation(),
            is_fallback: self.is_fallback,
            data,
            lookup: self.lookup.unwrap_or_default(),
            client: Duration::from_millis(client_ms.into()),
        }
    }

    /// Somebody may listen, and slowly; the deadline stands all the same.
    async fn step(&self, step: Step) {
        if let Some(progress) = &self.question.progress {
            let _ = timeout_at(self.question.by, progress.send(step)).await;
        }
    }

    fn sent(&mut self) {
        self.lookup.get_or_insert(self.began.elapsed());
    }

    fn frame(&self, store: Option<&StoreName>) -> Bytes {
        if let Wording::Message { sender } = self.question.wording {
            return frame::answerable(self.question.event, self.question.data, &self.ears.id, sender.as_deref());
        }
        let left = self.question.by.saturating_duration_since(Instant::now());
        let deadline = self.courier.registry.now_ms() + u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        frame::call(&frame::Call {
            event: self.question.event,
            id: &self.ears.id,
            store,
            data: self.question.data,
            deadline,
            request_id: self.question.request_id,
            traceparent: self.question.traceparent,
            attempt: None,
        })
    }
}

/// Who may have a call.
enum Candidate {
    Here(Arc<Socket>),
    There(Incarnation),
}
