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

const ROW: &str = "t:{p}:socket:s";
const LOG: &str = "t:{p}:log:s";
const LOGGED: &str = "t:{p}:logged:s";

/// Few fit, so that it is often full.
const BYTES_MAX: u64 = 700;
const LIMITS: Limits = Limits { entries: 100, bytes: 10_000 };
const LONG: Duration = Duration::from_secs(60);

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
    /// Length and whether it lasts, of several that go together.
    Append(Vec<(usize, bool)>),
    /// What was left for a group.
    Place {
        length: usize,
        position: u64,
    },
    /// One of those that were asked for last is asked for again.
    Again(usize),
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
    // One is too large for any log.
    let length = || prop_oneof![20 => 0..250_usize, 1 => Just(800)];
    prop_oneof![
        2 => row.prop_map(Step::Row),
        8 => vec((length(), any::<bool>()), 1..4).prop_map(Step::Append),
        2 => (length(), 0..5_u64).prop_map(|(length, position)| Step::Place { length, position }),
        3 => (0..4_usize).prop_map(Step::Again),
        3 => (0..5_usize).prop_map(Step::Ack),
        3 => (0..6_usize, 1..4_usize, 0..500_u64).prop_map(|(back, entries, bytes)| Step::Read { back, entries, bytes }),
        1 => Just(Step::Lost),
    ]
}

/// A delivery that was asked for.
#[derive(Debug, Clone)]
struct Asked {
    key: usize,
    length: usize,
    ttl: Duration,
    at: u64,
}

impl Asked {
    fn until(&self) -> u64 {
        self.at / 1000 + self.ttl.as_millis() as u64
    }
}

/// The log in memory, and what is known of what went out of it.
#[derive(Default)]
struct Model {
    log: Log,
    /// By key: what was logged, and its predecessor.
    logged: HashMap<usize, (u64, u64)>,
    /// Up to where it was trimmed, and the position in the group's mail.
    trimmed: u64,
    position: Option<u64>,
}

impl Model {
    fn first(&self) -> Option<u64> {
        self.log.read(0, LIMITS).entries.first().map(|entry| entry.seq)
    }

    /// The number as the script says it.
    fn append(&mut self, asked: &Asked) -> String {
        let before = self.log.read(0, LIMITS);
        let appended = self.log.append("x".repeat(asked.length).into(), asked.ttl, asked.at, BYTES_MAX);
        let first = self.first();
        if let Some(gone) = before.entries.iter().rfind(|entry| first.is_none_or(|first| entry.seq < first)) {
            self.trimmed = gone.seq;
        }
        match appended {
            Some(numbers) => {
                self.logged.insert(asked.key, numbers);
                numbers.0.to_string()
            }
            None => "full".to_owned(),
        }
    }

    fn ack(&mut self, seq: u64) -> Acked {
        let before = self.first();
        let acked = self.log.ack(seq);
        if self.first() != before {
            self.trimmed = seq;
        }
        acked
    }

    /// What is found of one that is asked for again, if it is not to be appended.
    fn again(&self, asked: &Asked) -> Option<Result<(u64, u64), ()>> {
        let page = self.log.read(0, LIMITS);
        if page.tail < asked.at {
            return None;
        }
        let there = self.logged.get(&asked.key).filter(|(seq, _)| page.entries.iter().any(|entry| entry.seq == *seq));
        there.map(|numbers| Ok(*numbers)).or((self.trimmed >= asked.at).then_some(Err(())))
    }
}

struct Real(Connection);

fn script(file: &str) -> &'static str {
    registry::script(file).unwrap()
}

fn words(value: Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.into_iter().flat_map(words).collect(),
        Value::Int(number) => vec![number.to_string()],
        Value::BulkString(bytes) => vec![String::from_utf8(bytes).unwrap()],
        other => panic!("{other:?}"),
    }
}

