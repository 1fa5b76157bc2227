//! Finding one socket by its id, and finding it again when it was not reached.

use super::Courier;
use crate::{
    letters::{LATE, Undelivered},
    sockets::Socket,
};
use registry::{Holder, Incarnation, Lookup, SocketId, SocketRecord, Unknown, Verdict, envelope::Refusal};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout_at};

/// A socket that is there.
pub enum Found<T = Holder> {
    Here(Arc<Socket>),
    /// As its row says.
    There(T),
}

/// Why a named socket cannot be had, or was not reached.
#[derive(Debug)]
pub enum Absent {
    Gone(Verdict),
    /// It was on its way in or out for as long as we looked.
    Unsettled,
    /// Nobody may call it offline.
    Unknown(Unknown),
    /// Its owner did not answer in time: what was asked may have been done or not.
    Silent(Incarnation),
    /// The time was over before it was reached. Nothing was done.
    OutOfTime,
    /// Its instance is about to end, and takes on nothing more.
    Draining,
}

/// How often, and how far apart, a socket on its way in or out is looked for.
const SETTLING_LOOKS: usize = 100;
const SETTLING_LOOK: Duration = Duration::from_millis(2);
/// Owners asked for one socket. A row that leads nowhere so often leads nowhere.
const TRIES_MAX: u32 = 5;
/// Before an owner that has the socket on its way in or out is asked again; longer at each time.
const AGAIN: Duration = Duration::from_millis(10);

impl Courier {
    /// The socket, or the true reason why it is not there. A socket that is just coming or going
    /// here is waited for, since neither answer would be true of it.
    pub async fn find(&self, asked: &str) -> Result<Found<Arc<SocketRecord>>, Absent> {
        for _ in 0..SETTLING_LOOKS {
            if let Some(socket) = self.here(asked) {
                return Ok(Found::Here(socket));
            }
            let row = elsewhere(self.registry.lookup(asked).await)?;
            if row.owner != self.registry.incarnation() {
                return Ok(Found::There(row));
            }
            sleep(SETTLING_LOOK).await;
        }
        Err(Absent::Unsettled)
    }

    /// Who holds it. The first time the row is enough, since the owner will be written to, and that shows whether
    /// it lives.
    async fn holder(&self, asked: &str, nth: u32) -> Result<Found, Absent> {
        for _ in 0..SETTLING_LOOKS {
            if let Some(socket) = self.here(asked) {
                return Ok(Found::Here(socket));
            }
            let holder = elsewhere(match nth {
                0 => self.registry.whereabouts(asked).await,
                _ => self.registry.lookup(asked).await.map(|record| Holder::of(&record)),
            })?;
            if holder.owner != self.registry.incarnation() {
                return Ok(Found::There(holder));
            }
            sleep(SETTLING_LOOK).await;
        }
        Err(Absent::Unsettled)
    }

    fn here(&self, asked: &str) -> Option<Arc<Socket>> {
        self.sockets.get(SocketId::parse(asked)?)
    }

    /// Looks for a socket until it is reached, or is known not to be.
    pub fn search<'a>(&'a self, asked: &'a str, by: Instant) -> Search<'a> {
        Search { courier: self, asked, by, tries: 0, missed: None, remembered: false }
    }
}

fn elsewhere<T>(found: Lookup<T>) -> Result<T, Absent> {
    match found {
        Lookup::Live(row) => Ok(row),
        Lookup::Gone(verdict) => Err(Absent::Gone(verdict)),
        Lookup::Unknown(unknown) => Err(Absent::Unknown(unknown)),
    }
}

/// One socket that is looked for.
pub struct Search<'a> {
    courier: &'a Courier,
    asked: &'a str,
    by: Instant,
    tries: u32,
    missed: Option<(Holder, Undelivered)>,
    /// Where it was tried first, without asking. It proves nothing if it is not there.
    remembered: bool,
}

impl Search<'_> {
    /// Where to try next. What was found before was missed, or this would not be asked.
    pub async fn next(&mut self) -> Result<Found, Absent> {
        if self.tries == TRIES_MAX {
            return Err(self.given_up());
        }
        if let Some((_, Undelivered::Refused(_))) = &self.missed {
            if Instant::now() >= self.by {
                return Err(self.given_up());
            }
            sleep(AGAIN * self.tries).await;
        }
        if self.tries == 0
            && !self.remembered
            && let Some(found) = self.remember()
        {
            return Ok(found);
        }
        let nth = self.tries;
        self.tries += 1;
        let found = timeout_at(self.by + LATE, self.courier.holder(self.asked, nth)).await;
        let found = found.unwrap_or(Err(Absent::Unknown(Unknown::Unavailable)))?;
        if let Found::There(holder) = &found {
            self.courier.lately.note(holder.clone());
        }
        match (&found, &self.missed) {
            // Still the one that did not hear: asking it again would not make it hear.
            (Found::There(row), Some((missed, Undelivered::Unsent | Undelivered::Gone | Undelivered::Deaf)))
                if row.owner == missed.owner =>
            {
                Err(self.given_up())
            }
            _ => Ok(found),
        }
    }

    /// Where it was a moment ago, unless it is here.
    fn remember(&mut self) -> Option<Found> {
        let holder = self.courier.lately.get(SocketId::parse(self.asked)?)?;
        let is_here = self.courier.here(self.asked).is_some();
        self.remembered = !is_here;
        self.remembered.then_some(Found::There(holder))
    }

    /// Notes that the owner did nothing.
    pub fn missed(&mut self, holder: &Holder, why: Undelivered) {
        self.courier.lately.forget(holder.id);
        if self.tries > 0 {
            self.missed = Some((holder.clone(), why));
        }
    }

    /// Notes that it began to close when it was found here.
    pub fn missed_here(&mut self) {
        self.missed = None;
    }

    fn given_up(&self) -> Absent {
        match &self.missed {
            Some((_, Undelivered::Refused(Refusal::Draining))) => Absent::Draining,
            None | Some((_, Undelivered::Refused(Refusal::NotMine | Refusal::Closing | Refusal::Slow))) => {
                Absent::Unsettled
            }
            Some((_, Undelivered::Refused(Refusal::Expired))) => Absent::OutOfTime,
            Some((_, Undelivered::Unsent)) => Absent::Unknown(Unknown::Unavailable),
            Some((record, Undelivered::Gone | Undelivered::Deaf)) => {
                Absent::Unknown(Unknown::OwnerUnreachable(record.owner.clone()))
            }
        }
    }
}
