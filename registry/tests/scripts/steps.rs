//! A small world, so that random operations meet: a few ids in two partitions, a few sessions of them, three
//! incarnations of which the first is heard by one, the second by two and the third by nobody, two users.

use crate::model::{Place, ids};
use fastrand::Rng;
use proptest::prelude::*;
use registry::{
    Attempt, Group, GroupKey, Incarnation, Policy, Resumable, RoomName, Serving, Session, SocketId, SocketRecord,
    StoreName, UserName,
};
use std::{num::NonZeroU32, sync::Arc};

/// How many listen to the bell of each incarnation.
pub const LISTENERS: [usize; 3] = [1, 2, 0];
pub const PARTITIONS: [usize; 2] = [5, 40];
/// For how many seconds a socket may be away; longer than any test.
pub const WINDOW: NonZeroU32 = NonZeroU32::new(3600).unwrap();

pub struct Universe {
    pub ids: Vec<SocketId>,
    pub sessions: Vec<Session>,
    pub incarnations: Vec<Incarnation>,
    pub users: Vec<UserName>,
}

#[derive(Debug, Clone)]
pub enum Step {
    Register {
        id: usize,
        session: usize,
        by: usize,
        n: u32,
        accepted: u64,
        dress: usize,
    },
    /// From 7 on the same, and what is closed is logged.
    Unregister {
        id: usize,
        session: usize,
        by: usize,
        to: usize,
    },
    /// Its client shows a token.
    Resume {
        id: usize,
        session: usize,
        by: usize,
        n: u32,
        accepted: u64,
    },
    /// 0 is when it is due, 1 at once, 2 that it was told.
    Away {
        id: usize,
        when: usize,
    },
    /// It is away, and its time is over.
    Overdue {
        id: usize,
    },
    /// So many events happen.
    Log {
        partition: usize,
        count: usize,
    },
    Beat {
        by: usize,
        serving: Serving,
    },
    Route {
        to: usize,
        large: bool,
    },
    Heard {
        of: usize,
    },
    Tomb {
        of: usize,
    },
    Reap {
        of: usize,
        partition: usize,
    },
    /// With what stands there, or with what does not.
    Recount {
        of: usize,
        partition: usize,
        seen: bool,
        count: u32,
    },
    Admit {
        user: usize,
        who: Who,
        cap: usize,
        policy: Policy,
        stale: Vec<Who>,
    },
    /// A frame was heard on the connection of this attempt.
    Confirm {
        id: usize,
        n: u32,
    },
    Cool {
        user: usize,
        client: usize,
        still: bool,
    },
    /// The lease runs out.
    Lapse {
        of: usize,
    },
    /// Somebody else puts something into a key of ours.
    Spoil(Spot),
}

/// One member of a user's index.
#[derive(Debug, Clone)]
pub struct Who {
    pub id: usize,
    pub session: usize,
    pub by: usize,
    pub client: usize,
}

#[derive(Debug, Clone)]
pub enum Spot {
    Row(usize),
    Owned(usize, usize),
    Left(usize, usize),
    Live(usize),
    Ended(usize),
    Events(usize),
    Lease(usize),
    Tomb(usize),
    Mail(usize),
    User(usize),
    Cooling(usize),
}

impl Universe {
    pub fn new() -> Self {
        let mut rng = Rng::with_seed(7);
        let now = 1_750_000_000_000;
        Self {
            ids: (0..4).map(|nth| ids::socket(now + nth as u64, PARTITIONS[nth % 2], &mut rng)).collect(),
            sessions: (0..4).map(|_| ids::session(&mut rng)).collect(),
            incarnations: (0..3).map(|nth| ids::incarnation(&format!("web{nth}"), now, &mut rng)).collect(),
            users: ["ada", "bob"].iter().map(|name| UserName::parse(name).unwrap()).collect(),
        }
    }

    pub fn user(&self, nth: usize) -> GroupKey {
        Group::User(self.users[nth].clone()).key()
    }

