//! A master and those who watch.

use servers::Sentinels;

#[test]
fn the_other_takes_over_by_hand_and_after_a_kill() {
    let all = Sentinels::start();
    assert!(all.url().starts_with("redis+sentinel://127.0.0.1:"));
    assert!(all.url().ends_with("/holdfast"));
    assert_eq!(all.master(), 0);
    all.nodes()[0].ask(&["SET", "a", "1"]);

    assert_eq!(all.failover(), 1);
    assert_eq!(all.master_port(), all.nodes()[1].port());
    assert_eq!(all.nodes()[1].text(&["GET", "a"]), "1");

    assert_eq!(all.settle(), 1);
    all.kill_master();
    assert_eq!(all.settle(), 0);
    all.nodes()[0].ask(&["SET", "b", "2"]);

    all.revive(1);
    assert_eq!(all.master(), 0);
    assert_eq!(all.nodes()[1].keys(), ["a", "b"]);
}

#[test]
fn two_sentinels_are_enough() {
    let all = Sentinels::start();
    all.sentinels()[0].kill();
    all.kill_master();
    assert_eq!(all.settle(), 1);
}
