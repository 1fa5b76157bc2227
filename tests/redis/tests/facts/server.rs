//! One server.

use servers::Server;
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// A subscriber of its own, over TCP.
fn subscriber(server: &Server) -> redis::Connection {
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    redis::cmd("SUBSCRIBE").arg("news").exec(&mut connection).unwrap();
    connection
}

#[test]
fn a_server_starts_empty_with_the_directives_given() {
    let server = Server::with(&[("maxmemory-policy", "allkeys-lru"), ("client-output-buffer-limit", "pubsub 1mb 0 0")]);
    let [name, policy]: [String; 2] =
        redis::from_redis_value::<Vec<String>>(server.ask(&["CONFIG", "GET", "maxmemory-policy"]))
            .unwrap()
            .try_into()
            .unwrap();
    assert_eq!((name.as_str(), policy.as_str()), ("maxmemory-policy", "allkeys-lru"));
    assert!(server.keys().is_empty());
}

#[test]
fn with_a_password_the_url_has_it() {
    let server = Server::with(&[("requirepass", "secret")]);
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    redis::cmd("SET").arg("a").arg("1").exec(&mut connection).unwrap();
    assert_eq!(server.text(&["GET", "a"]), "1");
}

#[test]
fn keys_are_all_there_and_in_order() {
    let server = Server::start();
    (0..2500).for_each(|number| drop(server.ask(&["SET", &format!("key:{number:04}"), "x"])));
    let expected: Vec<_> = (0..2500).map(|number| format!("key:{number:04}")).collect();
    assert_eq!(server.keys(), expected);
}

#[test]
fn a_killed_server_comes_back_empty_at_its_port() {
    let server = Server::start();
    server.ask(&["SET", "a", "1"]);
    let (port, pid) = (server.port(), server.pid());
    server.kill();
    assert!(!server.answers());
    assert!(server.try_ask(&["PING"]).is_err());
    server.restart();
    assert_eq!(server.text(&["PING"]), "PONG");
    assert!(server.keys().is_empty());
    assert_eq!(server.port(), port);
    assert_ne!(server.pid(), pid);
}

#[test]
fn a_restart_needs_no_kill_before() {
    let server = Server::start();
    server.ask(&["SET", "a", "1"]);
    server.restart();
    // The kept connection has broken; nobody notices.
    assert_eq!(server.text(&["DBSIZE"]), "0");
}

#[test]
fn a_stopped_server_answers_once_it_goes_on() {
    let server = Server::start();
    server.stop();
    assert!(!server.answers());
    server.cont();
    assert_eq!(server.text(&["PING"]), "PONG");
}

#[test]
fn a_paused_server_answers_when_the_pause_is_over() {
    let server = Server::start();
    let start = Instant::now();
    server.pause(Duration::from_millis(300));
    server.ask(&["PING"]);
    assert!(start.elapsed() >= Duration::from_millis(290), "{:?}", start.elapsed());
}

#[test]
fn subscribers_are_cut_and_others_are_not() {
    let server = Server::start();
    let mut other = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    let mut subscriber = subscriber(&server);
    assert_eq!(server.cut_subscribers(), 1);
    let after = subscriber.recv_response();
    assert!(after.is_err_and(|error| !error.is_timeout()));
    redis::cmd("PING").exec(&mut other).unwrap();
}

#[test]
fn figures_follow_what_the_server_does() {
    let server = Server::start();
    let (calls, memory, cpu) = (server.calls(), server.used_memory(), server.cpu());
    assert_eq!(server.calls(), calls + 2);
    server.ask(&["SET", "big", &"x".repeat(1 << 20)]);
    server.ask(&["EVAL", "for i = 1, 5000000 do local x = i * i end", "0"]);
    assert_eq!(server.calls(), calls + 2 + 1 + 2);
    assert!(server.used_memory() > memory + (1 << 20));
    assert!(server.cpu() > cpu);
}

#[test]
fn nothing_is_left_of_a_server_that_is_dropped() {
    let server = Server::start();
    let [_, folder]: [String; 2] =
        redis::from_redis_value::<Vec<String>>(server.ask(&["CONFIG", "GET", "dir"])).unwrap().try_into().unwrap();
    assert!(Path::new(&folder).is_dir());
    assert!(server.log().contains("Ready to accept connections"));
    let process = format!("/proc/{}", server.pid());
    server.stop();
    drop(server);
    assert!(!Path::new(&folder).exists());
    assert!(fs::metadata(process).is_err());
}
