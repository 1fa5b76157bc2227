//! The rules themselves are tested: each is broken by a history that breaks it and no other, and by none that
//! is as it should be.

use super::{
    notes::{Note, What, Word},
    rules::{BUSY, Rule, judge},
};
use serde_json::{Value, json};
use std::time::Duration;

const BUDGET: Duration = Duration::from_secs(2);

fn at(ms: u64, what: What) -> Note {
    Note { at: Duration::from_millis(ms), what }
}

fn asked(ms: u64, key: u64) -> Note {
    at(ms, What::Asked { key, asker: 0, budget: BUDGET })
}

fn delivered(ms: u64, key: u64, socket: &str) -> Note {
    at(ms, What::Delivered { key, call: format!("c_{key}"), socket: socket.into() })
}

fn said(ms: u64, key: u64, socket: &str, word: Word) -> Note {
    at(ms, What::Said { key, socket: socket.into(), word })
}

fn answered(ms: u64, key: u64, status: u16, body: Value) -> Note {
    at(ms, What::Answered { key, status, body })
}

fn replied(ms: u64, key: u64, socket: &str) -> Note {
    let body = json!({"status": "replied", "callId": format!("c_{key}"), "socketId": socket, "result": {"by": socket}});
    answered(ms, key, 200, body)
}

fn problem(ms: u64, key: u64, status: u16, code: &str, delivered: impl Into<Value>) -> Note {
    answered(ms, key, status, json!({"code": code, "callId": format!("c_{key}"), "delivered": delivered.into()}))
}

fn lost(ms: u64, key: u64, socket: &str) -> Note {
    let body = json!({"code": "socket_lost", "delivered": true, "verdict": {"socketId": socket}});
    answered(ms, key, 502, body)
}

/// A call as it should be, from the question to the answer.
fn sound() -> Vec<Note> {
    vec![asked(0, 1), delivered(10, 1, "ws_a"), said(20, 1, "ws_a", Word::Reply), replied(30, 1, "ws_a")]
}

fn broken(history: &[Note]) -> Vec<Rule> {
    let mut rules: Vec<_> = judge(history).into_iter().map(|fault| fault.rule).collect();
    rules.dedup();
    rules
}

#[test]
fn a_sound_history_breaks_no_rule() {
    assert_eq!(broken(&sound()), []);
    let failed = json!({"code": "call_failed", "callId": "c_1", "socketId": "ws_a", "failure": {"by": "ws_a"}});
    let told = [
        vec![delivered(10, 1, "ws_a"), said(20, 1, "ws_a", Word::Failed), answered(30, 1, 409, failed)],
        vec![problem(5, 1, 404, "no_live_socket", Value::Null)],
        vec![problem(5, 1, 503, "draining", Value::Null)],
        vec![problem(2000, 1, 504, "no_reply", false)],
        vec![problem(2000, 1, 504, "no_reply", "unknown")],
        vec![delivered(10, 1, "ws_a"), problem(2000, 1, 504, "no_reply", "unknown")],
        vec![delivered(10, 1, "ws_a"), problem(2000, 1, 504, "no_reply", true)],
        vec![delivered(10, 1, "ws_a"), at(20, What::Parted { socket: "ws_a".into() }), lost(30, 1, "ws_a")],
        vec![at(20, What::Killed { instance: 1 }), problem(1900, 1, 502, "owner_lost", "unknown")],
        vec![at(20, What::Drained { instance: 0 }), problem(25, 1, 502, "instance_ended", "unknown")],
        vec![at(20, What::Killed { instance: 0 }), at(25, What::Broken { key: 1 })],
        vec![at(20, What::Drained { instance: 0 }), at(25, What::Broken { key: 1 })],
        vec![
            delivered(9, 1, "ws_a"),
            at(99, What::Withdrawn { call: "c_1".into(), socket: "ws_a".into() }),
            problem(2000, 1, 504, "no_reply", true),
        ],
    ];
    for rest in told {
        let history: Vec<_> = [asked(0, 1)].into_iter().chain(rest).collect();
        assert_eq!(broken(&history), [], "{history:?}");
    }
}

#[test]
fn a_call_that_is_written_twice_is_seen() {
    for socket in ["ws_a", "ws_b"] {
        let again = delivered(40, 1, socket);
        assert_eq!(broken(&[sound(), vec![again]].concat()), [Rule::Once]);
    }
}

#[test]
fn a_late_delivery_is_seen() {
    let history = |ms| vec![asked(100, 1), problem(2100, 1, 504, "no_reply", "unknown"), delivered(ms, 1, "ws_a")];
    let limit = 100 + u64::try_from((BUDGET + BUSY).as_millis()).unwrap();
    assert_eq!(broken(&history(limit)), []);
    assert_eq!(broken(&history(limit + 1)), [Rule::NotLate]);
    for (instance, rules) in [(0, vec![]), (1, vec![Rule::NotLate])] {
        let still = [at(200, What::Stopped { instance }), at(700, What::GoesOn { instance })];
        assert_eq!(broken(&[history(limit + 500), still.to_vec()].concat()), rules);
    }
}

#[test]
fn a_delivery_that_is_denied_is_seen() {
    for (status, code, word) in [
        (404, "socket_never_seen", Value::Null),
        (410, "socket_gone", Value::Null),
        (429, "socket_busy", Value::Null),
        (503, "owner_unreachable", Value::Null),
        (504, "no_reply", json!(false)),
    ] {
        // Whether it was seen before the answer or after it.
        for seen in [10, 2500] {
            let history = [asked(0, 1), delivered(seen, 1, "ws_a"), problem(50, 1, status, code, word.clone())];
            assert_eq!(broken(&history), [Rule::NotDenied]);
        }
    }
}

