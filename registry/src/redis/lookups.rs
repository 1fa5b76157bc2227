//! What anybody may ask: where a socket is, or why it is not there, who holds a group, who is connected.

use super::{
    Redis,
    beat::{self, ms},
    link::Fault,
    rows::{self, Row},
    scripts::{HEARD, number, text},
};
use crate::{
    all::{Hearing, Holding, Lookup, Unknown},
    lease::{About, Lease, Serving},
    names::{GroupKey, Incarnation, SocketId},
    owner::PARTITIONS,
    record::{Holder, SocketRecord},
    rules::{Absence, Sign, absence},
    verdict::{Cause, Ending, Gone, Verdict},
};
use futures_util::future::{join_all, try_join_all};
use redis::{Cmd, Value, cmd};
use std::{
    collections::VecDeque,
    sync::{Arc, PoisonError},
    time::Duration,
};

/// Rows asked for at once.
const ROWS_AT_ONCE: usize = 500;
/// More ids than its even share that a partition is asked for, so that one round mostly does.
const MORE_THAN_SHARE: usize = 8;

/// Whether an instance is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Heard,
    /// It holds a lease, or lost it a moment ago, and nobody listens to its bell.
    Unheard,
    Dead,
}

/// One partition's ids, on their way into one page.
struct Strand {
    k: usize,
    after: String,
    ids: VecDeque<SocketId>,
    over: bool,
}

impl Redis {
    /// Who holds it. What is not live is looked at more closely.
    pub async fn whereabouts(&self, asked: &str) -> Lookup<Holder> {
        let Some(id) = SocketId::parse(asked) else { return self.row(asked).await.map(|record| Holder::of(&record)) };
        match self.link.ask(cmd("HMGET").arg(self.keys.row(id)).arg(&rows::OF_HOLDER)).await {
            Ok(Value::Array(values)) => match rows::holder(id, &values) {
                Some(holder) => Lookup::Live(holder),
                None => self.row(asked).await.map(|record| Holder::of(&record)),
            },
            _ => Lookup::Unknown(Unknown::Unavailable),
        }
    }

    /// What its row says, or what it means that it has none.
    async fn row(&self, asked: &str) -> Lookup {
        let gone = |gone, since| Lookup::Gone(Verdict::new(asked, gone, since));
        let Some(id) = SocketId::parse(asked) else { return gone(Gone::NeverSeen, Duration::ZERO) };
        let Ok(row) = self.read_row(id).await else { return Lookup::Unknown(Unknown::Unavailable) };
        match row {
            Some(Row::Live(record)) => Lookup::Live(record),
            Some(Row::Gone(ended)) => {
                let (how, since) = ended.at(self.now_ms());
                gone(how, since)
            }
            None => match self.absence(id).await {
                Ok(Absence::Rebuilding) => Lookup::Unknown(Unknown::Rebuilding),
                Ok(Absence::Forgotten) => gone(Gone::Forgotten, Duration::ZERO),
                Ok(Absence::NeverSeen) => gone(Gone::NeverSeen, Duration::ZERO),
                Err(_) => Lookup::Unknown(Unknown::Unavailable),
            },
        }
    }

    /// What it means that an id has no row.
    pub(super) async fn absence(&self, id: SocketId) -> Result<Absence, Fault> {
        let key = self.keys.born(crate::owner::partition(id));
        let born = self.ask_number(cmd("GET").arg(&key)).await?;
        match absence(id, born.filter(|_| self.is_sure(&key)), self.now_ms(), self.why_ttl) {
            // Whoever lives and cannot tell Redis may have let it in.
            Absence::NeverSeen if !self.all_are_heard().await? => Ok(Absence::Rebuilding),
            absence => Ok(absence),
        }
    }

    /// Whether every instance that is not known to be dead has told Redis lately what it holds.
    pub(super) async fn all_are_heard(&self) -> Result<bool, Fault> {
        let asked = self.now_ms();
        let lately = self.silence.lock().unwrap_or_else(PoisonError::into_inner).lately(asked);
        if let Some(silent) = lately {
            return Ok(!silent);
        }
        let own = self.own();
        let known = self.known().await.map_err(|_| Fault::Away)?;
        let others = known.into_iter().filter(|(other, _)| *other != own).map(async |(other, _)| {
            let (mut beat, mut tomb) = (cmd("HGET"), cmd("EXISTS"));
            beat.arg(self.keys.lease(other.mark())).arg("beat");
            tomb.arg(self.keys.tomb(other.mark()));
            let (beat, tomb) = tokio::join!(self.ask_number(&beat), self.ask_number(&tomb));
            let beats = beat?.is_some_and(|beat| beat + ms(beat::GAP) >= asked);
            let sign = match tomb? {
                Some(1) => Sign::Dead,
                _ if beats => Sign::Beats,
                _ => Sign::Silent,
            };
            Ok::<_, Fault>((other, sign))
        });
        let others = try_join_all(others).await?;
        Ok(!self.silence.lock().unwrap_or_else(PoisonError::into_inner).look(asked, others))
    }

