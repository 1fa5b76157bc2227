//! Asking a running gateway over HTTP, for the commands that look and those that call.

use super::{
    address::Address,
    dial::{self, Connection, Trust},
    events::Events,
    exit,
};
use crate::config::{Reading, value::Secret};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request,
    body::Incoming,
    client::conn::http1,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, LINK},
};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::{error::Error, fmt, process::ExitCode, time::Duration};
use tokio::{
    runtime,
    time::{Instant, timeout_at},
};

/// For a connection; and for the whole of a request, from the connection to the last byte of the answer, unless the
/// gateway was given time of its own.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// More than the largest page there can be, or the largest event. Whatever sends more is no gateway.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// What stands in a path or query as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A name as a path or a query holds it.
pub fn encoded(text: &str) -> String {
    utf8_percent_encode(text, UNRESERVED).to_string()
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

    /// Nobody is there, or no gateway: what there is to see, the doctor says.
    pub fn unreached(address: &Address, why: impl fmt::Display) -> Self {
        let sentence =
            format!("no gateway can be reached at {address}: {why}; holdfast doctor {} says more", address.url());
        Self::new(exit::UNREACHABLE, sentence)
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

/// A terminal does something else with it than to show it; some turn the order of all that follows.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What others wrote, such as a close reason, with nothing in it that a terminal would obey.
pub fn printable(text: &str) -> String {
    let shown = |c: char| if is_obeyed(c) { c.escape_default().collect() } else { String::from(c) };
    text.chars().map(shown).collect()
}

/// JSON with nothing in it that a terminal would obey, and that means what it meant. Line ends and tabs can only
/// stand between its words.
pub fn printable_json(text: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => String::from(c),
        '\r' => " ".into(),
        c if is_obeyed(c) => format!("\\u{:04x}", u32::from(c)),
        c => c.into(),
    };
    text.trim_end().chars().map(shown).collect()
}

/// Who is told what happens until there is an answer, if anybody is: each piece as JSON on one line.
type Progress<'a> = Option<&'a dyn Fn(&str)>;

/// Whatever goes wrong on a connection.
type Broken = Box<dyn Error + Send + Sync>;

/// A gateway that can be asked.
pub struct Remote {
    pub address: Address,
    /// It wants to be told whose each connection is.
    pub preamble: bool,
    token: Option<Token>,
}

struct Token {
    setting: &'static str,
    header: HeaderValue,
}

/// What it answered.
pub struct Answer {
    pub status: u16,
    /// As it came.
    pub text: Bytes,
    /// The same, read; null when it was no JSON.
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
        let tokens = [("API_TOKEN", &config.live.api_token), ("ADMIN_TOKEN", &config.live.admin_token)];
        Ok(Self {
            address: url.cloned().unwrap_or_else(|| Address::of(config)),
            preamble: config.proxy_protocol,
            token: first(tokens)?,
        })
    }

    /// What the gateway is shown of a token that is configured here.
    pub fn bearer(&self) -> Option<&str> {
        self.token.as_ref().and_then(|token| token.header.to_str().ok())
    }

    /// The same for whoever changes the fleet.
    pub fn for_admin(reading: &Reading, url: Option<&Address>) -> Result<Self, Failure> {
        let gateway = Self::of(reading, url)?;
        let admin = reading.config.as_ref().ok().and_then(|config| config.live.admin_token.as_ref());
        Ok(match first([("ADMIN_TOKEN", &admin.cloned())])? {
            Some(token) => Self { token: Some(token), ..gateway },
            None => gateway,
        })
    }

    /// One of which no configuration says anything: no token, and nothing in front of a request.
    pub fn plainly(address: Address) -> Self {
        Self { address, preamble: false, token: None }
    }

    /// One that whoever asks has started himself, with this API_TOKEN.
    pub fn with_token(address: Address, token: &Secret) -> Result<Self, Failure> {
        Ok(Self { token: first([("API_TOKEN", &Some(token.clone()))])?, ..Self::plainly(address) })
    }

    /// The same for whoever asks only what needs no token; a faulty configuration does not matter
    /// to one who names the gateway.
    pub fn without_token(reading: &Reading, url: Option<&Address>) -> Result<Self, Failure> {
        match url {
            Some(url) => {
                let preamble = reading.config.as_ref().is_ok_and(|config| config.proxy_protocol);
                Ok(Self { address: url.clone(), preamble, token: None })
            }
            None => Ok(Self { token: None, ..Self::of(reading, None)? }),
        }
    }

    /// Asks, and waits for the whole answer.
    pub fn get(&self, target: &str) -> Result<Answer, Failure> {
        let asked = self.ask(Method::GET, target, Bytes::new(), Duration::ZERO, None);
        asked.map_err(|lost| self.unreachable(&lost.error))
    }

    /// Has something done, for which the gateway may take so long.
    pub fn post(&self, target: &str, body: String, budget: Duration) -> Result<Answer, Failure> {
        self.posted(target, body, budget, None)
    }

    /// The same, and tells what the client says on its way.
    pub fn follow(
        &self,
        target: &str,
        body: String,
        budget: Duration,
        progress: &dyn Fn(&str),
    ) -> Result<Answer, Failure> {
        self.posted(target, body, budget, Some(progress))
    }

    fn posted(&self, target: &str, body: String, budget: Duration, progress: Progress<'_>) -> Result<Answer, Failure> {
        let asked = self.ask(Method::POST, target, body.into(), budget, progress);
        asked.map_err(|lost| match lost.was_asked {
            false => self.unreachable(&lost.error),
            true => Failure::new(
                exit::UNREACHABLE,
                format!(
                    "{} was asked, and then {}; it may have been done all the same, so repeat it only if a second time does no harm",
                    self.address, lost.error
                ),
            ),
        })
    }

    pub fn unreachable(&self, error: &str) -> Failure {
        let mend = match self.address.port {
            _ if self.address.is_tls => {
                "name its CA in SSL_CERT_FILE where that is missing, or an instance's own listener with --url http://host:port"
            }
            0 => "PORT is 0 here, so name the gateway with --url http://host:port",
            _ => "start one there with holdfast serve, or name another with --url http://host:port",
        };
        Failure::new(exit::UNREACHABLE, format!("no gateway can be reached at {}: {error}; {mend}", self.address))
    }

    fn ask(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
        budget: Duration,
        progress: Progress<'_>,
    ) -> Result<Answer, Lost> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Lost { was_asked: false, error: format!("cannot start: {error}") })?;
        let wanted = if progress.is_some() { "text/event-stream" } else { "application/json" };
        let request = self.request(method, target, body, wanted);
        let request = request.map_err(|error| Lost { was_asked: false, error: error.to_string() })?;
        let answer = runtime.block_on(self.exchange(request, PATIENCE + budget, progress));
        // A name that nobody resolves must not hold up the end.
        runtime.shutdown_background();
        answer
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        patience: Duration,
        progress: Progress<'_>,
    ) -> Result<Answer, Lost> {
        let began = Instant::now();
        let silent = |patience: Duration| format!("it did not answer within {} s", patience.as_secs());
        let lost = |was_asked: bool| move |error: String| Lost { was_asked, error };
        let dialled = dial::dial(&self.address, Trust::Checked, self.preamble, PATIENCE).await;
        let stream = dialled.map_err(|unreached| lost(false)(unreached.to_string()))?.connection;
        let answer = timeout_at(began + patience, talk(stream, request, progress)).await;
        let answer = answer.map_err(|_| silent(patience));
        answer.and_then(|answer| answer.map_err(|error| error.to_string())).map_err(lost(true))
    }

    fn request(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
        wanted: &'static str,
    ) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let request = Request::builder().method(method).uri(target);
        let mut request = request.header(HOST, self.address.authority()).header(ACCEPT, wanted);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token.header.clone());
        }
        request.body(Full::new(body))
    }

    /// The same of an answer that was read elsewhere.
    pub fn refusal(&self, status: u16, text: Vec<u8>) -> Failure {
        let body = serde_json::from_slice(&text).unwrap_or_default();
        self.failure(&Answer { status, text: text.into(), body, next: None })
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

/// Why there is no answer.
struct Lost {
    /// There was a connection, so the gateway may have heard.
    was_asked: bool,
    error: String,
}

/// One request on a connection, and its answer.
async fn talk(stream: Connection, request: Request<Full<Bytes>>, progress: Progress<'_>) -> Result<Answer, Broken> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async move {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let is_told = head.headers.get(CONTENT_TYPE).is_some_and(|media| media == "text/event-stream");
        if let Some(progress) = progress.filter(|_| is_told) {
            return told(body, progress).await;
        }
        let text = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
        let next = head.headers.get(LINK).and_then(|link| next_page(link.to_str().ok()?));
        let body = serde_json::from_slice(&text).unwrap_or_default();
        Ok(Answer { status: head.status.as_u16(), text, body, next })
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

/// What the last event says, which is an answer as it would have come without the others.
async fn told(mut body: Incoming, progress: &dyn Fn(&str)) -> Result<Answer, Broken> {
    let mut events = Events::default();
    while let Some(frame) = body.frame().await {
        events.add(frame?.data_ref().map_or(&[], |bytes| bytes));
        while let Some((name, data)) = events.take() {
            match &*name {
                "progress" => progress(&data),
                "result" | "error" => {
                    let body: Value = serde_json::from_str(&data)?;
                    let status = body["status"].as_u64().and_then(|status| status.try_into().ok());
                    return Ok(Answer { status: status.unwrap_or(200), text: data.into(), body, next: None });
                }
                _ => {}
            }
        }
        if events.unread() > ANSWER_BYTES_MAX {
            return Err("its answer is too large".into());
        }
    }
    Err("its answer ended too early".into())
}

/// The first that is there: the lesser of two that do, since it goes over the wire as it is.
fn first<const N: usize>(tokens: [(&'static str, &Option<Secret>); N]) -> Result<Option<Token>, Failure> {
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
    fn only_a_page_of_the_same_gateway_follows() {
        assert_eq!(next_page("</api/sockets?cursor=a>; rel=\"next\""), Some("/api/sockets?cursor=a".into()));
        for link in ["<http://elsewhere/>; rel=\"next\"", "</a>; rel=\"prev\"", "/a", ""] {
            assert_eq!(next_page(link), None, "{link}");
        }
    }

    #[test]
    fn a_terminal_obeys_nothing_that_others_wrote() {
        assert_eq!(printable("a\u{1b}[31mü\n"), "a\\u{1b}[31mü\\n");
        assert_eq!(printable("\u{202e}a\u{2066}\u{200f}"), "\\u{202e}a\\u{2066}\\u{200f}");
        let shown = printable_json("{\r\n\"a\":\"ü\u{9b}31m\u{7f}\"}\n");
        assert_eq!(shown, "{ \n\"a\":\"ü\\u009b31m\\u007f\"}");
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap()["a"], "ü\u{9b}31m\u{7f}");
    }
}
