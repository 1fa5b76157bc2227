//! A client that shows a token: its socket again, and what it has missed; or somebody new.

use super::Arrival;
use crate::{auth::grants::Grants, close::Close, courier::Courier, socket::Line, sockets::Expected, upkeep};
use registry::{Attempt, Back, Chain, Incarnation, SocketId, SocketRecord, log::Entry};
use std::sync::Arc;
use tracing::info;

/// A socket that has a connection again.
pub struct Returned {
    pub record: Arc<SocketRecord>,
    pub expected: Expected,
    /// Who had it last.
    pub came_from: Incarnation,
    pub missed: Missed,
}

/// What its client has not heard.
#[derive(Default)]
pub struct Missed {
    pub is_whole: bool,
    /// It begins behind this one.
    pub seq: u64,
    /// The first of it.
    pub entries: Vec<Entry>,
}

impl Arrival {
    /// Nothing if the token is not good for it.
    pub(super) async fn come_back(
        &self,
        newcomer: &SocketRecord,
        (token, last_seq): (&str, u64),
        grants: Option<&Grants>,
        line: &Arc<Line>,
    ) -> Result<Option<Returned>, Close> {
        let Courier { registry, sockets, .. } = &self.gateway.courier;
        let opened = registry.open_token(token, newcomer.user.as_ref()).filter(|_| newcomer.resumable.is_some());
        let Some((id, n)) = opened else {
            self.gateway.metrics.came_back("invalid");
            return Ok(None);
        };
        let attempt = Attempt { n, ..newcomer.attempt };
        let mut claimant = Arc::new(SocketRecord { id, attempt, ..newcomer.clone() });
        let mut probed = false;
        loop {
            let expected = sockets.expect(&claimant, line.clone());
            // Both at once: what is logged from now on is read when it has its seat.
            let back = registry.admit_back(&claimant, self.gateway.config.cap);
            let (back, missed) = tokio::join!(back, self.missed(id, last_seq));
            let (Back { record, ghost, came_from, is_overtaken }, admission) = match back {
                Ok(back) => back,
                Err(why) => {
                    info!(socket_id = %id, request_id = self.request_id, "WebSocket not resumed: {}", why.sentence());
                    self.gateway.metrics.came_back(why.as_str());
                    return Ok(None);
                }
            };
            if let Some(ghost) = ghost {
                self.gateway.courier.send_away(&ghost, Close::Replaced).await;
            }
            if is_overtaken {
                self.gateway.metrics.came_back("used");
                return Ok(None);
            }
            if grants.is_some_and(|grants| !grants.covers(&record)) {
                // It had more than it may have now, and neither that nor what was sent to it is for this client.
                let ending = Close::CredentialEnded("credential grants less than before").ending();
                registry.unregister(record.id, record.session, ending).await;
                self.gateway.metrics.came_back("ended");
                return Ok(None);
            }
            if self.is_let_in(admission, &mut probed).await? {
                self.gateway.metrics.came_back("resumed");
                return Ok(Some(Returned { record, expected, came_from, missed }));
            }
            claimant = Arc::new(claimant.once_more(registry.incarnation(), registry.now_ms()));
        }
    }

    /// If anything of it is lost, all that was is over. Only the first of it is kept here, and looked through to the end.
    async fn missed(&self, id: SocketId, last_seq: u64) -> Missed {
        let registry = &self.gateway.courier.registry;
        let mut missed = Missed { is_whole: true, seq: last_seq, entries: Vec::new() };
        let mut at = last_seq;
        loop {
            // Without an answer it begins anew, and hears all that is found later.
            let Ok(page) = registry.read_log(id, at, upkeep::PAGE).await else {
                return Missed { seq: last_seq, ..Missed::default() };
            };
            if page.follows(at, registry.now_ms()) == Chain::Broken {
                return Missed { seq: page.tail, ..Missed::default() };
            }
            at = page.entries.last().map_or(at, |last| last.seq);
            if missed.entries.is_empty() {
                missed.entries = page.entries;
            }
            if !page.more {
                return missed;
            }
        }
    }
}
