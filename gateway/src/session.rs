//! What a client's frame means: frame in, frames out. No socket in sight; what goes to others
//! goes through the courier.

use crate::{
    calls::Said as SaidOfCall,
    close::Close,
    config::value::Rate,
    courier::{Courier, Move, Moved, Target},
    drain::Stop,
    durable::Acked,
    feed::{self, Feed},
    frame::{self, Answer, Ask, ClientFrame, Code, Greeting, Key},
    hooks::{Hooks, message::Message},
    json,
    metrics::Metrics,
    socket::{Conversation, Reaction, Said},
    sockets::Socket,
    wire,
};
use bytes::Bytes;
use futures_util::FutureExt;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use registry::{CallId, Group, Incarnation, RoomName, SocketRecord};
use serde_json::value::RawValue;
use std::sync::Arc;
use tracing::{debug, info};

/// Everything a session needs besides its own socket; one for all sessions.
pub struct Desk {
    pub courier: Courier,
    pub metrics: Arc<Metrics>,
    pub feed: Feed,
    pub hooks: Hooks,
    pub rate: Option<Rate>,
    pub rooms_max: usize,
    pub stop: Stop,
}

/// The conversation of one socket.
pub struct Session {
    inner: Arc<Inner>,
}

struct Inner {
    desk: Arc<Desk>,
    socket: Arc<Socket>,
    greeting: Greeting,
    rate: Option<DefaultDirectRateLimiter>,
}

impl Session {
    pub fn new(desk: Arc<Desk>, socket: Arc<Socket>, greeting: Greeting) -> Self {
        let rate = desk.rate.map(|rate| RateLimiter::direct(Quota::per_second(rate.0)));
        Self { inner: Arc::new(Inner { desk, socket, greeting, rate }) }
    }
}

impl Conversation for Session {
    fn hear(&mut self, said: Said) -> Reaction {
        let inner = &self.inner;
        if inner.socket.line.is_first_word() {
            inner.desk.courier.upkeep.heard(&inner.socket);
        }
        match said {
            Said::Pong => Reaction::Silence,
            Said::Ping | Said::Binary(_) if inner.too_fast() => Reaction::Close(Close::TooFast),
            Said::Ping => Reaction::Silence,
            Said::Binary(bytes) => {
                inner.socket.line.spoke();
                inner.relay(&bytes)
            }
            Said::Text(text) => {
                if let Some(pong) = frame::exact_pong(&text) {
                    if inner.too_fast() {
                        return Reaction::Close(Close::TooFast);
                    }
                    inner.desk.metrics.app_pings.inc();
                    return Reaction::Say(pong);
                }
                match json::first_byte(&text) {
                    Some(b'[') => self.batch(&text),
                    _ => inner.one(&text),
                }
            }
        }
    }

    fn panicked(&mut self) -> String {
        crate::http::request_id()
    }
}

impl Session {
    /// An array, answered frame by frame. Its frames count one by one.
    fn batch(&self, text: &[u8]) -> Reaction {
        let frames = match json::elements(text) {
            Ok(frames) if !frames.is_empty() => frames,
            // What holds no frame counts as one.
            _ if self.inner.too_fast() => return Reaction::Close(Close::TooFast),
            Ok(_) => return Reaction::Silence,
            Err(fault) => return Reaction::Say(self.inner.fault(Key::Type, Code::BadJson, &fault.to_string(), None)),
        };
        let frames: Vec<_> = frames.into_iter().map(ToOwned::to_owned).collect();
        let inner = self.inner.clone();
        Reaction::Later(
            async move {
                let mut answers = Vec::new();
                for one in frames {
                    match inner.one(one.get().as_bytes()) {
                        Reaction::Silence => {}
                        Reaction::Say(frame) => answers.push(frame),
                        Reaction::Later(work) => answers.extend(work.await),
                        Reaction::Close(close) => {
                            inner.desk.courier.close(&inner.socket, close).await;
                            break;
                        }
                    }
                }
                answers
            }
            .boxed(),
        )
    }
}

impl Inner {
    fn too_fast(&self) -> bool {
        self.rate.as_ref().is_some_and(|rate| rate.check().is_err())
    }

