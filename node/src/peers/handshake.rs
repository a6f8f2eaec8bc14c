//! From a TCP connection to a proven one: socket options, TLS where there are certificates, the preamble. Used by the
//! listener and the dialler alike; each step has its time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use klatch_actors::peers::PeerId;
use ractor_cluster::{BoxRead, BoxWrite, ClusterBidiStream};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::preamble::{self, Introduction, Proven};
use super::tls::{self, Tls};
use crate::net::{Stream, Vigil};

const TLS_MAX: Duration = Duration::from_secs(5);
const PREAMBLE_MAX: Duration = Duration::from_secs(5);
const VIGIL: Vigil = Vigil {
    unacknowledged_max: Duration::from_secs(5),
    keepalive_after: Duration::from_secs(5),
    keepalive_every: Duration::from_secs(1),
};
/// A frame is read with few calls.
const READ_BYTES: usize = 64 << 10;
/// Not sent: names are checked after the preamble.
const NO_NAME: &str = "klatch.invalid";

/// What every handshake of this node needs.
pub struct Handshake {
    pub own: Introduction,
    /// None: plain TCP.
    pub tls: Option<Arc<Tls>>,
}

impl Handshake {
    pub async fn accept(&self, stream: impl Stream) -> anyhow::Result<(Proven, Handed)> {
        set_options(&stream).context("socket options")?;
        let Some(tls) = self.tls.clone() else {
            let mut stream = stream;
            let proven = timeout(PREAMBLE_MAX, preamble::accept(&mut stream, &self.own, Vec::new()));
            let proven = proven.await.context("the preamble takes too long")??;
            return Ok((proven, Handed::plain(stream)));
        };
        let pair = tokio::task::spawn_blocking(move || tls.current()).await?;
        let accepted = timeout(TLS_MAX, TlsAcceptor::from(pair.server).accept(stream));
        let mut stream = TlsStream::from(accepted.await.context("the TLS handshake takes too long")??);
        let channel = key_material(&stream)?;
        let proven = timeout(PREAMBLE_MAX, preamble::accept(&mut stream, &self.own, channel));
        let proven = proven.await.context("the preamble takes too long")??;
        certified(&stream, &proven)?;
        Ok((proven, Handed::tls(stream)))
    }

    pub async fn dial(&self, stream: impl Stream, meant: &PeerId) -> anyhow::Result<(Proven, Handed)> {
        set_options(&stream).context("socket options")?;
        let Some(tls) = self.tls.clone() else {
            let mut stream = stream;
            let proven = timeout(PREAMBLE_MAX, preamble::dial(&mut stream, &self.own, meant, Vec::new()));
            let proven = proven.await.context("the preamble takes too long")??;
            return Ok((proven, Handed::plain(stream)));
        };
        let pair = tokio::task::spawn_blocking(move || tls.current()).await?;
        let name = ServerName::try_from(NO_NAME)?;
        let connected = timeout(TLS_MAX, TlsConnector::from(pair.client).connect(name, stream));
        let mut stream = TlsStream::from(connected.await.context("the TLS handshake takes too long")??);
        let channel = key_material(&stream)?;
        let proven = timeout(PREAMBLE_MAX, preamble::dial(&mut stream, &self.own, meant, channel));
        let proven = proven.await.context("the preamble takes too long")??;
        certified(&stream, &proven)?;
        Ok((proven, Handed::tls(stream)))
    }
}

fn set_options(stream: &impl Stream) -> io::Result<()> {
    stream.set_nodelay()?;
    stream.watch_over(VIGIL)
}

/// Of this connection alone: with it in the proofs nobody stands between.
fn key_material<S>(stream: &TlsStream<S>) -> anyhow::Result<Vec<u8>> {
    let material = match stream {
        TlsStream::Client(stream) => stream.get_ref().1.export_keying_material([0; 32], b"EXPORTER-klatch-peer", None),
        TlsStream::Server(stream) => stream.get_ref().1.export_keying_material([0; 32], b"EXPORTER-klatch-peer", None),
    };
    Ok(material.context("TLS gives no key material")?.to_vec())
}

fn certified<S>(stream: &TlsStream<S>, proven: &Proven) -> anyhow::Result<()> {
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let Some(certificate) = shown else { bail!("it showed no certificate") };
    if !tls::is_for(certificate, &proven.peer, &proven.host) {
        bail!("its certificate is neither for the name {} nor for the host {}", proven.peer.name, proven.host);
    }
    Ok(())
}

/// A proven connection, ready for the carrier.
pub struct Handed {
    read: BoxRead,
    write: BoxWrite,
    label: String,
}

impl Handed {
    fn plain(stream: impl Stream) -> Self {
        let (read, write) = stream.into_halves();
        Self::new(read, write)
    }

    fn tls(stream: TlsStream<impl Stream>) -> Self {
        let (read, write) = tokio::io::split(stream);
        Self::new(read, write)
    }

    fn new(read: impl AsyncRead + Unpin + Send + 'static, write: impl AsyncWrite + Unpin + Send + 'static) -> Self {
        let read = BufReader::with_capacity(READ_BYTES, read);
        Self { read: Box::new(read), write: Box::new(write), label: String::new() }
    }

    pub fn into_halves(self) -> (BoxRead, BoxWrite) {
        (self.read, self.write)
    }

    /// ractor_cluster's events name the session by it.
    pub fn labelled(self, label: String) -> Self {
        Self { label, ..self }
    }
}

impl ClusterBidiStream for Handed {
    fn split(self: Box<Self>) -> (BoxRead, BoxWrite) {
        (self.read, self.write)
    }

    fn peer_label(&self) -> Option<String> {
        Some(self.label.clone())
    }
}
