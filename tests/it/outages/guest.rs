//! One client: it listens all the time in a task of its own, notes what it hears, and never goes by itself.

use crate::patience::soon;
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{net::TcpStream, sync::watch, task::JoinSet};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// What a client has heard so far.
#[derive(Debug, Default)]
pub struct Notes {
    /// Numbered messages, in order, as often as they came.
    pub numbers: Vec<u64>,
    /// The types of all other frames.
    pub words: Vec<String>,
    pub id: Option<String>,
    pub close: Option<(u16, String)>,
    pub ended: bool,
}

impl Notes {
    fn hears(&mut self, text: &str) {
        let frame: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        if let Some(number) = frame["data"].as_u64() {
            return self.numbers.push(number);
        }
        if let Some(id) = frame["socketId"].as_str() {
            self.id = Some(id.to_owned());
        }
        self.words.push(frame["type"].as_str().unwrap_or_default().to_owned());
    }

    fn count(&self, word: &str) -> usize {
        self.words.iter().filter(|known| *known == word).count()
    }
}

pub struct Guest {
    /// Where it is connected.
    pub at: usize,
    pub id: String,
    pub user: String,
    pub store: Option<String>,
    pub rooms: BTreeSet<String>,
    /// From the first byte to `hi`.
    pub greeted_after: Duration,
    mouth: SplitSink<WebSocketStream<TcpStream>, Message>,
    notes: watch::Receiver<Notes>,
    /// Ends with the client, and the connection with both.
    _listening: JoinSet<()>,
}

impl Guest {
    /// Comes in with these names, and hears its `hi`.
    pub async fn enters(address: SocketAddr, at: usize, user: &str, store: Option<&str>, more: &str) -> Self {
        let store_id = store.map(|store| format!("&store_id={store}")).unwrap_or_default();
        let target = format!("ws://{address}/ws?user_id={user}{store_id}{more}");
        let rooms = more.split('&').filter_map(|pair| pair.strip_prefix("room_id=")).map(str::to_owned).collect();
        let began = Instant::now();
        let stream = soon("TCP connects", TcpStream::connect(address)).await.expect("the gateway listens");
        stream.set_nodelay(true).unwrap();
        let (socket, _) = soon("the upgrade is answered", client_async(target, stream)).await.expect("a 101");
        let (mouth, ears) = socket.split();
        let (writer, notes) = watch::channel(Notes::default());
        let mut listening = JoinSet::new();
        listening.spawn(listen(ears, writer.into()));
        let mut guest = Self {
            at,
            id: String::new(),
            user: user.to_owned(),
            store: store.map(str::to_owned),
            rooms,
            greeted_after: Duration::ZERO,
            mouth,
            notes,
            _listening: listening,
        };
        guest.waits("hi", |notes| notes.ended || notes.count("hi") > 0).await;
        guest.greeted_after = began.elapsed();
        guest.id = guest.notes.borrow().id.clone().unwrap_or_else(|| panic!("no hi: {:?}", guest.notes.borrow()));
        guest
    }

    async fn waits(&mut self, what: &str, holds: impl FnMut(&Notes) -> bool) {
        let what = format!("{} hears {what}", self.id);
        soon(&what, self.notes.wait_for(holds)).await.expect("the listener lives as long as the guest");
    }

    /// Says something, and waits for the answer of this type.
    pub async fn asks(&mut self, frame: Value, answer: &str) {
        let before = self.notes.borrow().count(answer);
        self.mouth.send(Message::text(frame.to_string())).await.expect("the socket is open");
        self.waits(answer, |notes| notes.count(answer) > before).await;
    }

    pub async fn joins(&mut self, room: &str) {
        self.asks(json!({"type": "join", "room": room}), "joined").await;
        self.rooms.insert(room.to_owned());
    }

    pub async fn parts(&mut self, room: &str) {
        self.asks(json!({"type": "leave", "room": room}), "left").await;
        self.rooms.remove(room);
    }

    pub async fn selects(&mut self, store: &str) {
        self.asks(json!({"type": "selectStore", "data": {"storeId": store}}), "storeSelected").await;
        self.store = Some(store.to_owned());
    }

    /// Waits for the number.
    pub async fn hears(&mut self, number: u64) {
        self.waits(&number.to_string(), |notes| notes.numbers.contains(&number)).await;
    }

    /// How often it has heard the number.
    pub fn heard(&self, number: u64) -> usize {
        self.notes.borrow().numbers.iter().filter(|known| **known == number).count()
    }

    /// Everything that it has heard twice.
    pub fn heard_twice(&self) -> Vec<u64> {
        let mut seen = BTreeSet::new();
        self.notes.borrow().numbers.iter().copied().filter(|number| !seen.insert(*number)).collect()
    }

    /// Whether nothing has ended its connection.
    pub fn stays(&self) -> bool {
        let notes = self.notes.borrow();
        !notes.ended && notes.close.is_none()
    }

    /// Waits for the gateway's close.
    pub async fn is_closed(&mut self) -> (u16, String) {
        self.waits("a close", |notes| notes.ended).await;
        let notes = self.notes.borrow();
        notes.close.clone().unwrap_or_else(|| panic!("ended without a close: {notes:?}"))
    }

    /// Goes as a browser does; returns its id.
    pub async fn leaves(mut self) -> String {
        self.mouth.send(Message::Close(None)).await.expect("the socket is open");
        self.waits("the end", |notes| notes.ended).await;
        self.id
    }
}

async fn listen(mut ears: SplitStream<WebSocketStream<TcpStream>>, notes: Arc<watch::Sender<Notes>>) {
    while let Some(Ok(message)) = ears.next().await {
        match message {
            Message::Text(text) => notes.send_modify(|notes| notes.hears(&text)),
            Message::Close(frame) => notes.send_modify(|notes| {
                notes.close = frame.map(|frame| (frame.code.into(), frame.reason.as_str().to_owned()));
            }),
            _ => {}
        }
    }
    notes.send_modify(|notes| notes.ended = true);
    // A sender that is gone would look like a listener that died; it goes with the guest.
    std::future::pending::<()>().await;
}
