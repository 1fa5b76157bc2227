//! Says back whatever it hears: [`gateway::socket`] with nothing behind it and its limits off, for
//! the Autobahn fuzzing client (`tests/autobahn/prove`). Prints its address, then serves until it
//! is killed.
#![allow(clippy::print_stdout)] // Whoever started it reads the address there.

use bytes::Bytes;
use gateway::{
    admission::upgrade,
    problem::Problem,
    socket::{Connection, Conversation, Line, Reaction, Said},
    wire,
};
use http_body_util::Empty;
use hyper::{
    Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, UPGRADE},
    server::conn::http1,
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use std::{convert::Infallible, future::ready, io, sync::Arc};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

/// The client sends messages of 16 MiB and wants them back; what is unsent beyond this is not read for.
const QUEUE_BYTES_MAX: usize = 64 << 20;

struct Echo;

impl Conversation for Echo {
    fn hear(&mut self, said: Said) -> Reaction {
        match said {
            Said::Text(text) => Reaction::Say(wire::text(text)),
            Said::Binary(bytes) => Reaction::Say(wire::binary(bytes)),
            Said::Ping | Said::Pong => Reaction::Silence,
        }
    }

    fn panicked(&mut self) -> String {
        gateway::http::request_id()
    }
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("ws://{}", listener.local_addr()?);
    let tasks = TaskTracker::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tasks.spawn(shake_hands(stream, tasks.clone()));
    }
}

async fn shake_hands(stream: TcpStream, tasks: TaskTracker) {
    let service = service_fn(|mut request: Request<Incoming>| {
        let response =
            upgrade::read(request.headers()).map_or_else(|problem| refuse(&problem), |upgrade| switch(&upgrade));
        if let Some(on_upgrade) = request.extensions_mut().remove::<OnUpgrade>() {
            tasks.spawn(echo(on_upgrade));
        }
        ready(Ok::<_, Infallible>(response))
    });
    // A client that breaks off in the middle of its request has nothing to be told.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

/// Ends at once where the request was no handshake: hyper then lets nobody have the connection.
async fn echo(on_upgrade: OnUpgrade) {
    let Ok(upgraded) = on_upgrade.await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<TcpStream>>() else { return };
    let line = Arc::new(Line::new(QUEUE_BYTES_MAX));
    let mut connection = Connection::new(parts.io.into_inner(), parts.read_buf, line, None, Echo);
    let end = connection.serve().await;
    connection.farewell(&end).await;
}

fn switch(upgrade: &upgrade::Upgrade) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&upgrade.accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

fn refuse(problem: &Problem) -> Response<Empty<Bytes>> {
    let mut response = Response::new(Empty::new());
    *response.status_mut() = problem.status;
    response
}
