//! Parting with sockets: one by name, a group, or one that a newcomer takes the place of.

use super::{Absent, Courier, Found, KEPT_MAX, Target};
use crate::{
    close::Close,
    letters::{Undelivered, Unheard},
    sockets::Socket,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use registry::{
    Cause, Ending, Group, Incarnation, Lookup, Session, SocketId, SocketRecord, Unknown, Verdict,
    envelope::{Answer, Message, To},
    rules::State,
};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Whether a socket goes on elsewhere is asked for so long. Without an answer it has ended as far as is known here.
const GOES_ON_WITHIN: Duration = Duration::from_secs(2);

/// Verdicts on their way to the registry at once, of those that one caller causes.
const VERDICTS_AT_ONCE: usize = 64;

/// What became of a close for many.
#[derive(Debug, Default)]
pub struct Parted {
    pub closed: usize,
    /// Instances that did not say whether they closed theirs.
    pub missing: Vec<Incarnation>,
    /// Why it is not known whether others had to be told.
    pub blind: Option<Unknown>,
}

/// What becomes of a socket when one of its connections ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    Ended,
    /// It may be resumed.
    Away,
    /// It was resumed, and goes on with another connection.
    Elsewhere,
}

impl Courier {
    /// What an ending makes of a socket here. Asked of the registry only where its client came back while this
    /// connection was still believed in.
    pub async fn after(&self, record: &SocketRecord, ending: &Ending) -> After {
        match record.leaves(ending) {
            State::Away => return After::Away,
            _ if record.resumable.is_none() || ending.cause != Cause::Replaced => return After::Ended,
            _ => {}
        }
        let there = timeout(GOES_ON_WITHIN, self.registry.whereabouts(&record.id.to_string())).await;
        match there {
            Ok(Lookup::Live(holder)) if holder.session != record.session => After::Elsewhere,
            _ => After::Ended,
        }
    }

    /// Tells a socket here to go. Its verdict stands at once; its own task does the rest.
    pub async fn close(&self, socket: &Socket, close: Close) -> bool {
        let ending = close.ending();
        let told = socket.line.close(close);
        if told {
            self.registry.unregister(socket.id, socket.record().session, ending).await;
        }
        told
    }

    /// Tells a named socket to go, wherever it is.
    pub async fn close_anywhere(&self, asked: &str, close: Close, by: Instant) -> Result<(), Absent> {
        let mut search = self.search(asked, by);
        loop {
            let found = match search.next().await {
                Err(Absent::Gone(verdict)) if verdict.is_away() => {
                    match self.dismiss(&verdict, &close).await {
                        true => return Ok(()),
                        // It came back in this moment, or somebody else was quicker.
                        false => continue,
                    }
                }
                found => found?,
            };
            match found {
                Found::Here(socket) => match self.close(&socket, close.clone()).await {
                    true => return Ok(()),
                    // One that goes by itself in this moment is found gone at the second look.
                    false => search.missed_here(),
                },
                Found::There(record) => {
                    let to = To::Socket { id: record.id, session: record.session };
                    let message = Message::Close { to, ending: close.ending() };
                    match self.letters.ask(&record.owner, message, Bytes::new(), by).await {
                        Ok((Answer::Closed { .. }, _)) => return Ok(()),
                        Err(Unheard::NotDelivered(why)) => search.missed(&record, why),
                        Ok(_) | Err(Unheard::Silent) => return Err(Absent::Silent(record.owner.clone())),
                    }
                }
            }
        }
    }

    async fn dismiss(&self, away: &Verdict, close: &Close) -> bool {
        match SocketId::parse(&away.asked) {
            Some(id) => self.registry.dismiss(id, &close.ending()).await,
            None => false,
        }
    }

    /// Ends those of a group that are away; says how many these were.
    pub async fn dismiss_many(&self, group: &Group, close: &Close) -> usize {
        let kept = self.registry.kept(group.key(), KEPT_MAX).await.unwrap_or_default();
        let ending = close.ending();
        let dismiss = async |id| usize::from(self.registry.dismiss(id, &ending).await);
        stream::iter(kept).map(dismiss).buffer_unordered(VERDICTS_AT_ONCE).fold(0, async |all, one| all + one).await
    }

    /// Tells everybody meant to go, wherever they are.
    pub async fn close_many(&self, target: &Target, close: Close, by: Instant) -> Parted {
        let mut parted = Parted { closed: self.close_here(target, &close).await, ..Parted::default() };
        if self.registry.is_alone() {
            return parted;
        }
        let message = Message::Close { to: target.in_words(), ending: close.ending() };
        match self.ask_others(target, message, &Bytes::new(), by).await {
            Err(unknown) => parted.blind = Some(unknown),
            Ok(answers) => {
                for (holding, answer) in answers {
                    match answer {
                        Ok((Answer::Closed { count }, _)) => parted.closed += count,
                        Err(Unheard::NotDelivered(Undelivered::Gone)) => {}
                        Err(Unheard::NotDelivered(Undelivered::Unsent)) => parted.blind = Some(Unknown::Unavailable),
                        Ok(_) | Err(_) => parted.missing.push(holding.owner),
                    }
                }
            }
        }
        parted
    }

    /// The same for those who are here. They are told at once, and when this returns their verdicts stand.
    pub async fn close_here(&self, target: &Target, close: &Close) -> usize {
        let told = self.tell_to_go(target, close);
        self.write_verdicts(&told, &close.ending()).await;
        told.len()
    }

    /// Several at once: there may be thousands, and each is a question to another machine.
    pub async fn write_verdicts(&self, told: &[(SocketId, Session)], ending: &Ending) {
        let write = |(id, session)| async move {
            self.registry.unregister(id, session, ending.clone()).await;
        };
        stream::iter(told.iter().copied()).for_each_concurrent(VERDICTS_AT_ONCE, write).await;
    }

    /// Tells those who are here to go; their verdicts are the caller's to write.
    pub fn tell_to_go(&self, target: &Target, close: &Close) -> Vec<(SocketId, Session)> {
        let mut told = Vec::new();
        self.each(target, |socket| {
            if socket.line.close(close.clone()) {
                told.push((socket.id, socket.record().session));
            }
        });
        told
    }

    /// Parts with one whose place a newcomer takes. It may still be on its way in; if it is
    /// elsewhere its owner is told, and not waited for.
    pub async fn send_away(&self, record: &SocketRecord, close: Close) {
        let SocketRecord { id, session, owner, .. } = record;
        let ending = close.ending();
        match self.sockets.line(*id, *session) {
            Some(line) => {
                if line.close(close) {
                    self.registry.unregister(*id, *session, ending).await;
                }
            }
            // A row without a socket is what a bug would leave behind; it must not count for ever.
            None if *owner == self.registry.incarnation() => {
                self.registry.unregister(*id, *session, ending).await;
            }
            None => self.tell_owner_to_close(record, ending).await,
        }
    }

    /// An owner that does not hear is dead or about to be taken for it, and its sockets with it.
    async fn tell_owner_to_close(&self, record: &SocketRecord, ending: Ending) {
        let to = To::Socket { id: record.id, session: record.session };
        self.letters.tell(&record.owner, Message::Close { to, ending }, Bytes::new()).await;
    }
}
