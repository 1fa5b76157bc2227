//! A balancer that passes on bytes, as haproxy and nginx do in TCP mode: it says in front of each connection whose it is.

use std::net::SocketAddr;
use tokio::{
    io::{AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

pub struct Balancer {
    pub address: SocketAddr,
    /// Ended with it.
    _relaying: JoinSet<()>,
}

impl Balancer {
    /// One that says this of everybody.
    pub async fn before(gateway: SocketAddr, preamble: &[u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, preamble) = (listener.local_addr().unwrap(), preamble.to_vec());
        let mut relaying = JoinSet::new();
        relaying.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let preamble = preamble.clone();
                connections.spawn(async move {
                    let mut there = TcpStream::connect(gateway).await.unwrap();
                    there.write_all(&preamble).await.unwrap();
                    // Whoever breaks a connection has ended it.
                    let _ = copy_bidirectional(&mut client, &mut there).await;
                });
            }
        });
        Self { address, _relaying: relaying }
    }
}

/// Version 1.
pub fn line(from: &str) -> Vec<u8> {
    let (family, here) = if from.contains(':') { ("TCP6", "2001:db8::1") } else { ("TCP4", "198.51.100.1") };
    format!("PROXY {family} {from} {here} 40000 443\r\n").into()
}

/// Version 2, with words of its own behind the addresses.
pub fn binary(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, family], &length, addresses].concat()
}

/// The connection is the balancer's own.
pub fn local() -> Vec<u8> {
    binary(0x20, 0, b"")
}

/// Version 2 of somebody at an IPv4 address.
pub fn of(from: [u8; 4]) -> Vec<u8> {
    let more = [4, 0, 3, b'a', b'b', b'c'];
    binary(0x21, 0x11, &[&from[..], &[198, 51, 100, 1], &[156, 64, 1, 187], &more].concat())
}
