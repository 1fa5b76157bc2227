//! Asking an application's own HTTP endpoint, so that it can never hurt us: bounded in time, in size, in how many ask
//! at once, and left alone for a while when it does not answer. Redirects are not followed.

mod breaker;
mod endpoint;
mod mood;
pub mod sign;
mod trace;

pub use endpoint::Endpoint;

use crate::metrics::{Metrics, Upstream as Asked, UpstreamName};
use breaker::Breaker;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request,
    body::{Body, Incoming},
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use mood::Mood;
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use sign::Signer;
use std::{
    error::Error,
    fmt,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout, timeout_at},
};
use tracing::{debug, info, warn};

/// Questions under way at once; each holds a connection to the application.
pub const AT_ONCE: usize = 128;
/// Those that wait for their turn beside them. Whoever comes then is told at once to come again.
const WAITING_MAX: usize = 1024;
/// A connection that rests is closed before the servers that people use would close it (gunicorn does after two
/// seconds): what is written into one that is just being closed is lost.
const RESTS: Duration = Duration::from_millis(1500);
/// Who asks.
const AGENT: &str = concat!("holdfast/", env!("CARGO_PKG_VERSION"));
/// A head may be this large.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// What is asked.
#[derive(Clone)]
pub struct Question {
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

impl Question {
    pub fn get() -> Self {
        Self { method: Method::GET, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// With JSON.
    pub fn post(body: Bytes) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self { method: Method::POST, headers, body }
    }

    /// With one more header; a value that no header can hold is left out.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            self.headers.append(HeaderName::from_static(name), value);
        }
        self
    }

    /// Under an id, signed, and in the trace `parent` if there is one.
    #[must_use]
    pub fn signed(self, signer: &Signer, id: &str, parent: Option<&str>) -> Self {
        let signed = signer.headers(id, &self.body);
        let traced = self.with("traceparent", &trace::below(parent));
        signed.into_iter().fold(traced, |question, (name, value)| question.with(name, &value))
    }

    /// With a credential, without which it must not be asked.
    pub fn bearing(mut self, name: &'static str, value: &str) -> Option<Self> {
        let mut value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        value.set_sensitive(true);
        self.headers.insert(HeaderName::from_static(name), value);
        Some(self)
    }
}

/// What came back, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
    headers: HeaderMap,
}

impl Answer {
    #[cfg(test)]
    pub fn of(status: u16, header: Option<(&'static str, &'static str)>, body: &str) -> Self {
        let headers = header.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        Self { status, body: Bytes::copy_from_slice(body.as_bytes()), headers: headers.into_iter().collect() }
    }

    pub fn header(&self, name: &'static str) -> Option<&str> {
        std::str::from_utf8(self.headers.get(name)?.as_bytes()).ok()
    }
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Too many ask.
    Busy,
    /// It failed again and again, and is left alone for so long.
    Resting(Duration),
    Timeout,
    Unreachable,
    /// It answered nothing that is HTTP.
    Unreadable,
    /// Its answer broke off.
    CutOff,
    /// It answered more than anybody may say here.
    TooLarge,
}

impl Fault {
    /// After how many seconds it makes sense to ask again.
    pub fn retry_after(self) -> u64 {
        match self {
            Self::Resting(left) => left.as_secs() + 1,
            _ => 1,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Resting(_) => "resting",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Unreadable => "unreadable",
            Self::CutOff => "cut_off",
            Self::TooLarge => "too_large",
        }
    }
}

/// For whoever asked; where the application is, is for the log.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "too many ask the application at this moment",
            Self::Resting(_) => "the application did not answer, again and again, and is left alone for some seconds",
            Self::Timeout => "the application did not answer in time",
            Self::Unreachable => "the application cannot be reached",
            Self::Unreadable => "the application's answer cannot be read",
            Self::CutOff => "the application's answer broke off",
            Self::TooLarge => "the application's answer is too large",
        })
    }
}

/// How much an application may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// From the question to the last byte of the answer; half of it more is waited for a turn.
    pub within: Duration,
    pub answer_bytes_max: usize,
}

