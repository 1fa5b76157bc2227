//! Sockets whose connection broke: they are away, their client comes back with its token, or they end at their time.

use super::{
    ending,
    fleet::{self, Fleet},
    holders, live, record, verdict,
};
use registry::{
    Admission, Attempt, Back, Cap, Cause, Ending, Gone, Group, Inbox, Incarnation, NotBack, Policy, Post, Registered,
    Registry, Resumable, RoomName, Session, SocketId, SocketRecord, StoreName, UserName, rules,
};
use std::{net::IpAddr, num::NonZeroU32, sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};

const NO_CAP: Cap = Cap { sockets_max: 0, policy: Policy::EvictOldest };
const REJECT_ONE: Cap = Cap { sockets_max: 1, policy: Policy::Reject };
/// Longer than any test.
const LONG: u32 = 600;

fn ann() -> UserName {
    UserName::parse("ann").unwrap()
}

/// Ann's, in a store and a room.
fn resumable(at: &Registry, window: u32) -> SocketRecord {
    SocketRecord {
        user: Some(ann()),
        store: Some(StoreName::parse("shop").unwrap()),
        rooms: [RoomName::parse("lobby").unwrap()].into(),
        resumable: Some(Resumable { window: NonZeroU32::new(window).unwrap(), confirmed: 0 }),
        ..record(at)
    }
}

/// A socket of that kind is let in.
async fn enters(at: &Registry, window: u32) -> Arc<SocketRecord> {
    let record = Arc::new(resumable(at, window));
    assert!(matches!(at.admit(&record, NO_CAP).await, Admission::Welcome { .. }));
    record
}

/// Ann's client shows a token, so many milliseconds after now.
async fn returns(at: &Registry, token: &str, after: u64, cap: Cap) -> Result<(Back, Admission), NotBack> {
    let (id, n) = at.open_token(token, Some(&ann())).unwrap();
    let newcomer = SocketRecord {
        id,
        attempt: Attempt { n, accepted_at: at.now_ms() + after },
        user: Some(ann()),
        address: IpAddr::from([127, 0, 0, 9]),
        ..record(at)
    };
    at.admit_back(&Arc::new(newcomer), cap).await
}

async fn is_back(at: &Registry, token: &str, after: u64) -> Back {
    match returns(at, token, after, NO_CAP).await {
        Ok((back, Admission::Welcome { .. })) => back,
        other => panic!("it may come back: {other:?}"),
    }
}

async fn why_not(at: &Registry, token: &str) -> rules::NotBack {
    match returns(at, token, 9, NO_CAP).await {
        Err(NotBack::Rule(why)) => why,
        other => panic!("it may not come back: {other:?}"),
    }
}

async fn ends(at: &Registry, held: &SocketRecord, cause: Cause) {
    assert!(at.unregister(held.id, held.session, ending(cause)).await);
}

async fn state(at: &Registry, id: SocketId) -> &'static str {
    verdict(at, &id.to_string()).await.state()
}

async fn back_within(at: &Registry, id: SocketId) -> Option<Duration> {
    match verdict(at, &id.to_string()).await.gone {
        Gone::Closed { back_within, .. } => Some(Duration::from_secs(back_within?.get().into())),
        other => panic!("{other:?}"),
    }
}

fn groups() -> [Group; 3] {
    let (store, room) = (StoreName::parse("shop").unwrap(), RoomName::parse("lobby").unwrap());
    [Group::User(ann()), Group::Store(store), Group::Room(room)]
}

/// Every group that the sockets here are in has exactly these.
async fn counted_at(asked: &Registry, exact: &[(Incarnation, usize)]) {
    for group in groups() {
        fleet::eventually(async || (holders(asked, &group).await == exact).then_some(())).await;
    }
}

/// The next that has ended while it was away, of whichever inbox.
async fn next_ended(inboxes: &mut [Inbox; 2]) -> (SocketId, Ending) {
    let [one, other] = inboxes;
    let post = timeout(fleet::DEADLINE, async {
        tokio::select! {
            post = one.recv() => post,
            post = other.recv() => post,
        }
    });
    match post.await {
        Ok(Some(Post::Ended { record, ending })) => (record.id, ending),
        other => panic!("an end was expected: {other:?}"),
    }
}

