//! The `[cluster]` section of the configuration: where nodes meet, and how they know one another.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use super::tls::TlsFiles;
use crate::auth::Secret;
use crate::config::ConfigRefused;

const DEFAULT_ADDR: ([u8; 4], u16) = ([127, 0, 0, 1], 7946);
/// What no list of words finds.
const SECRET_BYTES_MIN: usize = 32;
const SECRET_FILE_BYTES_MAX: u64 = 4096;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterOptions {
    /// Address and port where other nodes connect. With Redis 127.0.0.1:7946 unless set; none with `file:`, where a
    /// node is alone.
    #[serde(deserialize_with = "address", skip_serializing_if = "Option::is_none")]
    pub addr: Option<SocketAddr>,
    /// What others are told to connect to: `host` or `host:port`, resolved by them at each connection. By default addr;
    /// required where that is all addresses (0.0.0.0).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// What nodes authenticate each other with, the same on all: 32 bytes or more, such as `openssl rand -hex 32` makes.
    /// Required with Redis, here or as secret_file. Not an option of the command line, which everybody on the host sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// A file with the secret; one line end at its end does not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// PEM file with this node's certificate, and those between it and the CA's. It must be for the node's name, or for
    /// the advertised host if that begins with the name and a dot; and for both TLS servers and clients. Read again
    /// when it changes, like the two below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// PEM file with the certificates of the CA that signed those of all nodes, and of nobody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Let nodes talk without TLS on other addresses than loopback: only inside a network that encrypts by itself, since
    /// whoever can listen there reads every conversation.
    #[serde(deserialize_with = "yes_or_no")]
    pub plain: bool,
}

impl ClusterOptions {
    /// Where to listen, if anywhere: `shared` says whether the store is one that nodes share.
    pub fn addr(&self, shared: bool) -> Option<SocketAddr> {
        self.addr.or_else(|| shared.then(|| SocketAddr::from(DEFAULT_ADDR)))
    }

    /// What others are told, given where it really listens.
    pub fn advertised(&self, listening: SocketAddr) -> String {
        match &self.advertise {
            Some(told) if has_port(told) => told.clone(),
            Some(host) => format!("{host}:{}", listening.port()),
            None => listening.to_string(),
        }
    }

    pub fn tls(&self) -> Option<TlsFiles> {
        match (&self.cert, &self.key, &self.ca) {
            (Some(cert), Some(key), Some(ca)) => {
                Some(TlsFiles { cert: cert.clone(), key: key.clone(), ca: ca.clone() })
            }
            _ => None,
        }
    }

    /// The secret itself; reads its file.
    pub fn read_secret(&self) -> Result<Vec<u8>, ConfigRefused> {
        let (key, secret) = match (&self.secret, &self.secret_file) {
            (Some(secret), _) => ("cluster.secret", secret.reveal().as_bytes().to_vec()),
            (None, Some(path)) => ("cluster.secret_file", read_bounded(path)?),
            (None, None) => return Err(no_secret()),
        };
        if secret.len() < SECRET_BYTES_MIN {
            let right = "32 or more are, such as `openssl rand -hex 32` makes";
            return Err(ConfigRefused::new(key, format!("{} bytes are too few: {right}", secret.len())));
        }
        Ok(secret)
    }

    /// `embedded` says whether the store is a file, which one node alone can have.
    pub fn refuse_contradictions(&self, shared: bool, embedded: bool) -> Result<(), ConfigRefused> {
        let refuse = |key: &str, said: &str| Err(ConfigRefused::new(format!("cluster.{key}"), said));
        if self.secret.is_some() && self.secret_file.is_some() {
            return refuse("secret_file", "is set beside secret: one of the two is right");
        }
        if embedded && self.addr.is_some() {
            return refuse("addr", "is set with a store of one node: leave it, or share a store (redis://…)");
        }
        let named = [("cert", &self.cert), ("key", &self.key), ("ca", &self.ca)];
        let missing = named.iter().find(|(_, path)| path.is_none());
        let tls = named.iter().any(|(_, path)| path.is_some());
        if let (true, Some((key, _))) = (tls, missing) {
            return refuse(key, "is not set: TLS needs all of cert, key and ca");
        }
        if tls && self.plain {
            return refuse("plain", "is set beside cert, key and ca: leave it, or leave those");
        }
        let Some(addr) = self.addr(shared) else { return Ok(()) };
        if !addr.ip().is_loopback() && !tls && !self.plain {
            let right = "needs TLS where others than this host reach it: set cert, key and ca, or (inside a network \
                         that encrypts by itself) plain";
            return refuse("addr", &format!("{addr} {right}"));
        }
        if addr.ip().is_unspecified() && self.advertise.is_none() {
            let said = format!("is not set, and nobody can connect to {addr}: a host such as klatch-0.peers is right");
            return refuse("advertise", &said);
        }
        if self.advertise.as_ref().is_some_and(|told| told.is_empty() || told.contains('/')) {
            return refuse("advertise", "is no host: a name or an address is, with or without `:` and a port");
        }
        match (&self.secret, &self.secret_file) {
            (None, None) => Err(no_secret()),
            (Some(_), _) => self.read_secret().map(drop),
            (None, Some(_)) => Ok(()),
        }
    }
}

fn no_secret() -> ConfigRefused {
    let right = "is not set, and nodes must know one another: 32 bytes or more, the same on all, as `openssl rand -hex 32` makes, in \
                 KLATCH_CLUSTER_SECRET, in the file or as secret_file";
    ConfigRefused::new("cluster.secret", right)
}

fn has_port(told: &str) -> bool {
    told.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

fn read_bounded(path: &std::path::Path) -> Result<Vec<u8>, ConfigRefused> {
    use std::io::Read;
    let wrong =
        |error| ConfigRefused::new("cluster.secret_file", format!("{} cannot be read: {error}", path.display()));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(wrong)?;
    file.take(SECRET_FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(wrong)?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    Ok(line.strip_suffix(b"\r").unwrap_or(line).to_vec())
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = || format!("`{text}` is not an address: an IP address and a port are, such as 127.0.0.1:7946");
    text.parse().map(Some).map_err(|_| serde::de::Error::custom(wrong()))
}

/// The command line and the environment give text.
fn yes_or_no<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Flag(bool),
        Text(String),
    }
    match Given::deserialize(deserializer)? {
        Given::Flag(flag) => Ok(flag),
        Given::Text(text) => {
            text.parse().map_err(|_| serde::de::Error::custom(format!("`{text}` is neither true nor false")))
        }
    }
}
