//! A slot on its way from one node to another, step by step: keys that have moved are with the new
//! master, all others with the old, and both refuse with ASK what the other has.

use crate::{
    cluster::Cluster,
    patience::until,
    roster::Roster,
    server::{Server, read},
};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

pub struct Migration<'a> {
    cluster: &'a Cluster,
    slot: u16,
    from: usize,
    to: usize,
    /// The id of the new master.
    heir: String,
}

impl<'a> Migration<'a> {
    pub(crate) fn begin(cluster: &'a Cluster, slot: u16, to: usize) -> Self {
        let from = cluster.owner_of(slot);
        assert!(cluster.masters().contains(&to), "node {to} is no master, so it cannot take slot {slot}");
        assert_ne!(from, to, "slot {slot} is there already");
        let [giver, heir] = [from, to].map(|index| cluster.nodes()[index].text(&["CLUSTER", "MYID"]));
        let migration = Self { cluster, slot, from, to, heir };
        // The taker first: the giver sends clients there from the next moment on.
        migration.set(migration.taker(), &["IMPORTING", &giver]);
        migration.set(migration.giver(), &["MIGRATING", &migration.heir]);
        migration
    }

    fn giver(&self) -> &Server {
        &self.cluster.nodes()[self.from]
    }

    fn taker(&self) -> &Server {
        &self.cluster.nodes()[self.to]
    }

    fn set(&self, node: &Server, words: &[&str]) {
        let slot = self.slot.to_string();
        node.ask(&[&["CLUSTER", "SETSLOT", &slot], words].concat());
    }

    /// Moves so many keys at most; says how many.
    pub fn move_keys(&self, count: usize) -> usize {
        let (slot, count) = (self.slot.to_string(), count.to_string());
        let keys: Vec<String> = read(self.giver().ask(&["CLUSTER", "GETKEYSINSLOT", &slot, &count]));
        if !keys.is_empty() {
            let port = self.taker().port().to_string();
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "REPLACE", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            self.giver().ask(&words);
        }
        keys.len()
    }

    /// Moves what is left, and gives the slot over.
    pub fn finish_with_keys(self) {
        while self.move_keys(100) > 0 {}
        self.finish();
    }

    /// Gives the slot over; returns when every live node knows. Keys that have not moved are lost.
    pub fn finish(self) {
        // The taker first, so that the slot has a master at any moment; it then tells the others, too.
        self.set(self.taker(), &["NODE", &self.heir]);
        self.set(self.giver(), &["NODE", &self.heir]);
        for other in self.cluster.masters().into_iter().filter(|index| ![self.from, self.to].contains(index)) {
            self.set(&self.cluster.nodes()[other], &["NODE", &self.heir]);
        }
        let moved = |roster: &Roster| roster.owner_of(self.slot).is_some_and(|owner| owner.id == self.heir);
        until("all know of the move", PATIENCE, || self.cluster.everyone_says(moved).then_some(()));
    }
}
