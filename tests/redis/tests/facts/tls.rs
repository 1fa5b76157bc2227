//! A server with TLS.

use servers::Server;
use std::{net::TcpStream, process::Command};

/// What `redis-cli --tls` prints for PING.
fn ping(host: &str, server: &Server, more: &[&str]) -> String {
    let mut cli = Command::new("redis-cli");
    cli.args(["--tls", "-h", host, "-p", &server.port().to_string()]).args(more).arg("PING");
    let output = cli.output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned()
}

#[test]
fn a_server_with_tls_is_trusted_by_whoever_trusts_its_authority() {
    let server = Server::with_tls();
    let ca = server.ca_file();
    let ca = ca.to_str().unwrap();
    assert_eq!(server.url(), format!("rediss://localhost:{}", server.port()));
    assert_eq!(ping("localhost", &server, &["--cacert", ca]), "PONG");
    assert_eq!(ping("127.0.0.1", &server, &["--cacert", ca]), "PONG");
    assert!(ping("localhost", &server, &[]).contains("certificate verify failed"));
    // We ask past TLS, and see the same server.
    server.restart();
    assert_eq!(server.text(&["PING"]), "PONG");
    assert_eq!(ping("localhost", &server, &["--cacert", ca]), "PONG");
}

#[test]
fn without_tls_nobody_is_answered() {
    let server = Server::with_tls();
    assert!(TcpStream::connect(("127.0.0.1", server.port())).is_ok());
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", server.port())).unwrap();
    assert!(client.get_connection().and_then(|mut connection| redis::cmd("PING").exec(&mut connection)).is_err());
}