#[test]
fn an_answer_too_late_is_seen() {
    let limit = BUDGET + Duration::from_millis(250) + BUSY;
    let limit = u64::try_from(limit.as_millis()).unwrap();
    let history = |ms| vec![asked(100, 1), problem(100 + ms, 1, 504, "no_reply", "unknown")];
    assert_eq!(broken(&history(limit)), []);
    assert_eq!(broken(&history(limit + 1)), [Rule::InTime]);
    // Who stood still could not answer; another who did excuses nothing.
    for (instance, rules) in [(0, vec![]), (1, vec![Rule::InTime])] {
        let still = [at(200, What::Stopped { instance }), at(700, What::GoesOn { instance })];
        assert_eq!(broken(&[history(limit + 500), still.to_vec()].concat()), rules);
    }
}

#[test]
fn a_call_without_an_answer_is_seen() {
    assert_eq!(broken(&[asked(0, 1), delivered(10, 1, "ws_a")]), [Rule::Answered]);
    assert_eq!(broken(&[asked(0, 1), at(10, What::Broken { key: 1 })]), [Rule::Answered]);
    assert_eq!(broken(&[delivered(10, 1, "ws_a")]), [Rule::Answered], "nobody asked");
    // Another was killed; it was killed at another time; a drain loses no call that it gave to a client.
    let cut = [asked(0, 1), at(10, What::Broken { key: 1 })];
    for trouble in [at(5, What::Killed { instance: 1 }), at(9000, What::Killed { instance: 0 })] {
        assert_eq!(broken(&[cut.to_vec(), vec![trouble]].concat()), [Rule::Answered]);
    }
    let drained = [at(1, What::Drained { instance: 0 }), delivered(5, 1, "ws_a")];
    assert_eq!(broken(&[cut.to_vec(), drained.to_vec()].concat()), [Rule::Answered]);
}

#[test]
fn an_answer_that_is_not_in_the_table_is_seen() {
    for (status, code, word) in [
        (500, "internal", Value::Null),
        (200, "", Value::Null),
        (503, "later", Value::Null),
        (504, "no_reply", Value::Null),
        (502, "bad_gateway", Value::Null),
    ] {
        let history = [asked(0, 1), delivered(5, 1, "ws_a"), problem(50, 1, status, code, word)];
        assert!(broken(&history).contains(&Rule::Listed), "{status} {code}");
    }
}

#[test]
fn a_reply_of_somebody_else_is_seen() {
    let heard = [asked(0, 1), delivered(10, 1, "ws_a"), said(20, 1, "ws_a", Word::Reply)];
    // From another socket, of another call, with another's words, or never said.
    assert_eq!(broken(&[heard.to_vec(), vec![replied(30, 1, "ws_b")]].concat()), [Rule::OwnReply]);
    let mut other = replied(30, 1, "ws_a");
    if let What::Answered { body, .. } = &mut other.what {
        body["callId"] = json!("c_2");
    }
    assert_eq!(broken(&[heard.to_vec(), vec![other]].concat()), [Rule::OwnReply]);
    let mut words = replied(30, 1, "ws_a");
    if let What::Answered { body, .. } = &mut words.what {
        body["result"]["by"] = json!("ws_b");
    }
    assert_eq!(broken(&[heard.to_vec(), vec![words]].concat()), [Rule::OwnReply]);
    assert_eq!(broken(&[asked(0, 1), delivered(10, 1, "ws_a"), replied(30, 1, "ws_a")]), [Rule::OwnReply]);
    let progress = said(20, 1, "ws_a", Word::Progress);
    assert_eq!(broken(&[asked(0, 1), delivered(10, 1, "ws_a"), progress, replied(30, 1, "ws_a")]), [Rule::OwnReply]);
}

#[test]
fn a_delivery_to_nobody_is_seen() {
    assert_eq!(broken(&[asked(0, 1), problem(2000, 1, 504, "no_reply", true)]), [Rule::Seen]);
    let parted = at(20, What::Parted { socket: "ws_a".into() });
    assert_eq!(broken(&[asked(0, 1), parted, lost(30, 1, "ws_a")]), [Rule::Seen]);
    // Whoever is killed may take it along; not afterwards.
    let killed = |ms| vec![asked(0, 1), at(ms, What::Killed { instance: 1 }), problem(2000, 1, 504, "no_reply", true)];
    assert_eq!(broken(&killed(1000)), []);
    assert_eq!(broken(&killed(2500)), [Rule::Seen]);
}

#[test]
fn a_loss_without_a_cause_is_seen() {
    let had = [asked(10_000, 1), delivered(10_010, 1, "ws_a")];
    for parted in [
        vec![],
        vec![at(2000, What::Parted { socket: "ws_a".into() })],
        vec![at(10_020, What::Parted { socket: "ws_b".into() })],
    ] {
        assert_eq!(broken(&[had.to_vec(), parted, vec![lost(10_100, 1, "ws_a")]].concat()), [Rule::Cause]);
    }
    let gone = ["owner_lost", "instance_ended"].map(|code| problem(11_900, 1, 502, code, true));
    for cause in [
        vec![],
        vec![at(1000, What::Killed { instance: 1 })],
        vec![at(12_000, What::Killed { instance: 1 })],
        vec![at(1000, What::RedisAway), at(2000, What::RedisBack)],
    ] {
        for gone in &gone {
            assert_eq!(broken(&[cause.clone(), had.to_vec(), vec![gone.clone()]].concat()), [Rule::Cause]);
        }
    }
}

#[test]
fn a_withdrawal_of_what_was_never_given_is_seen() {
    let withdrawn = at(50, What::Withdrawn { call: "c_1".into(), socket: "ws_b".into() });
    assert_eq!(broken(&[sound(), vec![withdrawn]].concat()), [Rule::Withdrawn]);
}
