//! How the baselines store conversations in Redis: a list for each, one value a turn. The number of turns is the
//! conversation's version, so that nothing else needs to be counted.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Turns that a model would be given: as many as a stateless server reads with each request.
pub const TAIL_TURNS: usize = 10;

/// Input and output, which enter a conversation together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn<'a> {
    /// Id of the response.
    #[serde(borrow)]
    pub response: Cow<'a, str>,
    /// Seconds since 1970.
    pub at: u64,
    #[serde(borrow)]
    pub input: Cow<'a, str>,
    #[serde(borrow)]
    pub output: Cow<'a, str>,
}

/// Of the list. In braces what a Redis Cluster hashes, so that a script may name other keys of the conversation.
pub fn key(owner: &str, conversation: &str) -> String {
    ["turns:{", owner, ":", conversation, "}"].concat()
}

/// Of the record that a request with this idempotency key was made.
pub fn request_key(owner: &str, conversation: &str, request: &str) -> String {
    ["request:{", owner, ":", conversation, "}:", request].concat()
}

/// Of the lock.
pub fn lock_key(owner: &str, conversation: &str) -> String {
    ["lock:{", owner, ":", conversation, "}"].concat()
}
