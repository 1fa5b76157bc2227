//! From 101 to the first frame: the short phase in which a connection becomes a socket. It ends by
//! starting the long-lived task, which is small because nothing of this phase is left in it.

mod back;

use crate::{
    admission::names::Names,
    auth::ends,
    close::{Close, TOO_MANY_CONNECTIONS},
    courier::{After, Courier},
    feed,
    frame::{self, Greeting, Lasting},
    gateway::Gateway,
    http::head::{HeadTimed, Turn},
    metrics::CauseLabel,
    probe,
    session::Session,
    socket::{
        Connection, Conversation, End, Line, Reaction, Said,
        listen::{self, Word},
    },
    sockets::{Expected, Seat, Socket},
};
use back::{Missed, Returned};
use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use registry::{Admission, Attempt, Cause, Ending, Group, Resumable, SocketId, SocketRecord, epoch_ms};
use std::{net::IpAddr, sync::Arc};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::Instant,
};
use tracing::{Level, debug, enabled, info, warn};

/// Ids in one log line.
const IDS_LOGGED_MAX: usize = 20;

/// Somebody who was answered 101.
pub struct Arrival {
    pub gateway: Arc<Gateway>,
    /// Made before the 101, so that ids stand in the order in which the clients heard it, unless the application was asked
    /// before.
    pub id: SocketId,
    pub address: IpAddr,
    pub request_id: String,
    pub began: Instant,
    /// Held for as long as the socket's descriptor is open.
    pub place: Option<OwnedSemaphorePermit>,
}

/// What admission decided.
pub enum Welcome {
    Enter(Names),
    /// Accepted only to be told on the socket.
    Refuse(Close),
}

/// Takes the connection over from hyper.
pub async fn run(arrival: Arrival, on_upgrade: OnUpgrade, welcome: Welcome) {
    let upgraded = match on_upgrade.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            return debug!(
                request_id = arrival.request_id,
                "WebSocket error: the client left before 101 was sent: {error}"
            );
        }
    };
    let Ok(parts) = upgraded.downcast::<TokioIo<HeadTimed>>() else { return };
    let stream = parts.io.into_inner().into_inner();
    // Copied: even an empty slice would keep hyper's whole read buffer for the life of the socket.
    let early = Bytes::copy_from_slice(&parts.read_buf);
    match welcome {
        Welcome::Enter(names) => arrival.enter(stream, early, names).await,
        Welcome::Refuse(close) => arrival.turn_away(stream, close).await,
    }
}

impl Arrival {
    async fn enter(mut self, stream: TcpStream, early: Bytes, names: Names) {
        let place = self.place.take();
        let gateway = self.gateway.clone();
        let line = Arc::new(Line::new(gateway.config.queue_bytes_max));
        let (seat, greeting) = match self.sit_down(names, &line).await {
            Ok(seated) => seated,
            Err(close) => return self.turn_away(stream, close).await,
        };
        let session = Session::new(gateway.desk.clone(), seat.socket.clone(), greeting);
        let connection = Connection::new(stream, early, line, Some(gateway.config.message_bytes_max), session);
        gateway.socket_tasks.spawn(live(gateway.clone(), connection, seat, place));
    }

    /// Somebody who only listens, and has no connection of its own: a socket all the same. `welcome` hears whether it
    /// was let in.
    pub async fn listen(
        self,
        names: Names,
        listener: mpsc::Sender<Word>,
        welcome: oneshot::Sender<Result<(), Close>>,
        turn: Turn,
    ) {
        let line = Arc::new(Line::one_way(self.gateway.config.queue_bytes_max));
        let seat = match self.sit_down(names, &line).await {
            Ok((seat, _)) => seat,
            Err(close) => return drop(welcome.send(Err(close))),
        };
        // Who has left meanwhile does not listen either.
        let _ = welcome.send(Ok(()));
        let ending = match listen::listen(&line, &listener).await {
            Ok(close) => close.ending(),
            Err(listen::Left) => listen::left(turn.is_broken()),
        };
        line.close(Close::Asked(Box::new(ending.clone())));
        leave(&self.gateway, seat, &ending).await;
    }

