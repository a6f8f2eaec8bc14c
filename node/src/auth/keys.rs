//! Keys: the one that signs, those that verify, and the tokens lately verified with them.
//!
//! A key has exactly one algorithm, fixed when it is read and never taken from a token. A set of keys is
//! never changed: new keys are a new set, and with the old one goes what it had verified.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::pkcs8::DecodePrivateKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, EncodingKey, crypto};
use klatch_actors::Caller;
use sha2::{Digest, Sha256};

use super::generations::Generations;

/// RFC 7518, 3.3.
const RSA_BITS_MIN: usize = 2048;
/// RFC 7518, 3.2: a secret is no shorter than the hash.
pub const SECRET_BYTES_MIN: usize = 32;
/// Tokens remembered as verified: some 200 bytes each, so a few megabytes; a client shows the same one for 15 minutes.
const VERIFIED_MAX: usize = 16_384;
const ED25519_BYTES: usize = 32;

/// SHA-256 of a token; the token itself is not kept.
pub type TokenDigest = [u8; 32];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed {
    /// Only this program signs with the key, and says `at+jwt` of what it signs: nothing else is an access token.
    AccessTokenOnly,
    /// Others sign with it too, and often write `JWT` or nothing.
    AlsoUntyped,
}

/// Verifies.
pub struct Key {
    pub kid: String,
    pub algorithm: Algorithm,
    pub typed: Typed,
    pub decoding: DecodingKey,
    /// What the key document shows. None: a secret.
    pub public: Option<Jwk>,
}

pub struct SigningKey {
    pub kid: String,
    pub algorithm: Algorithm,
    pub encoding: EncodingKey,
}

/// Why a key is refused, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    #[error(
        "is not a private key in PKCS#8 PEM (`-----BEGIN PRIVATE KEY-----`); `openssl pkcs8 -topk8 -nocrypt` makes one of it"
    )]
    NotPkcs8,
    #[error("is encrypted; `openssl pkcs8 -topk8 -nocrypt` decrypts it, and the file's mode protects it")]
    Encrypted,
    #[error("is a public key; a private one is needed, since the first key signs")]
    Public,
    #[error("is of a kind that is not used here: Ed25519, P-256, or RSA from {RSA_BITS_MIN} bits")]
    Kind,
    #[error("has fewer than {SECRET_BYTES_MIN} bytes; `openssl rand -hex 32` makes a good secret")]
    ShortSecret,
    #[error("does not verify what it signs")]
    Mismatch,
}

/// Reads a private key; the same key has the same id on every node, its thumbprint (RFC 7638).
pub fn from_pem(text: &[u8]) -> Result<(SigningKey, Key), KeyProblem> {
    let (encoding, algorithm) = parse_pem(text)?;
    let mut public = public_of(&encoding, algorithm)?;
    let kid = public.thumbprint(ThumbprintHash::SHA256).map_err(|_| KeyProblem::Kind)?;
    public.common.key_id = Some(kid.clone());
    public.common.public_key_use = Some(PublicKeyUse::Signature);
    let decoding = verifying(&public, algorithm)?;
    check_pair(&encoding, &decoding, algorithm)?;
    let key = Key { kid: kid.clone(), algorithm, typed: Typed::AccessTokenOnly, decoding, public: Some(public) };
    Ok((SigningKey { kid, algorithm, encoding }, key))
}

/// The id is a hash of the secret under a name of its own, so it says nothing about the secret.
pub fn from_secret(secret: &[u8]) -> Result<(SigningKey, Key), KeyProblem> {
    if secret.len() < SECRET_BYTES_MIN {
        return Err(KeyProblem::ShortSecret);
    }
    let named = Sha256::new().chain_update(b"klatch hs256 key id\0").chain_update(secret).finalize();
    let kid = URL_SAFE_NO_PAD.encode(&named[..16]);
    let algorithm = Algorithm::HS256;
    let decoding = DecodingKey::from_secret(secret);
    let key = Key { kid: kid.clone(), algorithm, typed: Typed::AlsoUntyped, decoding, public: None };
    Ok((SigningKey { kid, algorithm, encoding: EncodingKey::from_secret(secret) }, key))
}

