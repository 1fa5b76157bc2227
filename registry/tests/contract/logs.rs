//! Durable deliveries: to sockets that may be resumed, and to groups that have no sockets.

use super::{Fleet, ending, of_user, record};
use bytes::Bytes;
use futures_util::future::join_all;
use registry::{
    Acked, Appended, Cause, Chain, Delivery, Durability, Group, GroupKey, Hashed, Left, Mail, Registry, Resumable,
    SocketId, SocketRecord, UserName,
    log::{LIMITS, Limits, Page},
};
use std::{num::NonZeroU32, sync::Arc, time::Duration};
use tokio::time::timeout;

fn delivery(text: impl Into<Bytes>) -> Delivery {
    let key = Hashed::of(&[SocketId::fresh().short().as_bytes()]);
    Delivery { key, text: text.into(), ttl: Duration::from_secs(60), wants: Durability::Memory }
}

fn user(name: &str) -> GroupKey {
    Group::User(UserName::parse(name).unwrap()).key()
}

async fn logged(registry: &Registry, id: SocketId, delivery: &Delivery) -> (u64, u64) {
    match registry.append(id, delivery).await {
        Appended::Logged { seq, prev, durability: Durability::Memory, .. } => (seq, prev),
        other => panic!("{other:?}"),
    }
}

async fn all(registry: &Registry, id: SocketId) -> Page {
    registry.read_log(id, 0, LIMITS).await.unwrap()
}

fn texts(page: &Page) -> Vec<String> {
    page.entries.iter().map(|entry| String::from_utf8(entry.text.to_vec()).unwrap()).collect()
}

/// A socket of that user that may be resumed.
async fn resumable(registry: &Registry, name: &str) -> Arc<SocketRecord> {
    let resumable = NonZeroU32::new(30).map(|window| Resumable { window, confirmed: 0 });
    let record = Arc::new(SocketRecord { resumable, ..(*of_user(registry, name, None)).clone() });
    registry.register(record.clone()).await;
    registry.keep_for(&[user(name)], record.id).await.unwrap();
    record
}

pub async fn what_is_logged_is_read_in_order_until_it_is_acknowledged(mut fleet: Fleet) {
    let (one, two) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let record = resumable(&one, "ann").await;
    let mut last = 0;
    for n in 0..7 {
        let sender = if n % 2 == 0 { &one } else { &two };
        let said = sender.append(record.id, &delivery(n.to_string())).await;
        let Appended::Logged { seq, prev, owner, session, away, .. } = said else { panic!("{said:?}") };
        assert_eq!((owner, session, away), (one.incarnation(), record.session, false));
        assert!(seq > last && prev == last, "{prev} follows {last}");
        last = seq;
    }
    let page = all(&two, record.id).await;
    assert_eq!((texts(&page).concat().as_str(), page.tail, page.more), ("0123456", last, false));
    assert_eq!(page.follows(0, two.now_ms()), Chain::Whole);
    // In pages, each behind the one before.
    let (mut had, mut read) = (0, String::new());
    while had < last {
        let page = one.read_log(record.id, had, Limits { entries: 3, bytes: 2 }).await.unwrap();
        assert_eq!(page.follows(had, one.now_ms()), Chain::Whole);
        had = page.entries.last().unwrap().seq;
        read += &texts(&page).concat();
    }
    assert_eq!(read, "0123456");

    assert_eq!(one.ack(record.id, last + 1).await.unwrap(), Acked::Beyond { tail: last });
    assert_eq!(all(&one, record.id).await, page);
    let third = page.entries[2].seq;
    for _ in 0..2 {
        assert_eq!(one.ack(record.id, third).await.unwrap(), Acked::Done);
        let rest = all(&two, record.id).await;
        assert_eq!(texts(&rest).concat(), "3456");
        assert_eq!(rest.follows(third, two.now_ms()), Chain::Whole);
        assert_eq!(rest.follows(page.entries[1].seq, two.now_ms()), Chain::Broken);
    }
    assert_eq!(one.ack(record.id, last).await.unwrap(), Acked::Done);
    assert_eq!(all(&two, record.id).await, Page { tail: last, entries: Vec::new(), more: false });
}

