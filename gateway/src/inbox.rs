//! What other instances ask of this one. One task takes the letters in the order in which they
//! come; frames are put into outboxes and sockets told to go right there, so that order holds per
//! socket. Whatever has to wait runs as an errand beside it.

use crate::{
    calls::{News, Owed, Place},
    close::Close,
    courier::{Courier, Move, Moved, Receipt, Target},
    feed, letters,
    outbox::Refused,
    probe,
    session::Desk,
    sockets::Socket,
    view,
};
use bytes::Bytes;
use registry::{
    Arrived, CallId, Ending, Envelope, Group, Inbox, Incarnation, Post, RoomName, Seen, Session, SocketId,
    SocketRecord, Superseded,
    envelope::{Answer, Head, Logged, Message, Refusal, To, Word},
};
use serde_json::Value;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tracing::{debug, info};

/// Errands at once. At the bound letters that may need one wait here, so many, then in the inbox and in the mailbox.
/// Words that others wait for need none, and are taken all the same.
const ERRANDS_MAX: usize = 1024;
const HELD_BACK_MAX: usize = 1024;
/// Letters remembered, to notice one that comes twice. The registry sorts those out; one that
/// passes it is a bug, and is still not acted upon.
const READ_MAX: usize = 4096;
/// Members in one answer. More would make a letter that holds up all behind it.
pub const MEMBERS_MAX: usize = 10_000;
/// How often, and how far apart, a socket that is about to take its seat is looked for.
const SEAT_LOOKS: usize = 100;
const SEAT_LOOK: Duration = Duration::from_millis(2);

/// Takes letters until the instance ends.
pub async fn run(desk: Arc<Desk>, mut inbox: Inbox) {
    let mut clerk = Clerk { desk, errands: JoinSet::new(), held_back: VecDeque::new(), read: Seen::new(READ_MAX) };
    loop {
        tokio::select! {
            biased;
            Some(_) = clerk.errands.join_next() => clerk.goes_on(),
            post = inbox.recv(), if clerk.held_back.len() < HELD_BACK_MAX => match post {
                Some(Post::Letter(letter)) => clerk.takes(letter),
                Some(Post::Superseded { id, session, why }) => clerk.part(id, session, why),
                Some(Post::Ended { record, ending }) => clerk.did_not_come_back(&record, &ending),
                Some(Post::Arrived(arrived)) => clerk.rings(arrived),
                None => return,
            },
        }
    }
}

struct Clerk {
    desk: Arc<Desk>,
    errands: JoinSet<()>,
    /// What came while all were busy, in order.
    held_back: VecDeque<Envelope>,
    read: Seen,
}

/// Whom an answer goes to.
struct Asker {
    from: Incarnation,
    re: u64,
}

impl Clerk {
    fn takes(&mut self, letter: Envelope) {
        let needs_nobody = matches!(
            letter.head.message,
            Message::Answer { .. }
                | Message::OfCall { .. }
                | Message::Happened(_)
                | Message::Came(_)
                | Message::Waits(_)
        );
        let is_free = self.held_back.is_empty() && self.errands.len() < ERRANDS_MAX;
        if needs_nobody || is_free { self.read(letter) } else { self.held_back.push_back(letter) }
    }

    /// An errand is done.
    fn goes_on(&mut self) {
        while self.errands.len() < ERRANDS_MAX {
            let Some(letter) = self.held_back.pop_front() else { return };
            self.read(letter);
        }
    }