    /// The same socket in one of several dresses: another store, other rooms, with or without a user. The last two may
    /// come back.
    pub fn record(&self, id: usize, session: usize, by: usize, attempt: Attempt, dress: usize) -> Arc<SocketRecord> {
        let room = |name: &str| RoomName::parse(name).unwrap();
        Arc::new(SocketRecord {
            id: self.ids[id],
            session: self.sessions[session],
            owner: self.incarnations[by].clone(),
            attempt,
            user: (dress > 0).then(|| self.users[dress % 2].clone()),
            store: (dress > 1).then(|| StoreName::parse(&format!("shop {dress}")).unwrap()),
            rooms: if dress > 2 { [room("a"), room("b")].into() } else { [].into() },
            client: (dress == 3).then(|| "tab".into()),
            address: [10, 0, 0, 7].into(),
            connected_at: 1_750_000_000_000,
            resumable: (dress > 3).then(|| Resumable { window: WINDOW, confirmed: dress as u32 - 4 }),
        })
    }

    pub fn member(&self, who: &Who) -> String {
        let client = ["cAAAAAAAA", "cBBBBBBBB", "aAAAAAAAA", "aBBBBBBBB"][who.client];
        format!(
            "{}{}{}{client}",
            self.incarnations[who.by].mark(),
            self.ids[who.id].short(),
            self.sessions[who.session]
        )
    }

    pub fn client(&self, nth: usize) -> String {
        self.member(&Who { id: 0, session: 0, by: 0, client: nth })[55..].to_owned()
    }

    pub fn place(&self, spot: &Spot) -> Place {
        let life = |nth: &usize| self.incarnations[*nth].clone();
        match spot {
            Spot::Row(id) => Place::Row(self.ids[*id]),
            Spot::Owned(k, by) => Place::Owned(PARTITIONS[*k], life(by)),
            Spot::Left(k, of) => Place::Left(PARTITIONS[*k], life(of)),
            Spot::Live(k) => Place::Live(PARTITIONS[*k]),
            Spot::Ended(k) => Place::Ended(PARTITIONS[*k]),
            Spot::Events(k) => Place::Events(PARTITIONS[*k]),
            Spot::Lease(of) => Place::Lease(life(of)),
            Spot::Tomb(of) => Place::Tomb(life(of)),
            Spot::Mail(of) => Place::Mail(life(of)),
            Spot::User(user) => Place::User(self.user(*user)),
            Spot::Cooling(user) => Place::Cooling(self.user(*user)),
        }
    }
}

fn who() -> impl Strategy<Value = Who> {
    (0..4_usize, 0..4_usize, 0..3_usize, 0..4_usize).prop_map(|(id, session, by, client)| Who {
        id,
        session,
        by,
        client,
    })
}

fn spot() -> impl Strategy<Value = Spot> {
    prop_oneof![
        (0..4_usize).prop_map(Spot::Row),
        (0..2_usize, 0..3_usize).prop_map(|(k, by)| Spot::Owned(k, by)),
        (0..2_usize, 0..3_usize).prop_map(|(k, of)| Spot::Left(k, of)),
        (0..2_usize).prop_map(Spot::Live),
        (0..2_usize).prop_map(Spot::Ended),
        (0..2_usize).prop_map(Spot::Events),
        (0..3_usize).prop_map(Spot::Lease),
        (0..3_usize).prop_map(Spot::Tomb),
        (0..3_usize).prop_map(Spot::Mail),
        (0..2_usize).prop_map(Spot::User),
        (0..2_usize).prop_map(Spot::Cooling),
    ]
}