pub async fn what_comes_at_once_is_logged_in_one_row(mut fleet: Fleet) {
    let (one, two) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let (first, second) = (resumable(&one, "ann").await, resumable(&two, "bob").await);
    let ids = [first.id, second.id];
    let sends = (0..300).map(async |nth: usize| {
        let by = if nth.is_multiple_of(2) { &one } else { &two };
        by.append_many(&ids, &delivery(nth.to_string())).await
    });
    for said in join_all(sends).await.concat() {
        assert!(matches!(said, Appended::Logged { .. }), "{said:?}");
    }
    for id in ids {
        let page = all(&one, id).await;
        assert_eq!(page.follows(0, one.now_ms()), Chain::Whole);
        let mut seen: Vec<usize> = texts(&page).iter().map(|text| text.parse().unwrap()).collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..300));
    }
}

pub async fn what_cannot_be_resumed_has_no_log(mut fleet: Fleet) {
    let one = fleet.instance("web1").await;
    let plain = Arc::new(record(&one));
    one.register(plain.clone()).await;
    match one.append(plain.id, &delivery("x")).await {
        Appended::Plain { owner, session } => assert_eq!((owner, session), (one.incarnation(), plain.session)),
        other => panic!("{other:?}"),
    }
    let kept = resumable(&one, "ann").await;
    logged(&one, kept.id, &delivery("x")).await;
    for record in [plain, kept] {
        assert!(one.unregister(record.id, record.session, ending(Cause::Kicked)).await);
        match one.append(record.id, &delivery("y")).await {
            Appended::Gone(verdict) => assert_eq!(verdict.state(), "closed"),
            other => panic!("{other:?}"),
        }
    }
}

pub async fn a_full_log_refuses_and_loses_nothing(mut fleet: Fleet) {
    let one = fleet.instance("web1").await;
    let record = resumable(&one, "ann").await;
    let large = vec![b'x'; LIMITS.bytes as usize / 16];
    let mut numbers = Vec::new();
    for _ in 0..16 {
        numbers.push(logged(&one, record.id, &delivery(large.clone())).await.0);
    }
    let one_more = delivery("y");
    assert!(matches!(one.append(record.id, &one_more).await, Appended::Full));
    assert_eq!(all(&one, record.id).await.entries.len(), 16);
    one.ack(record.id, numbers[0]).await.unwrap();
    logged(&one, record.id, &one_more).await;
    assert!(matches!(one.append(record.id, &delivery(large.clone())).await, Appended::Full));
    // What nobody wants any more makes room, and shows as a gap.
    let had = all(&one, record.id).await.tail;
    one.ack(record.id, had).await.unwrap();
    for _ in 0..16 {
        logged(&one, record.id, &Delivery { ttl: Duration::ZERO, ..delivery(large.clone()) }).await;
    }
    logged(&one, record.id, &delivery(large)).await;
    let page = all(&one, record.id).await;
    assert_eq!((page.entries.len(), page.follows(had, one.now_ms())), (1, Chain::Broken));
}

pub async fn a_group_names_its_sockets_that_may_be_resumed(mut fleet: Fleet) {
    let (one, two) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let mut ids = Vec::new();
    for registry in [&one, &two, &one] {
        ids.push(resumable(registry, "ann").await.id);
    }
    assert_eq!(two.kept(user("ann"), 10).await.unwrap(), ids);
    assert_eq!(two.kept(user("ann"), 2).await.unwrap(), ids[..2]);
    assert!(two.kept(user("bob"), 10).await.unwrap().is_empty());
    two.unkeep(&[user("ann"), user("bob")], ids[1]).await.unwrap();
    assert_eq!(one.kept(user("ann"), 10).await.unwrap(), [ids[0], ids[2]]);
}

