//! Who may drain: of the instances that serve, one stays.

use super::{Fleet, fleet::eventually};
use futures_util::future::join_all;
use registry::{Registry, Serving};

async fn let_go(asked: &Registry, who: &Registry, even_last: bool) -> bool {
    asked.let_go(&who.incarnation(), even_last).await.unwrap()
}

/// Letting somebody go depends on whether the others are seen to serve, which takes a beat.
async fn all_serve(asked: &Registry, count: usize) {
    eventually(async || {
        let listed = asked.instances().await.unwrap();
        (listed.iter().filter(|lease| lease.serving == Serving::Serving).count() == count).then_some(())
    })
    .await;
}

pub async fn the_last_that_serves_is_let_go_only_if_it_may_be_the_last(mut fleet: Fleet) {
    let web1 = fleet.instance("web1").await;
    all_serve(&web1, 1).await;
    assert!(!let_go(&web1, &web1, false).await);
    let web2 = fleet.instance("web2").await;
    all_serve(&web1, 2).await;
    // Asked anywhere, and again; whoever is let go does not count any more, before its lease says so.
    for asked in [&web1, &web2, &web2] {
        assert!(let_go(asked, &web1, false).await);
    }
    assert!(!let_go(&web1, &web2, false).await);
    // It was not told.
    web2.stays(&web1.incarnation()).await;
    assert!(let_go(&web1, &web2, false).await);
    assert!(!let_go(&web1, &web1, false).await);
    assert!(let_go(&web2, &web1, true).await);
}

pub async fn of_two_that_are_let_go_at_once_one_stays(mut fleet: Fleet) {
    let pair = [fleet.instance("web1").await, fleet.instance("web2").await];
    all_serve(&pair[0], 2).await;
    for nth in 0..20 {
        // Each of them asked for itself, or for the other.
        let asked = pair.iter().enumerate().map(|(at, who)| let_go(&pair[(at + nth) % 2], who, false));
        let gone = join_all(asked).await;
        assert_eq!(gone.iter().filter(|gone| **gone).count(), 1, "{nth}");
        for who in &pair {
            pair[0].stays(&who.incarnation()).await;
        }
    }
}
