//! What is said of a socket that did not come back, at once and when it is known.

use super::{doors::Doors, tally::Tally};
use crate::client::asking::{Answer, printable};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

/// Of an instance that was killed everybody knows within a minute.
const KNOWN_WITHIN: Duration = Duration::from_secs(90);
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Asks until there is a verdict, and tells each new answer.
pub async fn asks(doors: Arc<Doors>, tally: Arc<Tally>, id: String) {
    let (deadline, mut told) = (Instant::now() + KNOWN_WITHIN, String::new());
    while Instant::now() < deadline {
        let Ok(remote) = doors.remote() else { return };
        let target = format!("/api/sockets/{id}");
        let asked = spawn_blocking(move || remote.get(&target)).await;
        // An instance that does not answer says nothing about the socket.
        if let Ok(Ok(answer)) = asked {
            let (status, sentence) = said(&answer);
            if !sentence.is_empty() && sentence != told {
                let whose = if sentence.contains(&id) { String::new() } else { format!("{id}: ") };
                tally.tell(format_args!("-- holdfast why: {whose}{sentence}"));
                told = sentence;
            }
            if status == 410 {
                return;
            }
        }
        sleep(LOOK_AGAIN).await;
    }
    tally.count(|counts| counts.unexplained += 1);
    tally.tell(format_args!("-- nobody knows what became of {id}, {} s later", KNOWN_WITHIN.as_secs()));
}

fn said(answer: &Answer) -> (u16, String) {
    let verdict = answer.body["verdict"]["sentence"].as_str();
    (answer.status, printable(verdict.or(answer.body["detail"].as_str()).unwrap_or_default()))
}