fn parse_pem(text: &[u8]) -> Result<(EncodingKey, Algorithm), KeyProblem> {
    let text = str::from_utf8(text).map_err(|_| KeyProblem::NotPkcs8)?;
    match text.split_once("-----BEGIN ").and_then(|(_, rest)| rest.split_once("-----")) {
        Some(("PRIVATE KEY" | "RSA PRIVATE KEY", _)) => {}
        Some(("ENCRYPTED PRIVATE KEY", _)) => return Err(KeyProblem::Encrypted),
        Some(("PUBLIC KEY" | "RSA PUBLIC KEY" | "CERTIFICATE", _)) => return Err(KeyProblem::Public),
        Some(_) | None => return Err(KeyProblem::NotPkcs8),
    }
    let bytes = text.as_bytes();
    let ed = EncodingKey::from_ed_pem(bytes).map(|key| (key, Algorithm::EdDSA));
    let rsa = || EncodingKey::from_rsa_pem(bytes).map(|key| (key, Algorithm::RS256));
    let ec = || EncodingKey::from_ec_pem(bytes).map(|key| (key, Algorithm::ES256));
    ed.or_else(|_| rsa()).or_else(|_| ec()).map_err(|_| KeyProblem::NotPkcs8)
}

fn public_of(encoding: &EncodingKey, algorithm: Algorithm) -> Result<Jwk, KeyProblem> {
    if encoding.family() != AlgorithmFamily::Ed {
        return Jwk::from_encoding_key(encoding, algorithm).map_err(|_| KeyProblem::Kind);
    }
    // The general way reads only the shorter of the two forms of an Ed25519 key (RFC 5958, with the public half or
    // without).
    let signing = ed25519_dalek::SigningKey::from_pkcs8_der(encoding.as_bytes()).map_err(|_| KeyProblem::NotPkcs8)?;
    let decoding = DecodingKey::from_ed_der(signing.verifying_key().as_bytes());
    Jwk::from_decoding_key(&decoding, Some(algorithm)).map_err(|_| KeyProblem::Kind)
}

/// The public key, if it is of the algorithm's kind and strong enough. Lengths are checked here because the verifier
/// of Ed25519 counts on them.
pub fn verifying(public: &Jwk, algorithm: Algorithm) -> Result<DecodingKey, KeyProblem> {
    let fits = match (&public.algorithm, algorithm) {
        (AlgorithmParameters::OctetKeyPair(key), Algorithm::EdDSA) => {
            key.curve == EllipticCurve::Ed25519 && length(&key.x) == Some(ED25519_BYTES)
        }
        (AlgorithmParameters::EllipticCurve(key), Algorithm::ES256) => key.curve == EllipticCurve::P256,
        (AlgorithmParameters::EllipticCurve(key), Algorithm::ES384) => key.curve == EllipticCurve::P384,
        (AlgorithmParameters::RSA(key), algorithm) => {
            algorithm.family() == AlgorithmFamily::Rsa && length(&key.n) >= Some(RSA_BITS_MIN / 8)
        }
        _ => false,
    };
    if !fits {
        return Err(KeyProblem::Kind);
    }
    let decoding = DecodingKey::from_jwk(public).map_err(|_| KeyProblem::Kind)?;
    // A signature of one byte is never right, but a key that cannot be used fails before it is compared.
    crypto::verify("AA", b"", &decoding, algorithm).map_err(|_| KeyProblem::Kind)?;
    Ok(decoding)
}

fn length(base64url: &str) -> Option<usize> {
    URL_SAFE_NO_PAD.decode(base64url).ok().map(|bytes| bytes.len())
}

fn check_pair(encoding: &EncodingKey, decoding: &DecodingKey, algorithm: Algorithm) -> Result<(), KeyProblem> {
    let signature = crypto::sign(b"klatch", encoding, algorithm).map_err(|_| KeyProblem::Mismatch)?;
    match crypto::verify(&signature, b"klatch", decoding, algorithm) {
        Ok(true) => Ok(()),
        Ok(false) | Err(_) => Err(KeyProblem::Mismatch),
    }
}

/// Keys of one issuer, by id.
pub struct KeySet {
    keys: HashMap<String, Key>,
    verified: Mutex<Generations<TokenDigest, Verified>>,
}

/// A token was good, and is until then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    pub caller: Caller,
    /// Unix time in seconds, leeway included; at this second it is good no more.
    pub until_secs: u64,
}

