//! One node's peers in a process of its own, driven by lines: `keep NAME.INCARNATION@ADDRESS …`, `ask NUMBER PEER BYTES
//! DEADLINE_MS`, `measure PEER BYTES AT_ONCE TIMES`. Says `listening ADDRESS`, `reached PEER`, `asked NUMBER OUTCOME`. It
//! answers with what it was asked; what begins with `!` is never answered.
//!
//! `peer NAME INCARNATION SECRET [CERT KEY CA]`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::StreamExt;
use futures::future::BoxFuture;
use klatch::peers::tls::TlsFiles;
use klatch::peers::{ClusterPeers, ClusterSettings};
use klatch_actors::peers::{PeerAddress, PeerError, PeerId, Serve};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;

const LOOK_EVERY: Duration = Duration::from_millis(5);

struct Echo;

impl Serve for Echo {
    fn serve(&self, _: PeerId, request: Vec<u8>) -> BoxFuture<'static, Vec<u8>> {
        Box::pin(async move {
            if request.first() == Some(&b'!') {
                std::future::pending::<()>().await;
            }
            request
        })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, incarnation, secret, files @ ..] = arguments.as_slice() else { bail!("usage: see the source") };
    let tls = match files {
        [cert, key, ca] => Some(TlsFiles { cert: cert.into(), key: key.into(), ca: ca.into() }),
        _ => None,
    };
    let me = PeerId { name: name.as_str().into(), incarnation: incarnation.parse()? };
    let settings = ClusterSettings { me, host: "127.0.0.1".into(), secret: secret.clone().into_bytes(), tls };
    let port = std::env::var("PEER_PORT").unwrap_or_else(|_| "0".to_owned());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}")).await?;
    let peers = Arc::new(ClusterPeers::start(settings, listener, Arc::new(Echo)).await?);
    println!("listening {}", peers.address());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        obey(&peers, &line.split_whitespace().collect::<Vec<_>>())?;
    }
    Ok(())
}

fn obey(peers: &Arc<ClusterPeers>, words: &[&str]) -> anyhow::Result<()> {
    match words {
        ["keep", kept @ ..] => peers.keep(kept.iter().map(|text| address(text)).collect::<anyhow::Result<_>>()?),
        ["reach", peer] => drop(tokio::spawn(reach(peers.clone(), id(peer)?))),
        ["ask", number, peer, bytes, deadline_ms] => {
            let request = request(number, bytes)?;
            let asked = peers.ask(id(peer)?, request.clone(), Duration::from_millis(deadline_ms.parse()?));
            let number = (*number).to_owned();
            tokio::spawn(async move { println!("asked {number} {}", outcome(asked.await, &request)) });
        }
        ["measure", peer, bytes, at_once, times] => {
            let (bytes, at_once, times) = (bytes.parse()?, at_once.parse()?, times.parse()?);
            tokio::spawn(measure(peers.clone(), id(peer)?, bytes, at_once, times));
        }
        other => bail!("{other:?} is no order"),
    }
    Ok(())
}

/// The bytes of an ask that is never answered are written with a `!`.
fn request(number: &str, bytes: &str) -> anyhow::Result<Vec<u8>> {
    let (fill, bytes) = bytes.strip_prefix('!').map_or((number.as_bytes()[0], bytes), |bytes| (b'!', bytes));
    Ok(vec![fill; bytes.parse()?])
}

fn outcome(result: Result<Vec<u8>, PeerError>, request: &[u8]) -> String {
    match result {
        Ok(answer) if answer == request => "answered".to_owned(),
        Ok(_) => "garbled".to_owned(),
        Err(PeerError::NotSent(why)) => format!("not-sent {why}"),
        Err(PeerError::NoAnswer(why)) => format!("no-answer {why}"),
    }
}

/// This program has no event for it: it looks.
async fn reach(peers: Arc<ClusterPeers>, peer: PeerId) {
    let mut every = tokio::time::interval(LOOK_EVERY);
    while !peers.reaches(&peer) {
        every.tick().await;
    }
    println!("reached {peer}");
}

async fn measure(peers: Arc<ClusterPeers>, peer: PeerId, bytes: usize, at_once: usize, times: usize) {
    let begin = Instant::now();
    let asks = futures::stream::iter(0..times).map(|_| {
        let asked = Instant::now();
        let answer = peers.ask(peer.clone(), vec![7; bytes], Duration::from_secs(10));
        async move { answer.await.map(|_| asked.elapsed()) }
    });
    let answered: Vec<_> = asks.buffer_unordered(at_once).collect().await;
    let mut took: Vec<Duration> = answered.into_iter().flatten().collect();
    took.sort_unstable();
    let of = |share: usize| took.get(took.len() * share / 100).map_or(0, Duration::as_micros);
    let per_ask = begin.elapsed().as_micros() as f64 / times as f64;
    println!("measured {} answered, {per_ask:.1} us each, p50 {} us, p99 {} us", took.len(), of(50), of(99));
}

fn id(text: &str) -> anyhow::Result<PeerId> {
    let (name, incarnation) = text.rsplit_once('.').context("NAME.INCARNATION")?;
    Ok(PeerId { name: name.into(), incarnation: incarnation.parse()? })
}

fn address(text: &str) -> anyhow::Result<PeerAddress> {
    let (peer, address) = text.split_once('@').context("PEER@ADDRESS")?;
    Ok(PeerAddress { id: id(peer)?, address: address.to_owned() })
}
