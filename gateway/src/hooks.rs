//! The application's own endpoints: it is asked whether a socket may be opened (`connect.rs`) and what a client's
//! message means (`message.rs`), and told which sockets came and went (`events.rs`), and of the fleet (`notices.rs`). What it is sent is signed.

pub mod connect;
pub mod events;
pub mod message;
pub mod notices;
mod untold;

use crate::{
    config::{Config, HookRules},
    metrics::Metrics,
    upstream::{Answer, Bounds, Endpoint, Fault, Question, Upstream, sign::Signer},
};
use bytes::Bytes;
use message::Messages;
use notices::Notices;
use registry::{RoomName, SocketId, SocketRecord, StoreName, UserName, event};
use std::{fmt, sync::Arc};

/// What it may say to one question that is not about a client's message.
const WORD_BYTES_MAX: usize = 64 << 10;

/// Those that there are.
#[derive(Default)]
pub struct Hooks {
    pub connect: Option<Hook>,
    pub messages: Option<Messages>,
    pub events: Option<Hook>,
    pub notices: Notices,
}

impl Hooks {
    /// The error is a sentence for whoever set them.
    pub fn new(config: &Config, metrics: &Arc<Metrics>) -> Result<Self, String> {
        let HookRules { connect, message, events, within, .. } = &config.hooks;
        let hook = |name, endpoint: &Option<Endpoint>, answer_bytes_max| {
            let bounds = Bounds { within: *within, answer_bytes_max };
            let hook = |endpoint: &Endpoint| {
                let upstream = Upstream::new(name, endpoint.clone(), bounds, metrics.clone())?;
                Ok::<_, String>(Hook { upstream, signer: Signer::new(&config.hooks.secrets) })
            };
            endpoint.as_ref().map(hook).transpose()
        };
        Ok(Self {
            connect: hook("connect", connect, WORD_BYTES_MAX)?,
            messages: hook("message", message, config.body_bytes_max)?.map(Messages::new),
            events: hook("events", events, WORD_BYTES_MAX)?,
            notices: Notices::default(),
        })
    }
}

/// One of them.
pub struct Hook {
    upstream: Upstream,
    signer: Signer,
}

/// Whom a message to the application is about.
pub struct Who<'a> {
    pub socket: SocketId,
    pub user: Option<&'a UserName>,
    pub store: Option<&'a StoreName>,
    pub rooms: &'a [RoomName],
}

impl<'a> Who<'a> {
    pub fn of(record: &'a SocketRecord) -> Self {
        let SocketRecord { user, store, rooms, .. } = record;
        Self { socket: record.id, user: user.as_ref(), store: store.as_ref(), rooms }
    }
}

impl Hook {
    /// Posts JSON about somebody. By its id whoever gets it twice knows that it is the same; `parent` is the trace that it belongs to.
    pub async fn post(&self, id: &str, body: Bytes, who: &Who<'_>, parent: Option<&str>) -> Result<Answer, Fault> {
        let mut question = self.question(id, body, parent).with("x-socket-id", &who.socket.to_string());
        if let Some(user) = who.user {
            question = question.with("x-user-id", user.as_str());
        }
        if let Some(store) = who.store {
            question = question.with("x-store-id", store.as_str());
        }
        // The body has all.
        for room in event::first_of(who.rooms) {
            question = question.with("x-room-id", room.as_str());
        }
        self.upstream.ask(question).await
    }

    /// The same about nobody.
    pub async fn tell(&self, id: &str, body: Bytes) -> Result<Answer, Fault> {
        self.upstream.ask(self.question(id, body, None)).await
    }

    fn question(&self, id: &str, body: Bytes, parent: Option<&str>) -> Question {
        Question::post(body).signed(&self.signer, id, parent)
    }

    /// Says in the log how it goes, if it goes otherwise than before.
    pub fn fares(&self, how: Result<(), &dyn fmt::Display>) {
        self.upstream.fares(how);
    }
}
