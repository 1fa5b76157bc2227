//! Which web pages may talk to the gateway.

use crate::problem::Problem;
use hyper::{
    HeaderMap, StatusCode,
    header::{HOST, HeaderName, ORIGIN},
};
use std::net::{Ipv4Addr, Ipv6Addr};

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The origins that are allowed.
#[derive(Debug, Clone)]
pub enum Origins {
    /// Pages of this machine, any port: what a developer needs, and nobody else.
    Local,
    Any,
    Listed(Vec<Pattern>),
}

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    Exact(String),
    /// `https://*.example.com`: scheme with `://`, and the rest with its leading dot.
    Subdomains {
        scheme: String,
        suffix: String,
    },
}

impl Origins {
    /// Reads the list; returns the bad entries, and warnings for what was forgiven.
    pub fn parse(entries: &[String]) -> (Self, Vec<String>, Vec<String>) {
        if entries.is_empty() {
            return (Self::Local, Vec::new(), Vec::new());
        }
        let (mut patterns, mut faults, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        for entry in entries.iter().filter(|entry| *entry != "*") {
            let bare = entry.strip_suffix('/').unwrap_or(entry);
            match Pattern::parse(bare) {
                Some(pattern) => patterns.push(pattern),
                None => faults.push(entry.clone()),
            }
            if bare.len() < entry.len() {
                warnings.push(format!("CORS_ORIGINS: {entry} ends with a slash, which no origin does; read as {bare}"));
            }
        }
        match entries.iter().any(|entry| entry == "*") {
            true => (Self::Any, faults, warnings),
            false => (Self::Listed(patterns), faults, warnings),
        }
    }

    /// Whether a page of this origin may ask.
    pub fn allow(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Local => host_of(origin).is_some_and(is_local),
            Self::Listed(patterns) => {
                let origin = origin.to_ascii_lowercase();
                patterns.iter().any(|pattern| pattern.matches(&origin))
            }
        }
    }
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let (scheme, host) = split(&lower)?;
        // Browsers leave out the port that the scheme has by itself.
        let host = host.strip_suffix(if scheme == "https" { ":443" } else { ":80" }).unwrap_or(host);
        match host.strip_prefix('*') {
            Some(suffix) if suffix.starts_with('.') && !suffix.starts_with(".[") => {
                well_formed(&suffix[1..]).then(|| Self::Subdomains { scheme: scheme.into(), suffix: suffix.into() })
            }
            Some(_) => None,
            None => well_formed(host).then(|| Self::Exact(format!("{scheme}://{host}"))),
        }
    }

    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Exact(exact) => origin == exact,
            Self::Subdomains { scheme, suffix } => split(origin).is_some_and(|(its_scheme, host)| {
                let label = host.strip_suffix(suffix.as_str());
                its_scheme == scheme && well_formed(host) && label.is_some_and(|label| !label.is_empty())
            }),
        }
    }
}

/// Pages of strangers get nothing, on any plane. A browser names the page that asks in `Origin`.
/// For its own address a page sends none, and a page on a rebound name calls this gateway its own:
/// then its browser says `Sec-Fetch-Site`, and the `Host` shows the name.
pub fn check_page(headers: &HeaderMap, origins: &Origins) -> Result<(), Problem> {
    let header = |name| headers.get(name).map(|value| value.to_str().unwrap_or("(not readable)"));
    if let Some(origin) = header(&ORIGIN) {
        return match headers.get_all(ORIGIN).iter().count() == 1 && origins.allow(origin) {
            true => Ok(()),
            false => Err(refused(origin)),
        };
    }
    if header(&SEC_FETCH_SITE).is_none() || header(&SEC_FETCH_MODE) == Some("navigate") {
        return Ok(());
    }
    check_host(headers, origins)
}

/// The same where reading alone does harm. Over plain http a browser that asks its page's own address says neither
/// `Origin` nor `Sec-Fetch-Site`, so that the `Host` is all there is to see. An address cannot be rebound.
pub fn check_reader(headers: &HeaderMap, origins: &Origins) -> Result<(), Problem> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    match headers.contains_key(ORIGIN) || (well_formed(host) && is_address(without_port(host))) {
        true => check_page(headers, origins),
        false => check_host(headers, origins),
    }
}

fn check_host(headers: &HeaderMap, origins: &Origins) -> Result<(), Problem> {
    let host = headers.get(HOST).map(|host| host.to_str().unwrap_or("(not readable)")).unwrap_or_default();
    let own = ["https", "http"].map(|scheme| format!("{scheme}://{host}"));
    match is_local_host(host) || own.iter().any(|origin| origins.allow(origin)) {
        true => Ok(()),
        false => Err(refused(&own[0])),
    }
}

fn is_address(host: &str) -> bool {
    host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok()
}

