//! A server far away: a relay through which every byte to it travels for a while. Answers come back
//! at once, so that a round trip takes just that while.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::Result;

pub struct Distance {
    port: u16,
    /// Ends with this value, and all connections with it.
    _tasks: JoinSet<()>,
}

impl Distance {
    pub async fn to(target: u16, delay: Duration) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                connections.spawn(carry(near, target, delay));
            }
        });
        Ok(Self { port, _tasks: tasks })
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

async fn carry(near: TcpStream, target: u16, delay: Duration) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    if near.set_nodelay(true).and(far.set_nodelay(true)).is_err() {
        return;
    }
    let (near_in, mut near_out) = near.into_split();
    let (mut far_in, far_out) = far.into_split();
    let back = async {
        // Whichever end closes, the other does.
        copy(&mut far_in, &mut near_out).await.ok();
    };
    tokio::join!(there(near_in, far_out, delay), back);
}

async fn there(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sender, mut travelling) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let depart = async move {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            if sender.send((Instant::now() + delay, buffer[..read].to_vec())).is_err() {
                return;
            }
        }
    };
    let arrive = async move {
        while let Some((due, bytes)) = travelling.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(depart, arrive);
}
