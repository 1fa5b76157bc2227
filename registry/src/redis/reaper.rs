//! Cleaning up after instances that died: their sockets get their verdict, their places in the indexes
//! go. Slow to believe and quick to doubt: a view that was interrupted starts again from nothing.

use super::{
    Redis,
    beat::ms,
    lookups::Presence,
    rows,
    scripts::{REAP, TOMB, number, text},
};
use crate::{
    event::Event,
    lease::{LEASE, REAPED_AFTER},
    names::{GroupKey, Incarnation, Session, SocketId, StoreName, UserName},
    owner::PARTITIONS,
    record::{Attempt, SocketRecord},
    rules::{Missing, State, rank},
    verdict::{Cause, Ending},
};
use futures_util::future::join_all;
use redis::{Value, cmd};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

/// Between two looks at the fleet.
const LOOK: Duration = Duration::from_secs(4);
/// How long the tomb of a dead incarnation keeps it from coming back.
pub const TOMB_STANDS: Duration = Duration::from_secs(3600);
/// Who is not first in rank waits so much longer for each before it.
const RANK_WAITS: Duration = Duration::from_secs(5);
/// A registration of the dead may still have been on its way.
const ONCE_MORE: Duration = Duration::from_secs(60);
/// Rows in one script.
const AT_ONCE: usize = 100;

/// What this instance has seen of the others.
#[derive(Default)]
struct View {
    missing: BTreeMap<Incarnation, Missing>,
    once_more: Vec<(Instant, Incarnation)>,
    namesakes: BTreeSet<Incarnation>,
    /// Whoever was ever on the list, and when it was last heard: Redis may lose the list.
    remembered: BTreeMap<Incarnation, u64>,
    /// The life of the link in which all of it was seen.
    life: u64,
}

