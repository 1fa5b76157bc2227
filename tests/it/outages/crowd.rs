//! All clients of a fact, and the oracle: what is true of them, whatever the registry says.

use super::{
    fleet::{Fleet, within},
    guest::Guest,
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Handshakes that overlap.
const AT_ONCE: usize = 40;
/// Rooms and stores that a crowd is spread over.
const ROOMS: usize = 10;
const STORES: usize = 5;

#[derive(Default)]
pub struct Crowd {
    pub guests: Vec<Guest>,
    users: usize,
    number: u64,
}

/// What a registry that tells the truth says of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truth {
    pub instance: String,
    pub user: String,
    pub store: Option<String>,
    pub rooms: Vec<String>,
}

impl Crowd {
    /// So many at each instance.
    pub async fn at_each(fleet: &Fleet, count: usize) -> Self {
        let mut crowd = Self::default();
        for at in 0..3 {
            crowd.comes(fleet, at, count).await;
        }
        crowd
    }

    /// So many more come, each a user of its own, spread over rooms and stores.
    pub async fn comes(&mut self, fleet: &Fleet, at: usize, count: usize) {
        let users: Vec<_> = (self.users..self.users + count).collect();
        self.users += count;
        let address = fleet.gateway(at).address();
        let entering = users.into_iter().map(|n| async move {
            let store = format!("s{}", n % STORES);
            Guest::enters(address, at, &format!("u{n}"), Some(&store), &format!("&room_id=r{}", n % ROOMS)).await
        });
        let guests: Vec<_> = stream::iter(entering).buffer_unordered(AT_ONCE).collect().await;
        self.guests.extend(guests);
    }

    /// These users come in, with the same names as before.
    pub async fn moves(&mut self, fleet: &Fleet, movers: Vec<Guest>, to: impl Fn(usize) -> usize) {
        let entering = movers.into_iter().enumerate().map(|(nth, mover)| {
            let at = to(nth);
            let address = fleet.gateway(at).address();
            async move {
                let rooms: String = mover.rooms.iter().map(|room| format!("&room_id={room}")).collect();
                let (user, store) = (mover.user.clone(), mover.store.clone());
                // The old connection ends first, as when a network is changed.
                drop(mover);
                Guest::enters(address, at, &user, store.as_deref(), &rooms).await
            }
        });
        let guests: Vec<_> = stream::iter(entering).buffer_unordered(AT_ONCE).collect().await;
        self.guests.extend(guests);
    }

    /// Takes those out that are meant.
    pub fn take(&mut self, which: impl FnMut(&mut Guest) -> bool) -> Vec<Guest> {
        self.guests.extract_if(.., which).collect()
    }

    pub fn ids(&self) -> Vec<String> {
        self.guests.iter().map(|guest| guest.id.clone()).collect()
    }

    /// One who is connected there.
    pub fn one_at(&mut self, at: usize) -> &mut Guest {
        self.guests.iter_mut().find(|guest| guest.at == at).expect("somebody is there")
    }

    /// A number that nobody has heard yet.
    pub fn fresh(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// What is true, by id.
    pub fn truth(&self) -> BTreeMap<String, Truth> {
        let truth = |guest: &Guest| Truth {
            instance: Fleet::name(guest.at),
            user: guest.user.clone(),
            store: guest.store.clone(),
            rooms: guest.rooms.iter().cloned().collect(),
        };
        self.guests.iter().map(|guest| (guest.id.clone(), truth(guest))).collect()
    }

    /// Nobody was disconnected, and nobody heard anything twice.
    pub fn is_undisturbed(&self) {
        for guest in &self.guests {
            assert!(guest.stays(), "{} at {} was disconnected", guest.id, Fleet::name(guest.at));
        }
        self.heard_nothing_twice();
    }

    pub fn heard_nothing_twice(&self) {
        for guest in &self.guests {
            assert_eq!(guest.heard_twice(), [0; 0], "{} at {}", guest.id, Fleet::name(guest.at));
        }
    }

    /// A message to every socket's room, from every instance, is heard by all members, once each.
    pub async fn rooms_reach_everybody(&mut self, fleet: &Fleet) {
        let rooms: BTreeSet<_> = self.guests.iter().flat_map(|guest| guest.rooms.clone()).collect();
        let places: Vec<_> = fleet.living().map(|(at, _)| at).collect();
        for (nth, room) in rooms.iter().enumerate() {
            let (number, from) = (self.fresh(), places[nth % places.len()]);
            let answer = fleet.sends(from, json!({"roomId": room}), number).await;
            let members = self.guests.iter().filter(|guest| guest.rooms.contains(room)).count();
            assert_eq!(
                (answer.status, answer.json()["delivered"].as_u64()),
                (200, Some(members as u64)),
                "{room}: {}",
                answer.text()
            );
            for guest in &mut self.guests {
                if guest.rooms.contains(room) {
                    guest.hears(number).await;
                }
                assert_eq!(guest.heard(number), usize::from(guest.rooms.contains(room)));
            }
        }
    }

    /// Each instance reaches somebody at each other where anybody is, by its id.
    pub async fn all_reach_all(&mut self, fleet: &Fleet) {
        for (from, _) in fleet.living() {
            for (to, _) in fleet.living() {
                let number = self.fresh();
                let Some(guest) = self.guests.iter_mut().find(|guest| guest.at == to) else { continue };
                let answer = fleet.sends(from, json!({"socketId": guest.id}), number).await;
                assert_eq!(answer.status, 200, "{from} to {to}: {}", answer.text());
                guest.hears(number).await;
            }
        }
    }

    /// Waits until each instance reaches somebody at each other.
    pub async fn reaches_again(&self, fleet: &Fleet, deadline: Duration) {
        within(deadline, "everybody is reached again", async || {
            for (from, _) in fleet.living() {
                for guest in fleet.living().filter_map(|(to, _)| self.guests.iter().find(|guest| guest.at == to)) {
                    let answer = fleet.sends(from, json!({"socketId": guest.id}), Value::Null).await;
                    if answer.status != 200 {
                        return Err(format!("{from} to {}: {}", guest.at, answer.text()));
                    }
                }
            }
            Ok(())
        })
        .await;
    }
}