    fn one(self: &Arc<Self>, text: &[u8]) -> Reaction {
        let ClientFrame { key, id, ask } = ClientFrame::read(text);
        // A client that acks what it gets, and answers what it is asked, is not to blame for how much that is.
        let call = match &ask {
            Ok(Ask::OfCall { call, .. }) => CallId::parse(call),
            _ => None,
        };
        let is_answer = matches!(ask, Ok(Ask::Ack(_)))
            || call.as_ref().is_some_and(|call| self.desk.courier.calls.has(call, self.socket.id));
        if !is_answer {
            if self.too_fast() {
                return Reaction::Close(Close::TooFast);
            }
            self.socket.line.spoke();
        }
        let ask = match ask {
            Ok(ask) => ask,
            Err((code, detail)) => return Reaction::Say(self.fault(key, code, &detail, id)),
        };
        self.desk.metrics.heard(ask.class());
        match ask {
            Ask::Ping { id, t } => Reaction::Say(Answer::new(key, "pong").with_raw("id", id).with_raw("t", t).encode()),
            Ask::Hi { version } => self.greet_again(key, version),
            Ask::GetSocketId => {
                let own = self.socket.id.to_string();
                Reaction::Say(Answer::new(key, "getSocketId").with("data", &own).encode())
            }
            Ask::SelectStore(store) if !self.socket.may_select(&store) => {
                let detail = format!("{store} is not granted to the credential that this socket came in with");
                Reaction::Say(self.fault(key, Code::Forbidden, &detail, id))
            }
            Ask::SelectStore(store) => {
                let inner = self.clone();
                Reaction::Later(
                    async move {
                        let answer = Answer::new(key, "storeSelected").with_data("storeId", store.as_str());
                        info!("🏪 Socket {} selected store: {store}", inner.socket.id);
                        let change =
                            |record: &SocketRecord| Some(SocketRecord { store: Some(store), ..record.clone() });
                        inner.desk.courier.change(&inner.socket, change).await;
                        if inner.socket.cursor.is_some() {
                            inner.desk.courier.upkeep.moved(&inner.socket);
                        }
                        inner.desk.feed.tell("store_selected", || feed::socket(&inner.socket.record()));
                        vec![answer.encode()]
                    }
                    .boxed(),
                )
            }
            Ask::Join(room) | Ask::Publish { room, .. } if !self.socket.may_enter(&room) => {
                let detail = format!("{room} is not granted to the credential that this socket came in with");
                Reaction::Say(self.fault(key, Code::Forbidden, &detail, id))
            }
            Ask::Join(room) => self.join(key, room, id),
            Ask::Leave(room) => {
                let inner = self.clone();
                Reaction::Later(
                    async move {
                        inner.desk.courier.move_here(&inner.socket, &room, Move::Out, inner.desk.rooms_max).await;
                        vec![Answer::new(key, "left").with("room", room.as_str()).encode()]
                    }
                    .boxed(),
                )
            }
            Ask::Publish { room, data } => {
                let record = self.socket.record();
                if !record.is_in(&room) {
                    let detail = format!("join {room} before you publish to it");
                    return Reaction::Say(self.fault(key, Code::NotInRoom, &detail, id));
                }
                let frame = frame::message(&room, record.id, data);
                self.publish(Target::Group(Group::Room(room)), frame)
            }
            Ask::Request => self.ask_application(key, id, Message::Request(text), || {
                "nobody answers requests: MESSAGE_URL is not set".to_owned()
            }),
            Ask::OfCall { said, data, .. } => match call {
                Some(call) => self.of_call(&call, said, data),
                None => {
                    self.desk.metrics.word_dropped(false);
                    Reaction::Silence
                }
            },
            Ask::Ack(seq) => self.ack(key, seq, id),
            Ask::Unknown(verb) => self.ask_application(key, id, Message::Frame(text), || {
                format!("{verb:?} is no verb of this gateway, and MESSAGE_URL is not set")
            }),
        }
    }

