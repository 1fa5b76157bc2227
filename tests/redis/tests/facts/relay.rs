//! A link that goes bad.

use redis::{Connection, RedisResult};
use servers::{Relay, Server};
use std::time::Duration;

fn connect(relay: &Relay) -> RedisResult<Connection> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", relay.port()))?;
    client.get_connection_with_timeout(Duration::from_millis(500))
}

fn ping(connection: &mut Connection, patience: Duration) -> RedisResult<()> {
    connection.set_read_timeout(Some(patience))?;
    redis::cmd("PING").exec(connection)
}

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(200);

#[test]
fn a_cut_closes_the_connections_of_now() {
    let (server, relay) = linked();
    let [mut one, mut two] = [(); 2].map(|()| connect(&relay).unwrap());
    ping(&mut one, LONG).unwrap();
    relay.cut();
    for connection in [&mut one, &mut two] {
        assert!(ping(connection, LONG).is_err_and(|error| !error.is_timeout()));
    }
    ping(&mut connect(&relay).unwrap(), LONG).unwrap();
    drop(server);
}

#[test]
fn a_frozen_link_stays_open_and_moves_nothing() {
    let (server, relay) = linked();
    let mut before = connect(&relay).unwrap();
    relay.freeze();
    let calls = server.calls();
    assert!(ping(&mut before, SHORT).is_err_and(|error| error.is_timeout()));
    // Connecting works, and the first answer does not come.
    assert!(connect(&relay).is_err_and(|error| error.is_timeout()));
    assert_eq!(server.calls(), calls + 1);
    // Not even the end of the other side arrives.
    server.ask(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert!(before.recv_response().is_err_and(|error| error.is_timeout()));
    relay.thaw();
    ping(&mut connect(&relay).unwrap(), LONG).unwrap();
}

#[test]
fn what_waited_in_a_frozen_link_arrives_after_the_thaw() {
    let (server, relay) = linked();
    let mut connection = connect(&relay).unwrap();
    relay.freeze();
    connection.send_packed_command(&redis::cmd("SET").arg("a").arg("1").get_packed_command()).unwrap();
    assert_eq!(server.keys().len(), 0);
    relay.thaw();
    connection.set_read_timeout(Some(LONG)).unwrap();
    connection.recv_response().unwrap();
    assert_eq!(server.keys(), ["a"]);
}

#[test]
fn a_frozen_link_can_be_cut() {
    let (_server, relay) = linked();
    let mut connection = connect(&relay).unwrap();
    relay.freeze();
    relay.cut();
    assert!(ping(&mut connection, LONG).is_err_and(|error| !error.is_timeout()));
}

#[test]
fn who_is_refused_may_come_later() {
    let (_server, relay) = linked();
    let mut before = connect(&relay).unwrap();
    relay.refuse();
    assert!(connect(&relay).is_err_and(|error| !error.is_timeout()));
    ping(&mut before, LONG).unwrap();
    relay.accept();
    ping(&mut connect(&relay).unwrap(), LONG).unwrap();
}

#[test]
fn a_relay_ends_with_its_connections_even_when_frozen() {
    let (_server, relay) = linked();
    let mut connection = connect(&relay).unwrap();
    relay.freeze();
    drop(relay);
    assert!(ping(&mut connection, LONG).is_err_and(|error| !error.is_timeout()));
}

fn linked() -> (Server, Relay) {
    let server = Server::start();
    let relay = Relay::to(server.port());
    (server, relay)
}
