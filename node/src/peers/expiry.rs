//! Until when a node's certificates are good, for the metrics: an expired one is found only when a connection is made
//! again, and then the node meets nobody any more.
//!
//! Judges nothing: rustls does, and an alert long before it.

use rustls::pki_types::CertificateDer;
use x509_parser::parse_x509_certificate;

use super::metrics;

/// Tells the metrics when the first of the node's own chain, and the last of its authorities, ends. While authorities are
/// replaced the old and the new one stand there together.
pub fn tell(chain: &[CertificateDer<'_>], authorities: &[CertificateDer<'_>]) {
    if let Some(ends) = chain.iter().filter_map(ends_at).min() {
        metrics::certificate_ends(metrics::NODE, ends);
    }
    if let Some(ends) = authorities.iter().filter_map(ends_at).max() {
        metrics::certificate_ends(metrics::AUTHORITY, ends);
    }
}

/// In seconds since 1970. None of what is no certificate, which rustls has refused before.
pub fn ends_at(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut wanted = rcgen::CertificateParams::new(vec!["klatch-0".to_owned()]).unwrap();
        wanted.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let certificate = wanted.self_signed(&key).unwrap();
        assert_eq!(ends_at(certificate.der()), Some(1_927_843_200));
        assert_eq!(ends_at(&CertificateDer::from(b"no certificate".to_vec())), None);
    }
}
