//! One connection to one server: what is said goes out in the order in which it was said, and so do the answers
//! come. Whoever holds it reads it.

use super::{
    resp::{Reader, Said},
    url::{self, Node, RedisUrl},
};
use futures_util::future::select_ok;
use redis::{Cmd, ErrorKind, RedisError, Value};
use rustls::pki_types::ServerName;
use socket2::SockRef;
use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// What connecting may take.
const CONNECT: Duration = Duration::from_secs(2);

/// Room for commands that is kept while nothing is to be said.
const UNSAID: usize = 256 * 1024;

/// With TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection that is logged in.
pub struct Wire {
    stream: Box<dyn Stream>,
    reader: Reader,
    /// What is still to be written, from this byte on.
    unsaid: Vec<u8>,
    written: usize,
}

impl Wire {
    pub async fn connect(url: &RedisUrl, node: &Node) -> Result<Self, RedisError> {
        let connecting = async {
            // All addresses of a name at once: one that swallows what is sent to it must not hide the others.
            let addresses = lookup_host((node.host.as_str(), node.port)).await?;
            let each: Vec<_> = addresses.map(|address| Box::pin(TcpStream::connect(address))).collect();
            if each.is_empty() {
                return Err(io::Error::from(io::ErrorKind::AddrNotAvailable).into());
            }
            let (tcp, _) = select_ok(each).await?;
            url::tune(&SockRef::from(&tcp))?;
            let stream: Box<dyn Stream> = match url.is_tls() {
                true => Box::new(tls()?.connect(name(node)?, tcp).await?),
                false => Box::new(tcp),
            };
            let mut wire = Self { stream, reader: Reader::default(), unsaid: Vec::new(), written: 0 };
            for command in url.greeting() {
                wire.ask(&command).await.map_err(too_old)?;
            }
            Ok(wire)
        };
        timeout(CONNECT, connecting).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// Says it, and waits for the answer. What comes in between is left out.
    async fn ask(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        self.say(command).await?;
        loop {
            if let Said::Answer(value) = self.hear().await? {
                return value.extract_error();
            }
        }
    }

    pub async fn say(&mut self, command: &Cmd) -> Result<(), RedisError> {
        command.write_packed_command(self.unsaid());
        std::future::poll_fn(|context| self.poll_say(context)).await
    }

    /// The next that is said. Nothing is lost if nobody waits for it any more.
    pub async fn hear(&mut self) -> Result<Said, RedisError> {
        std::future::poll_fn(|context| self.poll_hear(context)).await
    }

    /// Where commands are put that are to be said.
    pub fn unsaid(&mut self) -> &mut Vec<u8> {
        &mut self.unsaid
    }

    /// Writes until all is said.
    pub fn poll_say(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RedisError>> {
        while self.written < self.unsaid.len() {
            let rest = &self.unsaid[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into())),
                count => self.written += count,
            }
        }
        self.unsaid.clear();
        self.unsaid.shrink_to(UNSAID);
        self.written = 0;
        Pin::new(&mut self.stream).poll_flush(context).map_err(Into::into)
    }

    pub fn poll_hear(&mut self, context: &mut Context<'_>) -> Poll<Result<Said, RedisError>> {
        loop {
            if let Some(said) = self.reader.next()? {
                return Poll::Ready(Ok(said));
            }
            let mut room = ReadBuf::new(self.reader.room());
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut room))?;
            match room.filled().len() {
                0 => return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())),
                count => self.reader.came(count),
            }
        }
    }
}

/// Trusts whom the machine trusts, or `SSL_CERT_FILE` says.
fn tls() -> Result<TlsConnector, RedisError> {
    let mut roots = rustls::RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    if let Some(error) = found.errors.into_iter().next() {
        return Err(error.into());
    }
    roots.add_parsable_certificates(found.certs);
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn name(node: &Node) -> Result<ServerName<'static>, RedisError> {
    ServerName::try_from(node.host.clone())
        .map_err(|_| (ErrorKind::InvalidClientConfig, "no name that a certificate may have", node.host.clone()).into())
}

/// Servers before 6 know no greeting.
fn too_old(error: RedisError) -> RedisError {
    match error.to_string().contains("unknown command") {
        true => (ErrorKind::RESP3NotSupported, "it knows no HELLO", error.to_string()).into(),
        false => error,
    }
}
