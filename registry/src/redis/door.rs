//! Letting a user's sockets in, over all instances: the cap is decided by one script, and nobody is evicted
//! or refused for the sake of sockets that are not there any more.

use super::{
    Redis, beat, rows,
    scripts::{ADMIT, number, text},
};
use crate::{
    admit::{self, Admission, COOL_DOWN, Cap, Policy, client_tag},
    all::{Post, Registered},
    names::{GroupKey, SocketId},
    record::SocketRecord,
};
use futures_util::future::join_all;
use redis::cmd;
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};

/// What the script says of a user's sockets.
struct Said {
    word: Word,
    same: Vec<String>,
    others: Vec<String>,
}

#[derive(PartialEq, Eq)]
enum Word {
    Welcome,
    Full,
    Cooling,
}

impl Said {
    /// The clients that the script took for evicted.
    fn cooled(&self, cap: Cap) -> Vec<String> {
        let beyond = (self.others.len() + 1).saturating_sub(cap.sockets_max);
        self.others.iter().take(beyond).filter_map(|member| member.get(55..).map(str::to_owned)).collect()
    }
}

impl Redis {
    pub async fn admit(&self, newcomer: &Arc<SocketRecord>, cap: Cap) -> Admission {
        self.capped.store(cap.sockets_max > 0, Ordering::Relaxed);
        let Some(user) = self.counted(newcomer) else {
            self.enter(newcomer).await;
            return Admission::Welcome { replaced: Vec::new(), evicted: Vec::new() };
        };
        // Both at once, since nearly everybody is welcome: a connect costs one round trip.
        let (said, ()) = tokio::join!(self.ask_admit(newcomer, user, cap, &[]), self.enter(newcomer));
        let Some(said) = said else {
            return self.admit_alone(newcomer, user, cap).await;
        };
        if said.word == Word::Welcome && said.others.len() < cap.sockets_max.max(1) && said.same.is_empty() {
            return Admission::Welcome { replaced: Vec::new(), evicted: Vec::new() };
        }
        let ((stale, holders), (_, replaced)) = tokio::join!(self.look_at(&said.others), self.look_at(&said.same));
        match said.word {
            Word::Welcome => {
                let evicted = self.beyond(holders, cap);
                self.drop_stale(user, &stale, &said.cooled(cap), &evicted).await;
                Admission::Welcome { replaced, evicted }
            }
            _ if stale.is_empty() => self.refuse(newcomer, said.word, holders).await,
            _ => match self.ask_admit(newcomer, user, cap, &stale).await {
                Some(Said { word: Word::Welcome, same, .. }) => {
                    let replaced = self.look_at(&same).await.1;
                    let evicted = self.beyond(holders, cap);
                    Admission::Welcome { replaced, evicted }
                }
                Some(said) => self.refuse(newcomer, said.word, holders).await,
                None => self.admit_alone(newcomer, user, cap).await,
            },
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

    /// Without Redis the cap counts per instance.
    async fn admit_alone(&self, newcomer: &Arc<SocketRecord>, user: GroupKey, cap: Cap) -> Admission {
        let mut holders: Vec<_> = {
            let owner = self.owner();
            owner.groups.ids(user).iter().filter_map(|id| owner.get(*id)).cloned().collect()
        };
        holders.sort_by_key(|held| (held.attempt.accepted_at, held.id));
        let admission = admit::decide(newcomer, holders, cap, false);
        if !matches!(admission, Admission::Welcome { .. }) {
            self.withdraw(newcomer).await;
        }
        admission
    }

    async fn ask_admit(&self, newcomer: &SocketRecord, user: GroupKey, cap: Cap, stale: &[String]) -> Option<Said> {
        let policy = match cap.policy {
            Policy::EvictOldest => "evict",
            Policy::Reject => "reject",
        };
        let said = ADMIT
            .on([self.keys.user_sockets(user), self.keys.user_cooling(user)])
            .arg(Self::member(newcomer, &self.own()))
            .arg(newcomer.attempt.accepted_at)
            .arg(cap.sockets_max)
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
        let members: Vec<_> = said.iter().skip(2).map(|member| text(Some(member)).to_owned()).collect();
        let same = usize::try_from(number(said.get(1))).unwrap_or(0).min(members.len());
        let (same, others) = members.split_at(same);
        Some(Said { word, same: same.to_vec(), others: others.to_vec() })
    }

    /// Which members are not there any more, and the records of the rest. Who cannot be looked at is there.
    async fn look_at(&self, members: &[String]) -> (Vec<String>, Vec<Arc<SocketRecord>>) {
        let looks = join_all(members.iter().map(|member| self.look_at_one(member))).await;
        let (mut stale, mut there) = (Vec::new(), Vec::new());
        for (member, look) in members.iter().zip(looks) {
            match look {
                Some(Some(record)) => there.push(record),
                Some(None) => stale.push(member.clone()),
                None => {}
            }
        }
        (stale, there)
    }

    async fn look_at_one(&self, member: &str) -> Option<Option<Arc<SocketRecord>>> {
        let (Some(mark), Some(id), Some(session)) = (member.get(..22), member.get(22..44), member.get(44..55)) else {
            return Some(None);
        };
        let Some(id) = SocketId::from_short(id) else { return Some(None) };
        let (mut row, mut lease) = (cmd("HGETALL"), cmd("EXISTS"));
        row.arg(self.keys.row(id));
        lease.arg(self.keys.lease(mark));
        let (row, lease) = tokio::join!(self.link.ask(&row), self.link.ask(&lease));
        let (Ok(row), Ok(lease)) = (row, lease) else { return None };
        let leased = lease == redis::Value::Int(1);
        Some(match rows::read(id, &row) {
            Some(rows::Row::Live(record)) if leased && record.session.to_string() == session => Some(record),
            _ => None,
        })
    }

    /// The oldest beyond the cap, which counts the newcomer.
    fn beyond(&self, mut holders: Vec<Arc<SocketRecord>>, cap: Cap) -> Vec<Arc<SocketRecord>> {
        holders.truncate((holders.len() + 1).saturating_sub(cap.sockets_max));
        holders
    }

    /// Takes away what is not there any more. The script took its clients for evicted: they do not cool down.
    async fn drop_stale(&self, user: GroupKey, stale: &[String], cooled: &[String], evicted: &[Arc<SocketRecord>]) {
        if stale.is_empty() {
            return;
        }
        let (mut members, mut clients) = (cmd("ZREM"), cmd("ZREM"));
        members.arg(self.keys.user_sockets(user)).arg(stale);
        let evicted: BTreeSet<_> = evicted.iter().map(|record| client_tag(record)).collect();
        let spared: Vec<_> = cooled.iter().filter(|client| !evicted.contains(*client)).collect();
        if spared.is_empty() {
            let _ = self.link.ask(&members).await;
            return;
        }
        clients.arg(self.keys.user_cooling(user)).arg(spared);
        let _ = tokio::join!(self.link.ask(&members), self.link.ask(&clients));
    }
}
