//! Queued calls in Redis and in memory, by the same random operations: whatever is said of them is the same.

use super::{Fleet, waits::store};
use bytes::Bytes;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use registry::{CallId, Cancelled, Durability, GroupKey, Parcel, Registry, SocketId, Standing, Taken, WasGiven};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::runtime::Runtime;

const SEQUENCES: u32 = 200;
const INSTANCES: usize = 2;
const CALLS: usize = 3;
const LONG: Duration = Duration::from_secs(600);

#[derive(Debug, Clone)]
enum Step {
    Queue {
        call: usize,
    },
    Take {
        by: usize,
    },
    Give {
        call: usize,
    },
    Lose {
        call: usize,
        was_given: WasGiven,
    },
    /// Somebody says that they lost it who has it no more.
    LoseLate {
        call: usize,
    },
    /// An instance is taken for gone.
    Gone {
        who: usize,
    },
    Answer {
        call: usize,
        attempt: u32,
    },
    Cancel {
        call: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let call = || 0..CALLS;
    let was_given = prop_oneof![Just(WasGiven::No), Just(WasGiven::Unknown), Just(WasGiven::Yes)];
    prop_oneof![
        4 => call().prop_map(|call| Step::Queue { call }),
        6 => (0..INSTANCES).prop_map(|by| Step::Take { by }),
        6 => call().prop_map(|call| Step::Give { call }),
        3 => (call(), was_given).prop_map(|(call, was_given)| Step::Lose { call, was_given }),
        1 => call().prop_map(|call| Step::LoseLate { call }),
        1 => (0..INSTANCES).prop_map(|who| Step::Gone { who }),
        2 => (call(), 0..4_u32).prop_map(|(call, attempt)| Step::Answer { call, attempt }),
        1 => call().prop_map(|call| Step::Cancel { call }),
    ]
}

/// Who has a call, as whoever plays the instances knows it.
#[derive(Debug, Clone, Copy)]
struct Hands {
    of: usize,
    /// The attempt, once it is given to a socket.
    attempt: Option<u32>,
}

/// One form of the registry, and what is known of the calls in it.
struct Form {
    instances: Vec<Registry>,
    /// Another for each sequence.
    group: GroupKey,
    calls: Vec<Option<CallId>>,
    hands: BTreeMap<usize, Hands>,
    /// Of which the record still names one who was taken for gone.
    loose: BTreeSet<usize>,
}

impl Form {
    fn new(instances: Vec<Registry>, group: GroupKey) -> Self {
        Self { instances, group, calls: vec![None; CALLS], hands: BTreeMap::new(), loose: BTreeSet::new() }
    }

    fn taken(&self, call: usize) -> Taken {
        let call = self.calls[call].clone().unwrap_or_else(CallId::queued);
        Taken { call, group: self.group, patience: LONG }
    }

    fn index(&self, call: &CallId) -> usize {
        self.calls.iter().position(|known| known.as_ref() == Some(call)).unwrap()
    }