pub fn step() -> impl Strategy<Value = Step> {
    let serving = prop_oneof![Just(Serving::Serving), Just(Serving::Draining), Just(Serving::Deaf)];
    let policy = prop_oneof![Just(Policy::EvictOldest), Just(Policy::Reject)];
    prop_oneof![
        8 => (0..4_usize, 0..4_usize, 0..3_usize, 1..4_u32, 0..3_u64, 0..6_usize).prop_map(
            |(id, session, by, n, accepted, dress)| Step::Register { id, session, by, n, accepted, dress }
        ),
        6 => (0..4_usize, 0..4_usize, 0..3_usize, 0..14_usize)
            .prop_map(|(id, session, by, to)| Step::Unregister { id, session, by, to }),
        8 => (0..4_usize, 0..4_usize, 0..3_usize, 1..5_u32, 0..3_u64)
            .prop_map(|(id, session, by, n, accepted)| Step::Resume { id, session, by, n, accepted }),
        3 => (0..4_usize, 0..3_usize).prop_map(|(id, when)| Step::Away { id, when }),
        1 => (0..4_usize).prop_map(|id| Step::Overdue { id }),
        1 => (0..2_usize, 1..4_usize).prop_map(|(partition, count)| Step::Log { partition, count }),
        3 => (0..3_usize, serving).prop_map(|(by, serving)| Step::Beat { by, serving }),
        3 => (0..3_usize, any::<bool>()).prop_map(|(to, large)| Step::Route { to, large }),
        1 => (0..3_usize).prop_map(|of| Step::Heard { of }),
        1 => (0..3_usize).prop_map(|of| Step::Tomb { of }),
        2 => (0..3_usize, 0..2_usize).prop_map(|(of, partition)| Step::Reap { of, partition }),
        2 => (0..3_usize, 0..2_usize, any::<bool>(), 1..4_u32)
            .prop_map(|(of, partition, seen, count)| Step::Recount { of, partition, seen, count }),
        5 => (0..2_usize, who(), 0..4_usize, policy, proptest::collection::vec(who(), 0..2))
            .prop_map(|(user, who, cap, policy, stale)| Step::Admit { user, who, cap, policy, stale }),
        4 => (0..4_usize, 1..4_u32).prop_map(|(id, n)| Step::Confirm { id, n }),
        1 => (0..2_usize, 0..4_usize, any::<bool>())
            .prop_map(|(user, client, still)| Step::Cool { user, client, still }),
        1 => (0..3_usize).prop_map(|of| Step::Lapse { of }),
        1 => spot().prop_map(Step::Spoil),
    ]
}

/// All of them, in an order in which each has something to do.
pub fn each_script_once() -> Vec<Step> {
    let who = Who { id: 0, session: 0, by: 0, client: 0 };
    let mut steps = Vec::new();
    for by in 0..3 {
        steps.push(Step::Beat { by, serving: Serving::Serving });
        for id in 0..4 {
            steps.push(Step::Register { id, session: by, by, n: by as u32 + 1, accepted: 1, dress: 3 });
        }
        steps.push(Step::Beat { by, serving: Serving::Serving });
        steps.push(Step::Route { to: by, large: false });
        steps.push(Step::Route { to: by, large: true });
        steps.push(Step::Heard { of: by });
    }
    steps.push(Step::Register { id: 0, session: 2, by: 2, n: 3, accepted: 1, dress: 4 });
    steps.push(Step::Resume { id: 0, session: 3, by: 1, n: 4, accepted: 2 });
    steps.push(Step::Unregister { id: 0, session: 3, by: 1, to: 6 });
    steps.push(Step::Resume { id: 0, session: 2, by: 2, n: 4, accepted: 3 });
    steps.push(Step::Unregister { id: 0, session: 2, by: 2, to: 2 });
    steps.push(Step::Away { id: 0, when: 0 });
    steps.push(Step::Overdue { id: 0 });
    steps.push(Step::Away { id: 0, when: 0 });
    // It had a later connection, of which Redis had forgotten.
    steps.push(Step::Register { id: 0, session: 1, by: 1, n: 5, accepted: 4, dress: 4 });
    steps.push(Step::Unregister { id: 0, session: 1, by: 1, to: 7 });
    steps.push(Step::Away { id: 0, when: 0 });
    steps.push(Step::Register { id: 2, session: 2, by: 2, n: 3, accepted: 2, dress: 5 });
    steps.push(Step::Unregister { id: 2, session: 2, by: 2, to: 3 });
    steps.extend((1..3).map(|when| Step::Away { id: 2, when }));
    steps.push(Step::Unregister { id: 1, session: 2, by: 2, to: 5 });
    steps.push(Step::Log { partition: 0, count: 3 });
    steps.push(Step::Register { id: 3, session: 2, by: 2, n: 3, accepted: 1, dress: 5 });
    for policy in [Policy::EvictOldest, Policy::Reject] {
        steps.push(Step::Admit { user: 0, who: who.clone(), cap: 1, policy, stale: vec![] });
        let other = Who { id: 1, client: 1, ..who.clone() };
        steps.push(Step::Admit { user: 0, who: other, cap: 1, policy, stale: vec![who.clone()] });
        steps.push(Step::Cool { user: 0, client: 0, still: true });
    }
    steps.push(Step::Recount { of: 2, partition: 0, seen: true, count: 2 });
    steps.push(Step::Lapse { of: 2 });
    steps.push(Step::Tomb { of: 2 });
    steps.extend((0..2).map(|partition| Step::Reap { of: 2, partition }));
    steps
}
