//! Where a gateway is, as somebody writes it.

use crate::config::Config;
use std::{fmt, net::IpAddr, str::FromStr};

/// Doors at which a URL may end; what stands in front of them is the path under which all of the gateway is served.
const DOORS: [&str; 4] = ["/ws", "/websocket", "/connect", "/health"];
/// What a query can show of somebody.
const CREDENTIALS: [&str; 3] = ["key", "ticket", "session_token"];
/// And say of somebody.
const NAMES: [&str; 3] = ["user_id", "store_id", "client_id"];

/// Where a gateway listens, or what stands in front of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub is_tls: bool,
    /// Without brackets.
    pub host: String,
    pub port: u16,
}

impl Address {
    /// The listener of this configuration. Who listens everywhere is asked on this machine.
    pub fn of(config: &Config) -> Self {
        let host = match config.host.trim_start_matches('[').trim_end_matches(']') {
            "0.0.0.0" => "127.0.0.1",
            "::" => "::1",
            host => host,
        };
        Self { is_tls: false, host: host.to_owned(), port: config.port }
    }

    /// As a `Host` header names it: without the port that goes without saying.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.is_tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    pub fn url(&self) -> String {
        format!("{}://{}", if self.is_tls { "https" } else { "http" }, self.authority())
    }

    /// Whether it is on this machine.
    pub fn is_here(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }

    /// What is written in front of the path, and the path with whatever follows.
    pub fn split(text: &str) -> Result<(Self, &str), String> {
        let wanted = || "write it as http://host:port or https://host".to_owned();
        let (is_tls, rest) = match text.split_once("://") {
            None => (false, text),
            Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
                "http" | "ws" => (false, rest),
                "https" | "wss" => (true, rest),
                _ => return Err(wanted()),
            },
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        // Nothing but host and port: a name and password would be sent nowhere, and a port that is none is an error.
        let (host, port) = match authority.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            Some((host, "")) if host.contains(':') => (host, None),
            Some((host, port)) if host.contains(':') => (host, Some(port.strip_prefix(':').ok_or_else(wanted)?)),
            _ => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
        let port = match port {
            None if is_tls => 443,
            None => 80,
            Some(port) if port.starts_with(|c: char| c.is_ascii_digit()) => port.parse().map_err(|_| wanted())?,
            Some(_) => return Err(wanted()),
        };
        match !host.is_empty() && host.chars().all(plain) {
            true => Ok((Self { is_tls, host: host.to_owned(), port }, path)),
            false => Err(wanted()),
        }
    }
}

/// What stands behind a host: where a gateway is served, and how its sockets are opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// In front of every path.
    pub prefix: String,
    pub door: String,
    pub query: String,
}

impl Place {
    pub fn of(path: &str) -> Self {
        let (path, query) = path.split('#').next().unwrap_or_default().split_once('?').unwrap_or((path, ""));
        let path = path.trim_end_matches('/');
        let place = |prefix: &str, door: &str| Self { prefix: prefix.into(), door: door.into(), query: query.into() };
        if let Some((before, code)) = path.rsplit_once('/')
            && let Some(prefix) = before.strip_suffix("/ws")
        {
            return place(prefix, &format!("/ws/{code}"));
        }
        let door = DOORS.iter().find(|door| path.ends_with(*door));
        let prefix = door.map_or(path, |door| path.strip_suffix(door).unwrap_or(path));
        place(prefix, door.filter(|door| **door != "/health").unwrap_or(&"/ws"))
    }

    /// Whether the query shows who somebody is.
    pub fn shows_credential(&self) -> bool {
        self.has_any(&CREDENTIALS)
    }

    /// Whether it says, at least, who comes.
    pub fn names_somebody(&self) -> bool {
        self.shows_credential() || self.has_any(&NAMES)
    }

    fn has_any(&self, names: &[&str]) -> bool {
        self.query.split('&').filter_map(|pair| pair.split('=').next()).any(|name| names.contains(&name))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https://" } else { "" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    /// `http://host:port` or `https://host`, or without what is in front. A path behind it is not looked at.
    fn from_str(text: &str) -> Result<Self, String> {
        Self::split(text).map(|(address, _)| address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        for (text, shown) in [
            ("http://web1:5000", "web1:5000"),
            ("web1:5000", "web1:5000"),
            ("HTTP://web1/health/live", "web1:80"),
            ("ws://web1:81?x", "web1:81"),
            ("http://[::1]:5000/", "[::1]:5000"),
            ("https://web1", "https://web1:443"),
            ("wss://[::1]/ws", "https://[::1]:443"),
        ] {
            assert_eq!(text.parse::<Address>().map(|address| address.to_string()), Ok(shown.into()), "{text}");
        }
        for text in [
            "",
            "http://",
            "ftp://web1",
            "http://me:hush@web1",
            "https://hush@web1",
            "web1:port",
            "web1:",
            "web1:+1",
            "http://a b",
            ":1",
            "::1",
            "[::1]5",
            "[web1]",
            "web1:99999",
        ] {
            let fault = text.parse::<Address>().expect_err(text);
            assert!(!fault.contains("hush"), "{fault}");
        }
    }

    #[test]
    fn a_port_that_goes_without_saying_is_not_said() {
        for (text, authority) in
            [("https://web1", "web1"), ("http://web1:443", "web1:443"), ("ws://[::1]:80/x", "[::1]"), ("a:1", "a:1")]
        {
            assert_eq!(text.parse::<Address>().unwrap().authority(), authority, "{text}");
        }
        assert_eq!(Address::split("wss://web1/gw/ws?user_id=u").unwrap().1, "/gw/ws?user_id=u");
    }

    #[test]
    fn a_url_names_the_path_in_front_of_a_gateway() {
        for (path, wanted) in [
            ("", ("", "/ws", "")),
            ("/", ("", "/ws", "")),
            ("/ws?user_id=u", ("", "/ws", "user_id=u")),
            ("/gw/websocket?room_id=r", ("/gw", "/websocket", "room_id=r")),
            ("/gw/", ("/gw", "/ws", "")),
            ("/gw/ws/ABCDE", ("/gw", "/ws/ABCDE", "")),
            ("/gw/health", ("/gw", "/ws", "")),
            ("?key=k", ("", "/ws", "key=k")),
        ] {
            let Place { prefix, door, query } = Place::of(path);
            assert_eq!((&*prefix, &*door, &*query), wanted, "{path}");
        }
        assert!(Place::of("?user_id=u&key=k").shows_credential() && !Place::of("?user_id=key").shows_credential());
        assert!(Place::of("?room_id=r&user_id=u").names_somebody() && !Place::of("?room_id=user_id").names_somebody());
    }
}
