//! What all handlers share.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use klatch_actors::gateway::forward::Spending;
use klatch_actors::responder::Responders;
use klatch_actors::{Caller, Handle};
use tokio::sync::Semaphore;

use super::options::EdgeOptions;
use super::rate::{Grant, Rates};
use crate::auth::Auth;

/// How often nodes tell one another what tenants spent: a burst can pass a limit by what it spends in this time at the other
/// nodes.
const TELL_EVERY: Duration = Duration::from_millis(250);

/// Cheap to clone.
#[derive(Clone)]
pub struct Edge(Arc<Shared>);

pub struct Shared {
    pub handle: Handle,
    pub responders: Arc<Responders>,
    pub auth: Arc<Auth>,
    pub options: Arc<EdgeOptions>,
    pub chats: Arc<Semaphore>,
    rates: Mutex<Rates>,
    started: Instant,
}

impl Edge {
    pub fn new(handle: Handle, responders: Arc<Responders>, auth: Arc<Auth>, options: EdgeOptions) -> Self {
        let chats = Arc::new(Semaphore::new(options.limits.chat_completions_at_once.min(Semaphore::MAX_PERMITS)));
        let (rates, started, options) = (Mutex::default(), Instant::now(), Arc::new(options));
        let edge = Self(Arc::new(Shared { handle, responders, auth, options, chats, rates, started }));
        let listening = Arc::downgrade(&edge.0);
        edge.handle.on_spending(move |spending| {
            if let Some(shared) = listening.upgrade() {
                shared.taken_elsewhere(&spending);
            }
        });
        edge
    }

    /// Tells the other nodes what tenants spent here; for as long as the node lives.
    pub async fn tell_spending(self) {
        let mut ticks = tokio::time::interval(TELL_EVERY);
        loop {
            ticks.tick().await;
            let spending = self.rates().tell();
            if !spending.is_empty() {
                self.handle.tell_spending(&spending);
            }
        }
    }
}

impl Deref for Edge {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Shared {
    /// Counts a request of the caller's tenant.
    pub fn take(&self, caller: &Caller) -> Grant {
        let per_minute = self.options.requests_per_minute(&caller.tenant);
        self.rates().take(&caller.tenant, per_minute, self.started.elapsed())
    }

    fn taken_elsewhere(&self, spending: &Spending) {
        let now = self.started.elapsed();
        for (tenant, count) in spending {
            self.rates().taken_elsewhere(tenant, *count, self.options.requests_per_minute(tenant), now);
        }
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        // A panic while it was held leaves counts that are at worst one off.
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ms since 1970, by this node's clock: for deadlines that travel with a request.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
