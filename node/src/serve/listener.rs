//! One listening port and its connections: HTTP/1.1 and h2c. Started by `serve` for the public port and for the ops
//! port; a panic in a request costs its connection.
//!
//! axum's own server is not used: its drain closes idle connections at once, which races with requests that a balancer
//! has already sent on them. Knows nothing of what the routes answer, and encrypts nothing: that is the balancer's.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Response, Version};
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::net::{Listener, Stream};
use crate::telemetry::{CONNECTIONS, CONNECTIONS_REFUSED};

/// How long a connection may be idle, and a request's head be on its way. Above what balancers keep connections for
/// (20 s in nginx/), or they send requests into connections that we close.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Fields in a request's head; over it 431. Browsers and SDKs send some twenty.
const HEADERS_MAX: usize = 100;
/// Bytes of a request's head; over it 431. NGINX passes 32 KB on at most.
const HEAD_BYTES_MAX: u32 = 64 << 10;
/// Requests at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// An HTTP/2 peer that is gone without a word is asked so often, and given up after as long again.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Wait after the system could not give us a connection (no file descriptors left).
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What the connections of a port are told; later ones include the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Open,
    /// Answers carry `Connection: close`.
    LastAnswers,
    Closed,
    Finishing,
    Aborted,
}

/// What a connection is told while it is served.
enum Word {
    /// End with the answer that is under way.
    Finish,
    End,
    GoOn,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A port that listens, and where its drain is steered from.
pub struct Port {
    stage: watch::Sender<Stage>,
    connections: TaskTracker,
    address: SocketAddr,
}

/// What its connections share.
struct Serving {
    name: &'static str,
    routes: Router,
    server: auto::Builder<TokioExecutor>,
    stage: watch::Receiver<Stage>,
    connections: TaskTracker,
}

impl Port {
    /// Serves `routes` from now on, to at most `connections_max` connections; further ones wait in the system's queue.
    pub fn open(
        name: &'static str,
        listener: impl Listener,
        routes: Router,
        connections_max: usize,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (stage, receiver) = watch::channel(Stage::Open);
        let connections = TaskTracker::new();
        let serving =
            Arc::new(Serving { name, routes, server: server(), stage: receiver, connections: connections.clone() });
        let places = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        connections.spawn(accept(listener, places, serving));
        connections.close();
        Ok(Self { stage, connections, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// So many are open, the listener counted with them until it is closed. To be asked also later.
    pub fn open_connections(&self) -> impl Fn() -> usize + Send + use<> {
        let connections = self.connections.clone();
        move || connections.len()
    }

    pub fn close_connections_with_their_answers(&self) {
        self.advance(Stage::LastAnswers);
    }

    pub fn close_listener(&self) {
        self.advance(Stage::Closed);
    }

    pub fn finish_connections(&self) {
        self.advance(Stage::Finishing);
    }

    pub fn abort_connections(&self) {
        self.advance(Stage::Aborted);
    }

    /// Ends when the listener is closed and no connection is open.
    pub fn finished(&self) -> impl Future<Output = ()> + Send + use<> {
        let connections = self.connections.clone();
        async move { connections.wait().await }
    }

    fn advance(&self, to: Stage) {
        self.stage.send_if_modified(|stage| {
            let advances = *stage < to;
            *stage = (*stage).max(to);
            advances
        });
    }
}

fn server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX as usize);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY);
    server
}

async fn accept(listener: impl Listener, places: Arc<Semaphore>, serving: Arc<Serving>) {
    let mut closed = serving.stage.clone();
    let mut closed = pin!(async move { reached(&mut closed, Stage::Closed).await }.fuse());
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.expect("the places are never closed");
            (listener.accept().await, place)
        };
        tokio::select! {
            biased;
            () = &mut closed => break,
            (accepted, place) = next => match accepted {
                Ok((stream, peer)) => serving.start(stream, peer, place),
                Err(error) => serving.not_accepted(&error).await,
            },
        }
    }
    // Whoever the system has already connected may have sent a request; closing now would reset it.
    while let (Some(Ok((stream, peer))), Ok(place)) =
        (listener.accept().now_or_never(), places.clone().try_acquire_owned())
    {
        serving.start(stream, peer, place);
    }
}

/// Ends when the stage has come so far, or its port is dropped.
async fn reached(stage: &mut watch::Receiver<Stage>, far: Stage) {
    let _ = stage.wait_for(|stage| *stage >= far).await;
}

impl Serving {
    fn start(self: &Arc<Self>, stream: impl Stream, peer: SocketAddr, place: OwnedSemaphorePermit) {
        let serving = self.clone();
        self.connections.spawn(async move {
            let gauge = metrics::gauge!(CONNECTIONS, "port" => serving.name);
            gauge.increment(1);
            // A panic of a route must not leave the connection counted.
            let ended = std::panic::AssertUnwindSafe(serving.connection(stream, peer)).catch_unwind().await;
            gauge.decrement(1);
            drop(place);
            if let Ok(Err(error)) = ended {
                tracing::debug!(peer.address = %peer, error, "a connection ended early");
            }
        });
    }

    async fn connection(self: Arc<Self>, stream: impl Stream, peer: SocketAddr) -> Result<(), Failure> {
        // Events of a stream are small and should not wait for one another.
        stream.set_nodelay()?;
        let shared = self.clone();
        let (mut finishing, mut aborted) = (self.stage.clone(), self.stage.clone());
        let asked = Arc::new(AtomicBool::new(false));
        let asking = asked.clone();
        let service = service_fn(move |request| {
            asking.store(true, Ordering::Relaxed);
            self.clone().answer(request, peer)
        });
        let mut connection = pin!(shared.server.serve_connection(TokioIo::new(stream), service));
        let finishing = async move {
            reached(&mut finishing, Stage::Finishing).await;
            Word::Finish
        };
        let aborted = async move {
            reached(&mut aborted, Stage::Aborted).await;
            Word::End
        };
        // hyper's idle timeout begins once it knows the protocol, so the first bytes have one of their own.
        let first_request = async move {
            tokio::time::sleep(IDLE_TIMEOUT).await;
            if asked.load(Ordering::Relaxed) { Word::GoOn } else { Word::End }
        };
        // Looked at only when one of them has something to say, and not with every byte of the connection.
        let mut words = FuturesUnordered::from_iter([finishing.boxed(), aborted.boxed(), first_request.boxed()]);
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => return ended,
                Some(word) = words.next() => match word {
                    Word::Finish => connection.as_mut().graceful_shutdown(),
                    Word::End => return Ok(()),
                    Word::GoOn => {}
                },
            }
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Result<Response<Body>, Infallible> {
        let one_at_a_time = request.version() <= Version::HTTP_11;
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        let mut response = self.routes.clone().oneshot(request).await?;
        // In HTTP/2 the header does not exist; such connections are told when they are finished.
        if one_at_a_time && *self.stage.borrow() >= Stage::LastAnswers {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    /// Without the wait a system that has run out of file descriptors would be asked in a busy loop.
    async fn not_accepted(&self, error: &io::Error) {
        metrics::counter!(CONNECTIONS_REFUSED, "port" => self.name).increment(1);
        tracing::warn!(port.name = self.name, error = %error, "cannot accept a connection");
        tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
    }
}
