//! The way to the gateway that is measured: everybody here goes it as clients do.

use super::reasons::refusal;
use crate::client::{
    address::{Address, Place},
    asking::{PATIENCE, Remote},
    dial::{self, Connection, Trust},
    socket::{self, Socket},
    talk::{self, Asked},
};
use serde_json::Value;
use std::time::Duration;
use tokio::time::timeout;

/// For an answer; more than a call is given here.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
const ANSWER_BYTES_MAX: usize = 1 << 20;

pub struct Way {
    pub remote: Remote,
    /// The gateway wants to be told whose each connection is; what stands in front of it does not.
    pub preamble: bool,
    pub place: Place,
    pub trust: Trust,
    /// What every socket shows.
    pub headers: Vec<(&'static str, String)>,
}

impl Way {
    /// Whether sockets may name themselves.
    pub fn is_nobody(&self) -> bool {
        self.headers.is_empty() && !self.place.names_somebody()
    }

    pub fn address(&self) -> &Address {
        &self.remote.address
    }

    pub async fn dial(&self) -> Result<Connection, String> {
        let dialled = dial::dial(self.address(), self.trust, self.preamble, PATIENCE).await;
        dialled.map(|dialled| dialled.connection).map_err(|why| why.to_string())
    }

    /// A question that anybody may put.
    pub fn gets(&self, path: &str) -> Asked {
        self.dressed(Asked::new("GET", format!("{}{path}", self.place.prefix)))
    }

    /// One for which the token is wanted, if there is one.
    pub fn posts(&self, path: &str, body: &Value) -> Asked {
        let asked = self.dressed(Asked::post(format!("{}{path}", self.place.prefix), body));
        match self.remote.bearer() {
            Some(bearer) => asked.with("Authorization", bearer),
            None => asked,
        }
    }

    fn dressed(&self, asked: Asked) -> Asked {
        asked.with("Host", self.address().authority()).with("User-Agent", "holdfast-bench")
    }

    /// Opens a socket with these names, unless the gateway refuses it; then it is said why.
    pub async fn opens(&self, names: &str) -> Result<Socket, String> {
        let Place { prefix, door, query } = &self.place;
        let names = [names, query].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("&");
        let mark = if names.is_empty() { "" } else { "?" };
        let asked = Asked::new("GET", format!("{prefix}{door}{mark}{names}")).with("Host", self.address().authority());
        let asked = self.headers.iter().fold(asked, |asked, (name, value)| asked.with(name, &**value));
        let (asked, key) = socket::knock(asked);
        let connection = self.dial().await?;
        let mut heard = timeout(ANSWER_WITHIN, talk::ask(connection, &asked)).await.map_err(|_| silent())??;
        if heard.status == 101 {
            return Socket::of(heard, &key);
        }
        let body = timeout(ANSWER_WITHIN, heard.whole(ANSWER_BYTES_MAX)).await.map_err(|_| silent())??;
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        Err(refusal(heard.status, &problem))
    }
}

/// Questions one after the other, over one connection as long as it lasts.
pub struct Line<'a> {
    way: &'a Way,
    kept: Option<Connection>,
}

impl<'a> Line<'a> {
    pub fn of(way: &'a Way) -> Self {
        Self { way, kept: None }
    }

    /// The answer: its status, and its body read as JSON where it is.
    pub async fn ask(&mut self, asked: &Asked) -> Result<(u16, Value), String> {
        timeout(ANSWER_WITHIN, self.exchange(asked)).await.unwrap_or_else(|_| Err(silent()))
    }

    async fn exchange(&mut self, asked: &Asked) -> Result<(u16, Value), String> {
        let connection = match self.kept.take() {
            Some(kept) => kept,
            None => self.way.dial().await?,
        };
        let mut heard = talk::ask(connection, asked).await?;
        let body = heard.whole(ANSWER_BYTES_MAX).await?;
        let header = |name: &str| heard.header(name).unwrap_or_default();
        let has_end = !header("content-length").is_empty() || !header("transfer-encoding").is_empty();
        let lasts = has_end && !header("connection").eq_ignore_ascii_case("close");
        let status = heard.status;
        let (connection, unread) = heard.into_parts();
        self.kept = Some(connection).filter(|_| lasts && unread.is_empty());
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }
}

fn silent() -> String {
    format!("no answer within {} s", ANSWER_WITHIN.as_secs())
}