/// One endpoint.
pub struct Upstream {
    /// What it is for, in logs and metrics.
    name: &'static str,
    endpoint: Endpoint,
    bounds: Bounds,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    turns: Semaphore,
    waiting: AtomicUsize,
    breaker: Mutex<Breaker>,
    mood: Mood,
    metrics: Arc<Metrics>,
}

/// Whom this machine trusts, or `SSL_CERT_FILE` says.
static TRUST: LazyLock<Result<Arc<ClientConfig>, &'static str>> = LazyLock::new(|| {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(
            "this machine has no certificates to check it by: install ca-certificates, or name a file of them \
                    in SSL_CERT_FILE",
        );
    }
    tls(roots)
});

/// TLS with whom this machine trusts; the error is a sentence for whoever wants it.
pub fn trust() -> Result<Arc<ClientConfig>, &'static str> {
    TRUST.clone()
}

fn tls(roots: RootCertStore) -> Result<Arc<ClientConfig>, &'static str> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().map_err(|_| "TLS cannot be spoken here")?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// Whether an endpoint can be asked from here at all; the error is a sentence for whoever set it.
pub fn check(endpoint: &Endpoint) -> Result<(), &'static str> {
    match endpoint.is_tls() {
        true => TRUST.as_ref().map(drop).map_err(|sentence| *sentence),
        false => Ok(()),
    }
}

impl Upstream {
    /// The error is a sentence for whoever set it.
    pub fn new(
        name: &'static str,
        endpoint: Endpoint,
        bounds: Bounds,
        metrics: Arc<Metrics>,
    ) -> Result<Self, &'static str> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(bounds.within));
        let config = match endpoint.is_tls() {
            true => TRUST.clone()?,
            // Nothing is read from the disk for what is never used.
            false => tls(RootCertStore::empty())?,
        };
        let tls = HttpsConnectorBuilder::new().with_tls_config(ClientConfig::clone(&config));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(RESTS)
            .pool_max_idle_per_host(AT_ONCE)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(tls.https_or_http().enable_http1().wrap_connector(connector));
        Ok(Self {
            name,
            endpoint,
            bounds,
            client,
            turns: Semaphore::new(AT_ONCE),
            waiting: AtomicUsize::new(0),
            breaker: Mutex::default(),
            mood: Mood::default(),
            metrics,
        })
    }

    /// Asks. Whatever the status is, it is an answer; what it means is for whoever asks to say.
    pub async fn ask(&self, question: Question) -> Result<Answer, Fault> {
        let began = Instant::now();
        let within = self.bounds.within;
        let asked = async {
            let _turn = self.turn(began + within / 2).await?;
            self.breaker().enter(within).map_err(Fault::Resting)?;
            let asking = Asking { upstream: self, is_judged: false };
            // All of the time, however long it took to get a turn: too slow is the application, and not the crowd.
            let answer = timeout(within, self.answer_to(question)).await.unwrap_or(Err(Fault::Timeout));
            asking.judge(&answer);
            answer
        };
        let answer = asked.await;
        let outcome = answer.as_ref().map_or_else(|fault| fault.as_str(), |answer| outcome(answer.status));
        let upstream = self.name;
        self.metrics.upstreams.of(Asked { upstream, outcome }).inc();
        self.metrics.upstream_seconds.of(UpstreamName { upstream }).observe(began.elapsed().as_secs_f64());
        answer
    }

    async fn turn(&self, until: Instant) -> Result<SemaphorePermit<'_>, Fault> {
        if let Ok(turn) = self.turns.try_acquire() {
            return Ok(turn);
        }
        let _waiting = Waiting::among(&self.waiting).ok_or(Fault::Busy)?;
        match timeout_at(until, self.turns.acquire()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Fault::Busy),
        }
    }

    /// An application that closes a connection in the moment in which we write has not read it, and is asked once more.
    /// Should it have read it after all: what it gets twice it gets under the same id.
    async fn answer_to(&self, question: Question) -> Result<Answer, Fault> {
        match self.exchange(question.clone()).await {
            Err(Failure { was_closed: true, .. }) => self.exchange(question).await,
            first => first,
        }
        .map_err(|failure| failure.fault)
    }

    async fn exchange(&self, Question { method, headers, body }: Question) -> Result<Answer, Failure> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.endpoint.uri();
        *request.headers_mut() = headers;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if let Some(login) = self.endpoint.login() {
            headers.entry(AUTHORIZATION).or_insert(login);
        }
        let response = self.client.request(request).await.map_err(|fault| {
            debug!("{} at {}: {}", self.name, self.endpoint, chain(&fault));
            let inner = fault.source().and_then(|source| source.downcast_ref::<hyper::Error>());
            let was_closed = inner.is_some_and(|fault| fault.is_incomplete_message() || fault.is_canceled());
            Failure { fault: if fault.is_connect() { Fault::Unreachable } else { Fault::Unreadable }, was_closed }
        })?;
        let (head, body) = response.into_parts();
        let (status, headers) = (head.status.as_u16(), head.headers);
        let body = match self.read(body).await {
            Ok(body) => body,
            // What a refusal says beside its status nobody looks at; some hang up behind it.
            Err(_) if !head.status.is_success() => Bytes::new(),
            Err(fault) => return Err(Failure { fault, was_closed: false }),
        };
        Ok(Answer { status, body, headers })
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, Fault> {
        if body.size_hint().lower() > self.bounds.answer_bytes_max as u64 {
            return Err(Fault::TooLarge);
        }
        let body = Limited::new(body, self.bounds.answer_bytes_max).collect().await.map_err(|fault| {
            if fault.is::<LengthLimitError>() {
                return Fault::TooLarge;
            }
            debug!("{} at {}: {fault}", self.name, self.endpoint);
            Fault::CutOff
        })?;
        Ok(body.to_bytes())
    }

    /// Says in the log how it goes, if it goes otherwise than before. Whoever asked knows whether an answer was one.
    pub fn fares(&self, how: Result<(), &dyn fmt::Display>) {
        match how {
            Ok(()) => {
                if let Some(span) = self.mood.well() {
                    info!(
                        upstream = self.name,
                        "{} answers as it should again, after {} s",
                        self.endpoint,
                        span.as_secs()
                    );
                }
            }
            Err(why) if self.mood.ill() => {
                warn!(upstream = self.name, "{} fails: {why} (said once a minute at most)", self.endpoint);
            }
            Err(_) => {}
        }
    }

    /// A panic while it was held leaves what can be used: every step is whole.
    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why one exchange came to nothing.
