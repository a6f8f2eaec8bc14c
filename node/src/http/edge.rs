//! What all handlers share.

use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use klatch_actors::responder::Responders;
use klatch_actors::{Caller, Handle};
use tokio::sync::Semaphore;

use super::options::EdgeOptions;
use super::rate::{Grant, Rates};
use crate::auth::Auth;

/// Cheap to clone.
#[derive(Clone)]
pub struct Edge(Arc<Shared>);

pub struct Shared {
    pub handle: Handle,
    pub responders: Arc<Responders>,
    pub auth: Arc<Auth>,
    pub options: EdgeOptions,
    pub chats: Arc<Semaphore>,
    rates: Mutex<Rates>,
    started: Instant,
}

impl Edge {
    pub fn new(handle: Handle, responders: Arc<Responders>, auth: Arc<Auth>, options: EdgeOptions) -> Self {
        let chats = Arc::new(Semaphore::new(options.limits.chat_completions_at_once.min(Semaphore::MAX_PERMITS)));
        let (rates, started) = (Mutex::default(), Instant::now());
        Self(Arc::new(Shared { handle, responders, auth, options, chats, rates, started }))
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
        // A panic while it was held leaves counts that are at worst one off.
        let mut rates = self.rates.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        rates.take(&caller.tenant, per_minute, self.started.elapsed())
    }
}

/// Ms since 1970, by this node's clock: for deadlines that travel with a request.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