    /// Beside everything else, since an application may take its time.
    fn ask_application(
        &self,
        key: Key,
        id: Option<&RawValue>,
        message: Message<'_>,
        nobody: impl FnOnce() -> String,
    ) -> Reaction {
        let Some(messages) = &self.desk.hooks.messages else {
            return Reaction::Say(self.fault(key, Code::UnknownVerb, &nobody(), id));
        };
        match messages.take(&self.socket, key, id, message) {
            Ok(()) => Reaction::Silence,
            Err((code, detail)) => Reaction::Say(self.fault(key, code, detail, id)),
        }
    }

    /// To whoever asked. After progress the next frame is understood when the registry has it, so that what one
    /// client says about a call arrives in its order; an end has nothing behind it.
    fn of_call(self: &Arc<Self>, call: &CallId, said: SaidOfCall, data: &RawValue) -> Reaction {
        let calls = &self.desk.courier.calls;
        // Copied, since the payload is a slice of what was read.
        let data = Bytes::copy_from_slice(data.get().as_bytes());
        let post = match self.given_elsewhere(call) {
            Some(there) => Some(calls.says_instead(call, self.socket.id, said, data, there.clone())),
            None => calls.says(call, self.socket.id, said, data),
        };
        let Some(post) = post else { return Reaction::Silence };
        let left = match said {
            SaidOfCall::Progress => Some(post),
            SaidOfCall::Reply | SaidOfCall::Failed => calls.send_beside(post),
        };
        let Some(post) = left else { return Reaction::Silence };
        let calls = calls.clone();
        Reaction::Later(
            async move {
                calls.send(post).await;
                Vec::new()
            }
            .boxed(),
        )
    }

    /// Nothing is said to what is right. A socket without a log has nothing to acknowledge.
    fn ack(&self, key: Key, seq: Option<u64>, id: Option<&RawValue>) -> Reaction {
        let Some(cursor) = &self.socket.cursor else { return Reaction::Silence };
        let detail = match seq.map(|seq| cursor.ack(seq)) {
            Some(Acked::First) => {
                self.desk.courier.upkeep.acked(&self.socket);
                return Reaction::Silence;
            }
            Some(Acked::Much) => {
                self.desk.courier.upkeep.acked_much(&self.socket);
                return Reaction::Silence;
            }
            Some(Acked::Noted) => return Reaction::Silence,
            Some(Acked::Beyond(last)) => format!("nothing so late was delivered; the last seq is {last}"),
            None => "seq is missing or no whole number".to_owned(),
        };
        Reaction::Say(self.fault(key, Code::Invalid, &detail, id))
    }

    /// Who had this socket before, if it was not given this call here.
    fn given_elsewhere(&self, call: &CallId) -> Option<&Incarnation> {
        let there = self.greeting.lasting.as_ref()?.came_from.as_ref()?;
        let Courier { registry, calls, .. } = &self.desk.courier;
        Some(there).filter(|there| **there != registry.incarnation() && !calls.has(call, self.socket.id))
    }

    /// `hi` again with a fresh time; a client of another version is told so behind it.
    fn greet_again(self: &Arc<Self>, key: Key, version: Option<String>) -> Reaction {
        let hi = self.greeting.hi(self.desk.courier.registry.now_ms());
        match version {
            Some(version) if version != frame::VERSION => {
                let detail = format!("protocol version {version} is not spoken here, only {}", frame::VERSION);
                let fault = self.fault(key, Code::Invalid, &detail, None);
                Reaction::Later(std::future::ready(vec![hi, fault]).boxed())
            }
            _ => Reaction::Say(hi),
        }
    }

    fn join(self: &Arc<Self>, key: Key, room: RoomName, id: Option<&RawValue>) -> Reaction {
        let id = id.map(ToOwned::to_owned);
        let inner = self.clone();
        Reaction::Later(
            async move {
                let max = inner.desk.rooms_max;
                vec![match inner.desk.courier.move_here(&inner.socket, &room, Move::In, max).await {
                    Moved::Done => Answer::new(key, "joined").with("room", room.as_str()).encode(),
                    Moved::TooManyRooms { max } => {
                        inner.fault(key, Code::TooMany, &format!("a socket is in {max} rooms at most"), id.as_deref())
                    }
                }]
            }
            .boxed(),
        )
    }