    /// Takes a seat: from here on it is found, and written to.
    async fn sit_down(&self, names: Names, line: &Arc<Line>) -> Result<(Seat, Greeting), Close> {
        let gateway = &self.gateway;
        let silent = names.silent;
        let (comeback, grants, state) = (names.comeback.clone(), names.grants.clone(), names.state.clone());
        let newcomer = self.newcomer(names, line.can_answer());
        let token = comeback.as_ref().and_then(|comeback| Some((comeback.token.as_deref()?, comeback.last_seq)));
        let back = match token {
            Some((token, last_seq)) => self.come_back(&newcomer, (token, last_seq), grants.as_deref(), line).await?,
            None => None,
        };
        let (record, expected, came_from, missed) = match back {
            Some(Returned { record, expected, came_from, missed }) => (record, expected, Some(came_from), missed),
            None => {
                let (record, expected) = self.admit(newcomer, line).await?;
                (record, expected, None, Missed::default())
            }
        };
        let lasting = record.resumable.map(|_| {
            let (token, came_from) = (gateway.courier.registry.token(&record), came_from.clone());
            Box::new(Lasting { resumed: missed.is_whole, token, seq: missed.seq, came_from })
        });
        let greeting = Greeting {
            socket: record.id,
            instance: gateway.instance.clone(),
            ping_interval_seconds: gateway.config.ping_interval.as_secs_f64(),
            state,
            lasting,
        };
        if came_from.is_some() {
            line.awaits_first_word();
        }
        if !silent {
            // Written only now that the registry holds the socket.
            let hi = greeting.hi(gateway.courier.registry.now_ms());
            let bytes = hi.len();
            let mut frames = vec![hi];
            match missed.is_whole {
                true => frames.extend(missed.entries.iter().map(|entry| frame::numbered(&entry.text, entry.seq))),
                false => frames.push(frame::reset()),
            }
            // Refused only if it was told to go already.
            if line.greet(&frames).is_ok() {
                debug!(socket_id = %record.id, bytes, after_ms = self.after_ms(), "Initial 'hi' message sent");
            }
        }
        let written = missed.entries.last().map_or(missed.seq, |last| last.seq);
        let socket = Arc::new(Socket::lasting(record.clone(), line.clone(), written, grants));
        gateway.metrics.opened.inc();
        let seat = expected.enter(socket);
        let come = async {
            match seat.socket.cursor {
                // What was logged before it had its seat was told to nobody.
                Some(_) => gateway.courier.upkeep.seated(&seat.socket),
                None => gateway.courier.came(&seat.socket).await,
            }
        };
        let told = async {
            // Before its own end can be told.
            if came_from.is_none() {
                gateway.courier.registry.connected(&record).await;
            }
        };
        tokio::join!(told, come);
        // What it came in with may be good no more by now.
        if let Some(grants) = &seat.socket.grants {
            gateway.ends.watch(&record, grants.until);
            ends::look(gateway, &seat.socket).await;
        }
        if gateway.draining.is_cancelled() {
            // The drain may have walked past before the seat was taken.
            line.close(Close::Restart);
        }
        debug!(socket_id = %record.id, request_id = self.request_id, after_ms = self.after_ms(), "WebSocket accepted, WebSocket pair created");
        announce(gateway, &record);
        match came_from {
            Some(from) => {
                info!(socket_id = %record.id, attempt = record.attempt.n, "WebSocket resumed: it was on {} before", from.instance());
                gateway.desk.feed.tell("resumed", || feed::socket(&record));
            }
            None => gateway.desk.feed.tell("connected", || feed::socket(&record)),
        }
        gateway.metrics.hello_seconds.observe(self.began.elapsed().as_secs_f64());
        Ok((seat, greeting))
    }

    /// Somebody who was never here.
    fn newcomer(&self, names: Names, can_come_back: bool) -> Arc<SocketRecord> {
        let Names { user, store, rooms, client, comeback, .. } = names;
        let registry = &self.gateway.courier.registry;
        let window = self.gateway.config.resume_window.filter(|_| can_come_back && comeback.is_some());
        Arc::new(SocketRecord {
            id: self.id,
            session: registry::Session::fresh(),
            owner: registry.incarnation(),
            attempt: Attempt::first(registry.now_ms()),
            user,
            store,
            rooms: rooms.into(),
            client,
            address: self.address,
            connected_at: epoch_ms(),
            resumable: window.map(|window| Resumable { window, confirmed: 0 }),
        })
    }

    /// How long ago the head of the request was whole.
    fn after_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Cap, duplicates and cool-down; whoever is welcome is registered.
    async fn admit(
        &self,
        mut newcomer: Arc<SocketRecord>,
        line: &Arc<Line>,
    ) -> Result<(Arc<SocketRecord>, Expected), Close> {
        let Courier { registry, sockets, .. } = &self.gateway.courier;
        let mut probed = false;
        loop {
            // From here on it can be told to go, even before it is let in. Once the registry holds it
            // others may write to it, too; what they write waits behind the greeting.
            let expected = sockets.expect(&newcomer, line.clone());
            let admission = registry.admit(&newcomer, self.gateway.config.cap).await;
            if self.is_let_in(admission, &mut probed).await? {
                return Ok((newcomer, expected));
            }
            newcomer = Arc::new(newcomer.once_more(registry.incarnation(), registry.now_ms()));
        }
    }

