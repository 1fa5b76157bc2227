//! The logs of sockets: the scripts in Redis against the log in memory, and what is left for groups.

use super::SEQUENCES;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use redis::{Client, Connection, Value, cmd};
use registry::{
    Acked, Chain,
    log::{Entry, Limits, Log, Page, counts},
};
use std::{collections::HashMap, time::Duration};

const APPEND: &str = include_str!("../../src/redis/lua/append.lua");
const ACK: &str = include_str!("../../src/redis/lua/ack.lua");
const READ_LOG: &str = include_str!("../../src/redis/lua/read_log.lua");
const LOST: &str = include_str!("../../src/redis/lua/lost.lua");

const ROW: &str = "t:{p}:socket:s";
const LOG: &str = "t:{p}:log:s";
const LOGGED: &str = "t:{p}:logged:s";
const SENT: &str = "t:{p}:sent:s:";

/// Few fit, so that it is often full.
const BYTES_MAX: u64 = 700;
const LIMITS: Limits = Limits { entries: 100, bytes: 10_000 };
const LONG: Duration = Duration::from_secs(60);
const KEYS: usize = 12;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    Resumable,
    Away,
    Due,
    Plain,
    Closed,
    None,
}

#[derive(Debug, Clone)]
enum Step {
    Row(Row),
    Append {
        length: usize,
        lasts: bool,
        key: usize,
        position: Option<u64>,
    },
    /// All up to so many before the end, or beyond it.
    Ack(usize),
    Read {
        back: usize,
        entries: usize,
        bytes: u64,
    },
    /// Something that was logged is not there.
    Lost,
}

fn step() -> impl Strategy<Value = Step> {
    let row = prop_oneof![
        6 => Just(Row::Resumable),
        3 => Just(Row::Away),
        1 => Just(Row::Due),
        1 => Just(Row::Plain),
        1 => Just(Row::Closed),
        1 => Just(Row::None),
    ];
    let position = prop_oneof![3 => Just(None), 1 => (0..5_u64).prop_map(Some)];
    // One is too large for any log.
    let length = prop_oneof![20 => 0..250_usize, 1 => Just(800)];
    let append = (length, any::<bool>(), 0..KEYS, position);
    prop_oneof![
        2 => row.prop_map(Step::Row),
        8 => append.prop_map(|(length, lasts, key, position)| Step::Append { length, lasts, key, position }),
        3 => (0..5_usize).prop_map(Step::Ack),
        3 => (0..6_usize, 1..4_usize, 0..500_u64).prop_map(|(back, entries, bytes)| Step::Read { back, entries, bytes }),
        1 => Just(Step::Lost),
    ]
}

struct Real(Connection);

fn words(value: Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.into_iter().flat_map(words).collect(),
        Value::Int(number) => vec![number.to_string()],
        Value::BulkString(bytes) => vec![String::from_utf8(bytes).unwrap()],
        other => panic!("{other:?}"),
    }
}

impl Real {
    fn run(&mut self, script: &str, keys: &[&str], args: &[String]) -> Vec<String> {
        words(cmd("EVAL").arg(script).arg(keys.len()).arg(keys).arg(args).query(&mut self.0).unwrap())
    }

    fn now_us(&mut self) -> u64 {
        let (seconds, micros): (u64, u64) = cmd("TIME").query(&mut self.0).unwrap();
        seconds * 1_000_000 + micros
    }

    fn number(&mut self, command: &[&str]) -> i64 {
        let found: Option<i64> = cmd(command[0]).arg(&command[1..]).query(&mut self.0).unwrap();
        found.unwrap_or(0)
    }

    fn set_row(&mut self, row: Row) {
        cmd("DEL").arg(ROW).exec(&mut self.0).unwrap();
        let now = self.now_us() / 1000;
        let ended = if row == Row::Due { now - 31_000 } else { now };
        let state = match row {
            Row::Resumable | Row::Plain => "live",
            Row::Away | Row::Due => "away",
            Row::Closed => "closed",
            Row::None => return,
        };
        let mut set = cmd("HSET");
        set.arg(ROW).arg(&["owner", "web1.x", "session", "S", "state", state]);
        if row != Row::Plain {
            set.arg("window").arg(30);
        }
        if row != Row::Resumable && row != Row::Plain {
            set.arg("endedAt").arg(ended);
        }
        set.exec(&mut self.0).unwrap();
    }

    fn append(&mut self, text: &str, ttl: Duration, now: u64, key: usize, position: Option<u64>) -> Vec<String> {
        let (ms, until) = (ttl.as_millis() as u64, now / 1000 + ttl.as_millis() as u64);
        let (counts, stays) = (counts(text.as_bytes()), ms + 600_000);
        let numbers = [now, until, counts, BYTES_MAX, 60_000, stays, until + 600_000, 86_400_000];
        let mut args = vec![text.to_owned()];
        args.extend(numbers.map(|number| number.to_string()));
        args.push(if position.is_some() { "m:g" } else { "" }.to_owned());
        args.extend(position.map(|position| position.to_string()));
        self.run(APPEND, &[ROW, LOG, LOGGED, &format!("{SENT}{key}")], &args)
    }

    fn ack(&mut self, seq: u64) -> Acked {
        let said = self.run(ACK, &[LOG, LOGGED], &[seq.to_string(), (seq + 1).to_string()]);
        match said[0].as_str() {
            "acked" => Acked::Done,
            _ => Acked::Beyond { tail: said[1].parse().unwrap() },
        }
    }