    /// Binary frames go to the socket's rooms as they are; who is in several of them gets one.
    fn relay(self: &Arc<Self>, bytes: &[u8]) -> Reaction {
        let record = self.socket.record();
        self.desk.metrics.heard("binary");
        // Copied, since the payload is a slice of what was read.
        let frame = wire::binary(Bytes::copy_from_slice(bytes));
        let target = match &*record.rooms {
            [] => return Reaction::Silence,
            [room] => Target::Group(Group::Room(room.clone())),
            rooms => Target::AnyOf(rooms.iter().cloned().map(Group::Room).collect()),
        };
        self.publish(target, frame)
    }

    /// To those here at once. If there are other instances they are told before the next frame of
    /// this socket is understood, so that what one client publishes arrives in its order.
    fn publish(self: &Arc<Self>, target: Target, frame: Bytes) -> Reaction {
        let Desk { courier, metrics, .. } = &*self.desk;
        let from = Some(self.socket.id);
        let receipt = courier.to_many_here(&target, from, &frame);
        metrics.room_deliveries.inc_by(receipt.delivered as u64);
        metrics.room_refusals.inc_by(receipt.full as u64);
        if courier.registry.is_alone() {
            return Reaction::Silence;
        }
        let inner = self.clone();
        Reaction::Later(
            async move {
                let untold = inner.desk.courier.tell_others(&target, from, &frame).await;
                inner.desk.metrics.room_untold.inc_by(untold as u64);
                Vec::new()
            }
            .boxed(),
        )
    }

