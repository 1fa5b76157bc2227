//! What a socket takes of Redis' memory.

use std::time::Duration;

use servers::Server;
use tokio::time::sleep;

use super::alone;
use super::fleet::{Instance, Whose, each};
use crate::Result;
use crate::figure::{Budget, Figure};
use crate::options::Options;

const SOCKETS: usize = 20_000;
const STORE_SIZE: usize = 10;
const IN_FLIGHT: usize = 256;
/// By then Redis has shrunk the buffers that the burst made it keep.
const SETTLE: Duration = Duration::from_secs(4);

pub async fn measure(_options: &Options) -> Result<Vec<Figure>> {
    eprintln!("registry: bytes");
    let (bare, live) = taken(|_| Whose::default()).await?;
    let (whole, _) = taken(|index| Whose {
        user: Some(format!("customer-{index}")),
        store: Some(format!("store-{}", index / STORE_SIZE)),
        room: None,
    })
    .await?;
    Ok(vec![
        alone("row and owner entry: bytes a socket", "", [bare - live]).within(Budget::AtMost(500.0)),
        alone("paging index: bytes a socket", "", [live]),
        alone("all, with capped user and store: bytes a socket", "", [whole]).within(Budget::AtMost(1000.0)),
    ])
}

/// Bytes a socket, and how many of them are in the paging index.
async fn taken(whose: impl Fn(usize) -> Whose) -> Result<(f64, f64)> {
    let server = Server::start();
    let instance = Instance::start(&server.url(), "gateway-1:5000").await?;
    // The scripts are no part of any socket.
    each(instance.sockets(1, Whose::somebody)?, 1, async |record| {
        instance.connect(&record).await?;
        instance.disconnect(&record).await
    })
    .await?;
    let sockets = instance.sockets(SOCKETS, whose)?;
    sleep(SETTLE).await;
    let before = server.used_memory();
    each(&sockets, IN_FLIGHT, |record| instance.connect(record)).await?;
    sleep(SETTLE).await;
    let full = server.used_memory();
    server.keys().iter().filter(|key| key.ends_with(":live")).for_each(|key| drop(server.ask(&["DEL", key])));
    sleep(SETTLE).await;
    let a_socket = |from: u64, to: u64| to.saturating_sub(from) as f64 / SOCKETS as f64;
    Ok((a_socket(before, full), a_socket(server.used_memory(), full)))
}
