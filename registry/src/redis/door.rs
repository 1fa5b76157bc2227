//! Letting a user's sockets in, over all instances: the cap is decided by one script, and nobody is evicted
//! or refused for the sake of sockets that are not there any more (`places.rs`).

use super::{
    Redis, beat,
    places::{Places, client_of},
    scripts::{ADMIT, number, text},
};
use crate::{
    admit::{self, Admission, COOL_DOWN, Cap, Policy},
    all::{Post, Registered},
    names::{Group, GroupKey},
    owner::partition,
    record::SocketRecord,
    resume::{Back, NotBack},
};
use futures_util::future::join_all;
use redis::cmd;
use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, atomic::Ordering},
};
use tokio::time::Instant;

/// What the script says of a user's sockets.
struct Said {
    word: Word,
    same: Vec<String>,
    /// The clients that it took for evicted and that did not cool down before.
    cooled: Vec<String>,
    others: Vec<String>,
}

#[derive(PartialEq, Eq)]
enum Word {
    Welcome,
    Full,
    Cooling,
}

/// Whose door it is.
struct Door {
    user: GroupKey,
    index: String,
    cap: Cap,
}

impl Redis {
    pub async fn admit(&self, newcomer: &Arc<SocketRecord>, cap: Cap) -> Admission {
        let Some(door) = self.door(newcomer, cap) else {
            self.enter(newcomer).await;
            return Admission::Welcome { replaced: Vec::new(), evicted: Vec::new() };
        };
        // Both at once, since nearly everybody is welcome: a connect costs one round trip.
        let (answer, ()) = tokio::join!(self.ask_admit(newcomer, &door, &[]), self.enter(newcomer));
        self.judge(newcomer, &door, answer).await
    }

    /// The same for one that comes back with a token: what it says of itself is in its row, and nobody has to go for
    /// one that does not come back.
    pub async fn admit_back(&self, newcomer: &Arc<SocketRecord>, cap: Cap) -> Result<(Back, Admission), NotBack> {
        let back = self.take_back(newcomer).await?;
        let door = self.door(&back.record, cap).filter(|_| !back.is_overtaken);
        let judging = async {
            let Some(door) = door else { return Admission::Welcome { replaced: Vec::new(), evicted: Vec::new() } };
            let answer = self.ask_admit(&back.record, &door, &[]).await;
            self.judge(&back.record, &door, answer).await
        };
        let (admission, ()) = tokio::join!(judging, self.settle_in(&back));
        Ok((back, admission))
    }

    /// None for whoever is not counted.
    fn door(&self, newcomer: &SocketRecord, cap: Cap) -> Option<Door> {
        self.capped.store(cap.sockets_max > 0, Ordering::Relaxed);
        let user = Group::User(newcomer.user.clone()?).key();
        Some(Door { user, index: self.index(newcomer)?, cap })
    }

    /// Whether somebody may stay who was asked for at the door, and is registered.
    async fn judge(&self, newcomer: &Arc<SocketRecord>, door: &Door, mut answer: Option<Said>) -> Admission {
        let cap = door.cap;
        let mut asked_again = false;
        loop {
            let Some(said) = answer else { return self.admit_alone(newcomer, door).await };
            let welcome = said.word == Word::Welcome;
            if welcome && said.others.len() < cap.sockets_max.max(1) && said.same.is_empty() {
                return Admission::Welcome { replaced: Vec::new(), evicted: Vec::new() };
            }
            let (others, same) =
                tokio::join!(self.look_at(Some(&door.index), &said.others), self.look_at(None, &said.same));
            if welcome {
                let evicted = self.evict(door, &said, others).await;
                return Admission::Welcome { replaced: same.records(), evicted };
            }
            if others.stale.is_empty() || asked_again {
                return self.refuse(newcomer, said.word, others.records()).await;
            }
            asked_again = true;
            answer = self.ask_admit(newcomer, door, &others.stale).await;
        }
    }

    /// Registers a newcomer. One that does not count is told as every other.
    async fn enter(&self, newcomer: &Arc<SocketRecord>) {
        if let Registered::Superseded(why) = self.register(newcomer).await {
            self.drop_member(newcomer).await;
            self.hand_over(Post::Superseded { id: newcomer.id, session: newcomer.session, why }).await;
        }
    }

