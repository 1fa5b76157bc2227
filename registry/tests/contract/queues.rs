//! Calls that are kept until somebody comes.

use super::{
    Fleet,
    fleet::{DEADLINE, eventually},
    waits::{of, store},
};
use bytes::Bytes;
use futures_util::future::join_all;
use registry::{
    Arrived, CallId, Cancelled, Durability, Parcel, Post, Queued, Registry, SocketId, Standing, Taken, Unknown,
    WasGiven, queue::QUEUED_MAX,
};
use std::time::Duration;
use tokio::time::{sleep, timeout};

const TTL: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(30);
const LATER: u64 = u64::MAX;

fn parcel(text: &'static str) -> Parcel {
    let text = Bytes::from_static(text.as_bytes());
    Parcel { call: CallId::queued(), group: store("s"), text, ttl: TTL, patience: PATIENCE, wants: Durability::Memory }
}

async fn queued(registry: &Registry, text: &'static str) -> CallId {
    let parcel = parcel(text);
    assert_eq!(registry.queue(&parcel).await, Ok(Queued::Waits(Durability::Memory, Vec::new())));
    assert_eq!(registry.standing(&parcel.call).await, Ok(Standing::Waits { attempt: 0 }));
    parcel.call
}

async fn takes(registry: &Registry) -> Vec<Taken> {
    registry.take(store("s"), 100).await.unwrap().calls
}

async fn taken(registry: &Registry) -> Taken {
    takes(registry).await.pop().unwrap()
}

pub async fn a_queued_call_is_taken_by_one_of_those_who_ask_at_once(mut fleet: Fleet) {
    let (one, two) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let mut calls = Vec::new();
    for _ in 0..20 {
        calls.push(queued(&one, "x").await);
    }
    let turns = (0..10).map(async |n| if n % 2 == 0 { &one } else { &two }.take(store("s"), 3).await.unwrap().calls);
    let mut all: Vec<_> = join_all(turns).await.concat().into_iter().map(|taken| taken.call).collect();
    assert_eq!(all.len(), 20);
    all.sort_unstable();
    calls.sort_unstable();
    assert_eq!(all, calls);
    // Whoever did not hear the answer finds what it took.
    let mut before = Vec::new();
    for registry in [&one, &two] {
        let turn = registry.take(store("s"), 3).await.unwrap();
        assert!(turn.calls.is_empty());
        before.extend(turn.before.into_iter().map(|taken| taken.call));
    }
    before.sort_unstable();
    assert_eq!(before, calls);
}

pub async fn each_attempt_of_a_queued_call_is_counted_and_its_first_outcome_stands(mut fleet: Fleet) {
    let (one, two) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let call = queued(&one, "text").await;
    let said = |text: &'static str| Bytes::from_static(text.as_bytes());
    for (attempt, registry) in [(1, &one), (2, &two), (3, &one)] {
        let (taken, socket) = (taken(registry).await, SocketId::fresh());
        assert_eq!((&taken.call, taken.patience), (&call, PATIENCE));
        let handed = registry.give(&call, socket, LATER).await.unwrap().unwrap();
        assert_eq!((handed.text, handed.attempt), (said("text"), attempt));
        let owner = registry.incarnation();
        assert_eq!(two.standing(&call).await, Ok(Standing::Given { socket, owner: owner.clone(), attempt }));
        // Somebody who had it before.
        assert_eq!(two.answer(&call, Some(attempt - 1), &said("late")).await, Ok(false));
        assert_eq!(two.back(&call, attempt - 1, WasGiven::Yes).await, Ok(false));
        assert_eq!(two.answer(&call, None, &said("not over")).await, Ok(false));
        if attempt < 3 {
            assert_eq!(registry.back(&call, attempt, WasGiven::Unknown).await, Ok(true));
            registry.next(store("s"), &owner, Some(&taken), TTL).await.unwrap();
            assert_eq!(one.standing(&call).await, Ok(Standing::Waits { attempt }));
        } else {
            assert_eq!(registry.answer(&call, Some(3), &said("first")).await, Ok(true));
            registry.over(&taken).await.unwrap();
        }
    }
    for registry in [&one, &two] {
        assert_eq!(registry.answer(&call, Some(3), &said("second")).await, Ok(false));
        assert_eq!(registry.standing(&call).await, Ok(Standing::Done(said("first"))));
        assert_eq!(registry.give(&call, SocketId::fresh(), LATER).await, Ok(None));
        assert!(takes(registry).await.is_empty());
    }
    // What nobody has seen is no attempt.
    let call = queued(&one, "x").await;
    for _ in 0..3 {
        let taken = taken(&two).await;
        assert_eq!(two.give(&call, SocketId::fresh(), LATER).await.unwrap().unwrap().attempt, 1);
        assert_eq!(two.back(&call, 1, WasGiven::No).await, Ok(true));
        two.next(store("s"), &two.incarnation(), Some(&taken), TTL).await.unwrap();
    }
}