fn are_quiet(inboxes: &mut [Inbox; 2]) -> bool {
    inboxes.iter_mut().all(|inbox| inbox.try_recv().is_err())
}

pub async fn who_comes_back_is_who_it_was(mut fleet: Fleet) {
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let before = enters(&web1, LONG).await;
    let token = web1.token(&before);
    ends(&web1, &before, Cause::ConnectionLost).await;
    assert_eq!(state(&web2, before.id).await, "away");
    let within = back_within(&web2, before.id).await.unwrap();
    assert!(within > Duration::from_secs(500) && within <= Duration::from_secs(600), "{within:?}");
    assert_eq!(web2.total().await.unwrap(), 0);
    counted_at(&web2, &[]).await;
    let Back { record, ghost, came_from, is_overtaken } = is_back(&web2, &token, 0).await;
    assert_eq!((ghost.is_none(), is_overtaken, came_from), (true, false, web1.incarnation()));
    let said = |of: &SocketRecord| {
        (of.id, of.user.clone(), of.store.clone(), of.rooms.clone(), of.connected_at, of.client.clone())
    };
    assert_eq!(said(&record), said(&before));
    assert_eq!((record.attempt.n, &record.owner), (2, &web2.incarnation()));
    let there = live(&web1, before.id).await;
    assert_eq!(said(&there), said(&before));
    assert_eq!((there.session, &there.owner, there.address), (record.session, &record.owner, record.address));
    assert_eq!(web1.total().await.unwrap(), 1);
    counted_at(&web1, &[(web2.incarnation(), 1)]).await;
    ends(&web2, &record, Cause::ClientClosed).await;
    assert_eq!(state(&web1, before.id).await, "closed");
    counted_at(&web1, &[]).await;
}

pub async fn a_ghost_is_named_and_does_not_count(mut fleet: Fleet) {
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let ghost = Arc::new(resumable(&web1, LONG));
    assert!(matches!(web1.admit(&ghost, REJECT_ONE).await, Admission::Welcome { .. }));
    let Ok((back, Admission::Welcome { replaced, evicted })) = returns(&web2, &web1.token(&ghost), 5, REJECT_ONE).await
    else {
        panic!("it is one socket")
    };
    assert_eq!(back.ghost.map(|ghost| ghost.session), Some(ghost.session));
    assert_eq!((replaced.len(), evicted.len()), (0, 0));
    assert!(!web1.unregister(ghost.id, ghost.session, ending(Cause::ConnectionLost)).await);
    assert_eq!(live(&web1, ghost.id).await.session, back.record.session);
    assert_eq!(web1.total().await.unwrap(), 1);
    counted_at(&web1, &[(web2.incarnation(), 1)]).await;
    let other = Arc::new(resumable(&web1, LONG));
    let Admission::Full { holders } = web1.admit(&other, REJECT_ONE).await else { panic!("it has the place") };
    assert_eq!(holders.iter().map(|held| held.session).collect::<Vec<_>>(), [back.record.session]);
    ends(&web2, &back.record, Cause::Kicked).await;
    let other = Arc::new(other.once_more(web1.incarnation(), web1.now_ms()));
    assert!(matches!(web1.admit(&other, REJECT_ONE).await, Admission::Welcome { .. }));
}

pub async fn what_has_ended_for_good_does_not_come_back(mut fleet: Fleet) {
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    for cause in [Cause::ClientClosed, Cause::Kicked, Cause::Evicted] {
        let ended = enters(&web1, LONG).await;
        ends(&web1, &ended, cause).await;
        assert_eq!(why_not(&web2, &web1.token(&ended)).await, rules::NotBack::Ended, "{cause}");
    }
    let plain = Arc::new(SocketRecord { resumable: None, ..resumable(&web1, LONG) });
    web1.admit(&plain, NO_CAP).await;
    assert_eq!(why_not(&web2, &web1.token(&plain)).await, rules::NotBack::Ended);
    ends(&web1, &plain, Cause::ConnectionLost).await;
    assert_eq!(state(&web2, plain.id).await, "closed");
    assert_eq!(why_not(&web2, &web1.token(&resumable(&web1, LONG))).await, rules::NotBack::Unknown);
    let late = enters(&web1, 1).await;
    ends(&web1, &late, Cause::PingTimeout).await;
    assert_eq!(state(&web2, late.id).await, "away");
    sleep(Duration::from_millis(1100)).await;
    assert_eq!((state(&web2, late.id).await, back_within(&web2, late.id).await), ("closed", None));
    assert_eq!(why_not(&web2, &web1.token(&late)).await, rules::NotBack::Ended);
}

