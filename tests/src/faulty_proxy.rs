//! A TCP proxy that misbehaves as it is told: each direction of a connection passes on, stalls or is slow, for everyone
//! or for one client process only; connections break or end; new ones are refused.
//!
//! Works without rights and on any kernel. Unlike a network it accepts connections while it passes nothing on, so a cut
//! begins here with silence and never with a refused or an unanswered connection.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::sockets;

/// Read and passed on at once.
const CHUNK_BYTES: usize = 16 << 10;

/// What one direction does with what it gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flow {
    #[default]
    Pass,
    /// Each piece that is read waits so long; the next is read behind it.
    Delay(Duration),
    /// Nothing is passed on, an end neither; what comes waits until it is.
    Stall,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// From clients to the server.
    pub up: Flow,
    /// From the server to clients.
    pub down: Flow,
}

impl Faults {
    pub const STALLED: Self = Self { up: Flow::Stall, down: Flow::Stall };
}

#[derive(Clone, Debug, Default)]
struct State {
    all: Faults,
    /// By process id of the client; in place of `all`.
    of: BTreeMap<u32, Faults>,
    /// New connections are broken at once.
    refuses: bool,
    /// Counts the orders to break all connections, and to end them.
    breaks: u64,
    ends: u64,
}

/// Dropped, it takes no more connections, and those that it has break.
pub struct FaultyProxy {
    pub address: SocketAddr,
    /// Where it passes connections on to.
    pub server: Arc<str>,
    state: watch::Sender<State>,
    accepting: JoinHandle<()>,
}

impl FaultyProxy {
    /// On a loopback port of its own, before this server; which need not run yet.
    pub async fn start(server: String) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (state, seen) = watch::channel(State::default());
        let server: Arc<str> = server.into();
        let accepting = tokio::spawn(accept(listener, address, server.clone(), seen));
        Ok(Self { address, server, state, accepting })
    }

    pub fn set(&self, faults: Faults) {
        self.state.send_modify(|state| state.all = faults);
    }

    /// For the connections of this process only, those that it has and those that it makes.
    pub fn set_for(&self, process: u32, faults: Faults) {
        self.state.send_modify(|state| {
            state.of.insert(process, faults);
        });
    }

    pub fn refuse(&self, refuses: bool) {
        self.state.send_modify(|state| state.refuses = refuses);
    }

    /// All connections break: both sides are told by a reset.
    pub fn reset(&self) {
        self.state.send_modify(|state| state.breaks += 1);
    }

    /// All connections end: both sides are told by an end, as if the other had closed.
    pub fn end(&self) {
        self.state.send_modify(|state| state.ends += 1);
    }

    /// Passes everything on again.
    pub fn heal(&self) {
        self.state.send_modify(|state| {
            *state = State { breaks: state.breaks, ends: state.ends, ..State::default() };
        });
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.reset();
    }
}

/// How a connection came to its end.
enum Ended {
    ByItself,
    Broken,
}

/// One direction of one connection.
struct Direction {
    /// Of the client, where it is known.
    process: Option<u32>,
    of: fn(Faults) -> Flow,
    state: watch::Receiver<State>,
}

async fn accept(listener: TcpListener, address: SocketAddr, server: Arc<str>, state: watch::Receiver<State>) {
    loop {
        let Ok((client, from)) = listener.accept().await else { continue };
        if state.borrow().refuses {
            break_off(&client);
            continue;
        }
        let process = sockets::process_of(from, address);
        let (server, state) = (server.clone(), state.clone());
        tokio::spawn(async move {
            // A server that is not there is a connection that breaks.
            let Ok(server) = TcpStream::connect(&*server).await else { return break_off(&client) };
            forward(client, server, process, state).await;
        });
    }
}

async fn forward(mut client: TcpStream, mut server: TcpStream, process: Option<u32>, state: watch::Receiver<State>) {
    // Where it cannot be set small frames wait for each other.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ended = {
        let ((client_reads, client_writes), (server_reads, server_writes)) = (client.split(), server.split());
        let up = Direction { process, of: |faults| faults.up, state: state.clone() };
        let down = Direction { process, of: |faults| faults.down, state: state.clone() };
        tokio::select! {
            _ = async { tokio::join!(up.pass(client_reads, server_writes), down.pass(server_reads, client_writes)) } => {
                Ended::ByItself
            }
            ended = ordered(state) => ended,
        }
    };
    if matches!(ended, Ended::Broken) {
        break_off(&client);
        break_off(&server);
    }
}