pub async fn what_somebody_had_who_is_gone_goes_on_to_the_next(mut fleet: Fleet) {
    let (one, two) = (fleet.instance("web1").await, fleet.instance("web2").await);
    for _ in 0..3 {
        queued(&one, "x").await;
    }
    let first = takes(&one).await;
    let own = one.incarnation();
    one.give(&first[0].call, SocketId::fresh(), LATER).await.unwrap().unwrap();
    let turn = two.take(store("s"), 100).await.unwrap();
    assert_eq!((turn.calls, turn.others), (Vec::new(), vec![own.clone()]));
    // Whoever stood still since it took one asks nobody.
    let late = one.give(&first[1].call, SocketId::fresh(), one.now_ms() - 60_000).await;
    assert_eq!(late, Err(Unknown::Unavailable));
    assert_eq!(two.standing(&first[1].call).await, Ok(Standing::Waits { attempt: 0 }));
    two.register(of(&two, "s")).await;
    // Not of somebody else.
    two.next(store("s"), &two.incarnation(), None, TTL).await.unwrap();
    assert!(takes(&two).await.is_empty());
    let holders = two.next(store("s"), &own, None, TTL).await.unwrap();
    assert_eq!(holders, [two.incarnation()]);
    assert_eq!(takes(&two).await.len(), 3);
    assert_eq!(two.give(&first[0].call, SocketId::fresh(), LATER).await.unwrap().unwrap().attempt, 2);
    // Whoever had them before takes none out of the line.
    one.over(&first[0]).await.unwrap();
    two.next(store("s"), &two.incarnation(), None, TTL).await.unwrap();
    assert_eq!(takes(&one).await.len(), 3);
}

pub async fn whoever_keeps_a_queued_call_for_too_long_loses_it(mut fleet: Fleet) {
    let (one, two) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let parcel = Parcel { patience: Duration::from_millis(100), ..parcel("x") };
    assert_eq!(one.queue(&parcel).await, Ok(Queued::Waits(Durability::Memory, Vec::new())));
    let taken = taken(&one).await;
    one.give(&taken.call, SocketId::fresh(), LATER).await.unwrap().unwrap();
    assert!(takes(&two).await.is_empty());
    let again = eventually(async || {
        sleep(Duration::from_millis(500)).await;
        takes(&two).await.pop()
    })
    .await;
    assert_eq!(again, taken);
    let handed = two.give(&taken.call, SocketId::fresh(), LATER).await.unwrap().unwrap();
    assert_eq!(handed.attempt, 2);
    assert_eq!(one.answer(&taken.call, Some(1), &Bytes::from_static(b"late")).await, Ok(false));
    assert_eq!(two.answer(&taken.call, Some(2), &Bytes::from_static(b"true")).await, Ok(true));
}

pub async fn a_queued_call_is_taken_back_in_every_state_but_the_last(mut fleet: Fleet) {
    let (one, two) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let call = queued(&one, "x").await;
    assert_eq!(two.cancel(&call).await, Ok(Cancelled::Waited));
    assert!(takes(&one).await.is_empty());
    let call = queued(&one, "x").await;
    let taken = taken(&one).await;
    one.give(&call, SocketId::fresh(), LATER).await.unwrap().unwrap();
    assert_eq!(two.cancel(&call).await, Ok(Cancelled::Given(one.incarnation())));
    assert_eq!(one.answer(&call, Some(1), &Bytes::from_static(b"late")).await, Ok(false));
    assert_eq!(one.back(&call, 1, WasGiven::Yes).await, Ok(false));
    one.next(store("s"), &one.incarnation(), Some(&taken), TTL).await.unwrap();
    assert!(takes(&two).await.is_empty());
    for registry in [&one, &two] {
        assert_eq!(registry.standing(&call).await, Ok(Standing::Unknown));
        assert_eq!(registry.cancel(&call).await, Ok(Cancelled::Unknown));
    }
    let call = queued(&one, "x").await;
    takes(&one).await;
    one.give(&call, SocketId::fresh(), LATER).await.unwrap().unwrap();
    assert_eq!(one.answer(&call, Some(1), &Bytes::from_static(b"x")).await, Ok(true));
    assert_eq!(two.cancel(&call).await, Ok(Cancelled::Done));
}

