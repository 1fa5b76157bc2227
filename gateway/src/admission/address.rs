//! Whose address it really is: `X-Forwarded-For`, walked from the right as far as we trust.

use hyper::HeaderMap;
use ipnet::IpNet;
use std::{net::IpAddr, str};

/// Who speaks on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub address: IpAddr,
    pub way: Way,
}

/// How it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// TCP says it.
    Itself,
    /// A trusted balancer says it, in front of the connection.
    Named,
    /// A trusted balancer speaks for somebody whom it cannot name here: nothing of what that one says counts.
    Unnamed,
}

impl Peer {
    pub fn itself(address: IpAddr) -> Self {
        Self { address: address.to_canonical(), way: Way::Itself }
    }

    /// Whether it is a process of this machine, as far as TCP can tell.
    pub fn is_local(self) -> bool {
        self.way == Way::Itself && self.address.is_loopback()
    }
}

/// Whether a peer's word about others counts.
pub fn is_trusted(peer: Peer, proxies: &[IpNet]) -> bool {
    peer.way != Way::Unnamed && is_proxy(peer.address, proxies)
}

fn is_proxy(address: IpAddr, proxies: &[IpNet]) -> bool {
    proxies.iter().any(|net| net.contains(&address))
}

/// The client's address: the first one from the right that is no trusted proxy. What a client
/// writes into the header itself stands further left and is never reached.
pub fn of_client(peer: Peer, headers: &HeaderMap, proxies: &[IpNet]) -> IpAddr {
    let mut nearest = peer.address;
    if !is_trusted(peer, proxies) {
        return nearest;
    }
    // By bytes: what a client writes may be no text, and must not hide what a proxy wrote behind it.
    let lines = headers.get_all("x-forwarded-for").iter().rev();
    let hops = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    for hop in hops {
        if !is_proxy(nearest, proxies) {
            break;
        }
        match str::from_utf8(hop.trim_ascii()).ok().and_then(parse) {
            Some(address) => nearest = address,
            None => break,
        }
    }
    nearest
}

/// Proxies write `1.2.3.4`, `1.2.3.4:567`, `::1` or `[::1]:567`.
fn parse(hop: &str) -> Option<IpAddr> {
    let bare = hop.parse::<IpAddr>().ok();
    let with_port = || hop.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    bare.or_else(with_port).or_else(bracketed).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_walk_stops_at_the_first_stranger() {
        let proxies: Vec<IpNet> = ["127.0.0.0/8", "10.0.0.0/8"].map(|net| net.parse().unwrap()).into();
        let client = |peer: &str, forwarded: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-forwarded-for", forwarded.parse().unwrap());
            of_client(Peer::itself(peer.parse().unwrap()), &headers, &proxies).to_string()
        };
        assert_eq!(client("127.0.0.1", "6.6.6.6, 1.2.3.4, 10.0.0.9"), "1.2.3.4");
        assert_eq!(client("8.8.8.8", "1.2.3.4"), "8.8.8.8");
        assert_eq!(client("::ffff:127.0.0.1", "[2001:db8::1]:99"), "2001:db8::1");
        assert_eq!(client("127.0.0.1", "unknown"), "127.0.0.1");
    }

    #[test]
    fn of_whom_a_balancer_cannot_name_no_word_counts() {
        let proxies = ["10.0.0.0/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "192.0.2.1".parse().unwrap());
        let address = [10, 0, 0, 9].into();
        for (way, counts) in [(Way::Itself, true), (Way::Named, true), (Way::Unnamed, false)] {
            let peer = Peer { address, way };
            assert_eq!(is_trusted(peer, &proxies), counts, "{way:?}");
            assert_eq!(of_client(peer, &headers, &proxies) == address, !counts, "{way:?}");
        }
        let loopback = |way| Peer { address: [127, 0, 0, 1].into(), way }.is_local();
        assert!(loopback(Way::Itself) && !loopback(Way::Named) && !loopback(Way::Unnamed));
    }
}
