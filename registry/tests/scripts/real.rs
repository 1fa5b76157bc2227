//! A real Redis, spoken to as the registry does it: the scripts by EVAL, the bells by a subscription.

use crate::{
    answers::{self, Dump, EVENTS_MAX, KEEP_MS, OVER, STILL, THEN, ending, ending_fields, key, letter},
    model::{LEASE_MS, Place, Store, When},
    steps::{LISTENERS, PARTITIONS, Step, Universe, WINDOW},
};
use redis::{Client, Cmd, Connection, FromRedisValue, Value, cmd};
use registry::{
    Attempt, Policy,
    owner::{h32, partition},
    rules::State,
};
use std::{collections::BTreeMap, time::Duration};

/// For how long a socket is away.
const AWAY_MS: u64 = WINDOW.get() as u64 * 1000;

/// How the nodes share the keys.
type Owner<'a> = Box<dyn Fn(&str) -> usize + 'a>;

pub struct Real<'a> {
    nodes: Vec<Connection>,
    owner: Owner<'a>,
    is_cluster: bool,
    began: u64,
    /// Listeners of each incarnation's bell.
    ears: Vec<Vec<Connection>>,
}

impl<'a> Real<'a> {
    /// An empty one.
    pub fn new(urls: &[String], owner: Owner<'a>, universe: &Universe) -> Self {
        let connect = |url: &String| Client::open(url.as_str()).unwrap().get_connection().unwrap();
        let is_cluster = urls.len() > 1;
        let mut nodes: Vec<_> = urls.iter().map(connect).collect();
        for node in &mut nodes {
            cmd("FLUSHALL").exec(node).unwrap();
        }
        let verb = if is_cluster { "SSUBSCRIBE" } else { "SUBSCRIBE" };
        let ears = universe.incarnations.iter().zip(LISTENERS).map(|(of, listeners)| {
            let bell = bell(of);
            let ear = || {
                let mut ear = connect(&urls[owner(&bell)]);
                ear.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                ear.send_packed_command(&cmd(verb).arg(&bell).get_packed_command()).unwrap();
                ear.recv_response().unwrap();
                ear
            };
            (0..listeners).map(|_| ear()).collect()
        });
        let ears = ears.collect();
        let mut real = Self { nodes, owner, is_cluster, began: 0, ears };
        real.began = real.now();
        real
    }

    /// Milliseconds of Redis' clock.
    pub fn now(&mut self) -> u64 {
        let (seconds, micros): (u64, u64) = cmd("TIME").query(&mut self.nodes[0]).unwrap();
        seconds * 1000 + micros / 1000
    }

    fn ask(&mut self, key: &str, command: &Cmd) -> Result<Value, redis::RedisError> {
        let node = (self.owner)(key);
        command.query(&mut self.nodes[node])
    }

    fn run_script(&mut self, file: &str, keys: &[String], args: Vec<String>) -> Option<Value> {
        let mut command = cmd("EVAL");
        command.arg(registry::script(file).unwrap()).arg(keys.len()).arg(keys).arg(args);
        match self.ask(&keys[0], &command) {
            Ok(said) => Some(said),
            Err(error) => {
                assert!(error.to_string().contains("WRONGTYPE"), "{error}");
                None
            }
        }
    }

