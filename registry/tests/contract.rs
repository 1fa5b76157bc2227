//! The contract battery: what every form of the registry has to keep, told as facts.
//! Each fact runs once per form.

// In a test a failed expectation is the message.
#![allow(clippy::unwrap_used, clippy::panic)]

use back::{
    a_claim_of_an_attempt_that_ended_is_too_late, a_ghost_is_named_and_does_not_count,
    a_token_opens_until_its_connection_was_heard, a_token_that_opens_nothing_costs_nobody_a_place,
    of_two_who_come_back_at_once_one_stays, what_has_ended_for_good_does_not_come_back, who_comes_back_is_who_it_was,
    who_does_not_come_back_ends_once_and_leaves_nothing, who_is_refused_when_it_comes_back_stays_away,
};
use book::{a_ticket_is_redeemed_once, what_is_written_into_the_book_is_seen_by_all};
use drains::{of_two_that_are_let_go_at_once_one_stays, the_last_that_serves_is_let_go_only_if_it_may_be_the_last};
use events::{
    a_socket_that_is_away_has_not_ended, the_oldest_of_too_many_events_go_and_are_counted,
    what_is_not_told_is_found_in_order_by_one_who_minds_it, where_nobody_wants_to_be_told_nothing_is_logged,
    who_does_not_come_back_is_told_to_have_ended_by_whoever_minds_it,
    whoever_comes_and_goes_is_told_once_each_by_whoever_logged_it,
};
use fleet::Fleet;
use futures_util::FutureExt;
use instance::record;
use leases::the_hash_of_the_settings_is_the_one_in_force;
use logs::{
    a_full_log_refuses_and_loses_nothing, a_group_names_its_sockets_that_may_be_resumed,
    what_cannot_be_resumed_has_no_log, what_comes_at_once_is_logged_in_one_row,
    what_is_left_for_nobody_is_taken_by_one_in_order, what_is_logged_is_read_in_order_until_it_is_acknowledged,
    what_nobody_took_to_the_end_goes_to_the_next, whoever_takes_over_may_die_anywhere,
};
use once::{
    of_those_who_ask_at_once_one_takes_it_on, the_first_word_on_an_outcome_stands,
    what_came_to_nothing_may_be_tried_anew,
};
use registry::{
    Admission, Attempt, Cap, Cause, Ending, Envelope, Gone, Group, Inbox, Incarnation, Lookup, Policy, Post,
    Registered, Registry, RoomName, Routed, Serving, Session, SocketId, SocketRecord, StoreName, Superseded, UserName,
    Verdict,
    envelope::{Message, To},
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

#[path = "contract/back.rs"]
mod back;
#[path = "contract/bell.rs"]
mod bell;
#[path = "contract/book.rs"]
mod book;
#[path = "contract/drains.rs"]
mod drains;
#[path = "contract/events.rs"]
mod events;
#[path = "contract/fleet.rs"]
mod fleet;
mod instance;
#[path = "contract/leases.rs"]
mod leases;
#[path = "contract/lines.rs"]
mod lines;
#[path = "contract/logs.rs"]
mod logs;
#[path = "contract/once.rs"]
mod once;
#[path = "contract/queues.rs"]
mod queues;
#[path = "contract/waits.rs"]
mod waits;

use queues::{
    a_queued_call_is_taken_back_in_every_state_but_the_last, a_queued_call_is_taken_by_one_of_those_who_ask_at_once,
    a_queued_call_that_nobody_takes_in_time_is_overdue,
    each_attempt_of_a_queued_call_is_counted_and_its_first_outcome_stands, only_so_many_calls_of_a_group_are_queued,
    what_somebody_had_who_is_gone_goes_on_to_the_next, whoever_comes_is_told_that_calls_are_queued,
    whoever_keeps_a_queued_call_for_too_long_loses_it,
};
use waits::{who_is_there_already_is_seen_by_whoever_begins_to_wait, whoever_comes_is_told_who_waits_for_it};

macro_rules! facts {
    ($($(#[$doc:meta])* $fact:ident)*) => {
        mod memory {
            $($(#[$doc])* #[tokio::test(start_paused = true)]
            async fn $fact() {
                super::$fact(super::Fleet::in_memory()).await;
            })*
        }
        mod on_redis {
            $($(#[$doc])* #[tokio::test]
            async fn $fact() {
                super::$fact(super::Fleet::on_redis()).await;
            })*
        }
    };
}

facts! {
    a_registered_socket_is_found_by_its_id
    an_id_that_was_never_given_out_was_never_seen
    an_id_from_before_the_registry_is_forgotten
    an_ended_socket_leaves_its_verdict
    a_verdict_is_kept_for_its_time_and_then_forgotten
    a_later_attempt_takes_the_socket_over
    an_earlier_attempt_never_replaces_a_later_one
    only_its_own_session_updates_or_removes_a_socket
    a_registration_overtaken_by_its_ending_is_too_late
    groups_name_the_instances_that_hold_members
    a_socket_that_changes_its_store_changes_its_group
    a_change_is_whole_whoever_hangs_up
    pages_follow_the_order_of_connection
    the_oldest_beyond_the_cap_is_evicted
    two_newcomers_at_once_cannot_both_be_the_last
    the_same_client_replaces_itself
    an_evicted_client_cannot_evict_for_ten_seconds
    with_reject_the_holders_are_named
    what_is_left_of_a_first_try_does_not_touch_the_second
    nobody_is_not_counted
    an_instance_is_listed_until_it_retires
    a_letter_reaches_the_instance_it_is_for
    a_letter_to_nobody_is_not_kept
    letters_arrive_in_order_and_whole
    of_those_who_ask_at_once_one_takes_it_on
    the_first_word_on_an_outcome_stands
    what_came_to_nothing_may_be_tried_anew
    what_is_written_into_the_book_is_seen_by_all
    a_ticket_is_redeemed_once
    what_is_logged_is_read_in_order_until_it_is_acknowledged
    what_comes_at_once_is_logged_in_one_row
    what_cannot_be_resumed_has_no_log
    a_full_log_refuses_and_loses_nothing
    a_group_names_its_sockets_that_may_be_resumed
    what_is_left_for_nobody_is_taken_by_one_in_order
    whoever_takes_over_may_die_anywhere
    what_nobody_took_to_the_end_goes_to_the_next
    who_comes_back_is_who_it_was
    a_ghost_is_named_and_does_not_count
    what_has_ended_for_good_does_not_come_back
    a_token_opens_until_its_connection_was_heard
    of_two_who_come_back_at_once_one_stays
    who_does_not_come_back_ends_once_and_leaves_nothing
    who_is_refused_when_it_comes_back_stays_away
    a_token_that_opens_nothing_costs_nobody_a_place
    a_claim_of_an_attempt_that_ended_is_too_late
    the_last_that_serves_is_let_go_only_if_it_may_be_the_last
    of_two_that_are_let_go_at_once_one_stays
    the_hash_of_the_settings_is_the_one_in_force
    whoever_comes_is_told_who_waits_for_it
    who_is_there_already_is_seen_by_whoever_begins_to_wait
    a_queued_call_is_taken_by_one_of_those_who_ask_at_once
    each_attempt_of_a_queued_call_is_counted_and_its_first_outcome_stands
    what_somebody_had_who_is_gone_goes_on_to_the_next
    whoever_keeps_a_queued_call_for_too_long_loses_it
    a_queued_call_is_taken_back_in_every_state_but_the_last
    a_queued_call_that_nobody_takes_in_time_is_overdue
    only_so_many_calls_of_a_group_are_queued
    whoever_comes_is_told_that_calls_are_queued
    whoever_comes_and_goes_is_told_once_each_by_whoever_logged_it
    a_socket_that_is_away_has_not_ended
    who_does_not_come_back_is_told_to_have_ended_by_whoever_minds_it
    what_is_not_told_is_found_in_order_by_one_who_minds_it
    the_oldest_of_too_many_events_go_and_are_counted
    where_nobody_wants_to_be_told_nothing_is_logged
}

fn of_user(registry: &Registry, user: &str, client: Option<&str>) -> Arc<SocketRecord> {
    let user = Some(UserName::parse(user).unwrap());
    Arc::new(SocketRecord { user, client: client.map(Into::into), ..record(registry) })
}

/// The same socket on a later connection.
fn resumed(before: &SocketRecord, registry: &Registry) -> Arc<SocketRecord> {
    let attempt = Attempt { n: before.attempt.n + 1, accepted_at: registry.now_ms() };
    Arc::new(SocketRecord { attempt, session: Session::fresh(), owner: registry.incarnation(), ..before.clone() })
}

fn ending(cause: Cause) -> Ending {
    Ending { cause, code: Some(1000), reason: "bye".into() }
}

async fn live(registry: &Registry, id: SocketId) -> Arc<SocketRecord> {
    match registry.lookup(&id.to_string()).await {
        Lookup::Live(record) => record,
        other => panic!("{id} should live: {other:?}"),
    }
}

async fn verdict(registry: &Registry, asked: &str) -> Verdict {
    match registry.lookup(asked).await {
        Lookup::Gone(verdict) => verdict,
        other => panic!("{asked} should be gone: {other:?}"),
    }
}

/// What is said of an id, once anything is: a registry that has just begun knows nothing yet.
async fn state(registry: &Registry, asked: &str) -> &'static str {
    fleet::eventually(async || match registry.lookup(asked).await {
        Lookup::Gone(verdict) => Some(verdict.state()),
        Lookup::Live(_) => Some("live"),
        Lookup::Unknown(_) => None,
    })
    .await
}

async fn holders(registry: &Registry, group: &Group) -> Vec<(Incarnation, usize)> {
    let held = registry.holders(group.key()).await.unwrap();
    let mut held: Vec<_> = held.into_iter().map(|holding| (holding.owner, holding.members)).collect();
    held.sort();
    held
}

async fn a_registered_socket_is_found_by_its_id(mut fleet: Fleet) {
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let record = Arc::new(record(&web1));
    assert!(matches!(web1.register(record.clone()).await, Registered::Fresh));
    assert_eq!(live(&web2, record.id).await.session, record.session);
    assert_eq!(live(&web2, record.id).await.owner, web1.incarnation());
    assert_eq!(web2.total().await.unwrap(), 1);
}

async fn an_id_that_was_never_given_out_was_never_seen(mut fleet: Fleet) {
    let web1 = fleet.instance("web1").await;
    for asked in ["ws_123", "", "nonsense"] {
        assert_eq!(verdict(&web1, asked).await.state(), "never_seen", "{asked}");
    }
    // An id made in the very millisecond in which the registry began may be either, and for some seconds
    // nobody knows whether it was given out: a fresh one each time.
    std::thread::sleep(Duration::from_millis(2));
    fleet::eventually(async || (state(&web1, &SocketId::fresh().to_string()).await == "never_seen").then_some(()))
        .await;
}

async fn an_id_from_before_the_registry_is_forgotten(mut fleet: Fleet) {
    let web1 = fleet.instance("web1").await;
    assert_eq!(state(&web1, "ws_018f0000-0000-7000-8000-000000000000").await, "forgotten");
}

async fn an_ended_socket_leaves_its_verdict(mut fleet: Fleet) {
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let store = Some(StoreName::parse("s").unwrap());
    let record = Arc::new(SocketRecord { store, ..record(&web1) });
    web1.register(record.clone()).await;
    assert!(web1.unregister(record.id, record.session, ending(Cause::Kicked)).await);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let verdict = verdict(&web2, &record.id.to_string()).await;
    assert_eq!(verdict.state(), "closed");
    assert!(verdict.since() >= Duration::from_millis(15) && verdict.since() < fleet::DEADLINE, "{:?}", verdict.since());
    let Gone::Closed { instance, store, ending, .. } = verdict.gone else { panic!("{verdict:?}") };
    assert_eq!((&*instance, store.unwrap().as_str()), ("web1", "s"));
    assert_eq!((ending.cause, ending.code, &*ending.reason), (Cause::Kicked, Some(1000), "bye"));
    assert_eq!(web2.total().await.unwrap(), 0);
}

async fn a_verdict_is_kept_for_its_time_and_then_forgotten(mut fleet: Fleet) {
    let web1 = fleet.instance("web1").await;
    let record = Arc::new(record(&web1));
    web1.register(record.clone()).await;
    web1.unregister(record.id, record.session, ending(Cause::ClientClosed)).await;
    assert_eq!(verdict(&web1, &record.id.to_string()).await.state(), "closed");
    tokio::time::sleep(fleet.why_ttl() / 2).await;
    assert_eq!(verdict(&web1, &record.id.to_string()).await.state(), "closed");
    tokio::time::sleep(fleet.why_ttl()).await;
    assert_eq!(state(&web1, &record.id.to_string()).await, "forgotten");
}

async fn a_later_attempt_takes_the_socket_over(mut fleet: Fleet) {
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let first = Arc::new(record(&web1));
    let second = resumed(&first, &web2);
    web1.register(first.clone()).await;
    let Registered::TakenFrom { owner, session } = web2.register(second.clone()).await else { panic!() };
    assert_eq!((owner, session), (web1.incarnation(), first.session));
    assert_eq!(live(&web1, first.id).await.owner.instance(), "web2");
    // The one it was taken from does not end it any more.
    web1.unregister(first.id, first.session, ending(Cause::ConnectionLost)).await;
    assert_eq!(live(&web1, first.id).await.session, second.session);
}

async fn an_earlier_attempt_never_replaces_a_later_one(mut fleet: Fleet) {
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let first = Arc::new(record(&web1));
    let second = resumed(&first, &web2);
    web2.register(second.clone()).await;
    assert!(matches!(web1.register(first.clone()).await, Registered::Superseded(Superseded::ByLater)));
    assert_eq!(live(&web1, first.id).await.session, second.session);
}

async fn only_its_own_session_updates_or_removes_a_socket(mut fleet: Fleet) {
    let web1 = fleet.instance("web1").await;
    let ours = Arc::new(record(&web1));
    web1.register(ours.clone()).await;
    let stranger = Arc::new(SocketRecord { session: Session::fresh(), ..(*ours).clone() });
    assert!(!web1.update(|| stranger.clone()).await);
    assert!(!web1.unregister(ours.id, stranger.session, ending(Cause::Kicked)).await);
    assert_eq!(live(&web1, ours.id).await.session, ours.session);
    assert!(web1.update(|| ours.clone()).await);
    assert!(web1.unregister(ours.id, ours.session, ending(Cause::Kicked)).await);
    assert!(!web1.unregister(ours.id, ours.session, ending(Cause::Kicked)).await);
    assert!(!web1.update(|| ours.clone()).await);
}

async fn a_registration_overtaken_by_its_ending_is_too_late(mut fleet: Fleet) {
    let web1 = fleet.instance("web1").await;
    let record = Arc::new(record(&web1));
    web1.register(record.clone()).await;
    web1.unregister(record.id, record.session, ending(Cause::ClientClosed)).await;
    assert!(matches!(web1.register(record).await, Registered::Superseded(Superseded::Ended)));
    assert_eq!(web1.total().await.unwrap(), 0);
}

async fn groups_name_the_instances_that_hold_members(mut fleet: Fleet) {
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let room = RoomName::parse("r").unwrap();
    let in_room = |at: &Registry| Arc::new(SocketRecord { rooms: [room.clone()].into(), ..record(at) });
    let (a, b, c) = (in_room(&web1), in_room(&web1), in_room(&web2));
    for (registry, record) in [(&web1, &a), (&web1, &b), (&web2, &c)] {
        registry.register(record.clone()).await;
    }
    let group = Group::Room(room);
    // That there are members is known at once, how many a little later.
    let names = |held: Vec<(Incarnation, usize)>| held.into_iter().map(|(owner, _)| owner).collect::<Vec<_>>();
    let mut both = vec![web1.incarnation(), web2.incarnation()];
    both.sort();
    assert_eq!(names(holders(&web2, &group).await), both);
    let mut exact = vec![(web1.incarnation(), 2), (web2.incarnation(), 1)];
    exact.sort();
    fleet::eventually(async || (holders(&web2, &group).await == exact).then_some(())).await;
    web2.unregister(c.id, c.session, ending(Cause::Kicked)).await;
    assert_eq!(names(holders(&web1, &group).await), [web1.incarnation()]);
    web1.unregister(b.id, b.session, ending(Cause::Kicked)).await;
    fleet::eventually(async || (holders(&web2, &group).await == [(web1.incarnation(), 1)]).then_some(())).await;
}

async fn a_socket_that_changes_its_store_changes_its_group(mut fleet: Fleet) {
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let store = |name| Some(StoreName::parse(name).unwrap());
    let before = Arc::new(SocketRecord { store: store("old"), ..record(&web1) });
    web1.register(before.clone()).await;
    let after = Arc::new(SocketRecord { store: store("new"), ..(*before).clone() });
    assert!(web1.update(|| after.clone()).await);
    let at = async |name| holders(&web2, &Group::Store(StoreName::parse(name).unwrap())).await.len();
    assert_eq!((at("old").await, at("new").await), (0, 1));
    assert_eq!(live(&web2, before.id).await.store, store("new"));
}

async fn a_change_is_whole_whoever_hangs_up(mut fleet: Fleet) {
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let first = Arc::new(record(&web1));
    web1.register(first.clone()).await;
    let says = Mutex::new(first.clone());
    for round in 0..20 {
        let change = |name: String| {
            let store = Some(StoreName::parse(&name).unwrap());
            *says.lock().unwrap() = Arc::new(SocketRecord { store, ..(*first).clone() });
        };
        // One is held up when it has changed the socket, another overtakes it, and nobody waits for the end of either.
        change(format!("early{round}"));
        let held_up = web1.update(|| says.lock().unwrap().clone());
        change(format!("late{round}"));
        let _ = web1.update(|| says.lock().unwrap().clone()).now_or_never();
        let _ = held_up.now_or_never();
    }
    let holds = async |name: &str| holders(&web2, &Group::Store(StoreName::parse(name).unwrap())).await.len();
    let late = StoreName::parse("late19").unwrap();
    fleet::eventually(async || (live(&web2, first.id).await.store.as_ref() == Some(&late)).then_some(())).await;
    fleet::eventually(async || (holds("late19").await == 1).then_some(())).await;
    for name in ["early19", "late18", "late0"] {
        fleet::eventually(async || (holds(name).await == 0).then_some(())).await;
    }
    web1.announce(Serving::Serving, 1);
    fleet::eventually(async || (web1.figures().drift == 0).then_some(())).await;
}

async fn pages_follow_the_order_of_connection(mut fleet: Fleet) {
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let records: Vec<_> = (0..250).map(|_| Arc::new(record(&web1))).collect();
    for record in records.iter().rev() {
        web1.register(record.clone()).await;
    }
    for limit in [10, 1000] {
        let (mut seen, mut after) = (Vec::new(), SocketId::FIRST);
        loop {
            let page = web2.page(after, limit).await.unwrap();
            assert!(page.len() == limit || seen.len() + page.len() == records.len());
            let Some(last) = page.last() else { break };
            after = last.id;
            seen.extend(page.iter().map(|record| record.id));
        }
        assert_eq!(seen, records.iter().map(|record| record.id).collect::<Vec<_>>());
    }
}

async fn the_oldest_beyond_the_cap_is_evicted(mut fleet: Fleet) {
    let cap = Cap { sockets_max: 2, policy: Policy::EvictOldest };
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let oldest = of_user(&web1, "ann", None);
    // Two instances know Redis' clock to some milliseconds: within them nobody is the older.
    tokio::time::sleep(Duration::from_millis(50)).await;
    for (registry, socket) in [(&web1, oldest.clone()), (&web2, of_user(&web2, "ann", None))] {
        let Admission::Welcome { evicted, .. } = registry.admit(&socket, cap).await else { panic!() };
        assert!(evicted.is_empty());
    }
    let Admission::Welcome { evicted, .. } = web2.admit(&of_user(&web2, "ann", None), cap).await else { panic!() };
    assert_eq!(evicted.iter().map(|held| (held.id, &held.owner)).collect::<Vec<_>>(), [(oldest.id, &oldest.owner)]);
}

async fn two_newcomers_at_once_cannot_both_be_the_last(mut fleet: Fleet) {
    let cap = Cap { sockets_max: 1, policy: Policy::Reject };
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let (a, b) = (of_user(&web1, "ann", None), of_user(&web2, "ann", None));
    let (first, second) = tokio::join!(web1.admit(&a, cap), web2.admit(&b, cap));
    let welcome = [first, second].iter().filter(|admission| matches!(admission, Admission::Welcome { .. })).count();
    assert_eq!(welcome, 1);
    assert_eq!(web1.total().await.unwrap(), 1);
}

async fn the_same_client_replaces_itself(mut fleet: Fleet) {
    let cap = Cap { sockets_max: 1, policy: Policy::Reject };
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let (before, after) = (of_user(&web1, "ann", Some("tab")), of_user(&web2, "ann", Some("tab")));
    web1.admit(&before, cap).await;
    let Admission::Welcome { replaced, evicted } = web2.admit(&after, cap).await else { panic!() };
    assert_eq!(replaced[0].id, before.id);
    assert!(evicted.is_empty());
}

async fn an_evicted_client_cannot_evict_for_ten_seconds(mut fleet: Fleet) {
    let cap = Cap { sockets_max: 1, policy: Policy::EvictOldest };
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let (old, new) = (of_user(&web1, "ann", Some("a")), of_user(&web2, "ann", Some("b")));
    web1.admit(&old, cap).await;
    web2.admit(&new, cap).await;
    web1.unregister(old.id, old.session, ending(Cause::Evicted)).await;
    let again = async || web2.admit(&of_user(&web2, "ann", Some("a")), cap).await;
    assert!(matches!(again().await, Admission::CoolingDown));
    let began = tokio::time::Instant::now();
    fleet::eventually(async || matches!(again().await, Admission::Welcome { .. }).then_some(())).await;
    assert!(began.elapsed() >= Duration::from_secs(9), "{:?}", began.elapsed());
}

async fn with_reject_the_holders_are_named(mut fleet: Fleet) {
    let cap = Cap { sockets_max: 2, policy: Policy::Reject };
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let holders = [of_user(&web1, "ann", None), of_user(&web1, "ann", None)];
    for holder in &holders {
        web1.admit(holder, cap).await;
    }
    let refused = of_user(&web2, "ann", None);
    let Admission::Full { holders: named } = web2.admit(&refused, cap).await else { panic!() };
    assert_eq!(named.iter().map(|held| held.id).collect::<Vec<_>>(), holders.map(|held| held.id));
    assert_eq!(web1.total().await.unwrap(), 2, "who is refused is not registered");
    assert!(matches!(web2.admit(&of_user(&web2, "bob", None), cap).await, Admission::Welcome { .. }));
}

async fn what_is_left_of_a_first_try_does_not_touch_the_second(mut fleet: Fleet) {
    let cap = Cap { sockets_max: 1, policy: Policy::Reject };
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let (holder, first) = (of_user(&web2, "ann", None), of_user(&web1, "ann", None));
    web2.admit(&holder, cap).await;
    assert!(matches!(web1.admit(&first, cap).await, Admission::Full { .. }));
    web2.unregister(holder.id, holder.session, ending(Cause::PingTimeout)).await;
    // Its answer was lost, and it was let in all the same.
    web1.register(first.clone()).await;
    let second = Arc::new(first.once_more(web1.incarnation(), first.attempt.accepted_at - 5));
    assert!(matches!(web1.admit(&second, cap).await, Admission::Welcome { .. }));
    assert_eq!(live(&web2, first.id).await.session, second.session);
    // Both come late: that it is claimed, and that it is taken out.
    assert!(matches!(web2.register(first.clone()).await, Registered::Superseded(Superseded::ByLater)));
    assert!(!web1.unregister(first.id, first.session, ending(Cause::Kicked)).await);
    assert_eq!(live(&web2, first.id).await.session, second.session);
    assert_eq!(web2.total().await.unwrap(), 1);
}

async fn nobody_is_not_counted(mut fleet: Fleet) {
    let cap = Cap { sockets_max: 1, policy: Policy::Reject };
    let web1 = fleet.instance("web1").await;
    for _ in 0..3 {
        let nobody = Arc::new(record(&web1));
        assert!(matches!(web1.admit(&nobody, cap).await, Admission::Welcome { .. }));
        web1.register(nobody).await;
    }
    assert_eq!(web1.total().await.unwrap(), 3);
}

async fn an_instance_is_listed_until_it_retires(mut fleet: Fleet) {
    let (web1, web2) = (fleet.instance("web1").await, fleet.instance("web2").await);
    web1.announce(Serving::Draining, 7);
    fleet::eventually(async || {
        let listed = web2.instances().await.unwrap();
        let lease = listed.iter().find(|lease| lease.incarnation == web1.incarnation())?;
        ((lease.serving, lease.sockets, lease.about.pid) == (Serving::Draining, 7, 1)).then_some(())
    })
    .await;
    web1.retire().await;
    let listed = web2.instances().await.unwrap();
    assert_eq!(listed.iter().map(|lease| lease.incarnation.clone()).collect::<Vec<_>>(), [web2.incarnation()]);
}

fn letter(from: &Registry, id: u64, body: Vec<u8>) -> Envelope {
    let message = Message::Send { to: To::All, except: None, ack: false };
    Envelope::new(id, from.incarnation(), from.now_ms() + 2000, message, body.into())
}

async fn next_letter(inbox: &mut Inbox) -> Envelope {
    match tokio::time::timeout(fleet::DEADLINE, inbox.recv()).await {
        Ok(Some(Post::Letter(letter))) => letter,
        other => panic!("a letter was expected: {other:?}"),
    }
}

async fn a_letter_reaches_the_instance_it_is_for(mut fleet: Fleet) {
    let (web1, (web2, mut inbox)) = (fleet.instance("web1").await, fleet.with_inbox("web2").await);
    for (id, body) in [(1, Vec::new()), (2, vec![0, 10, 255]), (3, vec![b'x'; 100_000])] {
        let sent = letter(&web1, id, body);
        assert_eq!(web1.route(&web2.incarnation(), &sent).await, Routed::Taken);
        assert_eq!(next_letter(&mut inbox).await, sent);
    }
}

async fn a_letter_to_nobody_is_not_kept(mut fleet: Fleet) {
    let web1 = fleet.instance("web1").await;
    let nobody = Incarnation::fresh("web9");
    assert_eq!(web1.route(&nobody, &letter(&web1, 1, Vec::new())).await, Routed::Gone);
}

async fn letters_arrive_in_order_and_whole(mut fleet: Fleet) {
    let (web1, (web2, mut inbox)) = (fleet.instance("web1").await, fleet.with_inbox("web2").await);
    let to = web2.incarnation();
    let sending = async {
        for id in 0..2000 {
            // Some lie beside the bell, and must not be overtaken by those on it.
            let body = if id % 100 == 7 { vec![7; 5000] } else { Vec::new() };
            while web1.route(&to, &letter(&web1, id, body.clone())).await == Routed::Deaf {
                tokio::task::yield_now().await;
            }
        }
    };
    let reading = async {
        for id in 0..2000 {
            assert_eq!(next_letter(&mut inbox).await.head.id, id);
        }
    };
    tokio::join!(sending, reading);
}
