//! Asking a running gateway over HTTP, for the commands that look.

use super::exit;
use crate::config::{Config, Reading};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request,
    client::conn::http1,
    header::{AUTHORIZATION, HOST, HeaderValue, LINK},
    http::uri::Authority,
};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::{error::Error, fmt, process::ExitCode, str::FromStr, time::Duration};
use tokio::{net::TcpStream, runtime, time::timeout};

/// For one request, from the connection to the last byte of the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// More than the largest page there can be. Whatever sends more is no gateway.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// What stands in a path or query as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A name as a path or a query holds it.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
}

/// Where a gateway listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Without brackets.
    host: String,
    port: u16,
}

impl Address {
    /// The listener of this configuration. Who listens everywhere is asked on this machine.
    fn of(config: &Config) -> Self {
        let host = match config.host.trim_start_matches('[').trim_end_matches(']') {
            "0.0.0.0" => "127.0.0.1",
            "::" => "::1",
            host => host,
        };
        Self { host: host.to_owned(), port: config.port }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    /// `http://host:port`, or without what is in front. A path behind it is not looked at.
    fn from_str(text: &str) -> Result<Self, String> {
        let rest = match text.split_once("://") {
            None => text,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => {
                return Err("only http is spoken here: write the gateway's own listener as http://host:port".into());
            }
        };
        let wanted = || "write it as http://host:port".to_owned();
        let authority: Authority =
            rest.split(['/', '?', '#']).next().unwrap_or_default().parse().map_err(|_| wanted())?;
        let (host, port) = (authority.host(), authority.port_u16());
        // Nothing but host and port: a name and password would be sent nowhere, and a port that is none is an error.
        let whole = port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        if host.is_empty() || authority.as_str() != whole {
            return Err(wanted());
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port: port.unwrap_or(80) })
    }
}

/// Why a command ends without what it was to find: the sentences for a person, and the exit code.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub sentences: Vec<String>,
}

impl Failure {
    pub fn new(code: u8, sentence: impl Into<String>) -> Self {
        Self { code, sentences: vec![sentence.into()] }
    }
}

/// The end of a command: the one place where its failure is told.
pub fn ended(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.sentences.iter().for_each(|sentence| complain!("{}", printable(sentence)));
            ExitCode::from(failure.code)
        }
    }
}

/// What others wrote, such as a close reason, with nothing in it that a terminal would obey.
pub fn printable(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().collect() } else { String::from(c) };
    text.chars().map(shown).collect()
}

/// A gateway that can be asked.
pub struct Remote {
    pub address: Address,
    token: Option<Token>,
}

struct Token {
    setting: &'static str,
    header: HeaderValue,
}

/// What it answered.
pub struct Answer {
    pub status: u16,
    /// Null when it was no JSON.
    pub body: Value,
    /// Path and query of the page that follows.
    pub next: Option<String>,
}

impl Remote {
    /// The gateway at `url`, or the one that is configured here; with the token that is configured here.
    pub fn of(reading: &Reading, url: Option<&Address>) -> Result<Self, Failure> {
        let config = reading.config.as_ref().map_err(|faults| Failure {
            code: exit::CONFIGURATION,
            sentences: faults.iter().map(ToString::to_string).collect(),
        })?;
        Ok(Self { address: url.cloned().unwrap_or_else(|| Address::of(config)), token: token(config)? })
    }

    /// The same for whoever asks only what needs no token; a faulty configuration does not matter
    /// to one who names the gateway.
    pub fn without_token(reading: &Reading, url: Option<&Address>) -> Result<Self, Failure> {
        match url {
            Some(url) => Ok(Self { address: url.clone(), token: None }),
            None => Ok(Self { token: None, ..Self::of(reading, None)? }),
        }
    }

