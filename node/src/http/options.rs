//! What of the edge can be configured: its limits and times.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::durations;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EdgeOptions {
    /// Largest request body, in bytes. A long history with an image fits; a file does not belong here.
    pub body_bytes: usize,
    /// Requests per minute and tenant on this node. The default stops a loop, not a load.
    pub requests_per_minute: u32,
    /// Tenants with limits of their own.
    pub tenant: BTreeMap<String, TenantOptions>,
    /// Chat completions at once: each holds a connection to a model, and nothing queues them.
    pub chat_completions_at_once: usize,
    /// Streams get a comment so often while nothing is said, so that proxies keep them open.
    #[serde(with = "durations")]
    pub keep_alive: Duration,
    /// A request waits no longer than this for its turn; the turn goes on.
    #[serde(with = "durations")]
    pub wait_max: Duration,
    /// A body must arrive within this.
    #[serde(with = "durations")]
    pub body_timeout: Duration,
    /// Take a client's address from the last entry of `X-Forwarded-For`. Only where every request comes through a
    /// proxy that writes it: else anybody chooses the address that is slowed for wrong passwords.
    pub trust_forwarded_for: bool,
    /// A stream looks for its turn's new owner so long before it is cut.
    #[serde(with = "durations")]
    pub owner_lost_max: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantOptions {
    pub requests_per_minute: u32,
}

impl Default for EdgeOptions {
    fn default() -> Self {
        Self {
            body_bytes: 1 << 20,
            requests_per_minute: 600_000,
            tenant: BTreeMap::new(),
            chat_completions_at_once: 1_000,
            keep_alive: Duration::from_secs(10),
            wait_max: Duration::from_secs(600),
            body_timeout: Duration::from_secs(30),
            trust_forwarded_for: false,
            owner_lost_max: Duration::from_secs(60),
        }
    }
}

impl EdgeOptions {
    pub fn requests_per_minute(&self, tenant: &str) -> u32 {
        self.tenant.get(tenant).map_or(self.requests_per_minute, |own| own.requests_per_minute)
    }
}