/// 403, naming what was refused and the setting that would allow it.
fn refused(origin: &str) -> Problem {
    let origin: String = origin.chars().take(200).collect();
    let hint = match Pattern::parse(&origin) {
        Some(Pattern::Exact(exact)) => format!("add {exact} to CORS_ORIGINS if that page is yours"),
        _ => "serve the page over http:// or https:// and add its origin to CORS_ORIGINS; a file or a sandboxed frame has none".into(),
    };
    Problem::new(StatusCode::FORBIDDEN, "Origin not allowed", hint)
        .detail(format!("pages of {origin} may not talk to this gateway"))
}

/// `https`, and what follows `://`.
fn split(origin: &str) -> Option<(&str, &str)> {
    origin.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
}

/// A host, perhaps with a port; nothing in which user names, paths or wildcards could hide.
fn well_formed(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) if is_v6(address) => ("v6", None),
            Some((address, port)) if is_v6(address) && port.starts_with(':') => ("v6", port.strip_prefix(':')),
            _ => return false,
        },
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'.' || c == b'_';
    !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(plain)
        && port.is_none_or(|port| port.starts_with(|c: char| c.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

fn is_v6(address: &str) -> bool {
    address.parse::<Ipv6Addr>().is_ok()
}

/// The host of an origin, without its port.
fn host_of(origin: &str) -> Option<&str> {
    split(origin).filter(|(_, host)| well_formed(host)).map(|(_, host)| without_port(host))
}

/// `localhost:80` → `localhost`, `[::1]:80` → `[::1]`.
fn without_port(host: &str) -> &str {
    let end = match host.starts_with('[') {
        true => host.find(']').map(|end| end + 1),
        false => host.find(':'),
    };
    &host[..end.unwrap_or(host.len())]
}

/// Whether a `Host` names this machine for certain: a name that an attacker's DNS cannot rebind.
pub fn is_local_host(host: &str) -> bool {
    well_formed(host) && is_local(without_port(host))
}

fn is_local(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host == "[::1]"
        || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str) -> Origins {
        let entries: Vec<String> = text.split(',').map(str::to_owned).collect();
        let (origins, faults, _) = Origins::parse(&entries);
        assert!(faults.is_empty(), "{faults:?}");
        origins
    }

    #[test]
    fn by_default_only_pages_of_this_machine() {
        let (local, ..) = Origins::parse(&[]);
        for origin in ["http://localhost:3000", "https://localhost", "http://127.0.0.1:5173", "http://[::1]:80"] {
            assert!(local.allow(origin), "{origin}");
        }
        for origin in [
            "http://localhost.evil.com",
            "null",
            "http://evil.com",
            "http://127.0.0.1.evil.com",
            "http://user@localhost",
            "http://localhost@evil.com",
            "file://localhost",
            "",
        ] {
            assert!(!local.allow(origin), "{origin}");
        }
    }

    #[test]
    fn listed_origins_match_exactly() {
        let origins = listed("https://App.example.com,http://x.org:8080");
        assert!(origins.allow("https://app.EXAMPLE.com"));
        assert!(origins.allow("http://x.org:8080"));
        for origin in [
            "http://app.example.com",
            "https://app.example.com:444",
            "https://app.example.com.evil.com",
            "https://evilapp.example.com",
            "http://x.org",
            "null",
        ] {
            assert!(!origins.allow(origin), "{origin}");
        }
    }

    #[test]
    fn a_wildcard_covers_subdomains_and_nothing_else() {
        let origins = listed("https://*.example.com");
        assert!(origins.allow("https://a.example.com") && origins.allow("https://a.b.example.com"));
        for origin in [
            "https://example.com",
            "https://evilexample.com",
            "https://x@a.example.com",
            "https://evil.com/.example.com",
            "http://a.example.com",
            "https://.example.com",
        ] {
            assert!(!origins.allow(origin), "{origin}");
        }
    }

    /// Checklist 272, 273.
    #[test]
    fn bad_entries_are_named() {
        let entries = [
            "localhost",
            "invalid-url",
            "https://ok.com/",
            "https://a.com/path",
            "https://*",
            "*.x.com",
            "https://*.[::1]",
            "http://a:+80",
        ]
        .map(str::to_owned);
        let (_, faults, warnings) = Origins::parse(&entries);
        assert_eq!(
            faults,
            [
                "localhost",
                "invalid-url",
                "https://a.com/path",
                "https://*",
                "*.x.com",
                "https://*.[::1]",
                "http://a:+80"
            ]
        );
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn hosts_that_cannot_be_rebound() {
        for host in ["localhost", "localhost:8080", "127.0.0.1:1", "[::1]:8080"] {
            assert!(is_local_host(host), "{host}");
        }
        for host in ["evil.com", "127.0.0.1.nip.io", "localhost.evil.com:80", "", "0.0.0.0", "[::1", "[::1]evil.com"] {
            assert!(!is_local_host(host), "{host}");
        }
    }
}