    /// Asks, and waits for the whole answer.
    pub fn get(&self, target: &str) -> Result<Answer, Failure> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(exit::FAILED, format!("cannot start: {error}")))?;
        let asked = runtime.block_on(async { timeout(PATIENCE, self.ask(target)).await });
        // A name that nobody resolves must not hold up the end.
        runtime.shutdown_background();
        let silent = || format!("it did not answer within {} s", PATIENCE.as_secs()).into();
        asked.unwrap_or_else(|_| Err(silent())).map_err(|error| {
            let Address { port, .. } = self.address;
            let mend = match port {
                0 => "PORT is 0 here, so name the gateway with --url http://host:port",
                _ => "start one there with holdfast serve, or name another with --url http://host:port",
            };
            Failure::new(exit::UNREACHABLE, format!("no gateway can be reached at {}: {error}; {mend}", self.address))
        })
    }

    async fn ask(&self, target: &str) -> Result<Answer, Box<dyn Error + Send + Sync>> {
        let mut request = Request::get(target).header(HOST, self.address.to_string());
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.header.clone());
        }
        let request = request.body(Empty::<Bytes>::new())?;
        let stream = TcpStream::connect((self.address.host.as_str(), self.address.port)).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let exchange = async move {
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
            let next = head.headers.get(LINK).and_then(|link| next_page(link.to_str().ok()?));
            Ok(Answer { status: head.status.as_u16(), body: serde_json::from_slice(&body).unwrap_or_default(), next })
        };
        tokio::pin!(exchange);
        // The connection is what moves the bytes. It may end before the last of them were looked at.
        tokio::select! {
            answer = &mut exchange => answer,
            ended = connection => match (exchange.await, ended) {
                (Err(_), Err(cause)) => Err(cause.into()),
                (answer, _) => answer,
            },
        }
    }

    /// What an answer means that is none of those a command hopes for.
    pub fn failure(&self, answer: &Answer) -> Failure {
        let (address, status) = (&self.address, answer.status);
        let said = |name: &str| answer.body[name].as_str().unwrap_or_default();
        let hint = said("hint");
        let cause = if said("detail").is_empty() { said("title") } else { said("detail") };
        let sentence = match (status, &self.token) {
            _ if cause.is_empty() => format!("{address} answered {status}, and not as a Holdfast does; is it one?"),
            (401, None) => format!(
                "{address} wants a token: give this command the API_TOKEN of that gateway, by environment, API_TOKEN_FILE or --config ({cause}: {hint})"
            ),
            (401, Some(Token { setting, .. })) => {
                format!(
                    "{address} refuses the token that this command has from {setting}: give it the {setting} of that gateway"
                )
            }
            (503, _) => format!("{address} cannot say now: {cause}; {hint}"),
            _ => format!("{address} answered {status}, {cause}: {hint}"),
        };
        Failure::new(exit::FAILED, sentence)
    }
}

/// The lesser of two tokens that do, since it goes over the wire as it is.
fn token(config: &Config) -> Result<Option<Token>, Failure> {
    let tokens = [("API_TOKEN", &config.live.api_token), ("ADMIN_TOKEN", &config.live.admin_token)];
    let Some((setting, secret)) = tokens.into_iter().find_map(|(name, token)| Some((name, token.as_ref()?))) else {
        return Ok(None);
    };
    let header = HeaderValue::from_bytes(format!("Bearer {}", secret.expose()).as_bytes());
    let mut header = header
        .map_err(|_| Failure::new(exit::CONFIGURATION, format!("{setting}: it holds what no header can carry")))?;
    header.set_sensitive(true);
    Ok(Some(Token { setting, header }))
}

/// The target of `<…>; rel="next"`, if it is on the same gateway: the token goes nowhere else.
fn next_page(link: &str) -> Option<String> {
    let (target, relation) = link.split_once(';')?;
    let target = target.trim().strip_prefix('<')?.strip_suffix('>')?;
    (relation.trim().replace('"', "") == "rel=next" && target.starts_with('/')).then(|| target.to_owned())
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
            ("http://[::1]:5000/", "[::1]:5000"),
        ] {
            assert_eq!(text.parse::<Address>().map(|address| address.to_string()), Ok(shown.into()), "{text}");
        }
        for text in
            ["", "http://", "https://web1", "http://me:hush@web1", "web1:port", "web1:", "http://a b", ":1", "::1"]
        {
            let fault = text.parse::<Address>().expect_err(text);
            assert!(!fault.contains("hush"), "{fault}");
        }
    }

    #[test]
    fn only_a_page_of_the_same_gateway_follows() {
        assert_eq!(next_page("</api/sockets?cursor=a>; rel=\"next\""), Some("/api/sockets?cursor=a".into()));
        for link in ["<http://elsewhere/>; rel=\"next\"", "</a>; rel=\"prev\"", "/a", ""] {
            assert_eq!(next_page(link), None, "{link}");
        }
    }

    #[test]
    fn a_terminal_obeys_nothing_that_others_wrote() {
        assert_eq!(printable("a\u{1b}[31mü\n"), "a\\u{1b}[31mü\\n");
    }
}