    pub async fn lookup(&self, asked: &str) -> Lookup {
        let record = match self.row(asked).await {
            Lookup::Live(record) => record,
            other => return other,
        };
        if record.owner == self.own() {
            return Lookup::Live(record);
        }
        match self.presence(&record.owner).await {
            Ok(Presence::Heard) => Lookup::Live(record),
            Ok(Presence::Unheard) => Lookup::Unknown(Unknown::OwnerUnreachable(record.owner.clone())),
            Ok(Presence::Dead) => Lookup::Gone(Verdict::new(asked, self.lost(&record), Duration::ZERO)),
            Err(_) => Lookup::Unknown(Unknown::Unavailable),
        }
    }

    /// The verdict on a socket whose owner was declared dead and is not cleaned up yet.
    fn lost(&self, record: &SocketRecord) -> Gone {
        Gone::Closed {
            instance: record.owner.instance().into(),
            connected_at: record.connected_at,
            closed_at: self.now_ms(),
            store: record.store.clone(),
            user: record.user.clone(),
            ending: Ending { cause: Cause::InstanceCrash, code: None, reason: "".into() },
            back_within: record.resumable.map(|resumable| resumable.window),
        }
    }

    /// As HEARD says it.
    async fn ask_presence(&self, of: &Incarnation) -> Result<Vec<Value>, Fault> {
        let (keys, mark) = (&self.keys, of.mark());
        let numsub = if self.link.is_cluster() { "SHARDNUMSUB" } else { "NUMSUB" };
        HEARD.on([keys.lease(mark), keys.tomb(mark), keys.bell(mark)]).arg(numsub).run(&self.link).await
    }

    pub(super) async fn presence(&self, of: &Incarnation) -> Result<Presence, Fault> {
        let said = self.ask_presence(of).await?;
        Ok(match (number(said.get(4)), number(said.get(3)), text(said.first())) {
            (1, ..) => Presence::Dead,
            (_, 0, _) | (.., "") => Presence::Unheard,
            _ => Presence::Heard,
        })
    }

    pub async fn hearing(&self, of: &Incarnation) -> Result<Hearing, Unknown> {
        let said = self.ask_presence(of).await.map_err(|_| Unknown::Unavailable)?;
        let (beat, now) = (number(said.get(1)), number(said.get(2)));
        Ok(match (text(said.first()), number(said.get(3))) {
            ("", _) => Hearing::Gone,
            (_, 0) => Hearing::Deaf { beaten: Duration::from_millis(now.saturating_sub(beat)) },
            _ => Hearing::Hears,
        })
    }

    pub async fn holders(&self, group: GroupKey) -> Result<Vec<Holding>, Unknown> {
        let said = self.ask(cmd("HGETALL").arg(self.keys.group(group))).await?;
        let holding = |(owner, told): (String, String)| {
            let (members, active_at) = told.split_once('|')?;
            Some(Holding {
                owner: Incarnation::parse(&owner)?,
                members: members.parse::<u32>().ok()? as usize,
                active_at: active_at.parse().ok()?,
            })
        };
        Ok(rows::pairs(&said).into_iter().filter_map(holding).collect())
    }

    pub async fn total(&self) -> Result<usize, Unknown> {
        let counts = (0..PARTITIONS).map(async |k| self.ask_number(cmd("ZCARD").arg(self.keys.live(k))).await);
        let counts = try_join_all(counts).await.map_err(|_| Unknown::Unavailable)?;
        Ok(counts.into_iter().flatten().map(|count| usize::try_from(count).unwrap_or(usize::MAX)).sum())
    }

    /// Merges the partitions' ids, which are in order within each of them.
    pub async fn page(&self, after: SocketId, limit: usize) -> Result<Vec<Arc<SocketRecord>>, Unknown> {
        let strand = |k| Strand { k, after: after.short(), ids: VecDeque::new(), over: false };
        let mut strands: Vec<_> = (0..PARTITIONS).map(strand).collect();
        let mut page = Vec::new();
        while page.len() < limit {
            let wanted = limit - page.len();
            self.refill(&mut strands, wanted).await?;
            let mut ids = Vec::new();
            // Only while every strand that is not over shows its next id is the smallest known.
            while ids.len() < wanted.min(ROWS_AT_ONCE)
                && strands.iter().all(|strand| strand.over || !strand.ids.is_empty())
            {
                let next =
                    strands.iter_mut().filter(|strand| !strand.ids.is_empty()).min_by_key(|strand| strand.ids[0]);
                let Some(id) = next.and_then(|strand| strand.ids.pop_front()) else { break };
                ids.push(id);
            }
            if ids.is_empty() && strands.iter().all(|strand| strand.over && strand.ids.is_empty()) {
                break;
            }
            for row in join_all(ids.into_iter().map(|id| self.read_row(id))).await {
                if let Some(Row::Live(record)) = row.map_err(|_| Unknown::Unavailable)? {
                    page.push(record);
                }
            }
        }
        Ok(page)
    }

