//! The boundary to who is told of the ends of turns: webhooks. A conversation decides whom it tells of what, and when
//! again; what is behind the boundary decides how, and keeps nothing.
//!
//! Each end is told at least once, in the order of a conversation's ends, to each webhook by itself: one that is dead
//! holds up no other.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use klatch_protocol::{ConversationId, Ended, Untold, WebhookId};

pub trait Webhooks: Send + Sync + 'static {
    /// All there are. They stay the same for the node's life.
    fn all(&self) -> Vec<Webhook>;

    /// Tells the webhook once, and answers when it has said that it heard. Dropping the future gives that up; the
    /// webhook may have heard all the same.
    fn tell(&self, webhook: WebhookId, end: End) -> BoxFuture<'static, Result<(), NotTold>>;
}

/// An end looks older than it is where clocks differ, and a receiver that fails once is not dead.
const ATTEMPTS_LEFT: u32 = 3;

/// What deciding needs to know of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    pub id: WebhookId,
    /// For logs: where it is, without anything that may be secret.
    pub name: Arc<str>,
    /// Told of this tenant's turns only; none: of everybody's.
    pub tenant: Option<String>,
    pub ends: Vec<Ended>,
    pub patience: Patience,
}

/// When the webhook is tried again, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Attempts of one end, before it is given up.
    pub attempts: u32,
    /// Wait behind the first of them; doubled with each further one...
    pub first: Duration,
    /// ...up to this.
    pub longest: Duration,
}

/// The end of one turn, as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub conversation: ConversationId,
    pub untold: Untold,
}

/// Why a webhook was not told: a sentence for logs, without anything secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotTold(pub String);

impl Webhook {
    pub fn wants(&self, tenant: &str, ended: Ended) -> bool {
        self.tenant.as_deref().is_none_or(|mine| mine == tenant) && self.ends.contains(&ended)
    }
}

impl Patience {
    /// The wait behind so many failures, at least 1.
    pub fn wait(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }

    /// How many attempts an end of this age has had, if all went by the plan. An owner that takes it up goes on there,
    /// so that nothing has to be written about a failure; [`ATTEMPTS_LEFT`] are always left.
    pub fn failures_by(&self, age: Duration) -> u32 {
        let (mut failures, mut spent) = (0, Duration::ZERO);
        while failures + ATTEMPTS_LEFT < self.attempts {
            spent = spent.saturating_add(self.wait(failures + 1));
            if spent > age {
                break;
            }
            failures += 1;
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { attempts: 6, first: Duration::from_secs(5), longest: Duration::from_secs(20) };

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits: Vec<u64> = (1..6).map(|failures| PATIENCE.wait(failures).as_secs()).collect();
        assert_eq!(waits, [5, 10, 20, 20, 20]);
        assert_eq!(PATIENCE.wait(u32::MAX), PATIENCE.longest);
    }

    #[test]
    fn who_takes_an_end_up_goes_on_with_the_plan_and_has_some_attempts_left() {
        let failures = |secs| PATIENCE.failures_by(Duration::from_secs(secs));
        assert_eq!([0, 4, 5, 14, 15, 35, 1_000_000].map(failures), [0, 0, 1, 1, 2, 3, 3]);
    }
}
