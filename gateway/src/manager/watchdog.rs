//! The watchdog of systemd: fed as long as this process answers at its own door. Whoever only counted seconds would be fed
//! while nobody is let in.

use crate::http::preamble;
use std::{io::ErrorKind, net::SocketAddr, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

const QUESTION: &[u8] =
    b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nUser-Agent: holdfast-watchdog\r\nConnection: close\r\n\r\n";
/// What every answer begins with. Also whoever is too full to let us in has answered.
const ANSWER: &[u8] = b"HTTP/1.1 ";

/// A door of our own, as somebody on this machine finds it.
#[derive(Debug)]
pub struct Door {
    pub address: SocketAddr,
    /// Whether a PROXY header has to come first.
    pub preamble: bool,
    /// Whether whoever comes from this machine is let in at all; to be shown out is an answer, too.
    pub is_open: bool,
}

/// Feeds it, at twice the pace that is wanted. Never returns. From `closing` on nobody is let in any more, as it should be,
/// and systemd was told how long that may last.
pub async fn feed(door: &Door, within: Duration, closing: &CancellationToken) {
    let mut turns = interval(within / 2);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_well = true;
    loop {
        turns.tick().await;
        let asked = tokio::select! {
            biased;
            () = closing.cancelled() => Ok(()),
            // A quarter of the time is left for what may be late by itself.
            asked = timeout(within / 4, door.ask()) => asked.unwrap_or_else(|_| Err("no answer in time".to_owned())),
        };
        match asked {
            Ok(()) => {
                let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
                if !is_well {
                    info!("this instance answers at {} again; systemd's watchdog is fed", door.address);
                }
                is_well = true;
            }
            Err(why) => {
                error!(
                    "this instance does not answer at {}: {why}; systemd's watchdog is not fed, and ends it if that lasts",
                    door.address
                );
                is_well = false;
            }
        }
    }
}

impl Door {
    async fn ask(&self) -> Result<(), String> {
        let mut stream = TcpStream::connect(self.address).await.map_err(|fault| format!("not connected: {fault}"))?;
        match (self.talk(&mut stream).await, self.is_open) {
            (Ok(answer), _) if answer.starts_with(ANSWER) => Ok(()),
            (Err(_), false) => Ok(()),
            // Shown out before the question was read, as happens where there is no room: somebody was there.
            (Err(fault), true) if fault.kind() == ErrorKind::ConnectionReset => Ok(()),
            (Ok(answer), false) if answer.is_empty() => Ok(()),
            (Ok(answer), _) => {
                let line = String::from_utf8_lossy(&answer);
                Err(format!("it said {:?}", line.lines().next().unwrap_or_default()))
            }
            (Err(fault), true) => Err(fault.to_string()),
        }
    }

    /// The beginning of the answer.
    async fn talk(&self, stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
        if self.preamble {
            stream.write_all(preamble::LOCAL).await?;
        }
        stream.write_all(QUESTION).await?;
        let mut answer = Vec::new();
        while answer.len() < ANSWER.len() && stream.read_buf(&mut answer).await? > 0 {}
        Ok(answer)
    }
}