    async fn refill(&self, strands: &mut [Strand], wanted: usize) -> Result<(), Unknown> {
        let share = wanted.div_ceil(PARTITIONS) + MORE_THAN_SHARE;
        let refills = strands.iter_mut().filter(|strand| strand.ids.is_empty() && !strand.over).map(async |strand| {
            let mut command = cmd("ZRANGEBYLEX");
            command.arg(self.keys.live(strand.k)).arg(format!("({}", strand.after)).arg("+");
            command.arg("LIMIT").arg(0).arg(share);
            let Value::Array(found) = self.ask(&command).await? else { return Ok(()) };
            strand.over = found.len() < share;
            if let Some(last) = found.last() {
                text(Some(last)).clone_into(&mut strand.after);
            }
            strand.ids.extend(found.iter().filter_map(|id| SocketId::from_short(text(Some(id)))));
            Ok(())
        });
        try_join_all(refills).await.map(drop)
    }

    pub async fn instances(&self) -> Result<Vec<Lease>, Unknown> {
        let leases = self.known().await?.into_iter().map(|(incarnation, _)| async {
            let said = self.ask(cmd("HGETALL").arg(self.keys.lease(incarnation.mark()))).await?;
            Ok(read_lease(incarnation, &said))
        });
        let mut leases: Vec<_> = try_join_all(leases).await?.into_iter().flatten().collect();
        leases.sort_by(|a, b| a.incarnation.cmp(&b.incarnation));
        Ok(leases)
    }

    /// The incarnations that were heard of, and when they were last heard.
    pub(super) async fn known(&self) -> Result<Vec<(Incarnation, u64)>, Unknown> {
        let said = self.ask(cmd("ZRANGE").arg(self.keys.instances()).arg(0).arg(-1).arg("WITHSCORES")).await?;
        let Value::Array(members) = said else { return Ok(Vec::new()) };
        let pair = |pair: &Value| match pair {
            Value::Array(pair) => match pair.as_slice() {
                // Milliseconds; what is none was written by somebody else.
                [member, Value::Double(score)] if (0.0..1e15).contains(score) => {
                    Some((Incarnation::parse(text(Some(member)))?, *score as u64))
                }
                _ => None,
            },
            _ => None,
        };
        Ok(members.iter().filter_map(pair).collect())
    }

    pub(super) async fn read_row(&self, id: SocketId) -> Result<Option<Row>, Fault> {
        let said = self.link.ask(cmd("HGETALL").arg(self.keys.row(id))).await?;
        match rows::read(id, &said) {
            // Of a later version, or somebody else's: it is there, and nobody may say that it is not.
            None if !rows::pairs(&said).is_empty() => Err(Fault::Refused("a row that cannot be read".into())),
            row => Ok(row),
        }
    }

    async fn ask(&self, command: &Cmd) -> Result<Value, Unknown> {
        self.link.ask(command).await.map_err(|_| Unknown::Unavailable)
    }

    pub(super) async fn ask_number(&self, command: &Cmd) -> Result<Option<u64>, Fault> {
        Ok(match self.link.ask(command).await? {
            Value::Nil => None,
            value => Some(number(Some(&value))),
        })
    }
}

fn read_lease(incarnation: Incarnation, said: &Value) -> Option<Lease> {
    let fields = rows::pairs(said);
    let text = |name: &str| fields.get(name).map(String::as_str);
    let number = |name: &str| text(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
    Some(Lease {
        serving: Serving::parse(text("state")?)?,
        sockets: usize::try_from(number("sockets")).unwrap_or_default(),
        configuration: text("configuration").unwrap_or_default().to_owned(),
        about: About {
            instance: incarnation.instance().to_owned(),
            version: text("version").unwrap_or_default().to_owned(),
            pid: u32::try_from(number("pid")).unwrap_or_default(),
            started_at: number("startedAt"),
            canary: text("canary") == Some("true"),
            address: text("address").unwrap_or_default().to_owned(),
            manager: text("manager").map(str::to_owned),
            restarts: text("restarts").and_then(|text| text.parse().ok()),
        },
        incarnation,
    })
}
