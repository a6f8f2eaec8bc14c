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
/// The proxy before the nodes names each request that has no key, and sends it to another node under the same name. The
/// proxy writes this header itself; whoever reaches a node past it can only repeat requests of their own tenant.
const ATTEMPT_HEADER: &str = "x-klatch-attempt-key";
/// The SDKs count their repetitions of a request here, from 0.
const RETRY_COUNT_HEADER: &str = "x-stainless-retry-count";

const KEY_CHARS_MAX: usize = 255;
/// Separates these hashes from all others; the ids are random to everyone who does not know tenant and key.
const KEY_DOMAIN: &[u8] = b"klatch idempotency key";
const ATTEMPT_DOMAIN: &[u8] = b"klatch attempt key";
const ID_DOMAIN: &[u8] = b"klatch conversation id";
const ATTEMPT_ID_DOMAIN: &[u8] = b"klatch conversation id of an attempt";

/// How this request may be known as the repetition of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub key: Option<[u8; 16]>,
    pub fingerprint: [u8; 16],
    /// The client says that it sent it before.
    pub retry: bool,
    /// Of this request alone, for repetitions by the edge and by the proxy before it, of which the client never hears;
    /// none where the client sent a key.
    pub attempt: Option<[u8; 16]>,
    /// The proxy named the attempt, so it may come again at another node.
    named: bool,
    /// The conversation that a create under this key, or in this attempt, makes.
    derived: Option<ConversationId>,
}

impl Identity {
    pub fn new(tenant: &str, method: &Method, path: &str, headers: &HeaderMap, body: &[u8]) -> Result<Self, ApiError> {
        let key = read_key(headers)?;
        let attempt = if key.is_none() { read_attempt(headers) } else { None };
        let hashed = |domain, name: &str| sixteen(Sha256::new(), &[domain, tenant.as_bytes(), name.as_bytes()]);
        let own = || key.is_none().then(klatch_protocol::ids::random_bytes);
        Ok(Self {
            key: key.map(|key| hashed(KEY_DOMAIN, key)),
            attempt: attempt.map(|attempt| hashed(ATTEMPT_DOMAIN, attempt)).or_else(own),
            named: attempt.is_some(),
            fingerprint: sixteen(Sha256::new(), &[method.as_str().as_bytes(), path.as_bytes(), body]),
            retry: read_retry(headers),
            derived: key
                .map(|key| derive(ID_DOMAIN, tenant, key))
                .or_else(|| attempt.map(|attempt| derive(ATTEMPT_ID_DOMAIN, tenant, attempt))),
        })
    }

    pub fn key_use(&self) -> Option<KeyUse> {
        self.key.map(|key| KeyUse { key, fingerprint: self.fingerprint })
    }

    /// What the conversation remembers the request by: the client's key, or the attempt where it may come again.
    pub fn known_by(&self) -> Option<KeyUse> {
        let attempt = self.attempt.filter(|_| self.named);
        self.key.or(attempt).map(|key| KeyUse { key, fingerprint: self.fingerprint })
    }

    /// A repetition is told to those who sent a key: others never learn that there was one.
    pub fn tells(&self, replayed: bool) -> bool {
        replayed && self.key.is_some()
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

/// What is no name of a proxy's is as good as none.
fn read_attempt(headers: &HeaderMap) -> Option<&str> {
    let name = headers.get(ATTEMPT_HEADER)?.to_str().ok()?;
    (1..=KEY_CHARS_MAX).contains(&name.len()).then_some(name)
}

fn read_retry(headers: &HeaderMap) -> bool {
    let count = headers.get(RETRY_COUNT_HEADER).and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    count.is_some_and(|count| count >= 1)
}

fn derive(domain: &[u8], tenant: &str, key: &str) -> ConversationId {
    let mut mac = Hmac::<Sha256>::new_from_slice(domain).expect("HMAC takes a key of any length");
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
        assert_eq!(id, derive(ID_DOMAIN, "tenant", "key"));
        assert_eq!(id.to_string(), "conv_eae2e60ecebb826d0dfb2be921b2fb800000000000000000");
    }

    fn with(pairs: &[(&'static str, &'static str)]) -> Identity {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let headers = pairs.iter().map(pair).collect();
        Identity::new("t", &Method::POST, "/v1/responses", &headers, b"").expect("an identity")
    }

    #[test]
    fn an_attempt_that_the_proxy_named_is_the_same_at_every_node() {
        let (one, other) = (with(&[(ATTEMPT_HEADER, "a")]), with(&[(ATTEMPT_HEADER, "a")]));
        assert_eq!(one, other);
        assert!(one.key.is_none() && one.known_by().is_some(), "it is remembered, and is not the client's key");
        assert!(!one.tells(true), "its client never hears of it");
        let another = with(&[(ATTEMPT_HEADER, "b")]);
        assert_ne!((one.attempt, one.new_conversation()), (another.attempt, another.new_conversation()));
        let (nameless, again) = (with(&[]), with(&[]));
        assert!(nameless.attempt != again.attempt && nameless.known_by().is_none());
    }

    #[test]
    fn a_key_of_the_client_goes_before_an_attempt_and_differs_from_one_of_that_name() {
        let (key, attempt) = (with(&[("idempotency-key", "a")]), with(&[(ATTEMPT_HEADER, "a")]));
        assert_eq!(with(&[("idempotency-key", "a"), (ATTEMPT_HEADER, "b")]), key);
        assert!(key.attempt.is_none() && key.tells(true));
        assert_ne!(key.new_conversation(), attempt.new_conversation());
        assert_ne!(key.known_by(), attempt.known_by());
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