pub async fn a_queued_call_that_nobody_takes_in_time_is_overdue(mut fleet: Fleet) {
    let one = fleet.instance("web1").await;
    let parcel = Parcel { ttl: Duration::from_millis(300), patience: Duration::from_millis(10), ..parcel("x") };
    assert_eq!(one.queue(&parcel).await, Ok(Queued::Waits(Durability::Memory, Vec::new())));
    let overdue = async || {
        eventually(async || match one.standing(&parcel.call).await.unwrap() {
            Standing::Overdue(was_given) => Some(was_given),
            _ => None,
        })
        .await
    };
    assert_eq!(overdue().await, WasGiven::No);
    assert!(takes(&one).await.is_empty());
    assert_eq!(one.give(&parcel.call, SocketId::fresh(), LATER).await, Ok(None));
    let said = Bytes::from_static(b"over");
    eventually(async || one.answer(&parcel.call, None, &said).await.unwrap().then_some(())).await;
    assert_eq!(one.standing(&parcel.call).await, Ok(Standing::Done(said)));

    // The same after the last who had it.
    let parcel = Parcel { call: CallId::queued(), ..parcel };
    one.queue(&parcel).await.unwrap();
    let taken = taken(&one).await;
    one.give(&parcel.call, SocketId::fresh(), LATER).await.unwrap().unwrap();
    assert_eq!(one.back(&parcel.call, 1, WasGiven::Yes).await, Ok(true));
    one.next(store("s"), &one.incarnation(), Some(&taken), parcel.ttl).await.unwrap();
    let was_given = eventually(async || match one.standing(&parcel.call).await.unwrap() {
        Standing::Overdue(was_given) => Some(was_given),
        _ => None,
    })
    .await;
    assert_eq!(was_given, WasGiven::Yes);

    // Of the last who had it nothing was heard.
    let parcel = Parcel { call: CallId::queued(), ..parcel };
    one.queue(&parcel).await.unwrap();
    assert_eq!(takes(&one).await.len(), 1);
    one.give(&parcel.call, SocketId::fresh(), LATER).await.unwrap().unwrap();
    let was_given = eventually(async || match one.standing(&parcel.call).await.unwrap() {
        Standing::Overdue(was_given) => Some(was_given),
        _ => None,
    })
    .await;
    assert_eq!(was_given, WasGiven::Unknown);
}

pub async fn only_so_many_calls_of_a_group_are_queued(mut fleet: Fleet) {
    let (one, two) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let asking = (0..QUEUED_MAX).map(async |n| if n % 2 == 0 { &one } else { &two }.queue(&parcel("x")).await);
    assert!(join_all(asking).await.into_iter().all(|said| said == Ok(Queued::Waits(Durability::Memory, Vec::new()))));
    let beyond = parcel("x");
    assert_eq!(one.queue(&beyond).await, Ok(Queued::Full));
    assert_eq!(one.standing(&beyond.call).await, Ok(Standing::Unknown));
    // Those in somebody's hands count.
    let call = taken(&one).await.call;
    assert_eq!(one.queue(&beyond).await, Ok(Queued::Full));
    let another = Parcel { group: store("another"), ..parcel("x") };
    assert_eq!(one.queue(&another).await, Ok(Queued::Waits(Durability::Memory, Vec::new())));
    assert!(matches!(two.cancel(&call).await, Ok(Cancelled::Waited | Cancelled::Given(_))));
    assert_eq!(one.queue(&parcel("x")).await, Ok(Queued::Waits(Durability::Memory, Vec::new())));
}

pub async fn whoever_comes_is_told_that_calls_are_queued(mut fleet: Fleet) {
    let one = fleet.instance("web1").await;
    let (two, mut inbox) = fleet.with_inbox("web2").await;
    queued(&one, "x").await;
    two.register(of(&two, "s")).await;
    let told = timeout(DEADLINE, inbox.recv()).await.unwrap().unwrap();
    let Post::Arrived(Arrived { group, by, queued }) = told else { panic!("{told:?}") };
    assert_eq!((group, by, queued), (store("s"), Vec::new(), true));
    // Also while somebody has it.
    takes(&one).await;
    assert_eq!(two.came(store("s")).await, Ok(Some(Arrived { group: store("s"), by: Vec::new(), queued: true })));
    assert_eq!(one.queue(&parcel("x")).await, Ok(Queued::Waits(Durability::Memory, vec![two.incarnation()])));
}
