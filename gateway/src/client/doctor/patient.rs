//! Who is looked at, and how it is asked: over a connection of its own each time, as strangers come.

use crate::client::{
    address::Address,
    asking::PATIENCE,
    dial::{self, Dialled, Trust, Unreached},
    socket::{self, Socket},
    talk::{self, Asked, Heard},
};
use serde_json::Value;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// No answer of a gateway that is looked at here is larger, the list of its metrics aside.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How long a gateway that limits how often somebody knocks is waited for, each time.
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// Whoever says "at once" and refuses again would be asked for ever.
const AGAIN_MIN: Duration = Duration::from_secs(1);
/// So much is repeated of what a server says.
const WORDS_MAX: usize = 500;
/// What a client shows of himself.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// What it is called in a report.
    pub name: &'static str,
    pub header: Option<(&'static str, String)>,
}

/// A gateway, maybe behind a proxy.
#[derive(Clone)]
pub struct Patient {
    pub address: Address,
    /// In front of every path.
    pub prefix: String,
    /// Where sockets are opened.
    pub door: String,
    pub query: String,
    pub trust: Trust,
    pub preamble: bool,
    /// With what sockets are opened.
    pub shown: Shown,
    /// `Bearer …`, for the server plane. Not everybody who is asked may see it.
    pub bearer: Option<String>,
    /// What is configured here: it may see the token whatever its address is.
    pub listener: Option<Address>,
    /// Whoever asks has said that what he names may see it, too.
    pub with_token: bool,
    pub origin: Option<String>,
    /// Listeners of instances, for what the proxy does not pass on.
    pub direct: Vec<Address>,
    /// Those want to be told whose each connection is.
    pub direct_preamble: bool,
}

/// What came back, read.
pub struct Answer {
    pub status: u16,
    pub body: Value,
    pub text: String,
    pub heard: Heard,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.heard.header(name)
    }

    pub fn status_line(&self) -> &str {
        self.heard.status_line()
    }

    /// Which instance says that it has answered.
    pub fn instance(&self) -> Option<&str> {
        self.header("x-holdfast-instance")
    }

    /// What a problem says of itself, in words for a line.
    pub fn problem(&self) -> String {
        let said = |name: &str| self.body[name].as_str().unwrap_or_default();
        match (said("title"), said("detail")) {
            ("", _) => self.status_line().to_owned(),
            (title, "") => format!("{}, {title}", self.status),
            (title, detail) => format!("{}, {title}: {detail}", self.status),
        }
    }

    /// What it says that helps, told as its words: whoever answers may be a stranger, and nobody should paste them.
    pub fn hint(&self) -> Option<String> {
        let hint = self.body["hint"].as_str().filter(|hint| !hint.is_empty())?;
        Some(words_of_the_server(hint))
    }
}

/// A handshake, both sides of it.
pub struct Knock {
    pub answer: Result<Socket, Box<Answer>>,
    pub lines: Vec<String>,
    pub instance: Option<String>,
    pub request_id: Option<String>,
}

impl Patient {
    /// Whether it may well be an instance itself, asked on its own machine: no proxy has said a word. A gateway speaks no TLS.
    pub fn is_direct(&self, heard: &Heard) -> bool {
        let is_silent = heard.header("server").is_none() && heard.header("via").is_none();
        self.address.is_here() && !self.address.is_tls && is_silent
    }

    pub async fn dial(&self) -> Result<Dialled, Unreached> {
        dial::dial(&self.address, self.trust, self.preamble, PATIENCE).await
    }

    /// A request for this path, as everybody's begins.
    pub fn asked(&self, method: &'static str, path: &str) -> Asked {
        self.dressed(Asked::new(method, format!("{}{path}", self.prefix)), &self.address)
    }

    /// With what each of them says.
    pub fn dressed(&self, asked: Asked, address: &Address) -> Asked {
        asked.with("Host", address.authority()).with("User-Agent", "holdfast-doctor")
    }

