//! What a balancer that passes on bytes says in front of them: whose they are. This is the PROXY protocol, version 1 and 2.
//! What follows the header is left in the kernel, so that hyper finds the connection as if nothing had been there.

use super::head::HEAD;
use crate::{
    admission::address::{Peer, Way, is_trusted},
    complaints::Topic,
    gateway::Gateway,
};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str,
};
use tokio::{net::TcpStream, time::timeout};
use tracing::{debug, warn};

/// No line of version 1 is longer, with its end.
const LINE_BYTES_MAX: usize = 107;
/// What version 2 begins with: no HTTP, and no text.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const FIXED_BYTES: usize = 16;
/// What may follow that: addresses, and more that is skipped. Balancers keep the whole within one small packet.
const VARIABLE_BYTES_MAX: usize = 536;
/// The header of somebody who speaks for himself, as our own commands send it.
pub const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// The balancer's own: it looks whether we live.
    Its,
    /// Of somebody at this address.
    Of(IpAddr),
    /// Of somebody whom the balancer cannot name.
    Unknown,
}

/// What the bytes so far come to.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    /// All of them belong to the header, and it is not whole.
    More,
    /// It is whole, and so long.
    Whole(usize, Whose),
    No(&'static str),
}

/// Why no header came.
#[derive(Debug)]
enum Fault {
    /// Somebody connected and left; that is how balancers look whether a port is open.
    Left,
    Wrong(&'static str),
}

/// Reads who it is, or says why the connection is refused; then there is nobody.
pub async fn peer(gateway: &Gateway, stream: &TcpStream, from: IpAddr) -> Option<Peer> {
    let first = |topic| gateway.complaints.is_first(topic, from);
    if !is_trusted(Peer::itself(from), &gateway.config.trusted_proxies) {
        gateway.metrics.preambles_refused.inc();
        if first(Topic::NoProxy) {
            warn!(
                peer = %from,
                "connection refused: PROXY_PROTOCOL is on, and {from} is none of TRUSTED_PROXIES; if it is your balancer, \
                 add it there (said once for each peer)"
            );
        }
        return None;
    }
    let why = match timeout(HEAD, read(stream)).await {
        Ok(Ok(whose)) => return Some(named(from, whose)),
        Ok(Err(Fault::Left)) => {
            debug!(peer = %from, "connected and left without a word");
            return None;
        }
        Ok(Err(Fault::Wrong(why))) => why,
        Err(_) => "it was not whole in time",
    };
    gateway.metrics.preambles_refused.inc();
    if first(Topic::NoPreamble) {
        warn!(
            peer = %from,
            "connection refused: PROXY_PROTOCOL is on, and {from} sent no PROXY header: {why}; have it send one \
             (send-proxy-v2 in haproxy, proxy_protocol on in a stream of nginx), or turn PROXY_PROTOCOL off (said once for \
             each peer)"
        );
    }
    None
}

/// A loopback address is that of the balancer's machine, which need not be this one: it proves nothing here.
fn named(from: IpAddr, whose: Whose) -> Peer {
    match whose {
        Whose::Its => Peer::itself(from),
        Whose::Unknown => Peer { address: from, way: Way::Unnamed },
        Whose::Of(address) if address.is_loopback() => Peer { address, way: Way::Unnamed },
        Whose::Of(address) => Peer { address, way: Way::Named },
    }
}

/// Takes the header, and not a byte more: the bytes are looked at before they are taken.
async fn read(stream: &TcpStream) -> Result<Whose, Fault> {
    let mut bytes = vec![0; FIXED_BYTES + VARIABLE_BYTES_MAX];
    let mut taken = 0;
    loop {
        let rest = bytes.get_mut(taken..).unwrap_or_default();
        let there = match stream.peek(rest).await {
            Ok(there @ 1..) => there,
            _ if taken == 0 => return Err(Fault::Left),
            _ => return Err(Fault::Wrong("it ended in the middle")),
        };
        let known = parse(bytes.get(..taken + there).unwrap_or_default());
        let (take, whose) = match known {
            Read::More => (there, None),
            Read::Whole(length, whose) => (length.saturating_sub(taken), Some(whose)),
            Read::No(why) => return Err(Fault::Wrong(why)),
        };
        let rest = bytes.get_mut(taken..taken + take).unwrap_or_default();
        // They are there, since they were seen.
        let read = stream.try_read(rest).map_err(|_| Fault::Wrong("it could not be read"))?;
        taken += read;
        if let Some(whose) = whose.filter(|_| read == take) {
            return Ok(whose);
        }
    }
}

fn parse(bytes: &[u8]) -> Read {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(one, other)| one == other);
    if begins(SIGNATURE) {
        version_2(bytes)
    } else if begins(b"PROXY ") {
        version_1(bytes)
    } else {
        Read::No("it began with something else")
    }
}

