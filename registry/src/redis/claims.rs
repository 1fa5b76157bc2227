//! What this instance owns, told to Redis: claims, changes and endings. Our own table comes first; a script that
//! fails leaves its partition suspect, and `verify.rs` mends it.

use super::{
    Redis,
    beat::ms,
    link::Fault,
    rows,
    scripts::{REGISTER, UNREGISTER, number, text},
};
use crate::{
    admit::client_tag,
    all::{Registered, Superseded},
    event::Event,
    names::{Group, GroupKey, Incarnation, Session, SocketId},
    owner::{Parting, Ticket, h32, partition},
    record::SocketRecord,
    rules::Left,
    verdict::{Cause, Ending},
};
use redis::cmd;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::time::timeout;
use tracing::error;

/// How long somebody waits for somebody else who is telling the same.
pub(super) const TOLD_BY_ANOTHER: Duration = Duration::from_secs(2);

/// How long it is known in which groups sockets were counted that were taken over: until their former owner is cleaned
/// up after, or has told its numbers.
pub(super) const LEFT: Duration = Duration::from_secs(300);

/// What Redis made of an ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Ended,
    /// Another connection has the socket.
    Elsewhere,
    /// It knew of no such connection.
    Nothing,
}

/// A script on its way. Whatever happens to who waits for it, it is accounted for.
struct OnItsWay<'a> {
    redis: &'a Redis,
    ticket: Ticket,
    answered: bool,
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        self.redis.owner().settle(&self.ticket, self.answered);
    }
}

fn keys_of(record: &SocketRecord) -> Vec<GroupKey> {
    record.groups().map(|group| group.key()).collect()
}

impl Redis {
    pub async fn register(&self, record: &Arc<SocketRecord>) -> Registered {
        let ticket = self.owner().enter(record);
        let (registered, (), ()) =
            tokio::join!(self.claim(record, ticket), self.tell(keys_of(record)), self.last(record));
        if let Registered::Superseded(_) = registered {
            self.tell(keys_of(record)).await;
        }
        registered
    }

    /// What the socket says is read under the lock of our table, so that whoever is held up between a change and
    /// this never undoes a later one. Two may still reach Redis in either order: whoever finds another afterwards
    /// tells that too, and if nobody waits for it any more its partition is suspect.
    pub async fn update(&self, says: impl Fn() -> Arc<SocketRecord>) -> bool {
        loop {
            let (record, before, ticket) = {
                let mut owner = self.owner();
                let record = says();
                let before = owner.get(record.id).cloned();
                let ticket = owner.change(&record);
                (record, before, ticket)
            };
            let Some(ticket) = ticket else { return false };
            let before = before.unwrap_or_else(|| record.clone());
            let touched: BTreeSet<_> = keys_of(&before).into_iter().chain(keys_of(&record)).collect();
            let (registered, (), ()) =
                tokio::join!(self.claim(&record, ticket), self.tell(touched), self.last_elsewhere(&before, &record));
            if let Registered::Superseded(_) = registered {
                return false;
            }
            if Arc::ptr_eq(&record, &says()) {
                return true;
            }
        }
    }

    pub async fn unregister(&self, id: SocketId, session: Session, ending: Ending) -> bool {
        let left = self.owner().leave(id, session, ending);
        let Some((parting, ticket)) = left else {
            // Whoever ended it tells it at this moment: whoever asks next wants to hear of it.
            let _ = timeout(TOLD_BY_ANOTHER, self.told_by_another(id, session)).await;
            return false;
        };
        let record = parting.record.clone();
        let (told, (), ()) =
            tokio::join!(self.part(&parting, ticket), self.tell(keys_of(&record)), self.drop_member(&record));
        // One that Redis knew nothing of may be on its way still, and is told again.
        if matches!(told, Some(Told::Ended | Told::Elsewhere)) {
            self.owner().told(id);
        }
        self.ending_told.notify_waiters();
        told != Some(Told::Elsewhere)
    }

    async fn told_by_another(&self, id: SocketId, session: Session) {
        loop {
            let told = self.ending_told.notified();
            if !self.link.is_up() || !self.owner().is_untold(id, session) {
                return;
            }
            told.await;
        }
    }

    /// Takes a newcomer out again who was not let in: nobody has heard its id, so it leaves no verdict. One that came
    /// back is away again.
    pub(super) async fn withdraw(&self, record: &Arc<SocketRecord>) {
        if self.owner().lose(record.id, record.session) {
            let own = self.own();
            let to = if record.attempt.n > 1 { Left::Dropped } else { Left::Forgotten };
            // Its place too: an answer that was lost may have given it one.
            tokio::join!(
                self.remove(record.id, record.session, &own, to),
                self.tell(keys_of(record)),
                self.drop_member(record)
            );
            if record.attempt.n == 1 {
                self.last_no_more(record).await;
            }
        }
    }