    /// Runs one step; says what was answered and, where the answer tells it, at what time.
    pub fn run(&mut self, universe: &Universe, step: &Step, store: &Store) -> (Vec<String>, Option<u64>) {
        let life = |nth: usize| universe.incarnations[nth].clone();
        let publish = if self.is_cluster { "SPUBLISH" } else { "PUBLISH" }.to_owned();
        let (file, places, args) = match step {
            Step::Register { id, session, by, n, accepted, dress } => {
                let attempt = Attempt { n: *n, accepted_at: *accepted };
                let record = universe.record(*id, *session, *by, attempt, *dress);
                let mut args = vec![record.id.short(), record.session.to_string(), n.to_string(), accepted.to_string()];
                args.extend([h32(&record).to_string(), KEEP_MS.to_string()]);
                args.extend(answers::fields(&record).into_iter().flat_map(|(name, value)| [name, value]));
                ("register", of_row(universe, *id, *by), args)
            }
            Step::Unregister { id, session, by, to } => {
                let (is_logged, to) = (answers::is_logged(*to), ending(*to));
                let word = to.left().as_str().to_owned();
                let mut args = vec![universe.ids[*id].short(), universe.sessions[*session].to_string(), word];
                args.extend([KEEP_MS.to_string(), self.now().to_string()]);
                args.extend(to.ending().into_iter().flat_map(ending_fields).flat_map(|(name, value)| [name, value]));
                let mut places = of_row(universe, *id, *by);
                if is_logged {
                    places.push(Place::Events(partition(universe.ids[*id])));
                    args.extend([EVENTS_MAX.to_string(), KEEP_MS.to_string()]);
                    args.push(answers::event(universe.sessions[*session]));
                }
                ("unregister", places, args)
            }
            Step::Log { partition: k, count } => {
                let mut args = vec![EVENTS_MAX.to_string(), KEEP_MS.to_string()];
                args.extend((0..*count).map(answers::event));
                ("log", vec![Place::Events(PARTITIONS[*k])], args)
            }
            Step::Resume { id, session, by, n, accepted } => {
                let asker = answers::asker(universe, *id, *session, *by, Attempt { n: *n, accepted_at: *accepted });
                let mut args = vec![asker.id.short(), asker.session.to_string(), n.to_string(), accepted.to_string()];
                args.extend([asker.owner.to_string(), asker.address.to_string(), asker.session.fold().to_string()]);
                args.push(KEEP_MS.to_string());
                ("resume", of_row(universe, *id, *by), args)
            }
            Step::Away { id, when } => {
                let (when, word) = answers::when(*when);
                let mut args = vec![universe.ids[*id].short(), KEEP_MS.to_string(), word.to_owned()];
                if let When::Now(how) = &when {
                    args.extend(ending_fields(how).into_iter().flat_map(|(name, value)| [name, value]));
                }
                let id = universe.ids[*id];
                ("away", vec![Place::Row(id), Place::Ended(partition(id))], args)
            }
            Step::Beat { by, serving } => {
                let of = life(*by);
                let mut args = vec![publish, LEASE_MS.to_string(), "0".into(), serving.as_str().into(), "3".into()];
                // Here the hash of the settings changes with the state, so that one that stays behind is seen.
                args.extend(["60000".into(), serving.as_str().into(), "name".into(), of.instance().into()]);
                ("beat", vec![Place::Lease(of.clone()), Place::Tomb(of.clone()), Place::Mail(of)], args)
            }
            Step::Route { to, large } => {
                let body = if *large { "x".repeat(9) } else { String::new() };
                let args = vec![publish, letter(*to, *large).to_string(), body, "60000".into(), "10000".into()];
                ("route", vec![Place::Lease(life(*to)), Place::Mail(life(*to))], args)
            }
            Step::Heard { of } => {
                let verb = if self.is_cluster { "SHARDNUMSUB" } else { "NUMSUB" }.to_owned();
                ("heard", vec![Place::Lease(life(*of)), Place::Tomb(life(*of))], vec![verb])
            }
            Step::Tomb { of } => {
                let of = life(*of);
                let args = vec![of.to_string(), "3600000".into()];
                ("tomb", vec![Place::Lease(of.clone()), Place::Tomb(of.clone()), Place::Mail(of)], args)
            }
            Step::Reap { of, partition: k } => {
                let k = PARTITIONS[*k];
                let ids: Vec<_> = universe.ids.iter().copied().filter(|id| partition(*id) == k).collect();
                let mut places = vec![Place::Live(k), Place::Ended(k)];
                places.extend(ids.iter().copied().map(Place::Row));
                let mut args = vec![life(*of).to_string(), KEEP_MS.to_string()];
                args.extend(ids.iter().map(|id| id.short()));
                ("reap", places, args)
            }
            Step::Recount { of, partition: k, seen, count } => {
                let (was, right) = answers::counts(store, PARTITIONS[*k], &life(*of), *seen, *count);
                let args = answers::sums(was).into_iter().chain(answers::sums(right)).collect();
                ("recount", vec![Place::Owned(PARTITIONS[*k], life(*of))], args)
            }
            Step::Admit { user, who, cap, policy, stale } => {
                let policy = if *policy == Policy::Reject { "reject" } else { "evict" };
                let since = 1000 + 700 * who.session;
                let mut args = vec![universe.member(who), since.to_string(), cap.to_string(), policy.into()];
                args.push(KEEP_MS.to_string());
                args.extend(stale.iter().map(|who| universe.member(who)));
                let user = universe.user(*user);
                ("admit", vec![Place::User(user), Place::Cooling(user)], args)
            }
            other => {
                self.set_up(universe, other, store);
                return (Vec::new(), None);
            }
        };
        let mut keys: Vec<_> = places.iter().map(key).collect();
        match step {
            Step::Beat { by: of, .. } | Step::Heard { of } => keys.push(bell(&life(*of))),
            Step::Route { to, .. } => keys.extend([bell(&life(*to)), body(&life(*to))]),
            _ => {}
        }
        let Some(said) = self.run_script(file, &keys, args) else { return (vec!["error".into()], None) };
        let mut said = flat(said);
        let row_at = match said.first().map(String::as_str) {
            Some("back") => 3,
            Some("ended") => 1,
            _ => said.len(),
        };
        if let Step::Resume { .. } | Step::Away { .. } = step {
            let row = said.split_off(row_at.min(said.len()));
            let mut row = row.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
            self.in_words(&mut row);
            said.extend(answers::said_fields(row));
        }
        if let Step::Unregister { .. } | Step::Log { .. } = step {
            // Where it lies is of no matter, but that it does.
            said.iter_mut().filter(|word| word.contains('-')).for_each(|word| "logged".clone_into(word));
        }
        let now = match step {
            Step::Beat { .. } => Some(said.remove(1)),
            Step::Heard { .. } => Some(said.remove(2)),
            _ => None,
        };
        if let Step::Heard { .. } = step {
            // The stamp is a time, which the model was told of by the beat.
            return (said, None);
        }
        (said, now.map(|now| now.parse().unwrap()))
    }

