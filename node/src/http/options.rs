//! What of the edge can be configured beside the limits that it shares with the rest of the node.

use crate::config::LimitOptions;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EdgeOptions {
    pub limits: LimitOptions,
    /// Take a client's address from the last entry of `X-Forwarded-For`. Only where every request comes through a
    /// proxy that writes it: else anybody chooses the address that is slowed for wrong passwords.
    pub trust_forwarded_for: bool,
}

impl EdgeOptions {
    /// 0 lets nobody in.
    pub fn requests_per_minute(&self, tenant: &str) -> u32 {
        let own = self.limits.tenant.get(tenant);
        own.map_or(self.limits.requests_per_minute, |own| own.requests_per_minute)
    }
}
