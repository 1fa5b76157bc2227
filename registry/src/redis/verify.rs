//! Bringing Redis in line with the truth. A tenth of the partitions is compared at every third beat, by two
//! numbers each, whatever they hold; one that differs is read and mended, at a pace that Redis does not feel.

use super::{
    Redis,
    beat::ms,
    scripts::{RECOUNT, number, text},
};
use crate::{
    all::{Post, Registered},
    names::{GroupKey, Session, SocketId},
    owner::{Compared, Mend, PARTITIONS, partition},
    rules::{Digest, LOSS_LOOKS, Left, State, is_lost},
};
use futures_util::future::join_all;
use redis::{Value, cmd};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::atomic::Ordering,
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tracing::{debug, info};

/// Comparisons happen at every third beat, a tenth of the partitions at a time.
const COMPARED_EVERY: Duration = Duration::from_secs(3);
const COMPARED_AT_ONCE: usize = PARTITIONS.div_ceil(10);
/// Mends a second over the whole fleet, shared by its instances.
const MENDS_PER_SECOND: usize = 3000;
/// Mends on their way at once.
const MENDS_AT_ONCE: usize = 32;
/// Group numbers told a second at most, over time.
const NUMBERS_AT_ONCE: usize = 500;
/// The list of them is made anew so often at most.
const AT_ONCE_EVERY: Duration = Duration::from_secs(1);
/// Numbers of groups are told again so often at most.
const NUMBERS_EVERY: Duration = Duration::from_secs(10);
/// An instance that boots with no sockets says after this time that nothing was lost, unless those who
/// know better have spoken: they notice at their next beat.
const WHOLE_AFTER: Duration = Duration::from_secs(5);
/// A loss that was told so shortly after our own telling is the same one.
const TOLD_SLACK: Duration = Duration::from_secs(1);
/// How often a rebuild says that it still goes on; others believe for a minute that it does.
const REBORN_EVERY: Duration = Duration::from_secs(20);
/// Entries read at once.
const READ_AT_ONCE: usize = 200;
/// What was sent over a connection that was given up has come by then, or never will: the kernel keeps it no
/// longer than `url.rs` allows.
const LATE_BY: Duration = Duration::from_secs(12);
/// Over how long a fleet spreads the begin of its rebuilding.
const SPREAD: Duration = Duration::from_millis(500);

/// Groups whose numbers are to be told.
struct Numbers {
    due: VecDeque<GroupKey>,
    since: Instant,
}

/// Count and digest as the scripts write them: in 32 bits with a sign.
fn read_digest(said: &[Value]) -> Digest {
    let signed = text(said.get(1)).parse::<i64>().unwrap_or(0);
    Digest { count: u32::try_from(number(said.first())).unwrap_or(u32::MAX), xor: signed as u32 }
}