    async fn refuse(&self, newcomer: &Arc<SocketRecord>, word: Word, holders: Vec<Arc<SocketRecord>>) -> Admission {
        self.withdraw(newcomer).await;
        match word {
            Word::Cooling => Admission::CoolingDown,
            Word::Full | Word::Welcome => Admission::Full { holders },
        }
    }

    /// Without Redis the cap counts per instance, and so does the cool-down.
    async fn admit_alone(&self, newcomer: &Arc<SocketRecord>, door: &Door) -> Admission {
        let mut holders: Vec<_> = {
            let mut owner = self.owner();
            // Nobody else counts it yet: its place is told with its partition, when Redis is back.
            let k = partition(newcomer.id);
            owner.suspect(k);
            self.indexes_suspect[k].store(true, Ordering::Relaxed);
            owner.groups.ids(door.user).iter().filter_map(|id| owner.get(*id)).cloned().collect()
        };
        holders.sort_by_key(|held| (held.attempt.accepted_at, held.id));
        let admission = {
            let (mut cooling, now) = (self.cooling.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
            let admission = admit::decide(newcomer, holders, door.cap, cooling.holds(newcomer, now));
            if let Admission::Welcome { evicted, .. } = &admission {
                cooling.begin(evicted, now);
            }
            admission
        };
        if !matches!(admission, Admission::Welcome { .. }) {
            self.withdraw(newcomer).await;
        }
        admission
    }

    async fn ask_admit(&self, newcomer: &SocketRecord, door: &Door, stale: &[String]) -> Option<Said> {
        let policy = match door.cap.policy {
            Policy::EvictOldest => "evict",
            Policy::Reject => "reject",
        };
        let said = ADMIT
            .on([door.index.clone(), self.keys.user_cooling(door.user)])
            .arg(Self::member(newcomer, &self.own()))
            .arg(newcomer.attempt.accepted_at)
            .arg(door.cap.sockets_max)
            .arg(policy)
            .arg(beat::ms(COOL_DOWN))
            .arg(stale)
            .run(&self.link)
            .await
            .ok()?;
        let word = match text(said.first()) {
            "full" => Word::Full,
            "cooling" => Word::Cooling,
            _ => Word::Welcome,
        };
        let count = |nth: usize| usize::try_from(number(said.get(nth))).unwrap_or(0);
        let mut rest = said.iter().skip(3).map(|member| text(Some(member)).to_owned());
        let same = rest.by_ref().take(count(1)).collect();
        let cooled = rest.by_ref().take(count(2)).collect();
        Some(Said { word, same, cooled, others: rest.collect() })
    }

    /// The oldest beyond the cap, which counts the newcomer. The script took the oldest members for them; where
    /// it turned out that some of those are not there, they go, and the right clients cool down: those that will
    /// hear that they were evicted.
    async fn evict(&self, door: &Door, said: &Said, others: Places) -> Vec<Arc<SocketRecord>> {
        let beyond = |held: usize| (held + 1).saturating_sub(door.cap.sockets_max.max(1));
        let Places { stale, held: mut evicted } = others;
        evicted.truncate(beyond(said.others.len() - stale.len()));
        let noted: BTreeSet<_> = said.others.iter().take(beyond(said.others.len())).map(|it| client_of(it)).collect();
        let told = evicted.iter().filter(|place| place.leased);
        let meant: BTreeSet<_> = told.map(|place| client_of(&place.member)).collect();
        let spared: Vec<_> = said.cooled.iter().filter(|client| !meant.contains(client.as_str())).collect();
        let cooling = self.keys.user_cooling(door.user);
        let mut commands = Vec::new();
        if !stale.is_empty() {
            commands.push(cmd("ZREM").arg(&door.index).arg(&stale).take());
        }
        if !spared.is_empty() {
            commands.push(cmd("ZREM").arg(&cooling).arg(spared).take());
        }
        if let missed @ [_, ..] = meant.difference(&noted).collect::<Vec<_>>().as_slice() {
            let mut note = cmd("ZADD");
            note.arg(&cooling);
            for client in missed {
                note.arg(self.now_ms() + beat::ms(COOL_DOWN)).arg(client);
            }
            commands.extend([note, cmd("PEXPIRE").arg(&cooling).arg(beat::ms(COOL_DOWN)).take()]);
        }
        join_all(commands.iter().map(|command| self.link.ask(command))).await;
        evicted.into_iter().map(|place| place.record).collect()
    }
}
