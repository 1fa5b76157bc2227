//! Clients: they answer what they are asked, each in its own manner, and move on to another instance.

use super::{
    board::{Board, Dice},
    notes::{What, Word},
};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// Names are shared, so that there is somebody else of the same user and store.
pub const USERS: usize = 12;
pub const STORES: usize = 6;
/// Between two moves of one page, in ms: at least, and so much more at most.
const STAYS: (usize, usize) = (3000, 6000);
/// Who is not let in by then tries elsewhere.
const PATIENCE: Duration = Duration::from_secs(4);
const TRY_AGAIN: Duration = Duration::from_millis(50);
/// How long it reads on after it said goodbye.
const FAREWELL: Duration = Duration::from_secs(4);

/// Opens so many pages; they run until they are sent home.
pub fn open(board: &Arc<Board>, count: usize) -> JoinSet<()> {
    let mut pages = JoinSet::new();
    for nth in 0..count {
        pages.spawn(live(board.clone(), nth));
    }
    pages
}

async fn live(board: Arc<Board>, nth: usize) {
    let mut dice = Dice::of(nth);
    while !board.pages_go_home() {
        let (_, address) = board.place(&mut dice);
        let target = format!("ws://{address}/ws?user_id=u{}&store_id=s{}&client_id=p{nth}", nth % USERS, nth % STORES);
        let entering = async {
            let stream = TcpStream::connect(address).await.ok()?;
            stream.set_nodelay(true).ok()?;
            client_async(target, stream).await.ok()
        };
        match timeout(PATIENCE, entering).await {
            Ok(Some((socket, _))) => {
                Visit { board: &board, nth, socket, id: String::new(), later: Vec::new() }.run(&mut dice).await;
            }
            _ => sleep(TRY_AGAIN).await,
        }
    }
}

/// One connection of a page.
struct Visit<'a> {
    board: &'a Board,
    nth: usize,
    socket: WebSocketStream<TcpStream>,
    id: String,
    /// What it will say, and when.
    later: Vec<(Instant, u64, Word, String)>,
}

impl Visit<'_> {
    async fn run(mut self, dice: &mut Dice) {
        let leaves_at = Instant::now() + Duration::from_millis((STAYS.0 + dice.below(STAYS.1)) as u64);
        while Instant::now() < leaves_at && !self.board.pages_go_home() {
            let due = self.later.iter().map(|(due, ..)| *due).min();
            let until = due.unwrap_or(leaves_at).min(leaves_at).min(Instant::now() + Duration::from_millis(500));
            match timeout_at(until, self.socket.next()).await {
                Err(_) => {}
                Ok(Some(Ok(message))) => self.hears(&message, dice),
                Ok(Some(Err(_)) | None) => return self.parts(),
            }
            if self.says_what_is_due().await.is_none() {
                // What it was given before is still read.
                break;
            }
        }
        self.parts();
        let _ = self.socket.send(Message::Close(None)).await;
        let reads_on = async {
            while let Some(Ok(message)) = self.socket.next().await {
                self.hears(&message, dice);
            }
        };
        let _ = timeout(FAREWELL, reads_on).await;
        self.parts();
    }

    fn parts(&self) {
        self.board.notes(What::Parted { socket: self.id.clone() });
    }

    fn hears(&mut self, message: &Message, dice: &mut Dice) {
        let Message::Text(text) = message else { return };
        let frame: Value = serde_json::from_str(text).expect("frames are JSON");
        let call = frame["callId"].as_str().unwrap_or_default().to_owned();
        match frame["type"].as_str() {
            Some("hi") => {
                frame["socketId"].as_str().expect("hi has an id").clone_into(&mut self.id);
                self.board.sits(self.nth, &self.id);
            }
            Some("cancel") => self.board.notes(What::Withdrawn { call, socket: self.id.clone() }),
            Some("weigh") => {
                let key = frame["data"]["key"].as_u64().expect("every call has a key");
                self.board.notes(What::Delivered { key, call: call.clone(), socket: self.id.clone() });
                self.chooses(key, &call, dice);
            }
            _ => {}
        }
    }

    /// Most are fast; some need a while, and some never answer.
    fn chooses(&mut self, key: u64, call: &str, dice: &mut Dice) {
        let now = Instant::now();
        let later = now + Duration::from_millis(dice.below(200) as u64);
        let words = match dice.below(100) {
            0..70 => vec![(now, Word::Reply)],
            70..85 => vec![(later, Word::Reply)],
            85..92 => vec![(now, Word::Progress), (later, Word::Reply)],
            92..97 => vec![(now, Word::Failed)],
            97..99 => vec![(now, Word::Reply), (now, Word::Reply)],
            _ => vec![],
        };
        self.later.extend(words.into_iter().map(|(due, word)| (due, key, word, call.to_owned())));
    }

    async fn says_what_is_due(&mut self) -> Option<()> {
        let now = Instant::now();
        let due: Vec<_> = self.later.extract_if(.., |(due, ..)| *due <= now).collect();
        for (_, key, word, call) in due {
            self.board.notes(What::Said { key, socket: self.id.clone(), word });
            let payload = json!({"by": self.id, "key": key});
            let frame = match word {
                Word::Progress => json!({"type": "progress", "callId": call, "data": payload}),
                Word::Reply => json!({"type": "reply", "callId": call, "data": payload}),
                Word::Failed => json!({"type": "failed", "callId": call, "error": payload}),
            };
            self.socket.send(Message::text(frame.to_string())).await.ok()?;
        }
        Some(())
    }
}