impl Real {
    fn run(&mut self, file: &str, keys: &[&str], args: &[String]) -> Vec<String> {
        words(cmd("EVAL").arg(script(file)).arg(keys.len()).arg(keys).arg(args).query(&mut self.0).unwrap())
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
            set.arg("due").arg(ended + 30_000);
        }
        set.exec(&mut self.0).unwrap();
    }

    /// What is said of each socket; alone as the script has it.
    fn append(&mut self, sockets: &[(&str, &[Asked])], alone: &[&str]) -> Vec<Vec<String>> {
        let numbers = [BYTES_MAX, 86_400_000, 600_000].map(|number| number.to_string());
        let (mut keys, mut args) = (Vec::new(), numbers.to_vec());
        for (socket, asked) in sockets {
            keys.extend(["socket", "log", "logged"].map(|kind| format!("t:{{p}}:{kind}:{socket}")));
            args.push(asked.len().to_string());
            for asked in *asked {
                let text = "x".repeat(asked.length);
                let numbers = [asked.at, asked.until(), counts(text.as_bytes())].map(|number| number.to_string());
                args.push(text);
                args.extend(numbers);
                args.push(asked.key.to_string());
            }
        }
        let said = cmd("EVAL")
            .arg(script("append"))
            .arg(keys.len())
            .arg(keys)
            .arg(args)
            .arg(alone)
            .query(&mut self.0)
            .unwrap();
        let Value::Array(said) = said else { panic!("{said:?}") };
        said.into_iter().map(words).collect()
    }

    fn ack(&mut self, seq: u64) -> Acked {
        let said = self.run("ack", &[LOG, LOGGED], &[seq.to_string(), (seq + 1).to_string()]);
        match said[0].as_str() {
            "acked" => Acked::Done,
            _ => Acked::Beyond { tail: said[1].parse().unwrap() },
        }
    }

    fn read(&mut self, after: u64, most: Limits) -> Page {
        let args = [after, most.entries as u64, most.entries as u64 + 1, most.bytes].map(|number| number.to_string());
        let said = self.run("read_log", &[LOG, LOGGED], &args);
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

/// Of the numbers that were given, or 0.
fn nth_last(model: &Model, n: usize) -> u64 {
    let mut numbers: Vec<_> = model.logged.values().map(|(seq, _)| *seq).collect();
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    numbers.get(n - 1).copied().unwrap_or(0)
}

#[test]
fn a_log_in_redis_is_what_it_is_in_memory() {
    let server = servers::Server::start();
    let client = Client::open(server.url()).unwrap();
    let config = Config { cases: SEQUENCES, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&vec(step(), 1..60), |steps| {
        let mut real = Real(client.get_connection().unwrap());
        cmd("FLUSHALL").exec(&mut real.0).unwrap();
        let (mut model, mut row, mut all) = (Model::default(), Row::Resumable, Vec::<Asked>::new());
        real.set_row(row);
        for (nth, step) in steps.iter().enumerate() {
            // Sometimes of one whose clock is behind.
            let at = real.now_us() - if nth % 5 == 0 { 3000 } else { 0 };
            let asked = |key, length, lasts| Asked { key, length, ttl: if lasts { LONG } else { Duration::ZERO }, at };
            let state = if row == Row::Away { "away" } else { "live" };
            let logged = |prev: u64, seqs: Vec<String>| {
                let head = ["logged", "web1.x", "S", state, &prev.to_string()].map(str::to_owned);
                [&head[..], &seqs].concat()
            };
            let not_logged = match row {
                Row::None => Some(vec!["none".to_owned()]),
                Row::Closed | Row::Due => Some(vec!["over".to_owned()]),
                Row::Plain => Some(["plain", "web1.x", "S"].map(str::to_owned).to_vec()),
                Row::Resumable | Row::Away => None,
            };
            let tail = model.log.read(0, LIMITS).tail;
            match step {
                Step::Row(to) => {
                    row = *to;
                    real.set_row(row);
                }
                Step::Append(some) => {
                    let some: Vec<_> = some
                        .iter()
                        .zip(all.len()..)
                        .map(|((length, lasts), key)| asked(key, *length, *lasts))
                        .collect();
                    all.extend_from_slice(&some);
                    let said = real.append(&[("s", &some)], &[]);
                    let expected = not_logged
                        .unwrap_or_else(|| logged(tail, some.iter().map(|asked| model.append(asked)).collect()));
                    prop_assert_eq!(said, [expected], "step {}: {:?}", nth, step);
                }
                Step::Place { length, position } => {
                    let one = asked(all.len(), *length, true);
                    all.push(one.clone());
                    let said = real.append(&[("s", std::slice::from_ref(&one))], &["m:g", &position.to_string()]);
                    let expected = match not_logged {
                        _ if Some(*position) <= model.position => vec!["again".to_owned()],
                        Some(not_logged) => not_logged,
                        None => {
                            let seq = model.append(&one);
                            if seq != "full" {
                                model.position = Some(*position);
                            }
                            logged(tail, vec![seq])
                        }
                    };
                    prop_assert_eq!(said, [expected], "step {}: {:?}", nth, step);
                }
                Step::Again(back) => {
                    let Some(one) = all.len().checked_sub(back + 1).map(|nth| all[nth].clone()) else { continue };
                    let said = real.append(&[("s", std::slice::from_ref(&one))], &[&one.at.to_string()]);
                    let expected = match (not_logged, model.again(&one)) {
                        (Some(not_logged), _) => not_logged,
                        (None, Some(Ok((seq, prev)))) => logged(prev, vec![seq.to_string()]),
                        (None, Some(Err(()))) => vec!["perhaps".to_owned()],
                        (None, None) => logged(tail, vec![model.append(&one)]),
                    };
                    prop_assert_eq!(said, [expected], "step {}: {:?}", nth, step);
                }
                Step::Ack(back) => {
                    let seq = if *back == 0 { real.now_us() } else { nth_last(&model, *back) };
                    prop_assert_eq!(real.ack(seq), model.ack(seq), "step {}: {:?}", nth, step);
                }
                Step::Read { back, entries, bytes } => {
                    let after = nth_last(&model, *back + 1);
                    let most = Limits { entries: *entries, bytes: *bytes };
                    let (theirs, now) = (real.read(after, most), real.now_us() / 1000 + 1);
                    let ours = model.log.read(after, most);
                    prop_assert_eq!(theirs.follows(after, now), ours.follows(after, now), "step {}: {:?}", nth, step);
                    prop_assert_eq!(theirs, ours, "step {}: {:?}", nth, step);
                }
                Step::Lost => {
                    let had = nth_last(&model, 1);
                    // All that was logged is accounted for, and what is over is missed by nobody.
                    let mut lost = |seq: u64, until: u64| {
                        let args = ["86400000".to_owned(), "1000".into(), seq.to_string(), until.to_string()];
                        real.run("lost", &[ROW, LOG, LOGGED], &args)
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
                        model.log.break_off(tail);
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
            prop_assert_eq!((real.number(&["HGET", LOGGED, "c"]) - before) as u64, model.log.bytes());
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

fn lasting(key: usize, length: usize, at: u64) -> Asked {
    Asked { key, length, ttl: LONG, at }
}

#[test]
fn what_never_fits_leaves_nothing_behind() {
    let server = servers::Server::start();
    let mut real = Real(Client::open(server.url()).unwrap().get_connection().unwrap());
    real.set_row(Row::Resumable);
    let too_large = lasting(0, 800, real.now_us());
    assert_eq!(real.append(&[("s", &[too_large])], &[])[0][5], "full");
    assert_eq!(server.keys(), [ROW]);
}

#[test]
fn what_goes_together_fares_as_if_alone() {
    let server = servers::Server::start();
    let mut real = Real(Client::open(server.url()).unwrap().get_connection().unwrap());
    real.set_row(Row::Resumable);
    for (key, kind) in [("t:{p}:log:foreign", "socket"), ("t:{p}:socket:other", "none")] {
        cmd("SET").arg(key).arg("text").exec(&mut real.0).unwrap();
        let id = key.rsplit(':').next().unwrap();
        if kind == "socket" {
            cmd("COPY").arg(ROW).arg(format!("t:{{p}}:socket:{id}")).exec(&mut real.0).unwrap();
        }
    }
    let now = real.now_us();
    let some = [lasting(0, 1, now), lasting(1, 800, now), lasting(2, 2, now)];
    let said = real.append(&[("foreign", &some), ("none", &some), ("s", &some), ("other", &some)], &[]);
    for (refused, why) in [(&said[0], "WRONGTYPE"), (&said[3], "WRONGTYPE")] {
        assert!(refused[0] == "refused" && refused[1].contains(why), "{refused:?}");
    }
    assert_eq!(said[1], ["none"]);
    let (first, second) = (now.to_string(), (now + 1).to_string());
    assert_eq!(said[2], ["logged", "web1.x", "S", "live", "0", &first, "full", &second]);
    let page = real.read(0, LIMITS);
    let lengths: Vec<_> = page.entries.iter().map(|entry| (entry.prev, entry.text.len())).collect();
    assert_eq!(lengths, [(0, 1), (now, 2)]);
    assert_eq!(page.follows(0, now / 1000), Chain::Whole);
}

#[test]
fn what_is_left_again_is_left_once() {
    let server = servers::Server::start();
    let mut real = Real(Client::open(server.url()).unwrap().get_connection().unwrap());
    let mut leave = |key: &str, length: usize| {
        let sent = format!("t:{{g}}:sent:{key}");
        let keys = ["t:{g}:mail", "t:{g}:mailed", "t:{g}:kept", "t:{g}:instances", &sent];
        let (now, stays) = (real.now_us(), 60_000);
        let until = now / 1000 + stays;
        let numbers = [now, until, length as u64, BYTES_MAX, 60_000, stays, until].map(|number| number.to_string());
        real.run("leave", &keys, &[&["x".repeat(length)], &numbers[..], &[key.to_owned()]].concat())[0].clone()
    };
    let said: Vec<_> = [("a", 400), ("a", 400), ("b", 400), ("c", 300), ("b", 300), ("c", 300)]
        .into_iter()
        .map(|(key, length)| leave(key, length))
        .collect();
    assert_eq!(said, ["left", "left", "full", "left", "full", "left"]);
    assert_eq!(real.number(&["XLEN", "t:{g}:mail"]), 2);
}