fn version_1(bytes: &[u8]) -> Read {
    let Some(end) = bytes.iter().take(LINE_BYTES_MAX).position(|byte| *byte == b'\n') else {
        return if bytes.len() < LINE_BYTES_MAX { Read::More } else { Read::No("its line has no end") };
    };
    let line = bytes.get(..end).and_then(|line| str::from_utf8(line.strip_suffix(b"\r")?).ok());
    match line.and_then(whose_line) {
        Some(whose) => Read::Whole(end + 1, whose),
        None => Read::No("its line cannot be read"),
    }
}

/// `PROXY TCP4 <client> <here> <port> <port>`, with one blank between them.
fn whose_line(line: &str) -> Option<Whose> {
    let mut words = line.split(' ').skip(1);
    let mut word = || words.next();
    let address: fn(&str) -> Option<IpAddr> = match word()? {
        "UNKNOWN" => return Some(Whose::Unknown),
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::from),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        _ => return None,
    };
    let client = address(word()?)?;
    address(word()?)?;
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok();
    let both = is_port(word()?) && is_port(word()?);
    (both && word().is_none()).then(|| Whose::Of(client.to_canonical()))
}

fn version_2(bytes: &[u8]) -> Read {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES>() else { return Read::More };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > VARIABLE_BYTES_MAX {
        return Read::No("it is too long");
    }
    let Some(rest) = rest.get(..length) else {
        // What is wrong already is not waited for.
        return match command {
            0x20 | 0x21 => Read::More,
            _ => Read::No("its version or command is unknown"),
        };
    };
    let whose = match (command, family) {
        (0x20, _) => Some(Whose::Its),
        (0x21, 0x11 | 0x12) => rest.first_chunk::<12>().map(|[a, b, c, d, ..]| Whose::Of([*a, *b, *c, *d].into())),
        (0x21, 0x21 | 0x22) => {
            let client = rest.first_chunk::<36>().and_then(|both| both.first_chunk::<16>());
            client.map(|client| Whose::Of(IpAddr::from(*client).to_canonical()))
        }
        // A socket without an address, or of a family that is none of ours.
        (0x21, 0x00 | 0x31 | 0x32) => Some(Whose::Unknown),
        (0x21, _) => None,
        _ => return Read::No("its version or command is unknown"),
    };
    whose.map_or(Read::No("its addresses cannot be read"), |whose| Read::Whole(FIXED_BYTES + length, whose))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    fn of(text: &str) -> Whose {
        Whose::Of(text.parse().unwrap())
    }

    /// Headers as they may stand there, and what they say.
    fn good() -> Vec<(Vec<u8>, Whose)> {
        let v4 = [192, 0, 2, 1, 10, 0, 0, 1, 0x30, 0x39, 0x1f, 0x90];
        let v6 = ["2001:db8::1", "2001:db8::2"].map(|text| text.parse::<Ipv6Addr>().unwrap().octets()).concat();
        let v6 = [&v6[..], &[0, 1, 0, 2]].concat();
        let mapped = ["::ffff:192.0.2.1", "::1"].map(|text| text.parse::<Ipv6Addr>().unwrap().octets()).concat();
        let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        vec![
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 12345 8080\r\n".into(), of("192.0.2.1")),
            (b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n".into(), of("2001:db8::1")),
            (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n".into(), of("192.0.2.1")),
            (format!("PROXY TCP6 {longest} {longest} 65535 65535\r\n").into(), of(longest)),
            (b"PROXY UNKNOWN\r\n".into(), Whose::Unknown),
            (format!("PROXY UNKNOWN {longest} {longest} 65535 65535\r\n").into(), Whose::Unknown),
            (v2(0x21, 0x11, &v4), of("192.0.2.1")),
            (v2(0x21, 0x12, &v4), of("192.0.2.1")),
            (v2(0x21, 0x21, &v6), of("2001:db8::1")),
            (v2(0x21, 0x21, &[&mapped[..], &[0; 4]].concat()), of("192.0.2.1")),
            // With more behind the addresses, up to all that may be there.
            (v2(0x21, 0x11, &[&v4[..], &[4; 524]].concat()), of("192.0.2.1")),
            (v2(0x21, 0x31, &[0; 216]), Whose::Unknown),
            (v2(0x21, 0x00, &[]), Whose::Unknown),
            (v2(0x20, 0x00, &[]), Whose::Its),
            (v2(0x20, 0xff, &[7; 536]), Whose::Its),
            (LOCAL.into(), Whose::Its),
        ]
    }

    #[test]
    fn what_a_header_says_is_known_with_its_last_byte_and_not_before() {
        for (header, whose) in good() {
            for length in 0..header.len() {
                assert_eq!(parse(&header[..length]), Read::More, "{length} of {header:?}");
            }
            for behind in ["", "GET / HTTP/1.1\r\n\r\n", "PROXY UNKNOWN\r\n", "\n"] {
                let all = [&header, behind.as_bytes()].concat();
                assert_eq!(parse(&all), Read::Whole(header.len(), whose), "{all:?}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for line in [
            "GET / HTTP/1.1\r\n\r\n",
            "proxy TCP4 192.0.2.1 10.0.0.1 1 2\r\n",
            "PROXY  TCP4 192.0.2.1 10.0.0.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1 2\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1 2 \r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1 65536\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 +1 2\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1  2\r\n",
            "PROXY TCP4 192.0.2.256 10.0.0.1 1 2\r\n",
            "PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 10.0.0.1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 10.0.0.1 1\r\n",
            "PROXY TCP4\r\n",
            "PROXY UDP4 192.0.2.1 10.0.0.1 1 2\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY \r\n",
            "PROXY TCP4 ü\r\n",
            "PROXY\r\n",
            "\r\n\r\nGET",
        ] {
            assert!(matches!(parse(line.as_bytes()), Read::No(_)), "{line:?}");
        }
        let endless = [&b"PROXY UNKNOWN "[..], &[b'x'; 107]].concat();
        assert!(matches!(parse(&endless[..107]), Read::No(_)));
        assert!(matches!(parse(&[&endless[..106], b"\r\n"].concat()), Read::No(_)));
        for header in [
            v2(0x21, 0x11, &[1; 11]),
            v2(0x21, 0x21, &[1; 35]),
            v2(0x21, 0x13, &[1; 12]),
            v2(0x21, 0x41, &[1; 12]),
            v2(0x22, 0x11, &[1; 12]),
            v2(0x11, 0x11, &[1; 12]),
            v2(0x31, 0x11, &[1; 12]),
            v2(0x21, 0x11, &[1; 537]),
        ] {
            assert!(matches!(parse(&header), Read::No(_)), "{header:?}");
        }
        // A length that is too long is not waited for.
        assert!(matches!(parse(&v2(0x20, 0, &[1; 537])[..16]), Read::No(_)));
    }

    proptest! {
        /// Whatever comes, what was decided stays so with what comes after it, and nothing waits beyond the bounds.
        #[test]
        fn no_bytes_make_it_panic_or_wait_for_ever(
            which in 0..4_usize,
            bytes in prop::collection::vec(any::<u8>(), 0..700),
        ) {
            let begin = [&b""[..], b"PROXY TCP4 ", SIGNATURE, b"\r\n\r\n\0\r\nQUIT\n\x21"][which];
            let all = [begin, &bytes].concat();
            let decided = (0..=all.len()).map(|length| parse(&all[..length])).find(|read| *read != Read::More);
            match decided {
                Some(Read::Whole(length, whose)) => {
                    prop_assert!(length <= all.len());
                    prop_assert_eq!(parse(&all), Read::Whole(length, whose));
                }
                Some(no) => prop_assert_eq!(parse(&all), no),
                None => prop_assert!(all.len() < FIXED_BYTES + VARIABLE_BYTES_MAX),
            }
        }
    }

    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        (listener.accept().await.unwrap().0, client)
    }

    /// At once with it, or byte by byte: what follows is what was sent.
    #[tokio::test]
    async fn what_follows_a_header_is_left_as_it_is() {
        const BEHIND: &[u8] = b"\r\n\0GET / HTTP/1.1\r\nHost: a\r\n\r\n\xff";
        for piece in [1, 7, 16, 4096] {
            for (header, whose) in good() {
                let (mut here, mut client) = connection().await;
                let all = [&header, BEHIND].concat();
                let write = async {
                    for part in all.chunks(piece) {
                        client.write_all(part).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    client.shutdown().await.unwrap();
                };
                let ((), said) = tokio::join!(write, read(&here));
                assert_eq!(said.unwrap(), whose);
                let mut rest = Vec::new();
                here.read_to_end(&mut rest).await.unwrap();
                assert_eq!(rest, BEHIND, "{header:?} by {piece}");
            }
        }
    }

    #[tokio::test]
    async fn whoever_leaves_before_a_word_is_told_from_whoever_leaves_in_the_middle() {
        for (said, left) in [(&b""[..], true), (b"PROXY TCP4", false)] {
            let (here, mut client) = connection().await;
            client.write_all(said).await.unwrap();
            drop(client);
            assert_eq!(matches!(read(&here).await, Err(Fault::Left)), left);
        }
    }

    #[test]
    fn loopback_in_a_header_is_not_this_machine() {
        let from = [127, 0, 0, 1].into();
        let proxies = ["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        let trusted = |whose| is_trusted(named(from, whose), &proxies);
        assert!(trusted(Whose::Its) && named(from, Whose::Its).is_local());
        assert!(trusted(of("10.0.0.1")));
        for whose in [of("127.0.0.1"), of("::1"), Whose::Unknown, of("192.0.2.1")] {
            assert!(!trusted(whose) && !named(from, whose).is_local(), "{whose:?}");
        }
    }
}
