//! How long things are kept. Deletes nothing itself.

use std::time::Duration;

use klatch_protocol::state::KEYS_KEPT_MS;
use serde::{Deserialize, Serialize};

use super::{ConfigRefused, optional_duration};
use crate::durations;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionOptions {
    /// Conversations are deleted so long after their last turn, unless they have a `ttl_seconds` of their own. Not
    /// set: they are kept until someone deletes them.
    #[serde(with = "optional_duration")]
    pub conversations_after: Option<Duration>,
    /// How long an `Idempotency-Key` is remembered. Fixed at 24h: clients may rely on it, and it is part of what nodes
    /// of different versions store.
    #[serde(with = "durations")]
    pub idempotency_keys: Duration,
}

impl Default for RetentionOptions {
    fn default() -> Self {
        Self { conversations_after: None, idempotency_keys: Duration::from_millis(KEYS_KEPT_MS) }
    }
}

impl RetentionOptions {
    pub fn conversations_after_ms(&self) -> Option<u64> {
        self.conversations_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn refuse_contradictions(&self) -> Result<(), ConfigRefused> {
        let kept = Duration::from_millis(KEYS_KEPT_MS);
        if self.idempotency_keys != kept {
            let said = format!("is fixed: {} is the only value", durations::format(kept));
            return Err(ConfigRefused::new("retention.idempotency_keys", said));
        }
        match self.conversations_after {
            Some(after) if after < kept => {
                let said = format!("is shorter than idempotency keys are kept: {} at least", durations::format(kept));
                Err(ConfigRefused::new("retention.conversations_after", said))
            }
            Some(_) | None => Ok(()),
        }
    }
}