    fn read(&mut self, letter: Envelope) {
        let Envelope { head: Head { id, from, until, message }, body } = letter;
        self.desk.metrics.letter_received(letters::kind(&message));
        match message {
            Message::Answer { re, answer } => return self.desk.courier.letters.answered(re, answer, body),
            Message::OfCall { call, word } => {
                return self.desk.courier.calls.hear(&call, &Place::There(from), News::of(word, body));
            }
            _ => {}
        }
        if !self.read.is_new((&from, id)) {
            self.desk.metrics.duplicate_write.inc();
            return;
        }
        let registry = &self.desk.courier.registry;
        // One of ours can come back only under the name of an earlier life; whom it is for has been served.
        let refusal = match from == registry.incarnation() {
            true => Some(Refusal::NotMine),
            false => (until < registry.now_ms()).then_some(Refusal::Expired),
        };
        let asker = Asker { from, re: id };
        if let Message::Call { call, to, except, request, keep } = message {
            let owed = keep.map(|keep| Arc::new(Owed { keep: *keep, request: request.clone() }));
            let given =
                refusal.map_or_else(|| self.give(&asker.from, until, &call, (to, except), body, owed.clone()), Err);
            debug!(
                request_id = &*request,
                "call {call} of {}: {}",
                asker.from,
                given.map_or("not given", |()| "given")
            );
            if let Err(refusal) = given {
                self.refuse(asker.from, until, call, refusal, owed);
            }
            return;
        }
        let wants_answer = !matches!(
            message,
            Message::Send { ack: false, .. }
                | Message::Cancel { .. }
                | Message::Happened(_)
                | Message::Came(_)
                | Message::Waits(_)
                | Message::Instead { .. }
        );
        match refusal {
            Some(refusal) if wants_answer => self.answer(asker, Answer::Refused(refusal)),
            Some(_) => {}
            None => self.act(asker, until, message, &body),
        }
    }

    fn act(&mut self, asker: Asker, until: u64, message: Message, body: &Bytes) {
        match message {
            Message::Send { to, except, ack } => {
                let answer = self.write(to, except, body, ack);
                if ack {
                    self.answer(asker, answer);
                }
            }
            Message::Close { to, ending } => self.close(asker, to, ending),
            Message::Room { id, session, room, join } => self.room(asker, id, session, room, join),
            Message::Probe { sockets } => {
                let desk = self.desk.clone();
                self.errands.spawn(async move {
                    let patience = until.saturating_sub(desk.courier.registry.now_ms());
                    let patience = Duration::from_millis(patience).min(probe::PROBE);
                    let sockets = probe::here(&desk.courier, &sockets, patience).await;
                    asker.hears(&desk.courier, Answer::Silent { sockets }, Bytes::new());
                });
            }
            Message::Who { group, after, limit } => {
                let desk = self.desk.clone();
                self.errands.spawn(async move {
                    let list = members(&desk.courier, &group, after.unwrap_or(SocketId::FIRST), limit);
                    asker.hears(&desk.courier, Answer::Members, list);
                });
            }
            Message::Cancel { call } => self.desk.courier.calls.cancelled(&call, Some(&asker.from)),
            Message::Follow { ms } => {
                let told = self.desk.feed.followers.add(asker.from.clone(), ms);
                self.answer(asker, Answer::Followed(told));
            }
            Message::Deliver { to, except, logged } => self.deliver(asker, to, except, &logged, body),
            Message::Instead { call, word } => self.hear_instead(&call, word, body.clone()),
            Message::Drain { request } => self.drain(asker, &request),
            Message::Came(group) => self.desk.courier.waits.ring(group),
            Message::Waits(group) => self.desk.courier.queue.look_at(group),
            Message::Happened(before) => self.desk.feed.following.heard(&asker.from, before, body),
            // Taken care of before.
            Message::Answer { .. } | Message::OfCall { .. } | Message::Call { .. } => {}
        }
    }

    /// A call of another instance goes to the one socket that is meant, or to the one of its group that was
    /// active last.
    fn give(
        &self,
        asker: &Incarnation,
        until: u64,
        call: &CallId,
        (to, except): (To, Option<SocketId>),
        frame: Bytes,
        owed: Option<Arc<Owed>>,
    ) -> Result<(), Refusal> {
        let Courier { sockets, calls, registry, .. } = &self.desk.courier;
        let (id, session, line) = match target(to) {
            Err((id, session)) => (id, session, sockets.line(id, session).ok_or(Refusal::NotMine)?),
            Ok(Target::Group(group)) => {
                let socket = sockets.most_active(group.key(), except, frame.len()).ok_or(Refusal::NotMine)?;
                (socket.id, socket.record().session, socket.line.clone())
            }
            Ok(_) => return Err(Refusal::NotMine),
        };
        let by = Instant::now() + Duration::from_millis(until.saturating_sub(registry.now_ms()));
        calls.give(call, Some(asker), (id, session, &line), frame, by, owed)
    }

