//! Waiting for somebody to ask: whose call found nobody goes on looking until its time is over. It is the same call all
//! the while, and nothing of it was written yet, or it would not be here.

use super::{Absent, Courier, Outcome, Whom, call::Way};
use crate::{
    calls::{News, Waiter, told::Delivered},
    sockets::Socket,
};
use bytes::Bytes;
use futures_util::future::join_all;
use registry::{Arrived, Group, GroupKey, SocketId, Verdict, envelope::Message};
use std::{fmt, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

/// How often one who waits looks by itself, more or less: whoever should have rung may have died, or found no way.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Whoever was let in takes its seat within this, and is looked for so often.
const SEATED_WITHIN: Duration = Duration::from_secs(2);
const SEAT_LOOK: Duration = Duration::from_millis(5);
/// What telling the registry of a newcomer may take, since that waits for it. Whoever was not told looks later.
const TOLD_WITHIN: Duration = Duration::from_millis(500);

/// Whom a call waits for.
#[derive(Debug, Clone)]
pub enum Awaited {
    /// Any socket of it.
    Group(Group),
    /// This one.
    Socket(SocketId),
}

impl Awaited {
    pub fn key(&self) -> GroupKey {
        match self {
            Self::Group(group) => group.key(),
            Self::Socket(id) => GroupKey::of_socket(*id),
        }
    }
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(group) => write!(f, "a socket of {} {}", group.kind(), group.name()),
            Self::Socket(id) => write!(f, "{id}"),
        }
    }
}

impl Courier {
    /// A socket took its seat here, or changed what it is found by: calls may wait for it, here or elsewhere. Others
    /// hear of the first of a group by its registration; of one behind members that cannot answer, and of a socket that
    /// was there before, they hear by this.
    pub async fn came(&self, socket: &Arc<Socket>) {
        if !socket.line.can_answer() {
            return;
        }
        let record = socket.record();
        if !self.waits.is_empty() {
            record.awaited_by().for_each(|key| self.waits.ring(key));
        }
        let hidden = record.called_by().filter(|key| self.sockets.is_first_to_answer(*key, socket.id));
        let itself = (record.attempt.n > 1).then(|| GroupKey::of_socket(socket.id));
        for key in hidden.chain(itself) {
            let told = timeout(TOLD_WITHIN, self.tell_who_waits(key)).await;
            if told.is_err() || told == Ok(false) {
                // Calls may be queued for it, and of those nobody looks by itself.
                self.queue.look_soon(key);
            }
        }
    }

    /// False if the registry does not say who they are.
    async fn tell_who_waits(&self, key: GroupKey) -> bool {
        match self.registry.came(key).await {
            Ok(Some(arrived)) => self.ring(arrived).await,
            Ok(None) => {}
            Err(_) => return false,
        }
        true
    }

    /// Tells those whose calls have waited for the group that somebody of it is here who can be asked.
    pub async fn ring(&self, Arrived { group, by, queued }: Arrived) {
        if queued {
            self.queue.look_at(group);
        }
        let own = self.registry.incarnation();
        let tellings = by.iter().map(async |waiter| match *waiter == own {
            true => self.waits.ring(group),
            // A bell that is not heard is made up for by their next look.
            false => drop(self.letters.tell(waiter, Message::Came(group), Bytes::new()).await),
        });
        join_all(tellings).await;
    }

    /// Waits until a member of the group here can be asked, which the registry may know before it has its seat.
    pub async fn seated(&self, group: GroupKey) -> bool {
        let until = Instant::now() + SEATED_WITHIN;
        while self.sockets.most_active(group, None, 0).is_none() {
            if Instant::now() >= until {
                return false;
            }
            sleep(SEAT_LOOK).await;
        }
        true
    }
}

impl Way<'_> {
    /// Looks for whom it is for until one is found, or the time is over.
    pub(super) async fn go_on(&mut self, first: Outcome) -> Outcome {
        let (by, mut outcome) = (self.question.by, first);
        let (mut waiter, mut is_new) = (None, true);
        while let Some(awaited) = self.awaited(&outcome) {
            let key = awaited.key();
            if waiter.as_ref().is_none_or(|waiter: &Waiter| waiter.key() != key) {
                let Some(joined) = self.courier.waits.join(key) else { return Outcome::TooManyWait };
                (waiter, is_new) = (Some(joined), true);
            }
            let Some(waiting) = &mut waiter else { return outcome };
            let said = timeout_at(by, self.courier.registry.wait(key)).await;
            // Who came between the look before and this has rung nobody.
            let is_there = is_new && matches!(said, Ok(Ok(true)));
            is_new = false;
            let is_over = tokio::select! {
                biased;
                () = sleep_until(by) => true,
                () = async {}, if is_there => false,
                () = waiting.rung() => false,
                () = sleep(LOOK_EVERY.mul_f64(0.8 + 0.4 * fastrand::f64())) => false,
                // Our own instance ends; nobody else speaks of it, since nobody has it.
                Some(News::CutOff) = self.ears.next(by) => return Outcome::Absent(Absent::Draining),
            };
            if is_over {
                return Outcome::NobodyCame { awaited, last: Box::new(outcome) };
            }
            let next = self.reach().await;
            outcome = match next {
                Outcome::NoReply(Delivered::No) | Outcome::Absent(Absent::OutOfTime) if Instant::now() >= by => {
                    return Outcome::NobodyCame { awaited, last: Box::new(outcome) };
                }
                next => next,
            };
        }
        outcome
    }

    /// For whom it is of use to wait after this: nothing was written, and somebody may come. A socket that is gone for
    /// good never does, unless another may have the call; one that is away may.
    fn awaited(&self, outcome: &Outcome) -> Option<Awaited> {
        match (outcome, &self.question.whom) {
            (Outcome::Nobody(group), _) => Some(Awaited::Group(group.clone())),
            (Outcome::Absent(Absent::Gone(verdict)), Whom::Socket(asked)) => {
                let instead = self.instead_of(outcome).map(Awaited::Group);
                let itself = || SocketId::parse(asked).filter(|_| verdict.is_away()).map(Awaited::Socket);
                instead.or_else(itself)
            }
            (Outcome::Absent(Absent::Unknown(_) | Absent::Draining | Absent::Unsettled), whom) => match whom {
                Whom::Group(group) => Some(Awaited::Group(group.clone())),
                Whom::Socket(asked) => {
                    let instead = self.instead_of(outcome).map(Awaited::Group);
                    instead.or_else(|| SocketId::parse(asked).map(Awaited::Socket))
                }
            },
            _ => None,
        }
    }
}

/// Why nobody was found the last time, for people.
pub fn why(last: &Outcome) -> String {
    match last {
        Outcome::Nobody(group) => format!("no socket of {} {} is connected", group.kind(), group.name()),
        Outcome::Absent(Absent::Gone(verdict)) => verdict.sentence(),
        Outcome::Absent(Absent::Unknown(unknown)) => unknown.to_string(),
        Outcome::Absent(Absent::Draining) => "its instance is about to end".into(),
        _ => "it was on its way in or out".into(),
    }
}

/// What is known of the named socket.
pub fn verdict(last: &Outcome) -> Option<&Verdict> {
    match last {
        Outcome::Absent(Absent::Gone(verdict)) => Some(verdict),
        _ => None,
    }
}