    /// What is said, in words that do not name who is who.
    async fn does(&mut self, step: &Step) -> String {
        match step {
            Step::Queue { call } if self.calls[*call].is_none() => {
                let (text, wants) = ("x".into(), Durability::Memory);
                let parcel =
                    Parcel { call: CallId::queued(), group: self.group, text, ttl: LONG, patience: LONG, wants };
                self.calls[*call] = Some(parcel.call.clone());
                format!("{:?}", self.instances[0].queue(&parcel).await)
            }
            Step::Take { by } => {
                // All: which of them is first is not promised once one was put back.
                let turn = self.instances[*by].take(self.group, CALLS).await.unwrap();
                let calls: BTreeSet<_> = turn.calls.iter().map(|taken| self.index(&taken.call)).collect();
                for call in &calls {
                    self.hands.insert(*call, Hands { of: *by, attempt: None });
                }
                let own: Vec<_> = self.instances.iter().map(Registry::incarnation).collect();
                let others: BTreeSet<_> = turn.others.iter().map(|other| own.iter().position(|o| o == other)).collect();
                let before: BTreeSet<_> = turn.before.iter().map(|taken| self.index(&taken.call)).collect();
                format!("{calls:?} {others:?} {before:?}")
            }
            Step::Give { call } => {
                let Some(Hands { of, attempt: None }) = self.hands.get(call).copied() else { return String::new() };
                let handed =
                    self.instances[of].give(&self.taken(*call).call, SocketId::fresh(), u64::MAX).await.unwrap();
                self.loose.remove(call);
                match &handed {
                    Some(handed) => drop(self.hands.insert(*call, Hands { of, attempt: Some(handed.attempt) })),
                    None => drop(self.hands.remove(call)),
                }
                format!("{:?}", handed.map(|handed| (handed.attempt, handed.text)))
            }
            Step::Lose { call, was_given } => {
                let Some(Hands { of, attempt: Some(attempt) }) = self.hands.remove(call) else { return String::new() };
                let (registry, taken) = (&self.instances[of], self.taken(*call));
                let back = registry.back(&taken.call, attempt, *was_given).await;
                registry.next(self.group, &registry.incarnation(), Some(&taken), LONG).await.unwrap();
                format!("{back:?}")
            }
            Step::LoseLate { call } => {
                let late = self.hands.get(call).and_then(|hands| hands.attempt).unwrap_or_default() + 7;
                format!("{:?}", self.instances[0].back(&self.taken(*call).call, late, WasGiven::Yes).await)
            }
            Step::Gone { who } => {
                let gone = self.instances[*who].incarnation();
                self.instances[0].next(self.group, &gone, None, LONG).await.unwrap();
                let had: Vec<_> =
                    self.hands.iter().filter(|(_, hands)| hands.of == *who).map(|(call, _)| *call).collect();
                for call in had {
                    if self.hands.remove(&call).is_some_and(|hands| hands.attempt.is_some()) {
                        self.loose.insert(call);
                    }
                }
                String::new()
            }
            Step::Answer { call, attempt } if !self.loose.contains(call) => {
                let taken = self.taken(*call);
                let said = self.instances[0].answer(&taken.call, Some(*attempt), &Bytes::from_static(b"o")).await;
                if said == Ok(true) {
                    let Hands { of, .. } = self.hands.remove(call).unwrap();
                    self.instances[of].over(&taken).await.unwrap();
                }
                format!("{said:?}")
            }
            Step::Cancel { call } => {
                let said = self.instances[0].cancel(&self.taken(*call).call).await.unwrap();
                self.hands.remove(call);
                match said {
                    Cancelled::Given(_) | Cancelled::Waited if self.loose.contains(call) => "taken back".into(),
                    Cancelled::Given(_) => "given".into(),
                    said => format!("{said:?}"),
                }
            }
            Step::Queue { .. } | Step::Answer { .. } => String::new(),
        }
    }

    async fn standings(&self) -> String {
        let mut all = String::new();
        for call in (0..CALLS).filter(|call| !self.loose.contains(call)) {
            let standing = self.instances[1].standing(&self.taken(call).call).await.unwrap();
            all += &match standing {
                Standing::Given { attempt, .. } => format!("{call}: given {attempt}; "),
                standing => format!("{call}: {standing:?}; "),
            };
        }
        all
    }
}

#[test]
fn queued_calls_stand_in_redis_as_in_memory() {
    let runtime = Runtime::new().unwrap();
    let (redis, memory) = runtime.block_on(async {
        let mut forms = Vec::new();
        for mut fleet in [Fleet::on_redis(), Fleet::in_memory()] {
            let instances = vec![fleet.instance("web1").await, fleet.instance("web2").await];
            forms.push((fleet, instances));
        }
        let memory = forms.pop().unwrap();
        (forms.pop().unwrap(), memory)
    });
    let config = Config { cases: SEQUENCES, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&vec(step(), 1..40), |steps| {
        let group = store(CallId::queued().as_str());
        let (mut real, mut model) = (Form::new(redis.1.clone(), group), Form::new(memory.1.clone(), group));
        for (nth, step) in steps.iter().enumerate() {
            let (said, expected) = runtime.block_on(async { (real.does(step).await, model.does(step).await) });
            prop_assert_eq!(said, expected, "step {}: {:?}", nth, step);
            let (said, expected) = runtime.block_on(async { (real.standings().await, model.standings().await) });
            prop_assert_eq!(said, expected, "after step {}: {:?}", nth, step);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
