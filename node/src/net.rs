//! Where TCP begins: how this node reaches others, and is reached. The program uses the system's ([`System`]); simulations
//! bring a network of their own, so that all above a connection is the same code in both.
//!
//! Decides nothing: what is dialled, for how long, and what becomes of a connection is its users' business.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};

/// How the end of a connection is noticed where the other side says nothing any more.
#[derive(Clone, Copy, Debug)]
pub struct Vigil {
    /// What was sent and is not acknowledged after so long ends the connection.
    pub unacknowledged_max: Duration,
    /// An idle connection is probed after so long...
    pub keepalive_after: Duration,
    /// ...and then so often.
    pub keepalive_every: Duration,
}

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    type Read: AsyncRead + Unpin + Send + 'static;
    type Write: AsyncWrite + Unpin + Send + 'static;

    /// Small messages do not wait for one another.
    fn set_nodelay(&self) -> io::Result<()>;

    fn watch_over(&self, vigil: Vigil) -> io::Result<()>;

    fn into_halves(self) -> (Self::Read, Self::Write);
}

/// A port that listens.
pub trait Listener: Send + Sync + 'static {
    type Stream: Stream;

    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>> + Send;

    fn local_addr(&self) -> io::Result<SocketAddr>;
}

pub trait Net: Send + Sync + 'static {
    type Stream: Stream;
    type Listener: Listener<Stream = Self::Stream>;

    /// `address` is `host:port`, resolved each time.
    fn dial(&self, address: &str) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    fn listen(&self, address: SocketAddr) -> impl Future<Output = io::Result<Self::Listener>> + Send;
}

/// The network of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Net for System {
    type Stream = TcpStream;
    type Listener = TcpListener;

    /// Each address that the name has now, until one is there.
    async fn dial(&self, address: &str) -> io::Result<TcpStream> {
        let mut failed = None;
        for address in lookup_host(address).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "its name has no address")))
    }

    async fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        listen(address)
    }
}

/// Connections that the system holds until they are accepted; it may allow fewer. After another node's end clients,
/// balancers and nodes come all at once, and who finds no place tries again after a second, when a balancer has given up
/// already.
const ACCEPT_QUEUE_MAX: u32 = 4_096;

/// What every port of a node is opened with.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As after a crash: connections of the life before may linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(ACCEPT_QUEUE_MAX)
}

impl Stream for TcpStream {
    type Read = OwnedReadHalf;
    type Write = OwnedWriteHalf;

    fn set_nodelay(&self) -> io::Result<()> {
        self.set_nodelay(true)
    }

    fn watch_over(&self, vigil: Vigil) -> io::Result<()> {
        let socket = SockRef::from(self);
        let keepalive = TcpKeepalive::new().with_time(vigil.keepalive_after).with_interval(vigil.keepalive_every);
        socket.set_tcp_keepalive(&keepalive)?;
        socket.set_tcp_user_timeout(Some(vigil.unacknowledged_max))
    }

    fn into_halves(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        self.into_split()
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept().await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.local_addr()
    }
}

/// A stream whose kind nobody needs to know.
pub trait AnyStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AnyStream for S {}

/// Dials for those who are handed a stream, such as the client of Redis.
pub trait Dial: Send + Sync + 'static {
    fn dial_any(&self, address: String, vigil: Vigil) -> BoxFuture<'_, io::Result<Box<dyn AnyStream>>>;
}

impl<N: Net> Dial for N {
    fn dial_any(&self, address: String, vigil: Vigil) -> BoxFuture<'_, io::Result<Box<dyn AnyStream>>> {
        Box::pin(async move {
            let stream = self.dial(&address).await?;
            stream.set_nodelay()?;
            stream.watch_over(vigil)?;
            Ok(Box::new(stream) as Box<dyn AnyStream>)
        })
    }
}
