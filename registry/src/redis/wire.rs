//! The connection under a line. What is asked at the same time is written in one piece, and what comes back is
//! read in one: that is most of what a command costs, here and at the server.

use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, RedisError, aio::MultiplexedConnection};
use socket2::SockRef;
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

/// What connecting may take.
const CONNECT: Duration = Duration::from_secs(2);

/// A connection that ends when nobody holds it.
pub struct Wire {
    connection: MultiplexedConnection,
    /// What drives it, and ends with us. Over TLS the library does that.
    _driver: JoinSet<()>,
}

impl Wire {
    pub async fn connect(to: ConnectionInfo, config: &AsyncConnectionConfig) -> Result<Self, RedisError> {
        let connecting = async {
            match to.addr() {
                ConnectionAddr::Tcp(host, port) => Self::over_tcp((host, *port), &to, config.clone()).await,
                _ => {
                    let connection = Client::open(to)?.get_multiplexed_async_connection_with_config(config).await?;
                    Ok(Self { connection, _driver: JoinSet::new() })
                }
            }
        };
        timeout(CONNECT, connecting).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    async fn over_tcp(
        address: (&String, u16),
        to: &ConnectionInfo,
        config: AsyncConnectionConfig,
    ) -> Result<Self, RedisError> {
        let stream = TcpStream::connect((address.0.as_str(), address.1)).await?;
        stream.set_nodelay(to.tcp_settings().nodelay())?;
        let socket = SockRef::from(&stream);
        if let Some(keepalive) = to.tcp_settings().keepalive() {
            socket.set_tcp_keepalive(keepalive)?;
        }
        socket.set_tcp_user_timeout(to.tcp_settings().user_timeout())?;
        let (connection, driver) = MultiplexedConnection::new_with_config(to.redis_settings(), stream, config).await?;
        let mut drivers = JoinSet::new();
        drivers.spawn(Together { driver: Box::pin(driver), waited: false });
        Ok(Self { connection, _driver: drivers })
    }

    pub fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }
}

/// Lets all others who are ready to run go first, so that what they ask goes along.
struct Together<F> {
    driver: Pin<Box<F>>,
    waited: bool,
}

impl<F: Future<Output = ()>> Future for Together<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.waited = !self.waited;
        if self.waited {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.driver.as_mut().poll(context)
    }
}