    fn refuse(&mut self, asker: Incarnation, until: u64, call: CallId, refusal: Refusal, owed: Option<Arc<Owed>>) {
        let courier = self.desk.courier.clone();
        self.errands.spawn(async move {
            let by = Instant::now() + Duration::from_millis(until.saturating_sub(courier.registry.now_ms()));
            let message = Message::OfCall { call, word: Word::Refused(refusal) };
            let post = courier.calls.post(asker, message, Bytes::new(), by, owed);
            courier.calls.send(post).await;
        });
    }

    /// The one place where a frame of another instance is written.
    fn write(&self, to: To, except: Option<SocketId>, frame: &Bytes, ack: bool) -> Answer {
        let courier = &self.desk.courier;
        let Receipt { matched, delivered, full, .. } = match target(to) {
            Ok(target) => courier.to_many_here(&target, except, frame),
            Err((id, session)) => {
                let Some(line) = courier.sockets.line(id, session) else { return Answer::Refused(Refusal::NotMine) };
                // One that is just coming back is found before it has the seat of its ghost.
                let is_wrong = |seated: &Arc<Socket>| {
                    Arc::ptr_eq(&seated.line, &line) && (seated.id, seated.record().session) != (id, session)
                };
                if courier.sockets.get(id).is_some_and(|seated| is_wrong(&seated)) {
                    self.desk.metrics.wrong_owner_delivery.inc();
                    return Answer::Refused(Refusal::NotMine);
                }
                match line.send(frame.clone()) {
                    Ok(()) => Receipt { matched: 1, delivered: 1, ..Receipt::default() },
                    Err(Refused::Full) => Receipt { matched: 1, full: 1, ..Receipt::default() },
                    Err(Refused::Closing) => return Answer::Refused(Refusal::Closing),
                }
            }
        };
        if !ack {
            self.desk.metrics.room_deliveries.inc_by(delivered as u64);
            self.desk.metrics.room_refusals.inc_by(full as u64);
        }
        Answer::Sent { matched, delivered, full }
    }

    /// The same of what is logged for some of them.
    fn deliver(&self, asker: Asker, to: Option<To>, except: Option<SocketId>, logged: &[Logged], text: &Bytes) {
        // One socket alone is never meant but by its log.
        let target = to.and_then(|to| target(to).ok());
        let (plain, written) = self.desk.courier.deliver_here(target.as_ref(), except, logged, text);
        let Receipt { matched, delivered, full, .. } = plain;
        self.answer(asker, Answer::Delivered { matched, delivered, full, written });
    }

    /// Told at once, so that nothing behind this letter is written to them; counted when their verdicts stand.
    fn close(&mut self, asker: Asker, to: To, ending: Ending) {
        let courier = &self.desk.courier;
        let close = Close::Asked(Box::new(ending));
        let ending = close.ending();
        let told = match target(to) {
            Ok(target) => courier.tell_to_go(&target, &close),
            Err((id, session)) => match courier.sockets.line(id, session).map(|line| line.close(close)) {
                None => return self.answer(asker, Answer::Refused(Refusal::NotMine)),
                Some(false) => return self.answer(asker, Answer::Refused(Refusal::Closing)),
                Some(true) => vec![(id, session)],
            },
        };
        let desk = self.desk.clone();
        self.errands.spawn(async move {
            desk.courier.write_verdicts(&told, &ending).await;
            asker.hears(&desk.courier, Answer::Closed { count: told.len() }, Bytes::new());
        });
    }

    fn drain(&mut self, asker: Asker, request: &str) {
        info!(request_id = request, "asked to drain by {}", asker.from);
        let (desk, telling) = (self.desk.clone(), self.desk.stop.telling.token());
        let (sockets, ms) = desk.stop.begin(desk.courier.sockets.len());
        self.errands.spawn(async move {
            let message = Message::Answer { re: asker.re, answer: Answer::Draining { sockets, ms } };
            desk.courier.letters.tell(&asker.from, message, Bytes::new()).await;
            // Only now it may end, which it does at once where nobody is connected.
            drop(telling);
        });
    }

