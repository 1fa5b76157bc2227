//! Requests that are acted upon once: the scripts in Redis against the records in memory.

use super::SEQUENCES;
use bytes::Bytes;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use redis::{Client, Connection, FromRedisValue, cmd};
use registry::{
    Errand, Hashed, Incarnation, Once, Outcome, Ticket,
    once::{KEPT, Records},
};
use tokio::time::Instant;

/// Few of each, so that they meet.
const KEYS: usize = 2;
const BODIES: usize = 2;
const TOKENS: usize = 3;
const UNTIL: u64 = 7;

#[derive(Debug, Clone)]
enum Step {
    TakeOn { key: usize, body: usize, token: usize },
    Settle { key: usize, token: usize, outcome: Option<Vec<u8>> },
}

fn step() -> impl Strategy<Value = Step> {
    let outcome = prop_oneof![1 => Just(None), 2 => vec(any::<u8>(), 1..4).prop_map(Some)];
    prop_oneof![
        (0..KEYS, 0..BODIES, 0..TOKENS).prop_map(|(key, body, token)| Step::TakeOn { key, body, token }),
        (0..KEYS, 0..TOKENS, outcome).prop_map(|(key, token, outcome)| Step::Settle { key, token, outcome }),
    ]
}

fn hashed(kind: &str, nth: usize) -> Hashed {
    Hashed::of(&[kind.as_bytes(), &[nth.try_into().unwrap()]])
}

fn ticket(key: usize, token: usize) -> Ticket {
    Ticket { key: hashed("key", key), token: format!("t{token}").into() }
}

struct Real(Connection);

impl Real {
    fn run<T: FromRedisValue>(&mut self, file: &str, ticket: &Ticket, args: &[&[u8]]) -> T {
        let mut command = cmd("EVAL");
        command.arg(registry::script(file).unwrap()).arg(1).arg(format!("{{h:{}}}", ticket.key)).arg(args);
        command.query(&mut self.0).unwrap()
    }

    /// As `redis/once.rs` reads it.
    fn take_on(&mut self, errand: &Errand) -> Once {
        let Errand { ticket, body, asker, until } = errand;
        let (body, asker, until, kept) =
            (body.to_string(), asker.to_string(), until.to_string(), KEPT.as_millis().to_string());
        let args: [&[u8]; 5] =
            [body.as_bytes(), ticket.token.as_bytes(), asker.as_bytes(), until.as_bytes(), kept.as_bytes()];
        let said: Vec<Vec<u8>> = self.run("take_on", ticket, &args);
        let token = std::str::from_utf8(&said[1]).unwrap();
        match &said[3] {
            _ if said[0] != body.as_bytes() => Once::Other,
            outcome if !outcome.is_empty() => Once::Done(Bytes::from(outcome.clone())),
            _ if *token == *ticket.token => Once::Ours,
            _ => {
                let until = std::str::from_utf8(&said[2]).unwrap().parse().unwrap();
                Once::Running { ticket: Ticket { key: ticket.key, token: token.into() }, until }
            }
        }
    }

    fn settle(&mut self, ticket: &Ticket, outcome: &[u8]) -> bool {
        self.run::<u64>("settle", ticket, &[ticket.token.as_bytes(), outcome]) == 1
    }

    fn ms_left(&mut self, key: usize) -> i64 {
        cmd("PTTL").arg(format!("{{h:{}}}", hashed("key", key))).query(&mut self.0).unwrap()
    }
}

#[test]
fn what_is_acted_upon_once_is_so_in_redis_as_in_memory() {
    let server = servers::Server::start();
    let client = Client::open(server.url()).unwrap();
    let asker = Incarnation::fresh("web1");
    let config = Config { cases: SEQUENCES, failure_persistence: None, ..Config::default() };
    let outcome = TestRunner::new(config).run(&vec(step(), 1..40), |steps| {
        let mut real = Real(client.get_connection().unwrap());
        cmd("FLUSHALL").exec(&mut real.0).unwrap();
        let (mut records, now) = (Records::default(), Instant::now());
        for (nth, step) in steps.iter().enumerate() {
            match step {
                Step::TakeOn { key, body, token } => {
                    let ticket = ticket(*key, *token);
                    let errand = Errand { ticket, body: hashed("body", *body), asker: asker.clone(), until: UNTIL };
                    let ours = records.take_on(&errand, now).unwrap();
                    prop_assert_eq!(real.take_on(&errand), ours, "step {}: {:?}", nth, step);
                    // Every record goes by itself.
                    let left = real.ms_left(*key);
                    prop_assert!((1..=KEPT.as_millis() as i64).contains(&left), "{} ms are left", left);
                }
                Step::Settle { key, token, outcome } => {
                    let ticket = ticket(*key, *token);
                    let bytes = outcome.clone().unwrap_or_default();
                    let word = outcome.clone().map_or(Outcome::Nothing, |kept| Outcome::Kept(kept.into()));
                    let ours = records.settle(&ticket, word);
                    prop_assert_eq!(real.settle(&ticket, &bytes), ours, "step {}: {:?}", nth, step);
                }
            }
        }
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}
