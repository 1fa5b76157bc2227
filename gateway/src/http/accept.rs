//! Letting connections in, and serving each until it ends or becomes a socket.

use super::{
    Body, answer,
    head::{HeadTimed, IDLE, Turn},
    preamble,
};
use crate::{
    admission::address::Peer,
    gateway::Gateway,
    listener::{self, Listener},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::metrics::gauge::Gauge;
use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::sleep};
use tracing::{debug, warn};

/// A head may be this large; beyond it hyper answers 431.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// What a refused connection is told when there are no open files left.
const NO_FILES_LEFT: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// What a connection has rested that is closed in the end. One that was used a moment ago may be used just now, and
/// whoever writes into a connection that we close hears nothing, and does not know whether to ask again.
const RESTED: Duration = Duration::from_secs(1);

/// Accepts until no more connections are wanted.
pub async fn run(gateway: Arc<Gateway>, listener: Listener) {
    let most = listener::connections_max(gateway.config.applications());
    let take = |stream: TcpStream, peer| {
        let open = gateway.http_tasks.len() + gateway.socket_tasks.len();
        if open >= most {
            gateway.metrics.connections_refused.inc();
            let _ = stream.try_write(NO_FILES_LEFT);
            return;
        }
        gateway.http_tasks.spawn(serve(gateway.clone(), stream, peer));
    };
    let mut closing = pin!(gateway.closing.cancelled());
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut closing => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => take(stream, peer),
            Err(fault) => {
                // Out of files, or a connection that was gone before it was taken: neither ends the listener.
                warn!("cannot accept a connection: {fault}");
                gateway.metrics.connections_refused.inc();
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
    listener.close().into_iter().for_each(|(stream, peer)| take(stream, peer));
}

async fn serve(gateway: Arc<Gateway>, stream: TcpStream, from: SocketAddr) {
    let _open = Counted::new(&gateway.metrics.http_connections);
    // Answers and frames are small and whole; waiting for more of them only adds delay.
    let _ = stream.set_nodelay(true);
    let turn = Turn::default();
    let (closing, resting) = (gateway.closing.clone(), turn.clone());
    let ending = async || {
        closing.cancelled().await;
        resting.may_end(RESTED).await;
    };
    let peer = if gateway.config.proxy_protocol {
        // In a box, since its buffer is of no use any more when this is over.
        let told = Box::pin(preamble::peer(&gateway, &stream, from.ip()));
        tokio::select! {
            peer = told => peer,
            () = ending() => None,
        }
    } else {
        Some(Peer::itself(from.ip()))
    };
    let Some(peer) = peer else { return };
    let io = TokioIo::new(HeadTimed::new(stream, turn.clone()));
    let service = service_fn(|request: hyper::Request<Incoming>| {
        turn.change();
        let (gateway, turn) = (gateway.clone(), turn.clone());
        async move {
            let mut response = answer(gateway, peer, turn.clone(), request).await;
            match response.body_mut() {
                Body::Whole(_) => turn.change(),
                // Served until its last event.
                Body::Events(events) => events.keep(turn.until_dropped()),
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(io, service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = ending() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(fault) = served {
        debug!("connection of {from} ended: {fault}");
    }
}

/// Counted for as long as it lives.
struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
