//! The node's network ([`klatch::net`]) over turmoil, with what turmoil does not have: connections that are reset, and the
//! watch over silent ones (`TCP_USER_TIMEOUT`, keepalive) where the node asks for it.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use klatch::net::{Listener, Net, Stream, Vigil};
use klatch_world::shared::lock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};
use turmoil::net::{TcpListener, TcpStream};

/// Who reads and who writes, and some that did before.
const WAITING_MAX: usize = 4;

/// All ends of all connections of a world.
#[derive(Clone, Default)]
pub struct Wires(Arc<Mutex<Vec<Weak<End>>>>);

/// One end of a connection.
struct End {
    local: SocketAddr,
    remote: SocketAddr,
    reset: AtomicBool,
    vigil: Mutex<Option<Vigil>>,
    waiting: Mutex<Vec<Waker>>,
}

/// One host's network.
#[derive(Clone)]
pub struct Wire(pub Wires);

pub struct WireStream {
    inner: TcpStream,
    end: Arc<End>,
}

pub struct WireListener {
    inner: TcpListener,
    wires: Wires,
}

type Hosts = (std::net::IpAddr, std::net::IpAddr);

impl Wires {
    fn end(&self, inner: TcpStream) -> io::Result<WireStream> {
        let (local, remote) = (inner.local_addr()?, inner.peer_addr()?);
        let (reset, vigil, waiting) = (AtomicBool::new(false), Mutex::default(), Mutex::default());
        let end = Arc::new(End { local, remote, reset, vigil, waiting });
        lock(&self.0).push(Arc::downgrade(&end));
        Ok(WireStream { inner, end })
    }

    /// Open ends of connections between these hosts.
    fn between(&self, (a, b): Hosts) -> Vec<Arc<End>> {
        let mut ends = lock(&self.0);
        ends.retain(|end| end.strong_count() > 0);
        let open = ends.iter().filter_map(Weak::upgrade).filter(|end| !end.reset.load(Ordering::SeqCst));
        open.filter(|end| [(a, b), (b, a)].contains(&(end.local.ip(), end.remote.ip()))).collect()
    }

    /// Connections with both ends open.
    pub fn open(&self, hosts: Hosts) -> usize {
        let ends = self.between(hosts);
        ends.iter().filter(|end| ends.iter().any(|other| other.remote == end.local)).count() / 2
    }

    /// Both ends of every connection hear of it. Says how many ends there were.
    pub fn reset(&self, hosts: Hosts) -> usize {
        let ends = self.between(hosts);
        ends.iter().for_each(|end| end.break_off());
        ends.len()
    }

    /// The link has been silent for so long: ends that are watched over are given up.
    pub fn silent_for(&self, hosts: Hosts, silent: Duration) -> usize {
        let watched = |end: &&Arc<End>| lock(&end.vigil).is_some_and(|vigil| vigil.unacknowledged_max <= silent);
        let ends = self.between(hosts);
        ends.iter().filter(watched).map(|end| end.break_off()).count()
    }
}

impl End {
    fn break_off(&self) {
        self.reset.store(true, Ordering::SeqCst);
        lock(&self.waiting).drain(..).for_each(Waker::wake);
    }

    fn check(&self, context: &Context<'_>) -> io::Result<()> {
        if self.reset.load(Ordering::SeqCst) {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let mut waiting = lock(&self.waiting);
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.truncate(WAITING_MAX - 1);
            waiting.insert(0, context.waker().clone());
        }
        Ok(())
    }
}

impl Net for Wire {
    type Stream = WireStream;
    type Listener = WireListener;

    async fn dial(&self, address: &str) -> io::Result<WireStream> {
        let stream = TcpStream::connect(address.to_owned()).await?;
        self.0.end(stream)
    }

    async fn listen(&self, address: SocketAddr) -> io::Result<WireListener> {
        Ok(WireListener { inner: TcpListener::bind(address).await?, wires: self.0.clone() })
    }
}

impl Listener for WireListener {
    type Stream = WireStream;

    async fn accept(&self) -> io::Result<(WireStream, SocketAddr)> {
        let (stream, peer) = self.inner.accept().await?;
        Ok((self.wires.end(stream)?, peer))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

impl Stream for WireStream {
    type Read = ReadHalf<Self>;
    type Write = WriteHalf<Self>;

    fn set_nodelay(&self) -> io::Result<()> {
        Ok(())
    }

    fn watch_over(&self, vigil: Vigil) -> io::Result<()> {
        *lock(&self.end.vigil) = Some(vigil);
        Ok(())
    }

    fn into_halves(self) -> (Self::Read, Self::Write) {
        tokio::io::split(self)
    }
}

impl AsyncRead for WireStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.end.check(context)?;
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl AsyncWrite for WireStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.end.check(context)?;
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