    fn room(&mut self, asker: Asker, id: SocketId, session: Session, room: RoomName, join: bool) {
        let desk = self.desk.clone();
        self.errands.spawn(async move {
            let way = if join { Move::In } else { Move::Out };
            let answer = match seated(&desk.courier, id, session).await {
                Err(refusal) => Answer::Refused(refusal),
                Ok(socket) => match desk.courier.move_here(&socket, &room, way, desk.rooms_max).await {
                    Moved::Done => Answer::Moved,
                    Moved::TooManyRooms { max } => Answer::TooManyRooms { max },
                },
            };
            asker.hears(&desk.courier, answer, Bytes::new());
        });
    }

    /// Ends a connection that does not count any more. Whoever made it so has written the verdict.
    fn part(&self, id: SocketId, session: Session, why: Superseded) {
        let close = match why {
            Superseded::ByLater => Close::Replaced,
            Superseded::Ended => Close::TakenForDead,
        };
        if let Some(line) = self.desk.courier.sockets.line(id, session) {
            line.close(close);
        }
    }

    /// What a socket said elsewhere that was given the call here.
    fn hear_instead(&mut self, call: &CallId, word: Word, data: Bytes) {
        let calls = &self.desk.courier.calls;
        let Some(post) = calls.hear_instead(call, word, data) else { return };
        if let Some(post) = calls.send_beside(post) {
            let calls = calls.clone();
            self.errands.spawn(async move { calls.send(post).await });
        }
    }

    /// A socket that was away has ended.
    fn did_not_come_back(&self, record: &SocketRecord, ending: &Ending) {
        info!(socket_id = %record.id, cause = ending.cause.as_str(), "WebSocket ended while it was away: {}", ending.reason);
        self.desk.feed.tell("disconnected", || feed::ended(record, ending));
    }

    /// Somebody came here whom calls wait for. They hear of it when there is somebody to ask.
    fn rings(&mut self, arrived: Arrived) {
        let courier = self.desk.courier.clone();
        if arrived.queued {
            // Of those nobody looks by itself, so it is done also where this bell is lost.
            courier.queue.look_soon(arrived.group);
        }
        if self.errands.len() >= ERRANDS_MAX {
            // Who waits looks by itself as well.
            return;
        }
        self.errands.spawn(async move {
            if courier.seated(arrived.group).await {
                courier.ring(arrived).await;
            }
        });
    }

    fn answer(&self, asker: Asker, answer: Answer) {
        asker.hears(&self.desk.courier, answer, Bytes::new());
    }
}

impl Asker {
    fn hears(self, courier: &Courier, answer: Answer, body: Bytes) {
        courier.letters.answer(&self.from, self.re, answer, body);
    }
}

/// A group of sockets, or the one connection that is meant.
fn target(to: To) -> Result<Target, (SocketId, Session)> {
    match to {
        To::Socket { id, session } => Err((id, session)),
        To::Group(group) => Ok(Target::Group(group)),
        To::AnyOf(groups) => Ok(Target::AnyOf(groups)),
        To::All => Ok(Target::All),
    }
}

/// The socket in its seat. One that is expected has its row already, and takes its seat in a moment.
async fn seated(courier: &Courier, id: SocketId, session: Session) -> Result<Arc<Socket>, Refusal> {
    for _ in 0..SEAT_LOOKS {
        let Some(line) = courier.sockets.line(id, session) else { return Err(Refusal::NotMine) };
        if !line.is_open() {
            return Err(Refusal::Closing);
        }
        match courier.sockets.get(id).filter(|socket| socket.record().session == session) {
            Some(socket) => return Ok(socket),
            None => sleep(SEAT_LOOK).await,
        }
    }
    Err(Refusal::NotMine)
}

/// The members of a group here, as JSON.
fn members(courier: &Courier, group: &Group, after: SocketId, limit: usize) -> Bytes {
    let members = courier.sockets.members(group.key());
    let members = members.iter().filter(|socket| socket.id > after).take(limit.min(MEMBERS_MAX));
    let list: Vec<Value> = members.map(|socket| view::of_socket(socket)).collect();
    Value::from(list).to_string().into()
}

#[cfg(test)]
mod tests;
