//! The way to a gateway: its name, its port, TLS. Each of them can fail by itself, and is told apart.

use super::address::Address;
use crate::{http::preamble, upstream};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{self, CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use std::{
    fmt,
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Whether certificates are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    Checked,
    /// Whoever answers is believed: for certificates that nobody has signed.
    Anybody,
}

/// A connection to a gateway, or to what stands in front of it.
pub enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection, and how it came about.
pub struct Dialled {
    pub connection: Connection,
    pub peer: SocketAddr,
    pub tcp: Duration,
    /// How long TLS took, and which version it is.
    pub tls: Option<(Duration, &'static str)>,
}

/// Where the way ends.
#[derive(Debug)]
pub enum Unreached {
    Name(String),
    Port(String),
    /// TLS is spoken there, but not with somebody who is known.
    Certificate(String),
    Tls(String),
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(why) => write!(f, "its name is not known: {why}"),
            Self::Port(why) => f.write_str(why),
            Self::Certificate(why) => write!(f, "its certificate is not trusted: {why}"),
            Self::Tls(why) => write!(f, "it speaks no TLS: {why}"),
        }
    }
}

/// Connects. With `preamble` the gateway is told that we speak for ourselves, as `PROXY_PROTOCOL` wants it.
pub async fn dial(address: &Address, trust: Trust, preamble: bool, within: Duration) -> Result<Dialled, Unreached> {
    let until = Instant::now() + within;
    let silent = || format!("it did not answer within {} s", within.as_secs());
    let place = (address.host.as_str(), address.port);
    let found = timeout_at(until, lookup_host(place)).await.map_err(|_| Unreached::Name(silent()))?;
    let found: Vec<_> = found.map_err(|error| Unreached::Name(error.to_string()))?.collect();
    let (stream, tcp) = connect(&found, until, &silent).await?;
    let peer = stream.peer_addr().map_err(|error| Unreached::Port(error.to_string()))?;
    // Questions are small, and nobody wants to wait for more of them.
    let _ = stream.set_nodelay(true);
    if preamble {
        // Nothing was written before it, so there is room for these few bytes.
        stream.try_write(preamble::LOCAL).map_err(|error| Unreached::Port(error.to_string()))?;
    }
    if !address.is_tls {
        return Ok(Dialled { connection: Connection::Plain(stream), peer, tcp, tls: None });
    }
    let began = Instant::now();
    let config = match trust {
        Trust::Checked => upstream::trust().map_err(|why| Unreached::Certificate(why.to_owned()))?,
        Trust::Anybody => believing().map_err(|error| Unreached::Tls(error.to_string()))?,
    };
    let name = ServerName::try_from(address.host.clone()).map_err(|error| Unreached::Name(error.to_string()))?;
    let stream = timeout_at(until, TlsConnector::from(config).connect(name, stream)).await;
    let stream = stream.map_err(|_| Unreached::Tls(silent()))?.map_err(|error| refused(&error))?;
    let version = match stream.get_ref().1.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS 1.3",
    };
    let tls = Some((began.elapsed(), version));
    Ok(Dialled { connection: Connection::Tls(Box::new(stream)), peer, tcp, tls })
}

/// One address after the other, as browsers do.
async fn connect(
    found: &[SocketAddr],
    until: Instant,
    silent: &(dyn Fn() -> String + Sync),
) -> Result<(TcpStream, Duration), Unreached> {
    let mut why = "it has no address".to_owned();
    for (nth, peer) in found.iter().enumerate() {
        let began = Instant::now();
        // The last one may take all the time that is left.
        let left = until.saturating_duration_since(began);
        let share = left / u32::try_from(found.len() - nth).unwrap_or(1);
        match timeout_at(began + share, TcpStream::connect(peer)).await {
            Ok(Ok(stream)) => return Ok((stream, began.elapsed())),
            Ok(Err(error)) => why = error.to_string(),
            Err(_) => why = silent(),
        }
    }
    Err(Unreached::Port(why))
}

fn refused(error: &io::Error) -> Unreached {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    match inner {
        Some(TlsError::InvalidCertificate(fault)) => Unreached::Certificate(match fault {
            CertificateError::UnknownIssuer => {
                "it is self-signed, or signed by nobody whom this machine trusts".to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired".to_owned(),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "it is not valid yet".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "it is for another name".to_owned()
            }
            // Of one that is its own CA there is no kind; it is the most common of all.
            fault if format!("{fault:?}").contains("CaUsedAsEndEntity") => {
                "it is self-signed, and says of itself that it is a CA".to_owned()
            }
            fault => fault.to_string(),
        }),
        _ => Unreached::Tls(error.to_string()),
    }
}

/// TLS that believes whoever answers.
fn believing() -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(Believing(provider)));
    Ok(Arc::new(config.with_no_client_auth()))
}

#[derive(Debug)]
struct Believing(Arc<CryptoProvider>);

impl ServerCertVerifier for Believing {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