    /// Registers at Redis. The caller has put the socket into our table.
    pub(super) async fn claim(&self, record: &Arc<SocketRecord>, ticket: Ticket) -> Registered {
        let mut way = OnItsWay { redis: self, ticket, answered: false };
        let (own, k) = (self.own(), partition(record.id));
        let keys = &self.keys;
        let said = REGISTER
            .on([keys.row(record.id), keys.owned(k, own.mark()), keys.live(k), keys.ended(k)])
            .arg(record.id.short())
            .arg(record.session.to_string())
            .arg(record.attempt.n)
            .arg(record.attempt.accepted_at)
            .arg(h32(record))
            .arg(ms(LEFT))
            .arg(rows::fields(record, &own))
            .run(&self.link)
            .await;
        let Ok(said) = said else {
            // Soon, since the others do not know of it.
            self.mend_now.notify_one();
            return Registered::Later;
        };
        way.answered = true;
        let bad = text(said.get(1));
        match text(said.first()) {
            "superseded" => {
                self.owner().lose(record.id, record.session);
                Registered::Superseded(if bad == "ended" { Superseded::Ended } else { Superseded::ByLater })
            }
            word => {
                if !bad.is_empty() {
                    error!("{bad} in Redis is of a type that is not ours; it is left alone, remove it by hand");
                }
                drop(way);
                let previous = Incarnation::parse(text(said.get(2))).zip(Session::parse(text(said.get(3))));
                match previous.filter(|_| word == "taken") {
                    None => Registered::Fresh,
                    Some((owner, session)) => {
                        self.remove(record.id, session, &owner, Left::Forgotten).await;
                        Registered::TakenFrom { owner, session }
                    }
                }
            }
        }
    }

    /// Tells an ending; `None` if Redis did not hear it.
    pub(super) async fn part(&self, parting: &Parting, ticket: Ticket) -> Option<Told> {
        let mut way = OnItsWay { redis: self, ticket, answered: false };
        let Parting { record, ending } = parting;
        let (own, to) = (self.own(), Left::of(record.leaves(ending)));
        let event = || Event::disconnected(record, ending, self.now_ms(), self.now_ms());
        let event = (to == Left::Closed && self.outgoing.is_wanted()).then(event);
        let told = self.end(record.id, record.session, &own, to, rows::ending(ending), event).await;
        way.answered = told.is_ok();
        // Where another connection has the socket, all that is kept is its own.
        if matches!(told, Ok(Told::Ended | Told::Nothing)) && to == Left::Closed {
            drop(way);
            self.last_no_more(record).await;
        }
        told.ok()
    }

    /// Takes an entry away that is nobody's any more, and the row if it is of that connection still.
    pub(super) async fn remove(&self, id: SocketId, session: Session, of: &Incarnation, to: Left) -> bool {
        let ticket = self.owner().start(partition(id));
        let mut way = OnItsWay { redis: self, ticket, answered: false };
        // Of one that may come back nobody knows more than that its connection is not there.
        let ending = Ending { cause: Cause::ConnectionLost, code: None, reason: "".into() };
        let told = self.end(id, session, of, to, rows::ending(&ending), None).await;
        way.answered = told.is_ok();
        told.is_ok()
    }

    async fn end(
        &self,
        id: SocketId,
        session: Session,
        of: &Incarnation,
        to: Left,
        how: Vec<String>,
        event: Option<Event>,
    ) -> Result<Told, Fault> {
        let (keys, k) = (&self.keys, partition(id));
        let mut touched = vec![keys.row(id), keys.owned(k, of.mark()), keys.live(k), keys.ended(k)];
        touched.extend(event.as_ref().map(|_| keys.events(k)));
        let said = UNREGISTER
            .on(touched)
            .arg(id.short())
            .arg(session.to_string())
            .arg(to.as_str())
            .arg(self.why_ttl_ms())
            .arg(self.now_ms())
            .arg(how)
            .arg(event.iter().flat_map(|event| self.with_event(event)).collect::<Vec<_>>())
            .run(&self.link)
            .await?;
        if let Some(event) = event.filter(|_| said.len() > 1) {
            self.hand_event_over(k, event, &mut said.iter().skip(1));
        }
        Ok(match number(said.first()) {
            1 => Told::Ended,
            2 => Told::Elsewhere,
            _ => Told::Nothing,
        })
    }

    /// How a socket stands in its user's index.
    pub(super) fn member(record: &SocketRecord, owner: &Incarnation) -> String {
        format!("{}{}{}{}", owner.mark(), record.id.short(), record.session, client_tag(record))
    }

    /// Where a socket stands among others: under a cap all those of its user, else those of its client alone, since
    /// a user may have very many then, and nobody counts them.
    pub(super) fn index(&self, record: &SocketRecord) -> Option<String> {
        let user = Group::User(record.user.clone()?).key();
        match self.is_capped() {
            true => Some(self.keys.user_sockets(user)),
            false => record.client.as_ref().map(|_| self.keys.client_sockets(user, &client_tag(record))),
        }
    }

    pub(super) async fn add_member(&self, record: &SocketRecord) {
        let Some(index) = self.index(record) else { return };
        let holds = || self.owner().holds(record.id, record.session);
        if holds() {
            let mut command = cmd("ZADD");
            command.arg(index).arg(record.attempt.accepted_at).arg(Self::member(record, &self.own()));
            let _ = self.link.ask(&command).await;
            if !holds() {
                // It left meanwhile, and its leaving may have overtaken this.
                self.drop_member(record).await;
            }
            for former in self.former.load().iter() {
                self.leave_user(record, former).await;
            }
        }
    }

    pub(super) async fn drop_member(&self, record: &SocketRecord) {
        if self.index(record).is_some() {
            // One that stays behind is found stale by the next who is counted.
            self.leave_user(record, &self.own()).await;
            for former in self.former.load().iter() {
                self.leave_user(record, former).await;
            }
        }
    }
}