impl Redis {
    /// Looks and cleans up. Never returns.
    pub(super) async fn keep_clean(&self) {
        let began = Instant::now();
        let mut view = View::default();
        loop {
            sleep(LOOK.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
            if !self.link.is_up() || self.is_fenced() || view.life != self.link.lives() {
                view.missing.clear();
                view.life = self.link.lives();
            }
            self.enlist(&self.own()).await;
            let Ok(known) = self.known().await else { continue };
            let alive = known.iter().filter(|(_, last)| last + ms(LEASE) >= self.now_ms()).count();
            self.fleet.store(alive.max(1), Ordering::Relaxed);
            let listed: BTreeSet<_> = known.iter().map(|(other, _)| other.clone()).collect();
            view.remembered.extend(known);
            self.forget_the_buried(&mut view, &listed).await;
            let known: Vec<_> = view.remembered.iter().map(|(other, last)| (other.clone(), *last)).collect();
            self.look(&mut view, &known, began).await;
            let due: Vec<_> = view.once_more.extract_if(.., |(at, _)| *at <= Instant::now()).collect();
            for (at, dead) in due {
                let done = match self.bury(&dead).await {
                    Some(true) => self.reap(&dead).await.is_some(),
                    // Redis lost its tomb meanwhile, and it lives on.
                    Some(false) => true,
                    None => false,
                };
                if !done {
                    view.once_more.push((at, dead));
                }
            }
            // Noticed even while nobody asks.
            let _ = self.all_are_heard().await;
        }
    }

    /// Who has a tomb and is off the list is looked after, or has retired. One that is on it still was left
    /// half way, and is begun again.
    async fn forget_the_buried(&self, view: &mut View, listed: &BTreeSet<Incarnation>) {
        let gone = view.remembered.iter().filter(|(other, _)| !listed.contains(other));
        let quiet = gone.filter(|(_, last)| **last + ms(LEASE) < self.now_ms());
        for other in quiet.map(|(other, _)| other.clone()).collect::<Vec<_>>() {
            let tomb = self.link.ask(cmd("EXISTS").arg(self.keys.tomb(other.mark()))).await;
            if tomb == Ok(Value::Int(1)) {
                view.remembered.remove(&other);
            }
        }
        view.missing.retain(|other, _| view.remembered.contains_key(other));
        view.namesakes.retain(|other| view.remembered.contains_key(other));
    }

    async fn look(&self, view: &mut View, known: &[(Incarnation, u64)], began: Instant) {
        let own = self.own();
        let others = || known.iter().filter(|(other, _)| *other != own);
        let quiet = |last: u64| last + ms(LEASE) < self.now_ms();
        let (mut heard, mut lapsed) = (0, Vec::new());
        for (other, last) in others() {
            // Who enlisted a moment ago beats; asking is for the rest, and once for a namesake.
            let namesake = other.instance() == own.instance() && !view.namesakes.contains(other);
            if !quiet(*last) && !namesake {
                view.missing.remove(other);
                continue;
            }
            let leased = self.link.ask(cmd("EXISTS").arg(self.keys.lease(other.mark()))).await;
            let Ok(Value::Int(leased)) = leased else { return };
            if leased == 1 {
                view.missing.remove(other);
                if namesake && self.presence(other).await == Ok(Presence::Heard) {
                    view.namesakes.insert(other.clone());
                    warn!(
                        "another instance is called {} as well: {other} beside {own}; both work, give them different INSTANCE names to tell them apart",
                        own.instance()
                    );
                }
                continue;
            }
            // One whose bell is heard and whose lease is gone was not killed: Redis' clock jumped.
            if quiet(*last) {
                heard += usize::from(self.bell_is_heard(other).await);
                lapsed.push(other.clone());
            }
        }
        if heard > 0 && heard * 2 > known.len() {
            warn!("{heard} instances are heard but hold no lease; waiting instead of declaring them dead");
            return;
        }
        for dead in lapsed {
            let marks: Vec<_> = known.iter().filter(|(_, last)| !quiet(*last)).map(|(other, _)| other.mark()).collect();
            let rank = u32::try_from(rank(dead.mark(), own.mark(), marks.into_iter())).unwrap_or(u32::MAX);
            let wait = REAPED_AFTER + RANK_WAITS * rank.min(10);
            if view.missing.entry(dead.clone()).or_default().look(began.elapsed(), wait) {
                view.missing.remove(&dead);
                self.declare_dead(view, dead).await;
            }
        }
    }

    async fn bell_is_heard(&self, of: &Incarnation) -> bool {
        let numsub = if self.link.is_cluster() { "SHARDNUMSUB" } else { "NUMSUB" };
        let keys = &self.keys;
        let said = super::scripts::HEARD
            .on([keys.lease(of.mark()), keys.tomb(of.mark()), keys.bell(of.mark())])
            .arg(numsub)
            .run(&self.link)
            .await;
        said.is_ok_and(|said| number(said.get(3)) > 0)
    }

    async fn declare_dead(&self, view: &mut View, dead: Incarnation) {
        if self.bury(&dead).await == Some(true) {
            let lost = self.reap(&dead).await;
            info!("{dead} is dead; {} sockets of it are lost", lost.unwrap_or_default());
            view.once_more.push((Instant::now() + ONCE_MORE, dead));
        }
    }

    /// Gives it a tomb, unless it holds a lease. Nothing if Redis does not answer.
    async fn bury(&self, dead: &Incarnation) -> Option<bool> {
        let (keys, mark) = (&self.keys, dead.mark());
        let said = TOMB
            .on([keys.lease(mark), keys.tomb(mark), keys.mail(mark)])
            .arg(dead.to_string())
            .arg(ms(TOMB_STANDS))
            .run(&self.link)
            .await;
        said.ok().map(|said| number(said.first()) == 1)
    }

    /// Marks all that the dead one held as lost, and takes its traces away. Returns how many that were; nothing if
    /// Redis went away, and whoever looks next begins again.
    async fn reap(&self, dead: &Incarnation) -> Option<usize> {
        let mut lost = 0;
        for k in 0..PARTITIONS {
            lost += self.reap_partition(k, dead).await?;
        }
        let _ = self.link.ask(cmd("ZREM").arg(self.keys.instances()).arg(dead.to_string())).await;
        self.counters.reaped.fetch_add(lost as u64, Ordering::Relaxed);
        Some(lost)
    }

    async fn reap_partition(&self, k: usize, dead: &Incarnation) -> Option<usize> {
        let owned = self.keys.owned(k, dead.mark());
        let (mut lost, mut at) = (0, "0".to_owned());
        loop {
            let mut command = cmd("HSCAN");
            command.arg(&owned).arg(&at).arg("COUNT").arg(AT_ONCE);
            let Value::Array(said) = self.link.ask(&command).await.ok()? else { return Some(lost) };
            let fields = rows::pairs(said.get(1).unwrap_or(&Value::Nil));
            let ids: Vec<_> = fields.keys().filter(|id| !id.starts_with('#')).cloned().collect();
            for some in ids.chunks(AT_ONCE) {
                lost += self.reap_some(k, dead, some).await?;
                // Last, so that whoever is interrupted before finds them again.
                self.link.ask(cmd("HDEL").arg(&owned).arg(some)).await.ok()?;
            }
            text(said.first()).clone_into(&mut at);
            if at == "0" {
                self.leave_behind(k, dead).await?;
                // Not the key: a late registration may have come in since.
                self.link.ask(cmd("HDEL").arg(&owned).arg("#n").arg("#d")).await.ok()?;
                return Some(lost);
            }
        }
    }

    async fn reap_some(&self, k: usize, dead: &Incarnation, ids: &[String]) -> Option<usize> {
        let known: Vec<_> = ids.iter().filter_map(|id| SocketId::from_short(id)).collect();
        let mut keys = vec![self.keys.live(k), self.keys.ended(k)];
        keys.extend(known.iter().map(|id| self.keys.row(*id)));
        let said = REAP
            .on(keys)
            .arg(dead.to_string())
            .arg(self.why_ttl_ms())
            .arg(known.iter().map(|id| id.short()).collect::<Vec<_>>())
            .run(&self.link)
            .await
            .ok()?;
        let (lost, ended): (Vec<_>, Vec<_>) = said.iter().filter_map(|row| read_lost(row, dead)).unzip();
        self.leave_indexes(&lost, dead).await;
        if self.outgoing.is_wanted() {
            let ending = Ending { cause: Cause::InstanceCrash, code: None, reason: "".into() };
            let now = self.now_ms();
            let ended = lost.iter().zip(ended).filter(|(_, ended)| *ended);
            let events: Vec<_> = ended.map(|(lost, _)| Event::disconnected(lost, &ending, now, now)).collect();
            if !events.is_empty() {
                self.log_events(k, events).await.ok()?;
            }
        }
        Some(lost.len())
    }

    /// What was taken over from it before it was declared dead is not among its entries any more.
    async fn leave_behind(&self, k: usize, dead: &Incarnation) -> Option<()> {
        let left = self.keys.left(k, dead.mark());
        let said = self.link.ask(cmd("HVALS").arg(&left)).await.ok()?;
        let Value::Array(notes) = said else { return Some(()) };
        let notes: Vec<_> = notes.iter().filter_map(|note| read_left(text(Some(note)), dead)).collect();
        for some in notes.chunks(AT_ONCE) {
            self.leave_indexes(some, dead).await;
        }
        self.link.ask(cmd("DEL").arg(&left)).await.ok().map(drop)
    }

    async fn leave_indexes(&self, records: &[Arc<SocketRecord>], dead: &Incarnation) {
        let groups: BTreeSet<_> = records.iter().flat_map(|record| record.groups()).map(|group| group.key()).collect();
        join_all(groups.iter().map(async |group| self.leave_group(*group, dead).await)).await;
        join_all(records.iter().map(async |record| self.leave_user(record, dead).await)).await;
    }

    /// Takes an instance out of a group, if it is dead.
    pub(crate) async fn leave_if_dead(&self, group: GroupKey, owner: &Incarnation) -> bool {
        let is_dead = self.presence(owner).await == Ok(Presence::Dead);
        if is_dead {
            self.leave_group(group, owner).await;
        }
        is_dead
    }

    /// Exactly that incarnation, whatever others hold of the group.
    pub(super) async fn leave_group(&self, group: GroupKey, dead: &Incarnation) {
        let _ = self.link.ask(cmd("HDEL").arg(self.keys.group(group)).arg(dead.to_string())).await;
    }

    pub(super) async fn leave_user(&self, record: &SocketRecord, dead: &Incarnation) {
        if let Some(index) = self.index(record) {
            let _ = self.link.ask(cmd("ZREM").arg(index).arg(Self::member(record, dead))).await;
        }
    }
}

/// As REAP names it, and whether it has ended with its instance.
fn read_lost(row: &Value, owner: &Incarnation) -> Option<(Arc<SocketRecord>, bool)> {
    let Value::Array(fields) = row else { return None };
    let fields: Vec<_> = fields.iter().map(|field| text(Some(field))).collect();
    Some((named(&fields, owner)?, State::parse(fields.get(8)?)? == State::Lost))
}

/// As whoever takes a socket over notes it.
fn read_left(note: &str, owner: &Incarnation) -> Option<Arc<SocketRecord>> {
    let fields: Vec<String> = serde_json::from_str(note).ok()?;
    named(&fields.iter().map(String::as_str).collect::<Vec<_>>(), owner)
}

/// Of id, session, user, store, rooms, client and address, and since when it was connected, if that is said.
fn named(fields: &[&str], owner: &Incarnation) -> Option<Arc<SocketRecord>> {
    let field = |nth: usize| fields.get(nth).copied().filter(|text| !text.is_empty());
    Some(Arc::new(SocketRecord {
        id: SocketId::from_short(field(0)?)?,
        session: Session::parse(field(1)?)?,
        owner: owner.clone(),
        attempt: Attempt::first(0),
        user: field(2).and_then(|user| UserName::parse(user).ok()),
        store: field(3).and_then(|store| StoreName::parse(store).ok()),
        rooms: rows::rooms(field(4).unwrap_or_default()).into(),
        client: field(5).map(Arc::from),
        address: field(6).and_then(|address| address.parse().ok()).unwrap_or(IpAddr::from([0, 0, 0, 0])),
        connected_at: field(7).and_then(|at| at.parse().ok()).unwrap_or_default(),
        resumable: None,
    }))
}
