//! Nodes that share the slots.

use servers::Cluster;

/// Fills the slot of `{a}` with so many keys; returns the slot.
fn fill(cluster: &Cluster, count: usize) -> u16 {
    let slot = cluster.slot_of("{a}");
    let owner = &cluster.nodes()[cluster.owner_of(slot)];
    (0..count).for_each(|number| drop(owner.ask(&["SET", &format!("{{a}}{number}"), &number.to_string()])));
    slot
}

#[test]
fn a_slot_moves_with_its_keys() {
    let cluster = Cluster::of(3, 0);
    assert_eq!(cluster.masters().len(), 3);
    assert_eq!(cluster.url().matches("127.0.0.1:").count(), 3);
    let slot = fill(&cluster, 250);
    let from = cluster.owner_of(slot);
    let to = (from + 1) % 3;
    let (old, new) = (&cluster.nodes()[from], &cluster.nodes()[to]);

    let migration = cluster.begin_migration(slot, to);
    assert_eq!(migration.move_keys(10), 10);
    assert_eq!(cluster.owner_of(slot), from);
    let refused = old.try_ask(&["GET", "{a}unknown"]).unwrap_err();
    assert_eq!(refused.code(), Some("ASK"));
    migration.finish_with_keys();

    assert_eq!(cluster.owner_of(slot), to);
    assert!(old.keys().is_empty());
    assert_eq!(new.keys().len(), 250);
    assert_eq!(new.text(&["GET", "{a}249"]), "249");
    assert_eq!(old.try_ask(&["GET", "{a}249"]).unwrap_err().code(), Some("MOVED"));

    cluster.migrate_slot(slot, from);
    assert_eq!(old.keys().len(), 250);
}

#[test]
fn a_replica_takes_over_by_hand_and_after_a_kill() {
    let cluster = Cluster::of(3, 1);
    let slot = fill(&cluster, 20);
    let first = cluster.owner_of(slot);
    assert!(first < 3);

    let second = cluster.failover(slot);
    assert!(second >= 3);
    assert_eq!(cluster.owner_of(slot), second);
    assert_eq!(cluster.nodes()[second].keys().len(), 20);

    cluster.kill(second);
    cluster.settle();
    assert_eq!(cluster.owner_of(slot), first);
    assert_eq!(cluster.nodes()[first].text(&["GET", "{a}7"]), "7");

    cluster.revive(second);
    assert_eq!(cluster.owner_of(slot), first);
    assert_eq!(cluster.nodes()[second].keys().len(), 20);
}

#[test]
fn a_master_without_replica_comes_back_with_its_slots() {
    let cluster = Cluster::of(3, 0);
    let slot = fill(&cluster, 5);
    let owner = cluster.owner_of(slot);
    cluster.kill(owner);
    cluster.revive(owner);
    assert_eq!(cluster.owner_of(slot), owner);
    assert!(cluster.nodes()[owner].keys().is_empty());
}