/// Until all connections are told to break, or to end.
async fn ordered(mut state: watch::Receiver<State>) -> Ended {
    let (breaks, ends) = {
        let now = state.borrow();
        (now.breaks, now.ends)
    };
    match state.wait_for(|now| now.breaks != breaks || now.ends != ends).await {
        Ok(now) if now.breaks == breaks => Ended::ByItself,
        // The proxy is gone.
        Ok(_) | Err(_) => Ended::Broken,
    }
}

impl Direction {
    async fn pass(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) {
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let Ok(length) = from.read(&mut chunk).await else { return };
            self.gate().await;
            if length == 0 {
                // A side that is gone needs no end.
                let _ = to.shutdown().await;
                return;
            }
            if to.write_all(&chunk[..length]).await.is_err() {
                return;
            }
        }
    }

    /// Waits as long as what was read has to wait.
    async fn gate(&mut self) {
        let (process, of) = (self.process, self.of);
        let flow = |state: &State| {
            let own = process.and_then(|process| state.of.get(&process));
            of(own.copied().unwrap_or(state.all))
        };
        let flow = self.state.wait_for(|state| flow(state) != Flow::Stall).await.map(|state| flow(&state));
        if let Ok(Flow::Delay(delay)) = flow {
            tokio::time::sleep(delay).await;
        }
    }
}

/// Closed later, it tells the other side by a reset.
fn break_off(stream: &TcpStream) {
    // Where it cannot be set the connection ends instead.
    let _ = stream.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    const SHORT: Duration = Duration::from_millis(100);

    /// An echo, and a proxy before it.
    async fn echo() -> FaultyProxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = FaultyProxy::start(listener.local_addr().unwrap().to_string()).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut reads, mut writes) = stream.split();
                    // It ends with its client.
                    let _ = tokio::io::copy(&mut reads, &mut writes).await;
                });
            }
        });
        proxy
    }

    async fn says(stream: &mut TcpStream, word: &[u8; 4]) {
        stream.write_all(word).await.unwrap();
        assert_eq!(&hears(stream).await, word);
    }

    async fn hears(stream: &mut TcpStream) -> [u8; 4] {
        let mut heard = [0; 4];
        tokio::time::timeout(Duration::from_secs(10), stream.read_exact(&mut heard)).await.unwrap().unwrap();
        heard
    }

    #[tokio::test]
    async fn what_stalls_waits_and_comes_whole() {
        let proxy = echo().await;
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        says(&mut client, b"one.").await;
        for faults in
            [Faults { up: Flow::Stall, ..Faults::default() }, Faults { down: Flow::Stall, ..Faults::default() }]
        {
            proxy.set(faults);
            client.write_all(b"two.").await.unwrap();
            assert!(tokio::time::timeout(SHORT, client.peek(&mut [0])).await.is_err(), "{faults:?} let it through");
            proxy.heal();
            assert_eq!(&hears(&mut client).await, b"two.");
        }
        proxy.set(Faults { up: Flow::Delay(SHORT), ..Faults::default() });
        says(&mut client, b"slow").await;
    }

    #[tokio::test]
    async fn one_process_is_cut_off_and_no_other() {
        let proxy = echo().await;
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        proxy.set_for(u32::MAX, Faults::STALLED);
        says(&mut client, b"one.").await;
        proxy.set_for(std::process::id(), Faults::STALLED);
        client.write_all(b"two.").await.unwrap();
        assert!(tokio::time::timeout(SHORT, client.peek(&mut [0])).await.is_err(), "this process is not cut off");
        proxy.heal();
        assert_eq!(&hears(&mut client).await, b"two.");
    }

    #[tokio::test]
    async fn connections_break_end_and_are_refused() {
        let proxy = echo().await;
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        says(&mut client, b"one.").await;
        proxy.reset();
        assert_eq!(client.read(&mut [0; 4]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        says(&mut client, b"one.").await;
        proxy.end();
        assert_eq!(client.read(&mut [0; 4]).await.unwrap(), 0);
        proxy.refuse(true);
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        assert_eq!(client.read(&mut [0; 4]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}