pub async fn a_token_opens_until_its_connection_was_heard(mut fleet: Fleet) {
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let first = enters(&web1, LONG).await;
    let token = web1.token(&first);
    let second = is_back(&web2, &token, 10).await.record;
    // Its client never heard of it.
    let third = is_back(&web1, &token, 50).await;
    assert_eq!(third.ghost.map(|ghost| ghost.session), Some(second.session));
    let confirmed = third.record.resumable.map(|it| Resumable { confirmed: 2, ..it });
    let third = Arc::new(SocketRecord { resumable: confirmed, ..(*third.record).clone() });
    assert!(web1.update(|| third.clone()).await);
    assert!(matches!(returns(&web2, &token, 90, NO_CAP).await, Err(NotBack::Rule(rules::NotBack::Later))));
    assert_eq!(live(&web2, first.id).await.session, third.session);
    ends(&web1, &third, Cause::ConnectionLost).await;
    assert!(matches!(returns(&web2, &token, 90, NO_CAP).await, Err(NotBack::Rule(rules::NotBack::Later))));
    let fourth = is_back(&web2, &web1.token(&third), 90).await.record;
    assert_eq!((fourth.attempt.n, fourth.resumable), (3, confirmed));
}

pub async fn of_two_who_come_back_at_once_one_stays(mut fleet: Fleet) {
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    for round in 0..30 {
        let other = if round % 3 == 0 { &web1 } else { &web2 };
        let first = enters(&web1, LONG).await;
        let token = web1.token(&first);
        ends(&web1, &first, Cause::ConnectionLost).await;
        let both =
            tokio::join!(returns(&web1, &token, 10 + round % 2 * 20, NO_CAP), returns(other, &token, 20, NO_CAP));
        let there = live(&web2, first.id).await.session;
        let mut ghosts = Vec::new();
        let mut others = Vec::new();
        for (at, back) in [(&web1, both.0), (other, both.1)] {
            match back {
                Ok((back, _)) if back.record.session == there => ghosts.extend(back.ghost.map(|ghost| ghost.session)),
                Ok((back, _)) => others.push((at, back.record)),
                Err(why) => assert_eq!(why, NotBack::Rule(rules::NotBack::Later)),
            }
        }
        // Where both came to one instance, it may have found out by itself.
        assert!(others.iter().all(|(_, other)| ghosts.contains(&other.session)), "of one nobody is told");
        for (at, other) in others {
            assert!(!at.unregister(other.id, other.session, ending(Cause::ConnectionLost)).await);
        }
        let stays = live(&web1, first.id).await;
        assert_eq!(stays.session, there);
        let at = if stays.owner == web1.incarnation() { &web1 } else { &web2 };
        counted_at(&web2, &[(at.incarnation(), 1)]).await;
        ends(at, &stays, Cause::ClientClosed).await;
        counted_at(&web2, &[]).await;
    }
}

