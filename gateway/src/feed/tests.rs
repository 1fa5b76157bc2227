use super::*;
use crate::courier::tests::{deaf, instance, memory};
use bytes::Bytes;
use registry::{Incarnation, envelope::Told};
use std::{future::Future, time::Duration};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

fn line(n: u32) -> String {
    format!("{{\"event\":\"e\",\"data\":{n}}}\n")
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.unwrap()
}

/// The next thing that happens, without its time.
async fn next(look: &mut Look) -> (String, Value) {
    let Happening { kind, data } = soon(look.next()).await.unwrap();
    let mut data: Value = serde_json::from_str(&data).unwrap();
    if let Some(data) = data.as_object_mut() {
        data.remove("at");
    }
    (kind.into_owned(), data)
}

fn minded(desk: &Arc<Desk>) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(run(desk.clone(), CancellationToken::new())))
}

#[tokio::test]
async fn what_is_lost_on_the_way_is_counted_and_what_comes_twice_or_late_is_told_once() {
    let feed = Feed::default();
    let mut look = feed.look(Scope::Fleet);
    let web2 = Incarnation::fresh("web2");
    let hears = |since, count, lines: &[u32]| {
        let lines: String = lines.iter().map(|n| line(*n)).collect();
        feed.following.heard(&web2, Told { since, count }, &Bytes::from(lines));
    };
    hears(5, 7, &[7, 8]);
    hears(5, 8, &[8, 9]);
    hears(5, 12, &[12]);
    hears(5, 10, &[10, 11]);
    hears(6, 2, &[102]);
    hears(5, 13, &[13]);
    let told = |n: u32| ("e".to_owned(), json!(n));
    let missed = |count: Option<u32>| ("missed".to_owned(), json!({ "count": count, "instance": "web2" }));
    for expected in [told(7), told(8), told(9), missed(Some(2)), told(12), missed(None), told(102)] {
        assert_eq!(next(&mut look).await, expected);
    }
    feed.tell("last", || json!({}));
    assert_eq!(next(&mut look).await.0, "last");
}

#[tokio::test]
async fn a_slow_reader_is_told_how_much_it_missed() {
    let feed = Feed::default();
    let (mut local, mut fleet) = (feed.look(Scope::Local), feed.look(Scope::Fleet));
    for n in 0..5000 {
        feed.tell("e", || json!({ "n": n }));
    }
    for (look, held) in [(&mut local, 1024), (&mut fleet, 4096)] {
        assert_eq!(next(look).await, ("missed".into(), json!({ "count": 5000 - held })));
        assert_eq!(next(look).await, ("e".into(), json!({ "n": 5000 - held })));
    }
}

#[tokio::test]
async fn whoever_looks_hears_all_instances_and_is_told_which_do_not_answer() {
    let memory = memory();
    let ((here, _a), (there, _b), (_deaf, _inbox)) =
        (instance(&memory, "web1"), instance(&memory, "web2"), deaf(&memory, "web3"));
    let _minded = [minded(&here), minded(&there)];
    let mut look = here.feed.look(Scope::Fleet);
    let standing = json!({ "whole": false, "heard": ["web1", "web2"], "unheard": ["web3"] });
    assert_eq!(next(&mut look).await, ("instances".into(), standing.clone()));
    // Whoever comes later is told at once.
    let mut second = here.feed.look(Scope::Fleet);
    assert_eq!(next(&mut second).await, ("instances".into(), standing));
    there.feed.tell("there", || json!({}));
    here.feed.tell("here", || json!({}));
    for look in [&mut look, &mut second] {
        assert_eq!(next(look).await.0, "here");
        assert_eq!(next(look).await.0, "there");
    }
}

#[tokio::test]
async fn a_burst_there_is_told_or_counted() {
    let memory = memory();
    let ((here, _a), (there, _b)) = (instance(&memory, "web1"), instance(&memory, "web2"));
    let _minded = [minded(&here), minded(&there)];
    let mut look = here.feed.look(Scope::Fleet);
    assert_eq!(next(&mut look).await.0, "instances");
    for n in 0..3000 {
        there.feed.tell("e", || json!({ "n": n }));
    }
    assert_eq!(next(&mut look).await, ("missed".into(), json!({ "count": 3000 - 1024, "instance": "web2" })));
    for n in 3000 - 1024..3000 {
        assert_eq!(next(&mut look).await, ("e".into(), json!({ "n": n })));
    }
}

#[tokio::test]
async fn at_its_end_an_instance_tells_the_last_that_happened() {
    let memory = memory();
    let ((here, _a), (there, _b)) = (instance(&memory, "web1"), instance(&memory, "web2"));
    let (_minded, stopping) = (minded(&here), CancellationToken::new());
    let minded_there = tokio::spawn(run(there.clone(), stopping.clone()));
    let mut look = here.feed.look(Scope::Fleet);
    assert_eq!(next(&mut look).await.0, "instances");
    there.feed.tell("last", || json!({}));
    stopping.cancel();
    soon(minded_there).await.unwrap();
    assert_eq!(next(&mut look).await.0, "last");
}