    fn fault(&self, key: Key, code: Code, detail: &str, id: Option<&RawValue>) -> Bytes {
        debug!("Error handling action: {detail} (socket {})", self.socket.id);
        self.desk.metrics.client_faults.inc();
        frame::error(key, code, detail, id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        courier::tests::{courier, enter},
        sockets::Seat,
    };
    use std::num::NonZeroU32;
    use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;

    struct Room {
        desk: Arc<Desk>,
    }

    impl Room {
        fn new(rate: Option<u32>) -> Self {
            let courier = courier();
            let rate = rate.and_then(NonZeroU32::new).map(Rate);
            let metrics = Arc::new(Metrics::default());
            Self {
                desk: Arc::new(Desk {
                    courier,
                    metrics,
                    feed: Feed::default(),
                    hooks: Hooks::default(),
                    rate,
                    rooms_max: 2,
                    stop: Stop::default(),
                }),
            }
        }

        async fn enter(&self, rooms: &[&str]) -> (Session, Seat) {
            let seat = enter(&self.desk.courier, rooms).await;
            let socket = seat.socket.clone();
            let greeting = Greeting {
                socket: socket.id,
                instance: "web1".into(),
                ping_interval_seconds: 30.0,
                state: None,
                lasting: None,
            };
            (Session::new(self.desk.clone(), socket, greeting), seat)
        }
    }

    fn unframed(frame: &Bytes) -> String {
        let mut cursor = std::io::Cursor::new(frame.as_ref());
        FrameHeader::parse(&mut cursor).unwrap().unwrap();
        String::from_utf8(frame[cursor.position() as usize..].to_vec()).unwrap()
    }

    async fn say(session: &mut Session, text: &str) -> Vec<String> {
        let frames = match session.hear(Said::Text(Bytes::copy_from_slice(text.as_bytes()))) {
            Reaction::Silence => Vec::new(),
            Reaction::Say(frame) => vec![frame],
            Reaction::Later(work) => work.await,
            Reaction::Close(close) => return vec![format!("closed {}", close.code())],
        };
        frames.iter().map(unframed).collect()
    }

    fn waiting(seat: &Seat) -> usize {
        seat.socket.line.unsent()
    }

    /// Checklist 6.
    #[tokio::test]
    async fn pings_are_answered_to_the_byte() {
        let (mut session, _seat) = Room::new(None).enter(&[]).await;
        assert_eq!(say(&mut session, r#"{"evt":"ping"}"#).await, [r#"{"evt":"pong"}"#]);
        assert_eq!(say(&mut session, r#"{"action":"ping"}"#).await, [r#"{"type":"pong"}"#]);
        assert_eq!(say(&mut session, r#"{"evt":"ping","t":1,"id":"a"}"#).await, [r#"{"evt":"pong","id":"a","t":1}"#]);
    }

    #[tokio::test]
    async fn a_store_is_selected_after_the_registry_knows() {
        let room = Room::new(None);
        let (mut session, seat) = room.enter(&[]).await;
        let said = say(&mut session, r#"{"type":"selectStore","data":{"storeId":"s"}}"#).await;
        assert_eq!(said, [r#"{"type":"storeSelected","data":{"storeId":"s"}}"#]);
        let registry::Lookup::Live(record) = room.desk.courier.registry.lookup(&seat.socket.id.to_string()).await
        else {
            panic!()
        };
        assert_eq!(record.store.as_ref().unwrap().as_str(), "s");
    }

    #[tokio::test]
    async fn a_publisher_is_a_member_and_everybody_else_hears_it() {
        let room = Room::new(None);
        let (mut session, own) = room.enter(&[]).await;
        let (_, other) = room.enter(&["r"]).await;
        let publish = r#"{"type":"publish","room":"r","data":1,"id":7}"#;
        assert!(say(&mut session, publish).await[0].contains(r#""code":"not_in_room""#));
        assert_eq!(say(&mut session, r#"{"type":"join","room":"r"}"#).await, [r#"{"type":"joined","room":"r"}"#]);
        assert!(say(&mut session, publish).await.is_empty());
        assert!(waiting(&other) > 0 && waiting(&own) == 0);
    }

    #[tokio::test]
    async fn there_is_an_end_to_rooms() {
        let (mut session, _seat) = Room::new(None).enter(&["a", "b"]).await;
        assert!(say(&mut session, r#"{"type":"join","room":"c","id":1}"#).await[0].contains(r#""code":"too_many""#));
        assert_eq!(say(&mut session, r#"{"type":"join","room":"b"}"#).await, [r#"{"type":"joined","room":"b"}"#]);
        assert_eq!(say(&mut session, r#"{"evt":"leave","room":"b"}"#).await, [r#"{"evt":"left","room":"b"}"#]);
        assert_eq!(say(&mut session, r#"{"type":"join","room":"c"}"#).await.len(), 1);
    }

    #[tokio::test]
    async fn a_batch_is_answered_frame_by_frame() {
        let (mut session, _seat) = Room::new(None).enter(&[]).await;
        let answers = say(&mut session, r#"[{"type":"ping"},3,{"type":"join","room":"r"},{"type":"what"}]"#).await;
        assert_eq!(answers.len(), 4);
        assert!(answers[1].contains("bad_json") && answers[3].contains("unknown_verb"), "{answers:?}");
    }

    #[tokio::test]
    async fn whoever_is_in_two_rooms_gets_a_binary_frame_once() {
        let room = Room::new(None);
        let (mut session, _own) = room.enter(&["a", "b"]).await;
        let (_, other) = room.enter(&["a", "b"]).await;
        assert!(matches!(session.hear(Said::Binary(Bytes::from_static(b"xyz"))), Reaction::Silence));
        assert_eq!(waiting(&other), 5);
    }

    #[tokio::test]
    async fn too_many_frames_close_the_socket() {
        let (mut session, _seat) = Room::new(Some(3)).enter(&[]).await;
        for _ in 0..3 {
            assert!(matches!(session.hear(Said::Ping), Reaction::Silence));
        }
        assert_eq!(say(&mut session, r#"{"evt":"ping"}"#).await, ["closed 4429"]);
    }

    #[tokio::test]
    async fn a_batch_counts_frame_by_frame() {
        let (mut session, seat) = Room::new(Some(3)).enter(&[]).await;
        assert_eq!(say(&mut session, "[1,2,3]").await.len(), 3);
        say(&mut session, "[1]").await;
        assert!(!seat.socket.line.is_open());
    }

    #[tokio::test]
    async fn acks_do_not_count() {
        let (mut session, _seat) = Room::new(Some(1)).enter(&[]).await;
        for _ in 0..50 {
            assert!(say(&mut session, r#"{"type":"ack","seq":1}"#).await.is_empty());
        }
        assert_eq!(say(&mut session, r#"{"evt":"ping"}"#).await, [r#"{"evt":"pong"}"#]);
    }
}