impl Redis {
    /// Compares and mends. Never returns.
    pub(super) async fn keep_verified(&self) {
        let mut looks = interval(COMPARED_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = fastrand::usize(..PARTITIONS);
        let mut numbers = Numbers { due: VecDeque::new(), since: Instant::now() };
        let mut life = (self.link.lives(), Instant::now(), false);
        let mut again = Vec::new();
        loop {
            let mut rebuilding = false;
            tokio::select! {
                _ = looks.tick() => {}
                () = self.mend_now.notified() => {
                    sleep(SPREAD.mul_f64(fastrand::f64())).await;
                    rebuilding = true;
                }
            }
            if life.0 != self.link.lives() {
                life = (self.link.lives(), Instant::now(), false);
            }
            if !self.link.is_up() {
                continue;
            }
            if !life.2 && life.1.elapsed() >= LATE_BY {
                life.2 = true;
                self.owner().groups.doubt_unanswered();
            }
            self.tell_untold().await;
            let due: BTreeSet<_> = (0..COMPARED_AT_ONCE).map(|nth| (next + nth) % PARTITIONS).chain(again).collect();
            let moved = join_all(due.iter().map(|k| self.compare(*k))).await;
            again = due.into_iter().zip(moved).filter(|(_, moved)| *moved).map(|(k, _)| k).collect::<Vec<_>>();
            next = (next + COMPARED_AT_ONCE) % PARTITIONS;
            self.mend_suspects().await;
            self.tell_numbers(&mut numbers, rebuilding).await;
        }
    }

    /// Endings that Redis did not hear. Registered first: it may never have heard of the socket at all, and
    /// its client knows the id. One that cannot be told does not keep the others.
    async fn tell_untold(&self) {
        let mut left = self.owner().untold_count();
        while left > 0 && self.link.is_up() {
            let untold = self.owner().untold(left.min(MENDS_AT_ONCE));
            left -= untold.len().max(1);
            let pace = Instant::now() + self.pace(untold.len());
            let told = join_all(untold.iter().map(async |parting| {
                let ticket = self.owner().start(partition(parting.record.id));
                match self.claim(&parting.record, ticket).await {
                    Registered::Later => return false,
                    // It has its verdict, or another connection has it.
                    Registered::Superseded(_) => return true,
                    Registered::Fresh | Registered::TakenFrom { .. } => {}
                }
                let ticket = self.owner().start(partition(parting.record.id));
                let (told, ()) = tokio::join!(self.part(parting, ticket), self.drop_member(&parting.record));
                told.is_some()
            }));
            for (parting, told) in untold.iter().zip(told.await) {
                match told {
                    true => self.owner().told(parting.record.id),
                    false => self.owner().postpone(parting.record.id),
                }
            }
            sleep_until(pace).await;
        }
    }

    /// Everything that Redis was not told.
    pub(super) async fn tell_what_is_left(&self) {
        self.tell_untold().await;
        self.mend_suspects().await;
    }

    /// True if something moved meanwhile, so that nothing is known.
    async fn compare(&self, k: usize) -> bool {
        let Some(quiet) = self.owner().quiet(k) else { return true };
        let mut born = cmd("GET");
        born.arg(self.keys.born(k));
        let (sums, born) = tokio::join!(self.sums(k), self.link.ask(&born));
        let (Some(sums), Ok(born)) = (sums, born) else { return true };
        self.look_at_birth(k, &born).await;
        let compared = self.owner().compare(k, quiet, read_digest(&sums));
        let drift = match compared {
            Compared::Overtaken => return true,
            Compared::Same => 0,
            Compared::Differs(by) => {
                info!("partition {k} differs from what is here by {by} sockets at least; mending it");
                if self.has_lost(k).await {
                    self.is_reborn(k).await;
                    // What a server lost here it lost elsewhere, too, and indexes have no digest.
                    self.all_is_suspect();
                }
                by
            }
        };
        self.drift[k].store(drift, Ordering::Relaxed);
        false
    }

    /// Whether Redis lost something of ours in a partition. An entry that is missing because another instance
    /// has the socket by now was not lost, and its row says so. Where too much moves to be certain, it was.
    async fn has_lost(&self, k: usize) -> bool {
        for _ in 0..LOSS_LOOKS {
            let before = self.owner().steps(k);
            let lost = self.misses_a_row(k).await;
            if self.owner().steps(k) == before
                && let Some(lost) = lost
            {
                return lost;
            }
        }
        true
    }

    async fn misses_a_row(&self, k: usize) -> Option<bool> {
        let theirs = self.entries(k).await?;
        let missing = self.owner().missing(k, &theirs);
        for some in missing.chunks(MENDS_AT_ONCE) {
            let rows = join_all(some.iter().map(async |record| {
                let mut command = cmd("HMGET");
                command.arg(self.keys.row(record.id)).arg("session").arg("state");
                match self.link.ask(&command).await {
                    Ok(Value::Array(said)) => {
                        Some(Session::parse(text(said.first())).zip(State::parse(text(said.get(1)))))
                    }
                    _ => None,
                }
            }));
            for (record, row) in some.iter().zip(rows.await) {
                if is_lost(record.session, row?) {
                    return Some(true);
                }
            }
        }
        Some(false)
    }

    /// Where nothing of ours lies in a partition, its loss shows in this alone; what else its server held,
    /// groups and users, has to be told again.
    async fn look_at_birth(&self, k: usize, born: &Value) {
        if *born == Value::Nil {
            if self.settled.load(Ordering::Relaxed) {
                let _ = self.link.ask(cmd("SET").arg(self.keys.born(k)).arg(self.now_ms()).arg("NX")).await;
                self.all_is_suspect();
            }
        } else if number(Some(born)) > self.told_at.load(Ordering::Relaxed) + ms(TOLD_SLACK) {
            self.all_is_suspect();
        }
    }

    /// Redis lost something of this partition, so that nobody may say of an id that it never was.
    async fn is_reborn(&self, k: usize) {
        let _ = self.link.ask(cmd("SET").arg(self.keys.born(k)).arg(self.now_ms())).await;
    }

    async fn mend_suspects(&self) {
        let mut again = Vec::new();
        let mut reborn = Instant::now();
        loop {
            if reborn.elapsed() >= REBORN_EVERY {
                reborn = Instant::now();
                self.renew_births().await;
            }
            let Some(k) = self.owner().take_suspect() else { break };
            if !self.mend(k).await {
                again.push(k);
                if !self.link.is_up() {
                    break;
                }
            }
        }
        again.into_iter().for_each(|k| self.owner().suspect(k));
    }

    /// A rebuild that takes long: until it is over nobody may say that an id never was.
    async fn renew_births(&self) {
        let lost = (0..PARTITIONS).filter(|k| self.indexes_suspect[*k].load(Ordering::Relaxed));
        join_all(lost.map(|k| self.is_reborn(k))).await;
    }

    /// Reads what Redis has of ours in a partition and mends what differs; false if Redis did not answer.
    async fn mend(&self, k: usize) -> bool {
        let indexes = self.indexes_suspect[k].swap(false, Ordering::Relaxed);
        let done = self.mend_rows(k).await && (!indexes || self.tell_indexes(k).await);
        self.indexes_suspect[k].fetch_or(indexes && !done, Ordering::Relaxed);
        done
    }

    /// The rows may be whole and what stands in other slots lost.
    async fn tell_indexes(&self, k: usize) -> bool {
        let records = self.owner().records(k);
        for some in records.chunks(MENDS_AT_ONCE) {
            // Only those of users and groups that are still untold cost anything.
            let pace = Instant::now() + self.pace(some.len()) / 4;
            let tell = some.iter().map(async |record| {
                tokio::join!(self.add_member(record), self.tell_groups_of(record), self.last(record));
            });
            join_all(tell).await;
            if !self.link.is_up() {
                return false;
            }
            sleep_until(pace).await;
        }
        true
    }

    async fn mend_rows(&self, k: usize) -> bool {
        // What is written over the entries is read before them: what changes between shows in either.
        let quiet = self.owner().quiet(k);
        let Some(sums) = self.sums(k).await else { return false };
        let Some(theirs) = self.entries(k).await else { return false };
        let mends = self.owner().verify(k, &theirs);
        if mends.is_empty() {
            let righted = quiet.and_then(|quiet| self.owner().righted(k, quiet, read_digest(&sums)));
            return self.right_the_count(k, &sums, righted).await;
        }
        debug!("partition {k}: {} mends", mends.len());
        let mut all_done = true;
        for some in mends.chunks(MENDS_AT_ONCE) {
            let pace = Instant::now() + self.pace(some.len());
            all_done &= join_all(some.iter().map(|mend| self.carry_out(mend))).await.into_iter().all(|done| done);
            if !self.link.is_up() {
                return false;
            }
            sleep_until(pace).await;
        }
        // One that cannot be mended keeps its partition suspect, and nothing else from being mended.
        if all_done {
            self.drift[k].store(0, Ordering::Relaxed);
        }
        all_done
    }

    /// Count and digest of our entries, as they are written over them.
    async fn sums(&self, k: usize) -> Option<Vec<Value>> {
        let mut command = cmd("HMGET");
        command.arg(self.keys.owned(k, self.own().mark())).arg("#n").arg("#d");
        match self.link.ask(&command).await {
            Ok(Value::Array(said)) => Some(said),
            _ => None,
        }
    }

    /// The entries are right. What is written over them may not be, and nobody else would put that right.
    async fn right_the_count(&self, k: usize, sums: &[Value], righted: Option<Digest>) -> bool {
        if let Some(digest) = righted {
            debug!("partition {k}: its count and digest were wrong by themselves");
            let recount = RECOUNT
                .on([self.keys.owned(k, self.own().mark())])
                .arg([text(sums.first()), text(sums.get(1))].as_slice())
                .arg(digest.count)
                .arg(digest.xor.cast_signed());
            if recount.run(&self.link).await.is_err() {
                return false;
            }
        }
        self.drift[k].store(0, Ordering::Relaxed);
        true
    }

    async fn carry_out(&self, mend: &Mend) -> bool {
        match mend {
            Mend::Register(record) => {
                let ticket = {
                    let mut owner = self.owner();
                    // It may have left since, and must not come back.
                    if !owner.holds(record.id, record.session) {
                        return true;
                    }
                    owner.start(partition(record.id))
                };
                let (registered, (), (), ()) = tokio::join!(
                    self.claim(record, ticket),
                    self.add_member(record),
                    self.tell_groups_of(record),
                    self.last(record)
                );
                match registered {
                    Registered::Superseded(why) => {
                        // Its place among its user's sockets was taken beside the claim.
                        self.drop_member(record).await;
                        let (id, session) = (record.id, record.session);
                        self.hand_over(Post::Superseded { id, session, why }).await;
                        true
                    }
                    Registered::Later => false,
                    Registered::Fresh | Registered::TakenFrom { .. } => true,
                }
            }
            Mend::Remove { parting: Some(parting), .. } => {
                let ticket = self.owner().start(partition(parting.record.id));
                self.part(parting, ticket).await.is_some()
            }
            Mend::Remove { id, session, parting: None } => {
                let own = self.own();
                self.remove(*id, *session, &own, Left::Dropped).await
            }
        }
    }

    async fn tell_groups_of(&self, record: &crate::record::SocketRecord) {
        self.tell(record.groups().map(|group| group.key()).collect::<Vec<_>>()).await;
    }

    /// The entries that Redis has of ours.
    async fn entries(&self, k: usize) -> Option<BTreeMap<SocketId, (Session, u32)>> {
        let key = self.keys.owned(k, self.own().mark());
        let mut entries = BTreeMap::new();
        let mut at = "0".to_owned();
        loop {
            let mut command = cmd("HSCAN");
            command.arg(&key).arg(&at).arg("COUNT").arg(READ_AT_ONCE);
            let Ok(Value::Array(said)) = self.link.ask(&command).await else { return None };
            for (id, entry) in super::rows::pairs(said.get(1).unwrap_or(&Value::Nil)) {
                let entry = entry
                    .split_once('|')
                    .and_then(|(session, h32)| Some((Session::parse(session)?, h32.parse().ok()?)));
                if let Some((id, entry)) = SocketId::from_short(&id).zip(entry) {
                    entries.insert(id, entry);
                }
            }
            text(said.first()).clone_into(&mut at);
            if at == "0" {
                return Some(entries);
            }
        }
    }

    /// Numbers of groups that changed since they were told: some at each look, so that nothing else waits.
    async fn tell_numbers(&self, numbers: &mut Numbers, at_once: bool) {
        let at_once = at_once && numbers.since.elapsed() >= AT_ONCE_EVERY;
        if at_once || (numbers.due.is_empty() && numbers.since.elapsed() >= NUMBERS_EVERY) {
            numbers.since = Instant::now();
            numbers.due = self.owner().groups.stale(NUMBERS_AT_ONCE * NUMBERS_EVERY.as_secs() as usize).into();
        }
        let some = NUMBERS_AT_ONCE * COMPARED_EVERY.as_secs() as usize;
        let some: Vec<_> = numbers.due.drain(..some.min(numbers.due.len())).collect();
        join_all(some.iter().map(|key| self.tell_one(*key, true))).await;
    }

    /// Whether another instance held a lease well before this one did.
    async fn found_others(&self) -> bool {
        let (own, known) = (self.own(), self.known().await.unwrap_or_default());
        let before = self.now_ms().saturating_sub(2 * ms(WHOLE_AFTER));
        let others = known.into_iter().filter(|(other, _)| *other != own).map(async |(other, _)| {
            let since = self.link.ask(cmd("HGET").arg(self.keys.lease(other.mark())).arg("since")).await;
            since.is_ok_and(|since| since != Value::Nil && number(Some(&since)) < before)
        });
        join_all(others).await.into_iter().any(|before_us| before_us)
    }

    fn pace(&self, mends: usize) -> Duration {
        let share = MENDS_PER_SECOND / self.fleet_size().max(1);
        Duration::from_secs(1).mul_f64(mends as f64 / share.max(1) as f64)
    }

    /// Everything may be gone from Redis.
    pub(super) fn everything_is_suspect(&self) {
        self.all_is_suspect();
        self.reborn_now.notify_one();
    }

    /// Everything has to be told again: rows where they differ, and the indexes, which nobody can compare.
    pub(super) fn all_is_suspect(&self) {
        self.told_at.store(self.now_ms(), Ordering::Relaxed);
        self.owner().suspect_all();
        self.indexes_suspect.iter().for_each(|suspect| suspect.store(true, Ordering::Relaxed));
        self.mend_now.notify_one();
    }

    /// Says since when each partition's memory is whole. Never returns.
    pub(super) async fn keep_born(&self) {
        self.bell.subscribed().await;
        // Whoever knows that something was lost says so first.
        let lost = timeout(WHOLE_AFTER, self.reborn_now.notified()).await.is_ok();
        if lost {
            join_all((0..PARTITIONS).map(|k| self.is_reborn(k))).await;
        } else {
            // Somebody was here before, and where nothing is said of a partition now, it was lost.
            let whole_since = if self.found_others().await { self.now_ms() } else { 0 };
            join_all((0..PARTITIONS).map(async |k| {
                let _ = self.link.ask(cmd("SET").arg(self.keys.born(k)).arg(whole_since).arg("NX")).await;
            }))
            .await;
        }
        self.settled.store(true, Ordering::Relaxed);
        loop {
            self.reborn_now.notified().await;
            self.link.is_back().await;
            join_all((0..PARTITIONS).map(|k| self.is_reborn(k))).await;
        }
    }
}
