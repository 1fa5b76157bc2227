//! Leases, bells and mailboxes.

use super::{Place, Said, Store};
use registry::{Incarnation, Serving};
use std::sync::Arc;

/// How long a lease holds, in milliseconds.
pub const LEASE_MS: u64 = 15_000;

#[derive(Debug, Clone)]
pub struct Lease {
    pub n: u64,
    pub since: u64,
    pub serving: Serving,
    pub sockets: usize,
    pub beat: u64,
    pub until: u64,
}

/// What a beat comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beaten {
    Fenced,
    Held { new: bool, n: u64, listeners: usize, since: u64 },
}

/// What becomes of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    Gone,
    Deaf,
    Ok { n: u64, kept: bool },
}

impl Store {
    /// Leases lapse by themselves.
    pub fn lease(&self, of: &Incarnation, now: u64) -> Option<&Lease> {
        self.leases.get(of).filter(|lease| lease.until > now)
    }

    fn lapse(&mut self, of: &Incarnation, now: u64) {
        if self.lease(of, now).is_none() {
            self.leases.remove(of);
        }
    }

    /// `beat.lua`, heard by so many.
    pub fn beat(
        &mut self,
        of: &Incarnation,
        serving: Serving,
        sockets: usize,
        listeners: usize,
        now: u64,
    ) -> Said<Beaten> {
        if self.tombs.contains(of) || self.is_foreign(&Place::Tomb(of.clone())) {
            return Ok(Beaten::Fenced);
        }
        self.ours(Place::Lease(of.clone()))?;
        self.lapse(of, now);
        let until = now + LEASE_MS;
        if let Some(lease) = self.leases.get_mut(of) {
            *lease = Lease { serving, sockets, beat: now, until, ..*lease };
            return Ok(Beaten::Held { new: false, n: lease.n, listeners, since: lease.since });
        }
        self.mail.remove(of);
        self.foreign.remove(&Place::Mail(of.clone()));
        self.leases.insert(of.clone(), Lease { n: now, since: now, serving, sockets, beat: now, until });
        Ok(Beaten::Held { new: true, n: now, listeners, since: now })
    }

    /// `route.lua`, heard by so many.
    pub fn route(&mut self, to: &Incarnation, letter: &Arc<str>, listeners: usize, now: u64) -> Said<Sent> {
        self.ours(Place::Lease(to.clone()))?;
        self.lapse(to, now);
        let kept = !self.is_foreign(&Place::Mail(to.clone()));
        let Some(lease) = self.leases.get_mut(to) else { return Ok(Sent::Gone) };
        if listeners == 0 {
            return Ok(Sent::Deaf);
        }
        lease.n += 1;
        if kept {
            self.mail.entry(to.clone()).or_default().push((lease.n, letter.clone()));
        }
        Ok(Sent::Ok { n: lease.n, kept })
    }

    /// `tomb.lua`.
    pub fn tomb(&mut self, dead: &Incarnation, now: u64) -> bool {
        self.lapse(dead, now);
        if self.leases.contains_key(dead) || self.is_foreign(&Place::Lease(dead.clone())) {
            return false;
        }
        self.foreign.remove(&Place::Tomb(dead.clone()));
        self.foreign.remove(&Place::Mail(dead.clone()));
        self.tombs.insert(dead.clone());
        self.mail.remove(dead);
        true
    }

    /// `heard.lua`: the lease, and whether it was declared dead.
    pub fn heard(&self, of: &Incarnation, now: u64) -> Said<(Option<&Lease>, bool)> {
        self.ours(Place::Lease(of.clone()))?;
        let dead = self.tombs.contains(of) || self.is_foreign(&Place::Tomb(of.clone()));
        Ok((self.lease(of, now), dead))
    }
}