struct Failure {
    fault: Fault,
    /// The connection ended before a byte of an answer.
    was_closed: bool,
}

/// A question on its way. Whoever leaves before its end makes way for another who finds out.
struct Asking<'a> {
    upstream: &'a Upstream,
    is_judged: bool,
}

impl Asking<'_> {
    /// Only what says that the application is not there counts against it: an answer that one question was met with
    /// says nothing of the next.
    fn judge(mut self, answer: &Result<Answer, Fault>) {
        let is_away = match answer {
            Ok(answer) => (502..=504).contains(&answer.status),
            Err(Fault::TooLarge | Fault::CutOff) => false,
            Err(_) => true,
        };
        self.is_judged = true;
        self.upstream.breaker().note(is_away);
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if !self.is_judged {
            self.upstream.breaker().leave();
        }
    }
}

/// Counted for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    /// Nothing if there are enough.
    fn among(all: &'a AtomicUsize) -> Option<Self> {
        let one_more = |waiting| (waiting < WAITING_MAX).then_some(waiting + 1);
        all.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok().map(|_| Self(all))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn outcome(status: u16) -> &'static str {
    match status {
        200..=299 => "ok",
        400..=499 => "refused",
        _ => "failed",
    }
}

/// What lies behind a fault. None of it holds what was asked.
fn chain(fault: &dyn Error) -> String {
    let mut text = fault.to_string();
    let mut source = fault.source();
    while let Some(fault) = source {
        text.push_str(&format!(": {fault}"));
        source = fault.source();
    }
    text
}
