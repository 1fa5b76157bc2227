//! One client that cannot stay: it reconnects again and again, now here, now there.

use super::{crowd::Crowd, fleet::Fleet, guest::Guest, note, truth};
use crate::patience::eventually;
use servers::Server;
use std::collections::BTreeMap;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_reconnections_the_last_one_counts() {
    let redis = Server::start();
    let fleet = Fleet::on(&redis.url(), &[("MAX_SOCKETS_PER_USER", "1")]).await;
    let mut crowd = Crowd::default();
    let mut earlier = Vec::new();
    for nth in 0..100 {
        let at = nth % 2;
        let address = fleet.gateway(at).address();
        // Every third time the old connection is gone first; else the newcomer meets it.
        let gone = (nth % 3 == 0).then(|| crowd.guests.pop()).flatten();
        earlier.extend(gone.map(|guest| guest.id));
        let guest = Guest::enters(address, at, "u", Some("s"), "&room_id=r&client_id=tab").await;
        earlier.extend(std::mem::replace(&mut crowd.guests, vec![guest]).into_iter().map(|guest| guest.id));
    }
    assert_eq!(earlier.len(), 99);
    truth::agrees(&fleet, &crowd, || vec![&redis]).await;
    let mut causes = BTreeMap::new();
    for (nth, id) in earlier.iter().enumerate() {
        let verdict = eventually("every earlier one has a verdict", async || {
            let answer = fleet.lookup(nth % 3, id).await;
            (answer.status == 410).then(|| answer.json()["verdict"].clone())
        })
        .await;
        *causes.entry(verdict["cause"].to_string()).or_insert(0) += 1;
    }
    note(&format!("causes: {causes:?}"));
    assert!(causes.keys().all(|cause| ["\"replaced\"", "\"connection_lost\""].contains(&cause.as_str())), "{causes:?}");
    crowd.all_reach_all(&fleet).await;
    crowd.rooms_reach_everybody(&fleet).await;
    crowd.is_undisturbed();
    fleet.is_sound().await;
}

/// The same without a moment between: the old one is still there each time, and is told to go by whoever
/// let the newcomer in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_replaced_elsewhere_is_told_so() {
    let redis = Server::start();
    let fleet = Fleet::on(&redis.url(), &[("MAX_SOCKETS_PER_USER", "1")]).await;
    let (mut crowd, mut replaced) = (Crowd::default(), Vec::new());
    for at in (0..30).map(|nth| nth % 3) {
        let address = fleet.gateway(at).address();
        let guest = Guest::enters(address, at, "u", None, "&client_id=tab").await;
        replaced.extend(std::mem::replace(&mut crowd.guests, vec![guest]));
    }
    for guest in &mut replaced {
        assert_eq!(guest.is_closed().await.0, 4409);
    }
    truth::agrees(&fleet, &crowd, || vec![&redis]).await;
    crowd.is_undisturbed();
    fleet.is_sound().await;
}