    /// Asks, and reads the head of the answer. Where a doctor knocks too often he comes again.
    pub async fn begin(&self, asked: &Asked) -> Result<Heard, String> {
        let mut patience = AGAIN_MAX;
        loop {
            let dialled = self.dial().await.map_err(|unreached| unreached.to_string())?;
            let heard = timeout(PATIENCE, talk::ask(dialled.connection, asked)).await;
            let heard = heard.map_err(|_| silent(PATIENCE))??;
            let after = heard.header("retry-after").and_then(|after| after.parse().ok()).map(Duration::from_secs);
            let after = after.map(|after| after.max(AGAIN_MIN));
            match after.filter(|after| heard.status == 429 && *after <= patience) {
                Some(after) => {
                    patience -= after;
                    sleep(after).await;
                }
                None => return Ok(heard),
            }
        }
    }

    pub async fn ask(&self, asked: Asked) -> Result<Answer, String> {
        self.read(self.begin(&asked.with("Connection", "close")).await?).await
    }

    async fn read(&self, mut heard: Heard) -> Result<Answer, String> {
        let text = timeout(PATIENCE, heard.whole(ANSWER_BYTES_MAX)).await.map_err(|_| silent(PATIENCE))??;
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(Answer { status: heard.status, body: serde_json::from_str(&text).unwrap_or_default(), text, heard })
    }

    pub async fn get(&self, path: &str) -> Result<Answer, String> {
        self.ask(self.asked("GET", path)).await
    }

    /// The same with the token of the server plane.
    pub async fn get_as_server(&self, path: &str) -> Result<Answer, String> {
        self.ask(self.as_server(self.asked("GET", path))).await
    }

    pub async fn post_as_server(&self, path: &str, body: &Value) -> Result<Answer, String> {
        let asked = Asked::post(format!("{}{path}", self.prefix), body);
        self.ask(self.as_server(self.dressed(asked, &self.address))).await
    }

    fn as_server(&self, asked: Asked) -> Asked {
        match &self.bearer {
            Some(bearer) if self.withheld().is_none() => asked.with("Authorization", &**bearer),
            _ => asked,
        }
    }

