//! Mutual TLS between nodes, from PEM files that are read again when a connection is made: certificates change without
//! a restart, and files that cannot be used change nothing.
//!
//! A certificate is the node's when it is for the node's name, or for the host that the node tells others, if that host
//! is the name or begins with it and a dot (`klatch-0.peers.default.svc`); a wildcard counts. So the holder of one
//! node's certificate cannot say that it is another. Needs TLS 1.3, and both usages, client and server. No session is
//! resumed: each connection shows its certificate.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use klatch_actors::peers::PeerId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use super::expiry;

/// Files are looked at no more often, however many connect.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const FILE_BYTES_MAX: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
}

/// Which option, and what is wrong with its file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {said}", path.display())]
pub struct TlsFileError {
    pub option: &'static str,
    pub path: PathBuf,
    pub said: String,
}

/// For both directions.
#[derive(Clone)]
pub struct TlsPair {
    pub server: Arc<ServerConfig>,
    pub client: Arc<ClientConfig>,
}

pub struct Tls {
    files: TlsFiles,
    current: Mutex<Current>,
}

struct Current {
    looked: Instant,
    content: Vec<Vec<u8>>,
    pair: TlsPair,
}

impl Tls {
    pub fn open(files: TlsFiles) -> Result<Self, TlsFileError> {
        let content = files.read()?;
        let pair = files.pair(&content)?;
        Ok(Self { files, current: Mutex::new(Current { looked: Instant::now(), content, pair }) })
    }

    /// Reads files: call it where that may block.
    pub fn current(&self) -> TlsPair {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK_EVERY {
            current.looked = Instant::now();
            self.look(&mut current);
        }
        current.pair.clone()
    }

    fn look(&self, current: &mut Current) {
        let read = self.files.read();
        if read.as_ref().is_ok_and(|content| *content == current.content) {
            return;
        }
        match read.and_then(|content| self.files.pair(&content).map(|pair| (content, pair))) {
            Ok((content, pair)) => {
                (current.content, current.pair) = (content, pair);
                tracing::info!("read the cluster's certificates again");
            }
            Err(error) => {
                let option = error.option;
                tracing::error!(option, %error, "the cluster's certificates cannot be read again: the old ones stay");
            }
        }
    }
}

impl TlsFiles {
    fn read(&self) -> Result<Vec<Vec<u8>>, TlsFileError> {
        let files = [("cluster.cert", &self.cert), ("cluster.key", &self.key), ("cluster.ca", &self.ca)];
        files.into_iter().map(|(option, path)| read_bounded(option, path)).collect()
    }

    fn pair(&self, content: &[Vec<u8>]) -> Result<TlsPair, TlsFileError> {
        let [cert, key, ca] = content else { unreachable!("three files were read") };
        let chain = certificates("cluster.cert", &self.cert, cert)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(wrong("cluster.key", &self.key))?;
        let authorities = certificates("cluster.ca", &self.ca, ca)?;
        let mut roots = RootCertStore::empty();
        for root in &authorities {
            roots.add(root.clone()).map_err(wrong("cluster.ca", &self.ca))?;
        }
        let (roots, provider) = (Arc::new(roots), Arc::new(aws_lc_rs::default_provider()));
        let told = chain.clone();
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build();
        let clients = clients.map_err(wrong("cluster.ca", &self.ca))?;
        let pair_wrong = wrong("cluster.cert", &self.cert);
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(wrong("cluster.cert", &self.cert))?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(pair_wrong)?;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let verifier = Arc::new(OfThisCluster::new(roots, provider.clone()));
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(wrong("cluster.cert", &self.cert))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(chain, key)
            .map_err(wrong("cluster.cert", &self.cert))?;
        expiry::tell(&told, &authorities);
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        Ok(TlsPair { server: Arc::new(server), client: Arc::new(client) })
    }
}

fn wrong<E: Display>(option: &'static str, path: &Path) -> impl Fn(E) -> TlsFileError {
    move |error| TlsFileError { option, path: path.to_owned(), said: error.to_string() }
}

pub(super) fn read_bounded(option: &'static str, path: &Path) -> Result<Vec<u8>, TlsFileError> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(wrong(option, path))?;
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(wrong(option, path))?;
    Ok(bytes)
}

pub(super) fn certificates(
    option: &'static str,
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(wrong(option, path))?;
    if found.is_empty() { Err(wrong(option, path)("it holds no certificate in PEM")) } else { Ok(found) }
}

/// Whether the certificate lets its holder say that it is this node.
pub fn is_for(certificate: &CertificateDer<'_>, peer: &PeerId, host: &str) -> bool {
    let Ok(certificate) = ParsedCertificate::try_from(certificate) else { return false };
    let names = |name: &str| {
        let name = ServerName::try_from(name);
        name.is_ok_and(|name| verify_server_name(&certificate, &name).is_ok())
    };
    let own_host = host.strip_prefix(&*peer.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    names(&peer.name) || (own_host && names(host))
}

/// Checks all of a certificate but its name: whose it must be is known after the preamble, at both ends alike.
#[derive(Debug)]
struct OfThisCluster {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
    signatures: Arc<WebPkiServerVerifier>,
}

impl OfThisCluster {
    fn new(roots: Arc<RootCertStore>, provider: Arc<CryptoProvider>) -> Self {
        let signatures = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .expect("the same roots made a verifier of clients");
        Self { roots, provider, signatures }
    }
}

impl ServerCertVerifier for OfThisCluster {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signatures.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.signatures.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_verify_schemes()
    }
}
