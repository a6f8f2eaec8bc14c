//! For `klatch serve --check`: whether a node's certificates let it meet others, and if not, all that is wrong with them.
//!
//! Opens no connection; what rustls would refuse is asked of rustls.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use klatch_actors::peers::PeerId;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, Error, InconsistentKeys, RootCertStore};
use x509_parser::parse_x509_certificate;
use x509_parser::time::ASN1Time;

use super::tls::{TlsFiles, certificates, is_for, read_bounded};
use crate::config::check::Findings;

/// As the alert KlatchCertificateExpires has it.
const ENDS_SOON: Duration = Duration::from_secs(7 * 24 * 3600);

/// `host` is what the node tells others, without the port.
pub fn check(files: &TlsFiles, node_name: &str, host: &str, now: SystemTime) -> Findings {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut look = Look { files, now, found: Findings::default() };
    let chain = look.read("cluster.cert", &files.cert);
    let authorities = look.read("cluster.ca", &files.ca);
    let key = look.key();
    if let Some(chain) = &chain {
        look.chain(chain);
        look.name(&chain[0], node_name, host);
    }
    if let Some(authorities) = &authorities {
        look.authorities(authorities);
    }
    if let (Some(chain), Some(authorities)) = (&chain, &authorities) {
        look.signature(chain, authorities);
    }
    if let (Some(chain), Some(key)) = (chain, key) {
        look.pair(chain, key);
    }
    look.found
}

struct Look<'f> {
    files: &'f TlsFiles,
    /// Since 1970.
    now: Duration,
    found: Findings,
}

impl Look<'_> {
    fn read(&mut self, option: &'static str, path: &Path) -> Option<Vec<CertificateDer<'static>>> {
        let read = read_bounded(option, path).and_then(|pem| certificates(option, path, &pem));
        read.map_err(|error| self.found.error(format!("{option}: {error}"))).ok()
    }

    fn key(&mut self) -> Option<PrivateKeyDer<'static>> {
        let path = &self.files.key;
        let pem = read_bounded("cluster.key", path).map_err(|error| error.to_string());
        let no_key = |_| format!("{} holds no private key in PEM", path.display());
        let key = pem.and_then(|pem| PrivateKeyDer::from_pem_slice(&pem).map_err(no_key));
        key.map_err(|said| self.found.error(format!("cluster.key: {said}"))).ok()
    }

    fn chain(&mut self, chain: &[CertificateDer<'_>]) {
        let path = &self.files.cert;
        for certificate in chain {
            match Life::of(certificate) {
                Some(life) => self.life("cluster.cert", path, &life),
                None => self.found.error(format!("cluster.cert: {} holds what is no certificate", path.display())),
            }
        }
    }

    /// One that is good will do: while authorities are replaced, the old one stands beside the new one.
    fn authorities(&mut self, authorities: &[CertificateDer<'_>]) {
        let lives: Vec<Life> = authorities.iter().filter_map(Life::of).collect();
        let longest = lives.iter().filter(|life| life.begins <= self.now).max_by_key(|life| life.ends);
        if let Some(life) = longest.or(lives.first()) {
            self.life("cluster.ca", &self.files.ca, life);
        }
    }

    fn life(&mut self, option: &str, path: &Path, life: &Life) {
        let (path, begins, ends) = (path.display(), date(life.begins), date(life.ends));
        if self.now < life.begins {
            self.found.error(format!("{option}: {path} is good from {begins} on only: is this host's clock right?"));
        } else if self.now > life.ends {
            self.found.error(format!("{option}: {path} ended on {ends}: renew it"));
        } else if self.now + ENDS_SOON > life.ends {
            self.found.warn(format!("{option}: {path} ends on {ends}, within a week: renew it"));
        }
    }

    fn name(&mut self, certificate: &CertificateDer<'_>, node_name: &str, host: &str) {
        let me = PeerId { name: node_name.into(), incarnation: 0 };
        if !is_for(certificate, &me, host) {
            self.found.error(format!(
                "cluster.cert: {} is not for this node: it must be for {node_name}, or for the host of \
                 cluster.advertise (now {host}) where that is {node_name} or begins with {node_name} and a dot",
                self.files.cert.display()
            ));
        }
    }

    fn signature(&mut self, chain: &[CertificateDer<'static>], authorities: &[CertificateDer<'static>]) {
        if let Err(error) = self.verify(chain, authorities)
            && let Some(said) = self.unsigned(&error)
        {
            self.found.error(format!("cluster.cert: {} {said}", self.files.cert.display()));
        }
    }

    /// As both ends of a connection do, at a time at which the certificate is good: when that is was told already.
    fn verify(&self, chain: &[CertificateDer<'_>], authorities: &[CertificateDer<'static>]) -> Result<(), Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities.iter().cloned());
        let (roots, provider) = (Arc::new(roots), Arc::new(aws_lc_rs::default_provider()));
        let Some(life) = Life::of(&chain[0]) else { return Ok(()) };
        let when = UnixTime::since_unix_epoch(self.now.max(life.begins).min(life.ends));
        let algorithms = provider.signature_verification_algorithms.all;
        let certificate = ParsedCertificate::try_from(&chain[0])?;
        verify_server_cert_signed_by_trust_anchor(&certificate, &roots, &chain[1..], when, algorithms)?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
        let clients = clients.map_err(|error| Error::General(error.to_string()))?;
        clients.verify_client_cert(&chain[0], &chain[1..], when).map(drop)
    }

    /// None where it was told already.
    fn unsigned(&self, error: &Error) -> Option<String> {
        let Error::InvalidCertificate(wrong) = error else { return Some(format!("is refused: {error}")) };
        match wrong {
            // Of the authority's, or of one between the two.
            CertificateError::ExpiredContext { .. } | CertificateError::NotValidYetContext { .. } => None,
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Some(format!("is not signed by an authority of cluster.ca, {}", self.files.ca.display()))
            }
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                let said = "is not for servers and clients both, and a node is both: it needs the extended key usages \
                            serverAuth and clientAuth";
                Some(said.to_owned())
            }
            other => Some(format!("is refused: {other}")),
        }
    }

    fn pair(&mut self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) {
        let said = match CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
            Ok(_) => return,
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                format!("is not the key of the certificate in {}", self.files.cert.display())
            }
            Err(error) => format!("cannot be used: {error}"),
        };
        self.found.error(format!("cluster.key: {} {said}", self.files.key.display()));
    }
}