    /// Why whoever is asked here does not see the token: a name that was mistyped may be anybody's, and so may be who
    /// answers to it.
    fn withheld(&self) -> Option<&'static str> {
        let (is_tls, is_ours) = (self.address.is_tls, self.listener.as_ref() == Some(&self.address));
        match is_tls {
            true if self.trust == Trust::Anybody => {
                Some("no token is shown where the certificate is not looked at: leave --insecure out")
            }
            _ if self.address.is_here() || is_ours || (is_tls && self.with_token) => None,
            true => Some("it was not shown the token that is configured here: if it is yours, add --with-token"),
            false => Some(
                "no token goes to another machine in clear: name it with https:// and add --with-token, or run the doctor on that machine",
            ),
        }
    }

    /// What only the server plane tells: here, or of an instance that was named. The error says why nobody tells it.
    pub async fn told(&self, path: &str) -> Result<Answer, String> {
        let mut why = String::new();
        for place in self.places() {
            match place.get_as_server(path).await {
                Ok(answer) if answer.status == 200 && !answer.text.is_empty() => return Ok(answer),
                Ok(answer) => why = place.closed(path, &answer),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// Why something is not told here, and where it would be.
    pub fn closed(&self, path: &str, answer: &Answer) -> String {
        let withheld = self.withheld().filter(|_| self.bearer.is_some() && answer.instance().is_some());
        let mend = match (answer.status, &self.bearer) {
            (401 | 403, _) if withheld.is_some() => withheld.unwrap_or_default(),
            (401 | 403, Some(_)) if answer.instance().is_some() => {
                "give the doctor the API_TOKEN and ADMIN_TOKEN of this gateway, by environment or --config"
            }
            (401, None) if answer.instance().is_some() => {
                "give the doctor its API_TOKEN, by environment or --config, or ask an instance on its own machine with --direct http://127.0.0.1:PORT"
            }
            _ => "name an instance's own listener with --direct http://host:port",
        };
        format!("{path} answers {} here; {mend}", answer.status)
    }

    /// This one, and each instance that was named.
    pub fn places(&self) -> impl Iterator<Item = Self> + '_ {
        let direct = self.direct.iter().map(|address| Self {
            address: address.clone(),
            prefix: String::new(),
            preamble: self.direct_preamble,
            ..self.clone()
        });
        std::iter::once(self.clone()).chain(direct)
    }

    /// What is asked at a door, with the names and the credential that a client would bring.
    pub fn at_door(&self, path: &str, more: &str, shown: &Shown) -> Asked {
        let query = [more, &self.query].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("&");
        let target = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let mut asked = self.asked("GET", &target);
        if let Some(origin) = &self.origin {
            asked = asked.with("Origin", &**origin);
        }
        match &shown.header {
            Some((name, value)) => asked.with(name, &**value),
            None => asked,
        }
    }

    /// Opens a socket, and keeps both sides of the handshake.
    pub async fn knock(&self) -> Result<Knock, String> {
        self.knock_as(&self.shown).await
    }

    pub async fn knock_as(&self, shown: &Shown) -> Result<Knock, String> {
        let (asked, key) = socket::knock(self.at_door(&self.door, "", shown));
        let heard = self.begin(&asked).await?;
        let sides = [('>', asked.lines()), ('<', heard.lines())];
        let lines = sides.iter().flat_map(|(side, lines)| lines.iter().map(move |line| format!("{side} {line}")));
        let lines = lines.collect();
        let header = |name: &str| heard.header(name).map(str::to_owned);
        let (instance, request_id) = (header("x-holdfast-instance"), header("x-request-id"));
        let answer = match heard.status {
            101 => Ok(Socket::of(heard, &key)?),
            _ => Err(Box::new(self.read(heard).await?)),
        };
        Ok(Knock { answer, lines, instance, request_id })
    }
}

/// On one line, since only what the doctor itself says begins another.
pub fn words_of_the_server(text: &str) -> String {
    let text: String = text.chars().take(WORDS_MAX).collect();
    format!("the server says: {}", text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn silent(patience: Duration) -> String {
    format!("it did not answer within {} s", patience.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_to_nobody_who_may_be_a_stranger() {
        let of = |url: &str, trust, with_token| Patient {
            address: url.parse().unwrap(),
            prefix: String::new(),
            door: "/ws".into(),
            query: String::new(),
            trust,
            preamble: false,
            shown: Shown::default(),
            bearer: Some("Bearer hush".into()),
            listener: Some("http://10.0.0.1:8080".parse().unwrap()),
            with_token,
            origin: None,
            direct: vec!["http://127.0.0.1:1".parse().unwrap(), "http://web2:1".parse().unwrap()],
            direct_preamble: false,
        };
        let sees = |patient: &Patient| patient.as_server(patient.asked("GET", "/")).lines().concat().contains("***");
        for (url, trust, with_token, shown) in [
            ("http://127.0.0.1:1", Trust::Checked, false, true),
            ("http://localhost:1", Trust::Anybody, false, true),
            ("http://10.0.0.1:8080", Trust::Checked, false, true),
            ("http://10.0.0.1:8081", Trust::Checked, false, false),
            ("http://web1", Trust::Checked, true, false),
            ("https://web1", Trust::Checked, false, false),
            ("https://web1", Trust::Checked, true, true),
            ("https://web1", Trust::Anybody, true, false),
            ("https://localhost", Trust::Anybody, true, false),
        ] {
            let patient = of(url, trust, with_token);
            assert_eq!(sees(&patient), shown, "{url} {trust:?} {with_token}");
            assert_eq!(patient.places().map(|place| sees(&place)).collect::<Vec<_>>(), [shown, true, false], "{url}");
        }
    }

    #[test]
    fn what_a_server_says_is_told_as_its_words() {
        assert_eq!(words_of_the_server("a\n  fix: b"), "the server says: a fix: b");
    }
}