    /// What the world does to the keys besides the scripts.
    fn set_up(&mut self, universe: &Universe, step: &Step, store: &Store) {
        let (key, command) = match step {
            Step::Confirm { id, n } if store.rows.contains_key(&universe.ids[*id]) => {
                let key = key(&Place::Row(universe.ids[*id]));
                (key.clone(), cmd("HSET").arg(key).arg("confirmed").arg(*n).take())
            }
            Step::Overdue { id } => {
                let id = universe.ids[*id];
                if store.rows.get(&id).is_none_or(|row| row.state != State::Away) {
                    return;
                }
                let (row, ended) = (key(&Place::Row(id)), key(&Place::Ended(partition(id))));
                if store.ended.contains_key(&id) {
                    self.ask(&ended, cmd("ZADD").arg(&ended).arg(OVER).arg(id.short())).unwrap();
                }
                (row.clone(), cmd("HSET").arg(row).arg("due").arg(OVER).take())
            }
            Step::Cool { user, client, still } => {
                let place = Place::Cooling(universe.user(*user));
                if store.foreign.contains(&place) {
                    return;
                }
                let until = if *still { STILL } else { OVER };
                let key = key(&place);
                let note = cmd("ZADD").arg(&key).arg(until).arg(universe.client(*client)).take();
                self.ask(&key, &note).unwrap();
                (key.clone(), cmd("PEXPIRE").arg(key).arg(KEEP_MS).take())
            }
            Step::Lapse { of } => {
                let key = key(&Place::Lease(universe.incarnations[*of].clone()));
                (key.clone(), cmd("DEL").arg(key).take())
            }
            Step::Spoil(spot) => {
                let key = key(&universe.place(spot));
                (key.clone(), cmd("SET").arg(key).arg("foreign").arg("NX").take())
            }
            _ => return,
        };
        self.ask(&key, &command).unwrap();
    }

    /// What every listener heard, in order.
    pub fn rung(&mut self, universe: &Universe) -> Vec<Vec<String>> {
        let publish = if self.is_cluster { "SPUBLISH" } else { "PUBLISH" };
        let mut rung = Vec::new();
        for (nth, of) in universe.incarnations.iter().enumerate() {
            let bell = bell(of);
            self.ask(&bell, cmd(publish).arg(&bell).arg("end")).unwrap();
            for ear in &mut self.ears[nth] {
                let heard =
                    std::iter::from_fn(|| flat(ear.recv_response().unwrap()).pop()).take_while(|it| it != "end");
                rung.push(heard.collect());
            }
        }
        rung
    }

