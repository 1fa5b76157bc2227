//! Finding out which holders of a place are alive, when a newcomer wants it: so that a connection
//! that is half open locks nobody out.

use crate::{close::Close, courier::Courier};
use bytes::Bytes;
use futures_util::future::{join, join_all};
use registry::{Incarnation, Session, SocketId, SocketRecord, envelope::Message};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};

/// How long a holder may take to show that it lives.
pub const PROBE: Duration = Duration::from_secs(2);
/// How often the probe looks.
const LOOK: Duration = Duration::from_millis(50);

/// Has every holder pinged by its owner, who parts with those that stay silent. Returns as soon as
/// all have spoken. An owner that does not answer keeps its holders: nobody knows that they are dead.
pub async fn fleet(courier: &Courier, holders: &[Arc<SocketRecord>]) {
    let until = Instant::now() + PROBE;
    let own = courier.registry.incarnation();
    let mut owners = BTreeMap::<Incarnation, Vec<(SocketId, Session)>>::new();
    for record in holders {
        // By the table first: a row may still name an earlier life of this instance.
        let owner = if courier.sockets.get(record.id).is_some() { &own } else { &record.owner };
        owners.entry(owner.clone()).or_default().push((record.id, record.session));
    }
    let here_asked = owners.remove(&own).unwrap_or_default();
    let there = join_all(owners.into_iter().map(|(owner, sockets)| async move {
        // Whom the newcomer may replace is asked of the registry afterwards.
        let _ = courier.letters.ask(&owner, Message::Probe { sockets }, Bytes::new(), until).await;
    }));
    join(here(courier, &here_asked, PROBE), there).await;
}

/// The same for sockets that are held here. Returns those that stayed silent, and are gone.
pub async fn here(courier: &Courier, asked: &[(SocketId, Session)], patience: Duration) -> Vec<SocketId> {
    let until = Instant::now() + patience;
    // From the next millisecond on: what was heard in this one may have been before the ping.
    let asked_at = crate::clock::now_ms().wrapping_add(1);
    sleep(Duration::from_millis(2)).await;
    let seated = asked
        .iter()
        .filter_map(|(id, session)| courier.sockets.get(*id).filter(|socket| socket.record().session == *session));
    let mut silent: Vec<_> = seated.collect();
    silent.iter().for_each(|socket| socket.line.ping(asked_at));
    while !silent.is_empty() && Instant::now() < until {
        sleep(LOOK).await;
        silent.retain(|socket| !socket.line.heard_since(asked_at));
    }
    let mut gone = Vec::with_capacity(silent.len());
    for socket in silent {
        courier.close(&socket, Close::Replaced).await;
        gone.push(socket.id);
    }
    gone
}