/// Since 1970.
struct Life {
    begins: Duration,
    ends: Duration,
}

impl Life {
    fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(certificate).ok()?;
        let since = |time: ASN1Time| Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0));
        let validity = certificate.validity();
        Some(Self { begins: since(validity.not_before), ends: since(validity.not_after) })
    }
}

fn date(since: Duration) -> String {
    let time = i64::try_from(since.as_secs()).ok().and_then(|secs| ASN1Time::from_timestamp(secs).ok());
    time.map_or_else(|| format!("{} s after 1970", since.as_secs()), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, date_time_ymd};
    use tempfile::TempDir;

    use super::*;

    /// 2030-06-01.
    const NOW: u64 = 1_906_502_400;

    struct Wanted {
        name: &'static str,
        begins: i32,
        ends: i32,
        usages: Vec<ExtendedKeyUsagePurpose>,
        of_another_authority: bool,
        with_another_key: bool,
    }

    fn good() -> Wanted {
        Wanted {
            name: "*.peers.svc",
            begins: 2029,
            ends: 2031,
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            of_another_authority: false,
            with_another_key: false,
        }
    }

    fn authority() -> (CertificateParams, KeyPair) {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (parameters, KeyPair::generate().unwrap())
    }

    fn said(wanted: &Wanted) -> String {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        let files = TlsFiles { cert: path("cert"), key: path("key"), ca: path("ca") };
        let (known, known_key) = authority();
        std::fs::write(&files.ca, known.self_signed(&known_key).unwrap().pem()).unwrap();
        let issuer = match wanted.of_another_authority {
            true => authority(),
            false => (known, known_key),
        };
        let issuer = Issuer::new(issuer.0, issuer.1);
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec![wanted.name.to_owned()]).unwrap();
        parameters.extended_key_usages = wanted.usages.clone();
        parameters.not_before = date_time_ymd(wanted.begins, 1, 1);
        parameters.not_after = date_time_ymd(wanted.ends, 6, 5);
        std::fs::write(&files.cert, parameters.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        let other = KeyPair::generate().unwrap();
        let shown = if wanted.with_another_key { &other } else { &key };
        std::fs::write(&files.key, shown.serialize_pem()).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        let found = check(&files, "klatch-0", "klatch-0.peers.svc", now);
        let line =
            |kind: &str, said: &Vec<String>| said.iter().map(|said| format!("{kind} {said}\n")).collect::<String>();
        line("error", &found.errors) + &line("warning", &found.warnings)
    }

    #[test]
    fn a_good_certificate_is_not_complained_about() {
        assert_eq!(said(&good()), "");
    }

    #[test]
    fn each_fault_is_told_once_and_by_its_file() {
        let faults = [
            (Wanted { ends: 2029, ..good() }, "error cluster.cert", "ended on"),
            (Wanted { begins: 2031, ends: 2032, ..good() }, "error cluster.cert", "is good from"),
            (Wanted { ends: 2030, ..good() }, "warning cluster.cert", "within a week"),
            (Wanted { name: "klatch-1.peers.svc", ..good() }, "error cluster.cert", "is not for this node"),
            (Wanted { of_another_authority: true, ..good() }, "error cluster.cert", "not signed by an authority"),
            (Wanted { with_another_key: true, ..good() }, "error cluster.key", "is not the key of"),
            (
                Wanted { usages: vec![ExtendedKeyUsagePurpose::ServerAuth], ..good() },
                "error cluster.cert",
                "clientAuth",
            ),
            (
                Wanted { usages: vec![ExtendedKeyUsagePurpose::ClientAuth], ..good() },
                "error cluster.cert",
                "serverAuth",
            ),
        ];
        for (wanted, begin, part) in faults {
            let said = said(&wanted);
            assert!(said.starts_with(begin) && said.contains(part) && said.lines().count() == 1, "{part}: {said}");
        }
    }

    #[test]
    fn all_faults_are_told_together() {
        let said =
            said(&Wanted { ends: 2029, name: "b", of_another_authority: true, with_another_key: true, ..good() });
        assert_eq!(said.lines().count(), 4, "{said}");
    }

    #[test]
    fn files_that_are_missing_are_told_each() {
        let gone = |name: &str| std::path::PathBuf::from(format!("/nowhere/{name}"));
        let files = TlsFiles { cert: gone("cert"), key: gone("key"), ca: gone("ca") };
        let found = check(&files, "a", "a", SystemTime::now());
        assert_eq!(found.errors.len(), 3, "{found:?}");
    }
}