    /// All keys, each as a map.
    pub fn dump(&mut self) -> Dump {
        let mut dump = Dump::new();
        for node in 0..self.nodes.len() {
            let keys: Vec<String> = cmd("KEYS").arg("t:*").query(&mut self.nodes[node]).unwrap();
            for key in keys.into_iter().filter(|key| !key.contains(":body:")) {
                let content = self.content(node, &key);
                dump.insert(key, content);
            }
        }
        dump
    }

    fn content(&mut self, node: usize, key: &str) -> BTreeMap<String, String> {
        let connection = &mut self.nodes[node];
        let kind: String = cmd("TYPE").arg(key).query(connection).unwrap();
        let mut content: BTreeMap<String, String> = match kind.as_str() {
            "hash" => cmd("HGETALL").arg(key).query(connection).unwrap(),
            "zset" => {
                let members: Vec<(String, u64)> =
                    cmd("ZRANGE").arg(key).arg(0).arg(-1).arg("WITHSCORES").query(connection).unwrap();
                members.into_iter().map(|(member, score)| (member, score.to_string())).collect()
            }
            "stream" => {
                let entries: Vec<(String, Vec<String>)> =
                    cmd("XRANGE").arg(key).arg("-").arg("+").query(connection).unwrap();
                let is_log = key.ends_with(":events");
                let numbered = entries.into_iter().enumerate();
                let name = |(nth, n): (usize, String)| if is_log { nth.to_string() } else { n };
                numbered.map(|(nth, (n, mut fields))| (name((nth, n)), fields.pop().unwrap())).collect()
            }
            _ => [(cmd("GET").arg(key).query(connection).unwrap(), kind)].into(),
        };
        let lives: i64 = cmd("PTTL").arg(key).query(connection).unwrap();
        // A mailbox is kept for a while by every beat, whatever lies there.
        if lives > 0 && !key.ends_with(":mail") {
            let stays = [false, true].map(answers::stays).into_iter().find(|stays| lives.unsigned_abs() <= *stays);
            let is_row = key.contains(":socket:");
            let lives = stays.filter(|_| is_row).map_or("yes".to_owned(), |stays| stays.to_string());
            content.insert("ttl".into(), lives);
        }
        if key.ends_with(":ended") || key.ends_with(":cooling") {
            let ahead = if key.ends_with(":ended") { AWAY_MS } else { KEEP_MS };
            content.values_mut().for_each(|due| self.in_word(due, ahead));
        } else {
            self.in_words(&mut content);
        }
        content
    }

    /// Moments that lie within the test are all the same.
    fn in_words(&mut self, fields: &mut BTreeMap<String, String>) {
        for (name, ahead) in [("endedAt", 0), ("due", AWAY_MS)] {
            if let Some(at) = fields.get_mut(name) {
                self.in_word(at, ahead);
            }
        }
    }

    fn in_word(&mut self, at: &mut String, ahead: u64) {
        let now = self.now();
        if at.parse::<u64>().is_ok_and(|ms| ms >= ahead && (self.began..=now).contains(&(ms - ahead))) {
            THEN.clone_into(at);
        }
    }
}

fn of_row(universe: &Universe, id: usize, by: usize) -> Vec<Place> {
    let (id, by) = (universe.ids[id], universe.incarnations[by].clone());
    let k = partition(id);
    vec![Place::Row(id), Place::Owned(k, by), Place::Live(k), Place::Ended(k)]
}

fn bell(of: &registry::Incarnation) -> String {
    key(&Place::Mail(of.clone())).replace(":mail", ":bell")
}

fn body(of: &registry::Incarnation) -> String {
    key(&Place::Mail(of.clone())).replace(":mail", ":body:1")
}

/// An answer as words.
fn flat(value: Value) -> Vec<String> {
    match value {
        Value::Array(values) => values.into_iter().flat_map(flat).collect(),
        Value::Nil => vec!["nil".to_owned()],
        other => vec![String::from_redis_value(other).unwrap()],
    }
}