impl KeySet {
    pub fn new(keys: impl IntoIterator<Item = Key>) -> Self {
        let keys = keys.into_iter().map(|key| (key.kid.clone(), key)).collect();
        Self { keys, verified: Mutex::new(Generations::new(VERIFIED_MAX)) }
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key of that id. Without an id the only key there is: to try several would let the token choose.
    pub fn find(&self, kid: Option<&str>) -> Option<&Key> {
        match kid {
            Some(kid) => self.keys.get(kid),
            None if self.keys.len() == 1 => self.keys.values().next(),
            None => None,
        }
    }

    pub fn public(&self) -> impl Iterator<Item = &Jwk> {
        self.keys.values().filter_map(|key| key.public.as_ref())
    }

    /// The caller, if this very token was verified before and is still good.
    pub fn recall(&self, token: &TokenDigest, now_secs: u64) -> Option<Caller> {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        let found = verified.get(token)?;
        (now_secs < found.until_secs).then(|| found.caller.clone())
    }

    pub fn remember(&self, token: TokenDigest, verified: Verified) {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(token, verified);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::fixtures::*;

    fn refused(pem: &str) -> KeyProblem {
        from_pem(pem.as_bytes()).err().unwrap()
    }

    #[test]
    fn each_kind_of_key_has_its_one_algorithm() {
        for (pem, algorithm) in [(ED25519, Algorithm::EdDSA), (RSA, Algorithm::RS256), (P256, Algorithm::ES256)] {
            let (signing, key) = from_pem(pem.as_bytes()).unwrap();
            assert_eq!((signing.algorithm, key.algorithm), (algorithm, algorithm));
            assert_eq!(signing.kid, key.kid);
            assert_eq!(key.kid.len(), 43);
        }
    }

    #[test]
    fn a_key_with_its_public_half_is_read_as_well() {
        use ed25519_dalek::pkcs8::EncodePrivateKey;
        let signing = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
        let pem = signing.to_pkcs8_pem(Default::default()).unwrap();
        assert!(from_pem(pem.as_bytes()).is_ok());
    }

    #[test]
    fn the_key_document_shows_nothing_private() {
        let (_, key) = from_pem(RSA.as_bytes()).unwrap();
        let shown = serde_json::to_value(key.public.unwrap()).unwrap();
        let mut members: Vec<_> = shown.as_object().unwrap().keys().cloned().collect();
        members.sort();
        assert_eq!(members, ["alg", "e", "kid", "kty", "n", "use"]);
    }

    #[test]
    fn what_is_no_usable_key_is_refused_with_what_would_be_right() {
        assert_eq!(refused(""), KeyProblem::NotPkcs8);
        assert_eq!(refused("not a key at all"), KeyProblem::NotPkcs8);
        assert_eq!(refused(&ED25519.replace("MC4", "!!!")), KeyProblem::NotPkcs8);
        assert_eq!(refused(&ED25519[..60]), KeyProblem::NotPkcs8);
        assert_eq!(refused(&ED25519.replace("PRIVATE", "ENCRYPTED PRIVATE")), KeyProblem::Encrypted);
        assert_eq!(refused(&P256.replace("PRIVATE", "EC PRIVATE")), KeyProblem::NotPkcs8);
        assert_eq!(refused(RSA_PUBLIC), KeyProblem::Public);
        assert_eq!(refused(P384), KeyProblem::Kind);
        assert_eq!(refused(RSA_1024), KeyProblem::Kind);
        assert_eq!(from_pem(&[0xff, 0xfe]).err(), Some(KeyProblem::NotPkcs8));
    }

    #[test]
    fn a_secret_of_31_bytes_is_refused_and_one_of_32_is_not_shown() {
        assert_eq!(from_secret(&[1; 31]).err(), Some(KeyProblem::ShortSecret));
        assert!(from_secret(&[1; 32]).unwrap().1.public.is_none());
    }

    #[test]
    fn a_public_key_of_the_wrong_length_is_refused_before_it_is_used() {
        let (_, key) = from_pem(ED25519.as_bytes()).unwrap();
        let mut public = key.public.unwrap();
        if let AlgorithmParameters::OctetKeyPair(key) = &mut public.algorithm {
            key.x.truncate(20);
        }
        assert_eq!(verifying(&public, Algorithm::EdDSA).err(), Some(KeyProblem::Kind));
    }

    #[test]
    fn a_verified_token_is_recalled_until_the_second_it_ends() {
        let set = KeySet::new([]);
        let caller = Caller { tenant: "t".into(), subject: "s".into() };
        set.remember([1; 32], Verified { caller: caller.clone(), until_secs: 100 });
        assert_eq!(set.recall(&[1; 32], 99), Some(caller));
        assert_eq!(set.recall(&[1; 32], 100), None);
        assert_eq!(set.recall(&[2; 32], 99), None);
    }
}
