//! Who is there: both ends of a new connection prove that they know the cluster's secret, before a byte reaches
//! ractor_cluster, whose own cookie is weak.
//!
//! Dialler: hello. Acceptor: hello. Dialler: proof. Acceptor: proof. A proof is HMAC-SHA256 over the role, both hellos
//! as they were sent, and in TLS that connection's own key material; nonces are new, so none can be replayed, reflected
//! or relayed. The dialler proves first: whoever merely connects learns nothing to guess the secret with. It has no
//! time limit of its own; whoever calls it sets one.

use std::io;

use hmac::{Hmac, Mac};
use klatch_actors::peers::PeerId;
use klatch_protocol::envelope::{self, EnvelopeError};
use klatch_protocol::frame::Hello;
use sha2::Sha256;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A name and a host have at most 255 bytes each.
const HELLO_BYTES_MAX: u16 = 1024;
const PROOF_BYTES: usize = 32;
const HOST_BYTES_MAX: usize = 255;

#[derive(Debug, thiserror::Error)]
pub enum PreambleError {
    #[error("the connection broke off")]
    Io(#[from] io::Error),
    #[error("what it says of itself cannot be read")]
    Unreadable(#[from] EnvelopeError),
    #[error("it is no peer: its first message has {0} bytes")]
    TooLong(u16),
    #[error("it does not know the cluster's secret")]
    WrongSecret,
    #[error("it is {found}, and {meant} was meant")]
    AnotherNode { found: PeerId, meant: PeerId },
    #[error("its name or host is too long, or it is this node itself")]
    Improper,
}

/// The cluster's secret, never shown.
#[derive(Clone)]
pub struct ClusterKey(Vec<u8>);

/// This node, as it introduces itself.
#[derive(Clone)]
pub struct Introduction {
    pub me: PeerId,
    pub host: String,
    pub key: ClusterKey,
}

/// Who the other end proved to be.
#[derive(Debug)]
pub struct Proven {
    pub peer: PeerId,
    pub host: String,
    /// Both ends have the same, and nobody else knows it.
    pub link: u64,
}

impl ClusterKey {
    pub fn new(secret: &[u8]) -> Self {
        Self(secret.to_vec())
    }

    /// For ractor_cluster, which hashes it with a short challenge: so it is not the secret itself.
    pub fn cookie(&self) -> String {
        self.mac(&[b"klatch cookie"]).finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Each part with its length before it, so that no two lists of parts have the same bytes.
    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of every length");
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

/// What both proofs are about.
struct Said {
    dialler: Vec<u8>,
    acceptor: Vec<u8>,
    channel: Vec<u8>,
}

impl Said {
    fn mac(&self, key: &ClusterKey, role: &[u8]) -> Hmac<Sha256> {
        key.mac(&[role, &self.dialler, &self.acceptor, &self.channel])
    }

    fn proof(&self, key: &ClusterKey, role: &[u8]) -> [u8; PROOF_BYTES] {
        self.mac(key, role).finalize().into_bytes().into()
    }

    fn link(&self, key: &ClusterKey) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.proof(key, LINK);
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

const DIALS: &[u8] = b"klatch peer 1 dials";
const ACCEPTS: &[u8] = b"klatch peer 1 accepts";
const LINK: &[u8] = b"klatch peer 1 link";

/// `channel` is what is this TLS connection's alone; empty without TLS.
pub async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    own: &Introduction,
    meant: &PeerId,
    channel: Vec<u8>,
) -> Result<Proven, PreambleError> {
    let dialler = own.hello(meant);
    write(stream, &dialler).await?;
    let acceptor = read(stream).await?;
    let hello: Hello = envelope::open(&acceptor)?;
    let found = own.properly(&hello)?;
    if found != *meant {
        return Err(PreambleError::AnotherNode { found, meant: meant.clone() });
    }
    let said = Said { dialler, acceptor, channel };
    stream.write_all(&said.proof(&own.key, DIALS)).await?;
    stream.flush().await?;
    verify(stream, &said, own, ACCEPTS).await?;
    Ok(Proven { peer: found, host: hello.host, link: said.link(&own.key) })
}

pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    own: &Introduction,
    channel: Vec<u8>,
) -> Result<Proven, PreambleError> {
    let dialler = read(stream).await?;
    let hello: Hello = envelope::open(&dialler)?;
    let peer = own.properly(&hello)?;
    let acceptor = own.hello(&peer);
    write(stream, &acceptor).await?;
    let said = Said { dialler, acceptor, channel };
    verify(stream, &said, own, DIALS).await?;
    let meant = PeerId { name: hello.to_name.as_str().into(), incarnation: hello.to_incarnation };
    if meant != own.me {
        return Err(PreambleError::AnotherNode { found: own.me.clone(), meant });
    }
    stream.write_all(&said.proof(&own.key, ACCEPTS)).await?;
    stream.flush().await?;
    Ok(Proven { peer, host: hello.host, link: said.link(&own.key) })
}

impl Introduction {
    fn hello(&self, to: &PeerId) -> Vec<u8> {
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).expect("the system has a random source");
        envelope::seal(&Hello {
            name: self.me.name.to_string(),
            incarnation: self.me.incarnation,
            host: self.host.clone(),
            to_name: to.name.to_string(),
            to_incarnation: to.incarnation,
            nonce,
        })
    }

    fn properly(&self, hello: &Hello) -> Result<PeerId, PreambleError> {
        let fits = |text: &str| !text.is_empty() && text.len() <= HOST_BYTES_MAX;
        if !fits(&hello.name) || !fits(&hello.host) || hello.name == *self.me.name {
            return Err(PreambleError::Improper);
        }
        Ok(PeerId { name: hello.name.as_str().into(), incarnation: hello.incarnation })
    }
}

async fn verify<S: AsyncRead + Unpin>(
    stream: &mut S,
    said: &Said,
    own: &Introduction,
    role: &[u8],
) -> Result<(), PreambleError> {
    let mut proof = [0; PROOF_BYTES];
    stream.read_exact(&mut proof).await?;
    // Compares in constant time.
    said.mac(&own.key, role).verify_slice(&proof).map_err(|_| PreambleError::WrongSecret)
}

async fn write<S: AsyncWrite + Unpin>(stream: &mut S, hello: &[u8]) -> Result<(), PreambleError> {
    let length = u16::try_from(hello.len()).map_err(|_| PreambleError::Improper)?;
    stream.write_all(&[&length.to_be_bytes(), hello].concat()).await?;
    Ok(stream.flush().await?)
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, PreambleError> {
    let length = stream.read_u16().await?;
    if length > HELLO_BYTES_MAX {
        return Err(PreambleError::TooLong(length));
    }
    let mut hello = vec![0; usize::from(length)];
    stream.read_exact(&mut hello).await?;
    Ok(hello)
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    fn node(name: &str, secret: &str) -> Introduction {
        let me = PeerId { name: name.into(), incarnation: 7 };
        Introduction { me, host: "127.0.0.1".into(), key: ClusterKey::new(secret.as_bytes()) }
    }

    async fn meet(
        dialler: &Introduction,
        acceptor: &Introduction,
        meant: &PeerId,
        channels: [&[u8]; 2],
    ) -> (Result<Proven, PreambleError>, Result<Proven, PreambleError>) {
        let (mut near, mut far) = duplex(4096);
        let dial = async move { dial(&mut near, dialler, meant, channels[0].to_vec()).await };
        let accept = async move { accept(&mut far, acceptor, channels[1].to_vec()).await };
        tokio::join!(dial, accept)
    }

    #[tokio::test]
    async fn two_who_know_the_secret_know_one_another_and_share_a_link() {
        let (a, b) = (node("a", "secret"), node("b", "secret"));
        let (dialled, accepted) = meet(&a, &b, &b.me, [b"tls", b"tls"]).await;
        let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap());
        assert_eq!((&dialled.peer, &accepted.peer), (&b.me, &a.me));
        assert_eq!(dialled.link, accepted.link);
        let (again, _) = meet(&a, &b, &b.me, [b"tls", b"tls"]).await;
        assert_ne!(again.unwrap().link, dialled.link);
    }

    #[tokio::test]
    async fn another_secret_another_channel_another_life_and_oneself_are_refused() {
        let (a, b) = (node("a", "secret"), node("b", "secret"));
        let (_, accepted) = meet(&node("a", "guess"), &b, &b.me, [b"", b""]).await;
        assert!(matches!(accepted, Err(PreambleError::WrongSecret)), "{accepted:?}");
        let (_, relayed) = meet(&a, &b, &b.me, [b"one", b"other"]).await;
        assert!(matches!(relayed, Err(PreambleError::WrongSecret)), "{relayed:?}");
        let later = PeerId { incarnation: 8, ..b.me.clone() };
        let (dialled, _) = meet(&a, &b, &later, [b"", b""]).await;
        assert!(matches!(dialled, Err(PreambleError::AnotherNode { .. })), "{dialled:?}");
        let (_, own) = meet(&a, &a, &a.me, [b"", b""]).await;
        assert!(matches!(own, Err(PreambleError::Improper)), "{own:?}");
    }

    #[tokio::test]
    async fn what_was_said_once_proves_nothing_the_next_time() {
        let b = node("b", "secret");
        let a = node("a", "secret");
        let hello = a.hello(&b.me);
        let (mut near, mut far) = duplex(4096);
        let honest = async {
            write(&mut near, &hello).await.unwrap();
            let acceptor = read(&mut near).await.unwrap();
            let said = Said { dialler: hello.clone(), acceptor, channel: Vec::new() };
            let proof = said.proof(&a.key, DIALS);
            near.write_all(&proof).await.unwrap();
            proof
        };
        let (proof, accepted) = tokio::join!(honest, accept(&mut far, &b, Vec::new()));
        accepted.unwrap();
        let (mut near, mut far) = duplex(4096);
        let replayed = async {
            write(&mut near, &hello).await.unwrap();
            read(&mut near).await.unwrap();
            near.write_all(&proof).await.unwrap();
        };
        let ((), refused) = tokio::join!(replayed, accept(&mut far, &b, Vec::new()));
        assert!(matches!(refused, Err(PreambleError::WrongSecret)), "{refused:?}");
    }
}