pub async fn what_is_left_for_nobody_is_taken_by_one_in_order(mut fleet: Fleet) {
    let (one, two) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let ann = user("ann");
    assert_eq!(one.leave(ann, &delivery("0")).await, Left::Left(Durability::Memory));
    assert_eq!(
        two.leave(ann, &Delivery { ttl: Duration::ZERO, ..delivery("over") }).await,
        Left::Left(Durability::Memory)
    );
    for n in 1..120 {
        assert_eq!(two.leave(ann, &delivery(n.to_string())).await, Left::Left(Durability::Memory));
    }
    let newcomers = [resumable(&one, "ann").await, resumable(&two, "ann").await];
    let takers = [&one, &two, &one, &two].into_iter().zip(newcomers.iter().cycle());
    let taken = takers.map(|(registry, record)| registry.take_mail(ann, record.id, Durability::Memory));
    join_all(taken).await.into_iter().for_each(|taken| _ = taken.unwrap());
    let logs = [all(&one, newcomers[0].id).await, all(&one, newcomers[1].id).await];
    let expected: Vec<_> = (0..120).map(|n| n.to_string()).collect();
    let takers: Vec<_> = logs.iter().filter(|log| !log.entries.is_empty()).map(texts).collect();
    assert_eq!(takers, [expected]);
    // From now on it goes to those who are there.
    assert_eq!(one.leave(ann, &delivery("x")).await, Left::Somebody);
    assert_eq!(one.take_mail(ann, newcomers[0].id, Durability::Memory).await.unwrap(), Mail { taken: 0, waits: false });
}

pub async fn whoever_takes_over_may_die_anywhere(mut fleet: Fleet) {
    let (one, two) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let ann = user("ann");
    let expected: Vec<_> = (0..60).map(|n| n.to_string()).collect();
    for text in &expected {
        assert_eq!(one.leave(ann, &delivery(text.clone())).await, Left::Left(Durability::Memory));
    }
    let (first, second) = (resumable(&one, "ann").await, resumable(&two, "ann").await);
    // Each time a little later, for this one and for another in turn.
    for micros in (0..20).map(|nth| 200 * nth) {
        let (registry, id) = if micros % 400 == 0 { (&one, first.id) } else { (&two, second.id) };
        let _ = timeout(Duration::from_micros(micros), registry.take_mail(ann, id, Durability::Memory)).await;
    }
    two.take_mail(ann, second.id, Durability::Memory).await.unwrap();
    let logs = [all(&one, first.id).await, all(&one, second.id).await];
    let took: Vec<_> = logs.iter().filter(|log| !log.entries.is_empty()).map(texts).collect();
    assert_eq!(took, [expected]);
}

pub async fn what_nobody_took_to_the_end_goes_to_the_next(mut fleet: Fleet) {
    let (one, two) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let ann = user("ann");
    let large = vec![b'x'; LIMITS.bytes as usize / 8];
    for _ in 0..8 {
        assert_eq!(one.leave(ann, &delivery(large.clone())).await, Left::Left(Durability::Memory));
    }
    assert_eq!(one.leave(ann, &delivery("y")).await, Left::Full);
    // The first has no room for all of it.
    let first = resumable(&one, "ann").await;
    logged(&one, first.id, &delivery("x")).await;
    assert_eq!(one.take_mail(ann, first.id, Durability::Memory).await.unwrap(), Mail { taken: 7, waits: true });
    assert!(one.unregister(first.id, first.session, ending(Cause::ClientClosed)).await);
    let second = resumable(&two, "ann").await;
    assert_eq!(two.take_mail(ann, second.id, Durability::Memory).await.unwrap(), Mail { taken: 1, waits: false });
    assert_eq!(all(&one, second.id).await.entries.len(), 1);
}
