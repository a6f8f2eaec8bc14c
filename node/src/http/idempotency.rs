//! What makes a request the same request: its key, its fingerprint, and ids that follow from a key.
//!
//! Pure. Whether a key was used before is known by the conversation alone.

use axum::http::{HeaderMap, HeaderName, Method};
use hmac::{Hmac, Mac};
use klatch_protocol::ConversationId;
use klatch_protocol::event::KeyUse;
use sha2::{Digest, Sha256};

use super::errors::ApiError;

pub const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
pub const REPLAYED_HEADER: HeaderName = HeaderName::from_static("idempotent-replayed");
/// The SDKs count their repetitions of a request here, from 0.
const RETRY_COUNT_HEADER: &str = "x-stainless-retry-count";

const KEY_CHARS_MAX: usize = 255;
/// Separates these hashes from all others; the ids are random to everyone who does not know tenant and key.
const KEY_DOMAIN: &[u8] = b"klatch idempotency key";
const ID_DOMAIN: &[u8] = b"klatch conversation id";

/// How this request may be known as the repetition of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub key: Option<[u8; 16]>,
    pub fingerprint: [u8; 16],
    /// The client says that it sent it before.
    pub retry: bool,
    /// Of this request alone, for the edge's own repetitions; none where the client sent a key.
    pub attempt: Option<[u8; 16]>,
    /// The conversation that a create under this key makes.
    derived: Option<ConversationId>,
}

impl Identity {
    pub fn new(tenant: &str, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Result<Self, ApiError> {
        let key = read_key(headers)?;
        Ok(Self {
            key: key.map(|key| sixteen(Sha256::new(), &[KEY_DOMAIN, tenant.as_bytes(), key.as_bytes()])),
            attempt: key.is_none().then(klatch_protocol::ids::random_bytes),
            fingerprint: sixteen(Sha256::new(), &[method.as_str().as_bytes(), path.as_bytes(), body]),
            retry: read_retry(headers),
            derived: key.map(|key| derive(tenant, key)),
        })
    }

    pub fn key_use(&self) -> Option<KeyUse> {
        self.key.map(|key| KeyUse { key, fingerprint: self.fingerprint })
    }

    /// The id of a conversation that this request makes: a retry at any node finds the same.
    pub fn new_conversation(&self) -> ConversationId {
        self.derived.unwrap_or_else(ConversationId::random)
    }
}

/// The key, bare or quoted; both are the same key.
fn read_key(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(KEY_HEADER) else { return Ok(None) };
    let wrong = || {
        let message = format!("must have 1 to {KEY_CHARS_MAX} printable ASCII characters, bare or in double quotes");
        ApiError::invalid("Idempotency-Key", message)
    };
    let text = value.to_str().map_err(|_| wrong())?.trim();
    let quoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let key = quoted.unwrap_or(text);
    let printable = key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if key.is_empty() || key.len() > KEY_CHARS_MAX || !printable {
        return Err(wrong());
    }
    Ok(Some(key))
}

fn read_retry(headers: &HeaderMap) -> bool {
    let count = headers.get(RETRY_COUNT_HEADER).and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    count.is_some_and(|count| count >= 1)
}

fn derive(tenant: &str, key: &str) -> ConversationId {
    let mut mac = Hmac::<Sha256>::new_from_slice(ID_DOMAIN).expect("HMAC takes a key of any length");
    for part in [tenant.as_bytes(), key.as_bytes()] {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    ConversationId(first_sixteen(&mac.finalize().into_bytes()))
}

/// Each part with its length before it, so that no two lists of parts are hashed alike.
fn sixteen(mut hash: Sha256, parts: &[&[u8]]) -> [u8; 16] {
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    first_sixteen(&hash.finalize())
}

fn first_sixteen(bytes: &[u8]) -> [u8; 16] {
    let mut first = [0; 16];
    first.copy_from_slice(&bytes[..16]);
    first
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn identity(tenant: &str, key: &str, body: &[u8]) -> Result<Identity, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(KEY_HEADER, HeaderValue::from_str(key).expect("a header"));
        Identity::new(tenant, &Method::POST, "/v1/responses", &headers, body)
    }

    #[test]
    fn a_quoted_key_is_the_same_key() {
        let (bare, quoted) = (identity("t", "k-1", b"").expect("bare"), identity("t", "\"k-1\"", b"").expect("quoted"));
        assert_eq!(bare, quoted);
    }

    #[test]
    fn keys_at_their_limits_are_fine_and_beyond_are_not() {
        assert!(identity("t", &"k".repeat(255), b"").is_ok());
        assert!(identity("t", &"k".repeat(256), b"").is_err());
        assert!(identity("t", "", b"").is_err());
        assert!(identity("t", "\"\"", b"").is_err());
        assert!(identity("t", "a\tb", b"").is_err());
    }

    #[test]
    fn tenants_never_share_a_key_or_an_id() {
        let (one, other) = (identity("ab", "c", b"").expect("one"), identity("a", "bc", b"").expect("other"));
        assert_ne!(one.key, other.key);
        assert_ne!(one.new_conversation(), other.new_conversation());
        assert_eq!(one.fingerprint, other.fingerprint);
    }

    #[test]
    fn another_body_is_another_request() {
        let (one, other) = (identity("t", "k", b"1").expect("one"), identity("t", "k", b"2").expect("other"));
        assert_eq!((one.key, one.new_conversation()), (other.key, other.new_conversation()));
        assert_ne!(one.fingerprint, other.fingerprint);
    }

    #[test]
    fn ids_derived_from_a_key_never_change() {
        let id = identity("tenant", "key", b"").expect("a key").new_conversation();
        assert_eq!(id, derive("tenant", "key"));
        assert_eq!(id.to_string(), "conv_eae2e60ecebb826d0dfb2be921b2fb800000000000000000");
    }

    #[test]
    fn only_a_count_above_zero_is_a_retry() {
        let retry = |count: &'static str| {
            read_retry(&HeaderMap::from_iter([(
                HeaderName::from_static(RETRY_COUNT_HEADER),
                HeaderValue::from_static(count),
            )]))
        };
        assert_eq!([retry("0"), retry("1"), retry("x")], [false, true, false]);
        assert!(!read_retry(&HeaderMap::new()));
    }
}