pub async fn who_does_not_come_back_ends_once_and_leaves_nothing(mut fleet: Fleet) {
    let (web1, one) = fleet.with_inbox("web1").await;
    let (web2, other) = fleet.with_inbox("web2").await;
    let mut inboxes = [one, other];
    let before = fleet.keys();
    let late = enters(&web1, 1).await;
    ends(&web1, &late, Cause::ConnectionLost).await;
    assert!(back_within(&web2, late.id).await.unwrap() <= Duration::from_secs(1));
    let (id, how) = next_ended(&mut inboxes).await;
    assert_eq!((id, how.cause), (late.id, Cause::ConnectionLost));
    fleet::eventually(async || (fleet.keys() == before).then_some(())).await;
    // Somebody decides that it does not come back.
    let dismissed = enters(&web2, LONG).await;
    assert!(!web1.dismiss(dismissed.id, &ending(Cause::Kicked)).await, "it is not away");
    ends(&web2, &dismissed, Cause::InstanceRestart).await;
    assert!(web1.dismiss(dismissed.id, &ending(Cause::Kicked)).await);
    assert!(!web1.dismiss(dismissed.id, &ending(Cause::Kicked)).await);
    let (id, how) = next_ended(&mut inboxes).await;
    assert_eq!((id, how.cause), (dismissed.id, Cause::Kicked));
    assert_eq!(state(&web2, dismissed.id).await, "closed");
    assert_eq!(why_not(&web2, &web2.token(&dismissed)).await, rules::NotBack::Ended);
    fleet::eventually(async || (fleet.keys() == before).then_some(())).await;
    // Nobody looks less often.
    sleep(Duration::from_secs(6)).await;
    assert!(are_quiet(&mut inboxes), "it ended twice");
}

pub async fn who_is_refused_when_it_comes_back_stays_away(mut fleet: Fleet) {
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let away = enters(&web1, LONG).await;
    let token = web1.token(&away);
    ends(&web1, &away, Cause::ConnectionLost).await;
    let holder = Arc::new(resumable(&web1, LONG));
    assert!(matches!(web1.admit(&holder, REJECT_ONE).await, Admission::Welcome { .. }), "who is away does not count");
    let Ok((_, Admission::Full { holders })) = returns(&web2, &token, 0, REJECT_ONE).await else {
        panic!("there is no place")
    };
    assert_eq!(holders.iter().map(|held| held.id).collect::<Vec<_>>(), [holder.id]);
    assert_eq!(state(&web1, away.id).await, "away");
    counted_at(&web2, &[(web1.incarnation(), 1)]).await;
    ends(&web1, &holder, Cause::ClientClosed).await;
    let back = returns(&web2, &token, 20, REJECT_ONE).await;
    assert!(matches!(back, Ok((_, Admission::Welcome { .. }))), "{back:?}");
    counted_at(&web1, &[(web2.incarnation(), 1)]).await;
}

/// Who shows a token that opens nothing is somebody new, and its client's other sockets hear of that then.
pub async fn a_token_that_opens_nothing_costs_nobody_a_place(mut fleet: Fleet) {
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let of_tab = |at: &Registry| SocketRecord { client: Some("tab".into()), ..resumable(at, LONG) };
    let ended = Arc::new(of_tab(&web1));
    web1.admit(&ended, NO_CAP).await;
    ends(&web1, &ended, Cause::ClientClosed).await;
    let held = Arc::new(of_tab(&web1));
    web1.admit(&held, NO_CAP).await;
    let (id, n) = web2.open_token(&web1.token(&ended), Some(&ann())).unwrap();
    let attempt = Attempt { n, accepted_at: web2.now_ms() + 5 };
    let newcomer = SocketRecord { id, attempt, session: Session::fresh(), ..of_tab(&web2) };
    assert!(web2.admit_back(&Arc::new(newcomer), NO_CAP).await.is_err());
    let Admission::Welcome { replaced, .. } = web2.admit(&Arc::new(of_tab(&web2)), NO_CAP).await else { panic!() };
    assert_eq!(replaced.iter().map(|held| held.id).collect::<Vec<_>>(), [held.id]);
}

/// In the form that forgets, it was let in before; in the other nobody may come that late.
pub async fn a_claim_of_an_attempt_that_ended_is_too_late(mut fleet: Fleet) {
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let first = enters(&web1, LONG).await;
    let second = is_back(&web2, &web1.token(&first), 5).await.record;
    ends(&web2, &second, Cause::Kicked).await;
    for late in [&first, &second] {
        assert!(matches!(web1.register(late.clone()).await, Registered::Superseded(_)));
    }
    assert_eq!(state(&web1, first.id).await, "closed");
}