    /// Those who have to go for it are told. False if it has to be asked once more: silent holders were found out.
    async fn is_let_in(&self, admission: Admission, probed: &mut bool) -> Result<bool, Close> {
        let gateway = &self.gateway;
        match admission {
            Admission::Welcome { replaced, evicted } => {
                for record in replaced {
                    gateway.courier.send_away(&record, Close::Replaced).await;
                }
                for record in evicted {
                    info!(user_id = record.user.as_ref().map(|user| user.as_str()), socket_id = %record.id, "{TOO_MANY_CONNECTIONS}");
                    gateway.courier.send_away(&record, Close::TooManyConnections).await;
                }
                Ok(true)
            }
            Admission::CoolingDown => {
                gateway.metrics.rejected("cooling_down");
                Err(Close::TooManyConnections)
            }
            Admission::Full { holders } if !*probed => {
                *probed = true;
                probe::fleet(&gateway.courier, &holders).await;
                Ok(false)
            }
            Admission::Full { .. } => {
                gateway.metrics.rejected("already_connected");
                Err(Close::AlreadyConnected)
            }
        }
    }

    /// A socket that exists only to be closed with a reason that a browser can read.
    async fn turn_away(self, stream: TcpStream, close: Close) {
        let connection = Connection::new(stream, Bytes::new(), Arc::new(Line::new(1024)), Some(1024), Deaf);
        info!(request_id = self.request_id, "WebSocket closed: {} {}", close.code(), close.reason());
        connection.farewell(&End::Ours(close)).await;
    }
}

/// The conversation of a socket that is not served.
struct Deaf;

impl Conversation for Deaf {
    fn hear(&mut self, _: Said) -> Reaction {
        Reaction::Silence
    }

    fn panicked(&mut self) -> String {
        crate::http::request_id()
    }
}

/// The long-lived task: serve, then part. A block, not an async function: that would hold its
/// arguments twice, for the life of every socket.
#[allow(clippy::manual_async_fn, reason = "552 bytes a socket as an async function, 296 as a block")]
fn live(
    gateway: Arc<Gateway>,
    mut connection: Connection<TcpStream, Session>,
    seat: Seat,
    place: Option<OwnedSemaphorePermit>,
) -> impl Future<Output = ()> {
    async move {
        let end = connection.serve().await;
        Box::pin(part(gateway, connection, seat, end)).await;
        drop(place);
    }
}

async fn part(gateway: Arc<Gateway>, connection: Connection<TcpStream, Session>, seat: Seat, end: End) {
    leave(&gateway, seat, &end.ending()).await;
    connection.farewell(&end).await;
}

/// Gives up a seat, and says why: its verdict stands before it is gone.
async fn leave(gateway: &Gateway, seat: Seat, ending: &Ending) {
    let record = seat.socket.record();
    if let Some(grants) = &seat.socket.grants {
        gateway.ends.forget(&record, grants.until);
    }
    let after = gateway.courier.after(&record, ending).await;
    // At once: whoever waits for its answer need not wait for the registry as well.
    gateway.courier.calls.ended(&record, ending, after);
    gateway.courier.registry.unregister(record.id, record.session, ending.clone()).await;
    // Counted first: who looks when it is gone finds it among the closed.
    let label = CauseLabel { cause: ending.cause.as_str() };
    gateway.metrics.closed.of(label.clone()).inc();
    drop(seat);
    let age_ms = epoch_ms().saturating_sub(record.connected_at);
    gateway.metrics.age_seconds.of(label).observe(age_ms as f64 / 1000.0);
    match after {
        After::Ended => gateway.desk.feed.tell("disconnected", || feed::ended(&record, ending)),
        After::Away => gateway.desk.feed.tell("away", || feed::ended(&record, ending)),
        After::Elsewhere => {}
    }
    if let Cause::ConnectionLost | Cause::ProtocolError | Cause::InstanceCrash = ending.cause {
        warn!(socket_id = %record.id, cause = ending.cause.as_str(), "WebSocket error: {}", ending.reason);
    }
    info!(
        socket_id = %record.id,
        cause = ending.cause.as_str(),
        age_ms,
        "WebSocket closed: {} {}", ending.code.map_or("without a close frame".into(), |code| code.to_string()), ending.reason,
    );
    if let Some(user) = &record.user {
        info!(user_id = user.as_str(), socket_id = %record.id, code = ending.code, "User disconnected");
    }
}

fn announce(gateway: &Gateway, record: &SocketRecord) {
    let sockets = &gateway.courier.sockets;
    let total = sockets.len();
    info!("✅ Socket {} added. Total active: {total}", record.id);
    info!(socket_id = %record.id, address = %record.address, "WebSocket opened");
    if let Some(user) = &record.user {
        // Without a cap a user may have very many, and counting them at each would be the costly part.
        let counted = gateway.config.cap.sockets_max > 0 && enabled!(Level::INFO);
        let connections = counted.then(|| sockets.members(Group::User(user.clone()).key()).len());
        info!(user_id = user.as_str(), socket_id = %record.id, user_connections = connections, "User connected");
    }
    if enabled!(Level::DEBUG) {
        let ids: Vec<_> =
            sockets.walk(SocketId::FIRST, IDS_LOGGED_MAX).iter().map(|socket| socket.id.to_string()).collect();
        debug!("🔌 Active socket IDs: {ids:?}{}", if total > ids.len() { " …" } else { "" });
    }
}