    fn read(&mut self, after: u64, most: Limits) -> Page {
        let args = [after, most.entries as u64, most.entries as u64 + 1, most.bytes].map(|number| number.to_string());
        let said = self.run(READ_LOG, &[LOG, LOGGED], &args);
        let number = |text: &String| text.parse().unwrap();
        let entries = said[2..].chunks(4).map(|entry| Entry {
            seq: number(&entry[0]),
            prev: number(&entry[1]),
            until: number(&entry[2]),
            text: entry[3].clone().into(),
        });
        Page { tail: number(&said[0]), entries: entries.collect(), more: said[1] == "1" }
    }
}

#[test]
fn a_log_in_redis_is_what_it_is_in_memory() {
    let server = servers::Server::start();
    let client = Client::open(server.url()).unwrap();
    let config = Config { cases: SEQUENCES, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&vec(step(), 1..60), |steps| {
        let mut real = Real(client.get_connection().unwrap());
        cmd("FLUSHALL").exec(&mut real.0).unwrap();
        let (mut log, mut row, mut seen, mut position_at) = (Log::default(), Row::Resumable, HashMap::new(), None);
        let mut numbers = vec![0];
        real.set_row(row);
        for (nth, step) in steps.iter().enumerate() {
            match step {
                Step::Row(to) => {
                    row = *to;
                    real.set_row(row);
                }
                Step::Append { length, lasts, key, position } => {
                    let (text, ttl) = ("x".repeat(*length), if *lasts { LONG } else { Duration::ZERO });
                    // Sometimes of one whose clock is behind.
                    let now = real.now_us() - if nth % 5 == 0 { 3000 } else { 0 };
                    let said = real.append(&text, ttl, now, *key, *position);
                    let expected = match row {
                        _ if position.is_some() && *position <= position_at => vec!["again".to_owned()],
                        Row::None => vec!["none".to_owned()],
                        Row::Closed | Row::Due => vec!["over".to_owned()],
                        Row::Plain => ["plain", "web1.x", "S"].map(str::to_owned).to_vec(),
                        Row::Resumable | Row::Away => {
                            let repeated = seen.get(key).copied();
                            match repeated.or_else(|| log.append(text.into(), ttl, now, BYTES_MAX)) {
                                None => vec!["full".to_owned()],
                                Some((seq, prev)) => {
                                    if seen.insert(*key, (seq, prev)).is_none() {
                                        numbers.push(seq);
                                        position_at = position_at.max(*position);
                                    }
                                    let state = if row == Row::Away { "away" } else { "live" };
                                    let (seq, prev) = (seq.to_string(), prev.to_string());
                                    ["logged", &seq, &prev, "web1.x", "S", state].map(str::to_owned).to_vec()
                                }
                            }
                        }
                    };
                    prop_assert_eq!(said, expected, "step {}: {:?}", nth, step);
                }
                Step::Ack(back) => {
                    let seq = if *back == 0 { real.now_us() } else { numbers[numbers.len().saturating_sub(*back)] };
                    prop_assert_eq!(real.ack(seq), log.ack(seq), "step {}: {:?}", nth, step);
                }
                Step::Read { back, entries, bytes } => {
                    let after = numbers[numbers.len().saturating_sub(*back + 1)];
                    let most = Limits { entries: *entries, bytes: *bytes };
                    let (theirs, now) = (real.read(after, most), real.now_us() / 1000 + 1);
                    let ours = log.read(after, most);
                    prop_assert_eq!(theirs.follows(after, now), ours.follows(after, now), "step {}: {:?}", nth, step);
                    prop_assert_eq!(theirs, ours, "step {}: {:?}", nth, step);
                }
                Step::Lost => {
                    let had = numbers[numbers.len() - 1];
                    // All that was logged is accounted for, and what is over is missed by nobody.
                    let mut lost = |seq: u64, until: u64| {
                        let args = ["86400000".to_owned(), "1000".into(), seq.to_string(), until.to_string()];
                        real.run(LOST, &[ROW, LOG, LOGGED], &args)
                    };
                    if had > 0 {
                        prop_assert_eq!(lost(had, 1001), ["0"], "step {}", nth);
                    }
                    let ahead = had + 3_600_000_000;
                    prop_assert_eq!(lost(ahead, 1000), ["0"], "step {}", nth);
                    let is_there = !matches!(row, Row::Closed | Row::None);
                    prop_assert_eq!(lost(ahead, 1001), [if is_there { "1" } else { "0" }], "step {}", nth);
                    if is_there {
                        let tail = real.read(had, LIMITS).tail;
                        log.break_off(tail);
                        prop_assert!(tail > ahead);
                        prop_assert_eq!(real.read(had, LIMITS).follows(had, 0), Chain::Broken);
                        break;
                    }
                }
            }
        }
        // What is left, by what its first entry says of those before it; what is known of that is never too much.
        let first: Vec<(String, Vec<String>)> =
            cmd("XRANGE").arg(LOG).arg("-").arg("+").arg("COUNT").arg(1).query(&mut real.0).unwrap();
        if let Some((_, fields)) = first.first() {
            let before: i64 = fields[7].parse().unwrap();
            prop_assert_eq!((real.number(&["HGET", LOGGED, "c"]) - before) as u64, log.bytes());
            prop_assert!(real.number(&["HGET", LOGGED, "b"]) <= before);
        }
        // Every key goes by itself, but for the row.
        let keys: Vec<String> = cmd("KEYS").arg("*").query(&mut real.0).unwrap();
        for key in keys.iter().filter(|key| *key != ROW) {
            prop_assert!(real.number(&["PTTL", key]) > 0, "{} stays", key);
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn what_never_fits_leaves_nothing_behind() {
    let server = servers::Server::start();
    let mut real = Real(Client::open(server.url()).unwrap().get_connection().unwrap());
    real.set_row(Row::Resumable);
    let now = real.now_us();
    assert_eq!(real.append(&"x".repeat(800), LONG, now, 0, None), ["full"]);
    assert_eq!(server.keys(), [ROW]);
}
