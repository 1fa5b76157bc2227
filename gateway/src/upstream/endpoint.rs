//! Where an application is asked.

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{
    Uri,
    header::HeaderValue,
    http::uri::{Authority, Scheme},
};
use percent_encoding::percent_decode_str;
use std::{fmt, net::IpAddr};

/// An address that was looked at. What is shown of it is harmless: neither its login nor its query.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    uri: Uri,
    login: Option<HeaderValue>,
}

impl Endpoint {
    /// `http://` or `https://`; a name and password in it are sent as `Authorization: Basic`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wanted = || "write it as http://host:port/path or https://host/path".to_owned();
        let uri: Uri = text.parse().map_err(|_| wanted())?;
        let mut parts = uri.into_parts();
        let known = [Scheme::HTTP, Scheme::HTTPS];
        let (Some(true), Some(authority)) =
            (parts.scheme.as_ref().map(|scheme| known.contains(scheme)), parts.authority.take())
        else {
            return Err(wanted());
        };
        let (login, host) = match authority.as_str().rsplit_once('@') {
            Some((login, host)) => (Some(basic(login).ok_or_else(wanted)?), host),
            None => (None, authority.as_str()),
        };
        let host: Authority = host.parse().map_err(|_| wanted())?;
        if host.host().is_empty()
            || (host.as_str().contains(':') && !host.host().ends_with(']') && host.port_u16().is_none())
        {
            return Err(wanted());
        }
        parts.authority = Some(host);
        let uri = Uri::from_parts(parts).map_err(|_| wanted())?;
        Ok(Self { uri, login })
    }

    pub fn is_tls(&self) -> bool {
        self.uri.scheme() == Some(&Scheme::HTTPS)
    }

    /// Whether it is on this machine, so that nobody is in between.
    pub fn is_here(&self) -> bool {
        let host = self.uri.host().unwrap_or_default();
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        host == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    pub(super) fn uri(&self) -> Uri {
        self.uri.clone()
    }

    pub(super) fn login(&self) -> Option<HeaderValue> {
        self.login.clone()
    }
}

/// `name:password`, maybe with percent signs.
fn basic(login: &str) -> Option<HeaderValue> {
    let plain: Vec<u8> = percent_decode_str(login).collect();
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(plain))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.uri.scheme_str().unwrap_or_default();
        let host = self.uri.authority().map_or("", Authority::as_str);
        let query = self.uri.query().map_or("", |_| "?***");
        write!(f, "{scheme}://{host}{}{query}", self.uri.path())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_what_is_secret_in_it() {
        let shown = |text| Endpoint::parse(text).map(|endpoint| endpoint.to_string());
        assert_eq!(shown("http://127.0.0.1:3000/session").unwrap(), "http://127.0.0.1:3000/session");
        assert_eq!(shown("https://me:hush@app.test/x?token=hush").unwrap(), "https://app.test/x?***");
        assert_eq!(shown("http://[::1]:3000").unwrap(), "http://[::1]:3000/");
        for wrong in
            ["", "/path", "app.test", "ftp://app.test/", "http://", "http://a b/", "ws://app.test/", "http://a:x/"]
        {
            assert!(shown(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_here_is_told_by_its_host() {
        let is_here = |text| Endpoint::parse(text).unwrap().is_here();
        for here in ["http://localhost/", "http://me:hush@127.0.0.1:3000/x", "https://127.0.0.2", "http://[::1]:3000"] {
            assert!(is_here(here), "{here}");
        }
        for there in ["http://127.0.0.1.id.test/", "http://localhost.id.test", "http://10.0.0.1/", "http://[::2]/"] {
            assert!(!is_here(there), "{there}");
        }
    }

    #[test]
    fn a_login_becomes_a_header() {
        let endpoint = Endpoint::parse("http://me:h%40sh@app.test/").unwrap();
        assert_eq!(endpoint.login().unwrap(), format!("Basic {}", STANDARD.encode("me:h@sh")));
        assert_eq!(endpoint.uri().to_string(), "http://app.test/");
    }
}
