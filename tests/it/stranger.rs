//! Somebody else than a gateway at the other end.

use crate::patience::soon;
use std::{future::Future, net::SocketAddr};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// A server that serves every connection in its own way, until it is dropped.
pub struct Stranger {
    pub address: SocketAddr,
    _life: JoinSet<()>,
}

impl Stranger {
    pub async fn who<F: Future<Output = ()> + Send + 'static>(
        serves: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut life = JoinSet::new();
        life.spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                serving.spawn(serves(stream));
            }
        });
        Self { address, _life: life }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Answers one request with a head, which has a status and maybe more lines, and a body.
pub async fn answers(mut stream: TcpStream, head: &str, body: &str) {
    let mut asked = Vec::new();
    while !asked.windows(4).any(|four| four == b"\r\n\r\n") {
        if soon("it asks", stream.read_buf(&mut asked)).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = format!("HTTP/1.1 {head}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
}
