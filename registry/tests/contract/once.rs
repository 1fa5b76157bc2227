//! Requests that are acted upon once, whichever instance they come to.

use super::Fleet;
use bytes::Bytes;
use futures_util::future::join_all;
use registry::{Errand, Hashed, Once, Outcome, Registry};

fn errand(registry: &Registry, key: &str, body: &str) -> Errand {
    let (key, body) = (Hashed::of(&[key.as_bytes()]), Hashed::of(&[body.as_bytes()]));
    Errand::new(key, body, registry.incarnation(), 7)
}

pub async fn of_those_who_ask_at_once_one_takes_it_on(mut fleet: Fleet) {
    let (one, two) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let askers = (0..20).map(|n| if n % 2 == 0 { &one } else { &two });
    let errands: Vec<_> = askers.map(|registry| (registry, errand(registry, "k", "b"))).collect();
    let said = join_all(errands.iter().map(async |(registry, errand)| registry.take_on(errand).await.unwrap())).await;
    let ours: Vec<_> = (0..20).filter(|&n| said[n] == Once::Ours).collect();
    let [winner] = ours[..] else { panic!("{said:?}") };
    let running = Once::Running { ticket: errands[winner].1.ticket.clone(), until: 7 };
    assert!((0..20).all(|n| n == winner || said[n] == running), "{said:?}");
    assert_eq!(two.take_on(&errand(&two, "k", "another body")).await.unwrap(), Once::Other);
    assert_eq!(two.take_on(&errand(&two, "another key", "b")).await.unwrap(), Once::Ours);
}

pub async fn the_first_word_on_an_outcome_stands(mut fleet: Fleet) {
    let (one, two) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let first = errand(&one, "k", "b");
    let kept = |bytes: &'static [u8]| Outcome::Kept(Bytes::from_static(bytes));
    assert!(!one.settle(&first.ticket, &kept(b"early")).await.unwrap());
    assert_eq!(one.take_on(&first).await.unwrap(), Once::Ours);
    assert!(!two.settle(&errand(&two, "k", "b").ticket, &kept(b"forged")).await.unwrap());
    // Another instance that learnt the token may say it too.
    assert!(two.settle(&first.ticket, &kept(b"\x00\xff\r\n")).await.unwrap());
    for late in [kept(b"late"), Outcome::Nothing] {
        assert!(!one.settle(&first.ticket, &late).await.unwrap());
    }
    for registry in [&one, &two] {
        let said = registry.take_on(&errand(registry, "k", "b")).await.unwrap();
        assert_eq!(said, Once::Done(Bytes::from_static(b"\x00\xff\r\n")));
    }
}

pub async fn what_came_to_nothing_may_be_tried_anew(mut fleet: Fleet) {
    let (one, two) = (fleet.instance("web1").await, fleet.instance("web2").await);
    let (first, second) = (errand(&one, "k", "b"), errand(&two, "k", "another body"));
    assert_eq!(one.take_on(&first).await.unwrap(), Once::Ours);
    assert!(one.settle(&first.ticket, &Outcome::Nothing).await.unwrap());
    assert_eq!(two.take_on(&second).await.unwrap(), Once::Ours);
    assert!(!one.settle(&first.ticket, &Outcome::Nothing).await.unwrap());
    assert!(matches!(one.take_on(&first).await.unwrap(), Once::Other));
}
