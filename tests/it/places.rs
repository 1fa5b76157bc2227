//! How many sockets a user may have, when they come to all instances.

use crate::{
    client::Client,
    fleet::Fleet,
    patience::{eventually, soon},
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{sync::Barrier, time::sleep};
use tokio_tungstenite::tungstenite::Message;

/// Instances read Redis' clock each for itself, so of two that come closer to each other nobody came first.
const APART: Duration = Duration::from_millis(50);

async fn holders(fleet: &Fleet, at: usize, user: &str) -> Vec<String> {
    let told = fleet[at].get(&format!("/api/users/{user}")).await.json();
    let sockets = told["sockets"].as_array().unwrap();
    sockets.iter().map(|socket| socket["socketId"].as_str().unwrap().to_owned()).collect()
}

/// Whether it was let in, or the close that it heard instead.
async fn arrives(fleet: &Fleet, at: usize, target: &str) -> Result<Client, (u16, String)> {
    let mut client = fleet[at].connect(target).await;
    match client.next().await {
        Some(Message::Text(hi)) => {
            let hi: Value = serde_json::from_str(&hi).unwrap();
            client.id = hi["socketId"].as_str().unwrap().to_owned();
            assert_eq!(client.hears_text().await, r#"{"type":"reset"}"#);
            Ok(client)
        }
        Some(Message::Close(Some(close))) => Err((close.code.into(), close.reason.as_str().to_owned())),
        other => panic!("{other:?}"),
    }
}

/// Always the one that came first, whichever clock and instance it came by.
#[tokio::test]
async fn the_oldest_goes_first_over_all_instances() {
    let fleet = Fleet::with(&[("MAX_SOCKETS_PER_USER", "3")]).await;
    let mut clients = Vec::new();
    for nth in 0..12 {
        // A spread that no round-robin has.
        let at = [2, 0, 0, 1, 2, 1, 1, 0, 2, 2, 0, 1][nth];
        sleep(APART).await;
        clients.push(fleet[at].greeted(&format!("/ws?user_id=ann&client_id=c{nth}")).await);
        if nth >= 3 {
            let mut oldest = clients.remove(0);
            assert_eq!(oldest.closed().await.0, 4410, "{nth}");
        }
    }
    let left: Vec<_> = clients.iter().map(|client| client.id.clone()).collect();
    assert_eq!(holders(&fleet, 1, "ann").await, left);
    for client in &mut clients {
        client.heard_all().await;
    }
    fleet.is_sound().await;
}

/// A place is free when its holder has heard the goodbye, not a moment later.
#[tokio::test]
async fn a_place_is_free_everywhere_once_its_holder_has_left() {
    let settings = [("MAX_SOCKETS_PER_USER", "1"), ("DUPLICATE_POLICY", "reject")];
    let fleet = Fleet::with(&settings).await;
    for turn in 0..15 {
        let holder = fleet[turn % 3].greeted("/ws?user_id=ann").await;
        holder.leaves().await;
        let mut next = match arrives(&fleet, (turn + 1) % 3, "/ws?user_id=ann").await {
            Ok(client) => client,
            Err(close) => panic!("{turn}: {close:?}"),
        };
        let kicked = fleet[(turn + 2) % 3].delete("/api/users/ann").await;
        assert_eq!(kicked.json()["closed"], 1, "{turn}: {}", kicked.text());
        assert_eq!(next.closed().await.0, 4403);
    }
    fleet.is_sound().await;
}

/// With one place and many at once exactly one has it, and the others are told the truth.
#[tokio::test]
async fn newcomers_at_once_do_not_share_a_place() {
    let settings = [("MAX_SOCKETS_PER_USER", "1"), ("DUPLICATE_POLICY", "reject")];
    let fleet = &Fleet::with(&settings).await;
    for turn in 0..3 {
        let target = format!("/ws?user_id=u{turn}");
        let (settled, target) = (&Barrier::new(6), target.as_str());
        let arriving = (0..6).map(|nth| async move {
            let mut arrival = arrives(fleet, nth % 3, target).await;
            // Who is in answers pings until the last one has heard; else it would be taken for dead.
            let last = settled.wait();
            let _ = match &mut arrival {
                Ok(client) => client.stays_while(last).await,
                Err(_) => last.await,
            };
            arrival
        });
        let (mut inside, mut refused) = (Vec::new(), 0);
        for arrival in join_all(arriving).await {
            match arrival {
                Ok(client) => inside.push(client),
                Err(close) => {
                    assert_eq!(close, (1008, "User already connected".to_owned()));
                    refused += 1;
                }
            }
        }
        assert_eq!((inside.len(), refused), (1, 5), "{turn}");
        inside[0].heard_all().await;
        assert_eq!(holders(fleet, 2, &format!("u{turn}")).await.len(), 1);
    }
    fleet.is_sound().await;
}

/// Checklist 35: nobody, whoever shares a tab's name, and a cap of 0.
#[tokio::test]
async fn those_who_do_not_count_are_not_counted_elsewhere_either() {
    let fleet = Fleet::with(&[("MAX_SOCKETS_PER_USER", "1")]).await;
    let mut clients = Vec::new();
    for at in [0, 1, 2, 0] {
        clients.push(fleet[at].greeted("/connect").await);
        clients.push(fleet[at].greeted("/connect?user_id=anonymous&client_id=tab").await);
        clients.push(fleet[at].greeted(&format!("/ws?user_id=u{}&client_id=tab", clients.len())).await);
    }
    for client in &mut clients {
        client.heard_all().await;
    }
    let uncapped = Fleet::with(&[("MAX_SOCKETS_PER_USER", "0")]).await;
    let mut clients = Vec::new();
    for nth in 0..12 {
        clients.push(uncapped[nth % 3].greeted("/ws?user_id=ann").await);
    }
    let mut before = uncapped[0].greeted("/ws?user_id=ann&client_id=tab").await;
    sleep(APART).await;
    let _after = uncapped[2].greeted("/ws?user_id=ann&client_id=tab").await;
    assert_eq!(before.closed().await.0, 4409, "a tab replaces itself, cap or none");
    for client in &mut clients {
        client.heard_all().await;
    }
    assert_eq!(holders(&uncapped, 1, "ann").await.len(), 13);
    fleet.is_sound().await;
    uncapped.is_sound().await;
}

/// Checklist 36: two tabs that each want the one place must not throw each other out for ever.
#[tokio::test]
async fn two_that_want_one_place_do_not_take_turns() {
    let fleet = Fleet::with(&[("MAX_SOCKETS_PER_USER", "1")]).await;
    let mut first = fleet[0].greeted("/ws?user_id=ann&client_id=a").await;
    let mut second = fleet[1].greeted("/ws?user_id=ann&client_id=b").await;
    assert_eq!(first.closed().await.0, 4410);
    for at in 0..3 {
        let Err((code, reason)) = arrives(&fleet, at, "/ws?user_id=ann&client_id=a").await else {
            panic!("who was evicted evicts at web{}", at + 1)
        };
        assert_eq!((code, reason.as_str()), (4410, "Too many connections, closing oldest"));
        second.heard_all().await;
    }
    // The same client comes back as itself at any time, and another one is not held up.
    let mut again = fleet[2].greeted("/ws?user_id=ann&client_id=b").await;
    assert_eq!(second.closed().await.0, 4409);
    let mut third = fleet[0].greeted("/ws?user_id=ann&client_id=c").await;
    assert_eq!(again.closed().await.0, 4410);
    third.heard_all().await;
    assert_eq!(json!(holders(&fleet, 1, "ann").await), json!([third.id]));
    fleet.is_sound().await;
}

#[tokio::test]
async fn with_reject_a_living_holder_elsewhere_keeps_its_place_and_a_silent_one_does_not() {
    let settings = [("MAX_SOCKETS_PER_USER", "1"), ("DUPLICATE_POLICY", "reject")];
    let fleet = Fleet::with(&settings).await;
    let mut living = fleet[0].greeted("/ws?user_id=ann").await;
    let refused = async {
        let mut newcomer = fleet[1].connect("/ws?user_id=ann").await;
        newcomer.closed().await
    };
    let refused = soon("the newcomer is told", Box::pin(living.stays_while(refused))).await;
    assert_eq!(refused, (1008, "User already connected".to_owned()));
    living.heard_all().await;
    // One that answers no ping is gone as far as anybody can tell.
    let silent = fleet[0].raw_greeted("/ws?user_id=bob").await;
    let mut newcomer = fleet[1].greeted("/ws?user_id=bob").await;
    newcomer.heard_all().await;
    drop(silent);
    fleet.is_sound().await;
}

#[tokio::test]
async fn newcomers_at_once_on_all_instances_keep_the_cap() {
    let fleet = Fleet::with(&[("MAX_SOCKETS_PER_USER", "3")]).await;
    let fleet = &fleet;
    let arriving = (0..12).map(|nth| async move {
        let mut client = fleet[nth % 3].connect(&format!("/ws?user_id=ann&client_id=c{nth}")).await;
        match client.next().await {
            Some(message) if message.is_text() => Some(client),
            _ => None,
        }
    });
    let arrived: Vec<_> = join_all(arriving).await.into_iter().flatten().collect();
    assert!(arrived.len() >= 3);
    let three = eventually("three are left", async || {
        let told: Value = fleet[0].get("/api/users/ann").await.json();
        (told["count"] == 3).then_some(told)
    })
    .await;
    assert_eq!(three["missing"], json!([]));
    fleet.is_sound().await;
}

#[tokio::test]
async fn a_client_that_comes_to_all_instances_at_once_stays_once() {
    let fleet = Fleet::with(&[]).await;
    for turn in 0..5 {
        let target = format!("/ws?user_id=u{turn}&client_id=tab");
        let arrivals = join_all((0..6).map(|nth| arrives(&fleet, nth % 3, &target))).await;
        let arrived: Vec<_> = arrivals.into_iter().filter_map(Result::ok).collect();
        let left = eventually("one is left", async || {
            let left = holders(&fleet, turn % 3, &format!("u{turn}")).await;
            (left.len() == 1).then(|| left[0].clone())
        })
        .await;
        let (stayed, replaced): (Vec<_>, Vec<_>) = arrived.into_iter().partition(|client| client.id == left);
        for mut client in replaced {
            assert_eq!(client.closed().await.0, 4409, "{turn}");
        }
        let [mut client] = <[Client; 1]>::try_from(stayed).ok().unwrap();
        client.heard_all().await;
    }
    fleet.is_sound().await;
}
