//! Those who ask: each one call after the other, to whom it likes, by whichever instance is open.

use super::{
    board::{Board, Dice},
    notes::What,
    pages::{STORES, USERS},
};
use crate::http::{Answer, Request};
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

/// Between two calls of one caller, in ms at most: two cores have more to do.
const THINKS_MS: usize = 300;
const BUDGETS_MS: [u64; 4] = [300, 1500, 1500, 4000];
/// Who has no answer by then never gets one.
const NEVER: Duration = Duration::from_secs(20);

/// So many ask until they are sent home.
pub fn come(board: &Arc<Board>, count: usize) -> JoinSet<()> {
    let mut callers = JoinSet::new();
    for nth in 0..count {
        let board = board.clone();
        callers.spawn(async move {
            let mut dice = Dice::of(1_000_000 + nth);
            while !board.callers_go_home() {
                sleep(Duration::from_millis(dice.below(THINKS_MS) as u64)).await;
                asks(&board, &mut dice).await;
            }
        });
    }
    callers
}

async fn asks(board: &Board, dice: &mut Dice) {
    let (page, socket) = board.somebody(dice);
    let mut body = match dice.below(8) {
        0..3 => json!({"socketId": socket}),
        3 => json!({"socketId": socket, "fallback": "store"}),
        4 => json!({"socketId": socket, "fallback": "user"}),
        5 => json!({"userId": format!("u{}", page % USERS)}),
        _ => json!({"storeId": format!("s{}", page % STORES)}),
    };
    let (key, budget) = (board.key(), BUDGETS_MS[dice.below(BUDGETS_MS.len())]);
    body["event"] = json!("weigh");
    body["data"] = json!({ "key": key });
    body["timeoutMs"] = json!(budget);
    let (asker, address) = board.place(dice);
    // Nobody listens any more: nothing was asked.
    let Ok(stream) = TcpStream::connect(address).await else { return };
    board.notes(What::Asked { key, asker, budget: Duration::from_millis(budget) });
    match timeout(NEVER, ask(stream, address, &body)).await {
        Err(_) => {}
        Ok(None) => board.notes(What::Broken { key }),
        Ok(Some((status, body))) => board.notes(What::Answered { key, status, body }),
    }
}

async fn ask(mut stream: TcpStream, address: SocketAddr, body: &Value) -> Option<(u16, Value)> {
    let request = Request::new(address, "POST", "/api/call").json(body);
    // What was answered before counts, even if the question was not read to its end.
    let _ = stream.write_all(&request.bytes()).await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((Answer::head(head).status, serde_json::from_str(body).ok()?))
}
