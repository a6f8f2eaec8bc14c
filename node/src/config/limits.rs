//! `[limits]`: every queue and size that an operator can set, for the edge and for the runtime of conversations.

use std::collections::BTreeMap;
use std::time::Duration;

use klatch_actors::Limits;
use serde::{Deserialize, Serialize};

use super::ConfigRefused;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitOptions {
    /// Requests of one tenant in a minute; over it 429. The default stops a loop, not a load.
    pub requests_per_minute: u32,
    /// Open client connections. Further ones wait in the system's queue; each costs some 20 KB and a file descriptor.
    pub connections: usize,
    /// Size of a request's body in bytes; over it 413. A long history with an image fits; a file does not belong here.
    pub body_bytes: usize,
    /// A body must arrive within this.
    #[serde(with = "crate::durations")]
    pub body_timeout: Duration,
    /// A request waits no longer than this for its turn; the turn goes on.
    #[serde(with = "crate::durations")]
    pub wait_max: Duration,
    /// Streams get a comment so often while nothing is said, so that proxies keep them open.
    #[serde(with = "crate::durations")]
    pub keep_alive: Duration,
    /// A stream looks for its turn's new owner so long before it is cut.
    #[serde(with = "crate::durations")]
    pub owner_lost_max: Duration,
    /// Chat completions at once: each holds a connection to a model, and nothing queues them.
    pub chat_completions_at_once: usize,
    /// Open turns of one conversation, the running one included; over it 429. A person waits for an answer: 32
    /// unanswered turns are a loop somewhere.
    pub queue_per_conversation: usize,
    /// Open turns on this node; over it 503. Each may hold a connection to a model and a reply in memory.
    pub turns_in_flight: usize,
    /// Conversations in memory. Over it the least recently used are put away.
    pub active_conversations: usize,
    /// What they may hold together in bytes. Over it too the least recently used are put away, and over twice as much
    /// new turns get 503.
    pub active_bytes: usize,
    /// Requests of one conversation that wait until it is in memory, or for the store; over it 503.
    pub waiting_per_conversation: usize,
    /// What of one conversation is not in its lists yet, in bytes: over it 503. It is written with each snapshot.
    pub hot_bytes_per_conversation: usize,
    /// Text of one reply in bytes; at the limit the turn ends incomplete.
    pub reply_bytes: usize,
    /// Pieces of a reply that are not durable yet; the model is not read beyond it.
    pub unsaved_pieces: usize,
    /// History that a responder is given: the newest items ...
    pub history_items: usize,
    /// ... within so many bytes.
    pub history_bytes: usize,
    /// A conversation is put away after so long without a message.
    #[serde(with = "crate::durations")]
    pub idle_after: Duration,
    /// A conversation's log is compacted after so many entries ...
    pub compact_after_entries: usize,
    /// ... or so many bytes of them.
    pub compact_after_bytes: usize,
    /// Shortest time between two writes of one reply: what arrives meanwhile shares a write.
    #[serde(with = "crate::durations")]
    pub batch_every: Duration,
    /// Unfinished turns that are taken up at once when a node starts.
    pub recoveries_at_once: usize,
    /// Tenants with limits of their own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tenant: BTreeMap<String, TenantLimits>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantLimits {
    /// Requests of this tenant in a minute; over it 429.
    pub requests_per_minute: u32,
}

impl Default for LimitOptions {
    fn default() -> Self {
        let runtime = Limits::default();
        Self {
            requests_per_minute: 600_000,
            connections: 16_384,
            body_bytes: 1 << 20,
            body_timeout: Duration::from_secs(30),
            wait_max: Duration::from_secs(600),
            keep_alive: Duration::from_secs(10),
            owner_lost_max: Duration::from_secs(60),
            chat_completions_at_once: 1_000,
            queue_per_conversation: runtime.queue_per_conversation,
            turns_in_flight: runtime.turns_in_flight,
            active_conversations: runtime.active_conversations,
            active_bytes: runtime.active_bytes,
            waiting_per_conversation: runtime.waiting_per_conversation,
            hot_bytes_per_conversation: runtime.hot_bytes_per_conversation,
            reply_bytes: runtime.reply_bytes,
            unsaved_pieces: runtime.unsaved_pieces,
            history_items: runtime.history_items,
            history_bytes: runtime.history_bytes,
            idle_after: runtime.idle_after,
            compact_after_entries: runtime.compact_after_entries,
            compact_after_bytes: runtime.compact_after_bytes,
            batch_every: runtime.batch_every,
            recoveries_at_once: runtime.recoveries_at_once,
            tenant: BTreeMap::new(),
        }
    }
}

impl LimitOptions {
    pub fn runtime(&self) -> Limits {
        Limits {
            queue_per_conversation: self.queue_per_conversation,
            turns_in_flight: self.turns_in_flight,
            active_conversations: self.active_conversations,
            active_bytes: self.active_bytes,
            waiting_per_conversation: self.waiting_per_conversation,
            hot_bytes_per_conversation: self.hot_bytes_per_conversation,
            reply_bytes: self.reply_bytes,
            unsaved_pieces: self.unsaved_pieces,
            history_items: self.history_items,
            history_bytes: self.history_bytes,
            idle_after: self.idle_after,
            compact_after_entries: self.compact_after_entries,
            compact_after_bytes: self.compact_after_bytes,
            batch_every: self.batch_every,
            recoveries_at_once: self.recoveries_at_once,
        }
    }

    /// Nothing works with a queue of no places; only `history_items` and `requests_per_minute` may be 0, which is no
    /// history and nobody.
    pub(super) fn refuse_contradictions(&self) -> Result<(), ConfigRefused> {
        let at_least_one = [
            ("connections", self.connections),
            ("body_bytes", self.body_bytes),
            ("chat_completions_at_once", self.chat_completions_at_once),
            ("queue_per_conversation", self.queue_per_conversation),
            ("turns_in_flight", self.turns_in_flight),
            ("active_conversations", self.active_conversations),
            ("active_bytes", self.active_bytes),
            ("waiting_per_conversation", self.waiting_per_conversation),
            ("hot_bytes_per_conversation", self.hot_bytes_per_conversation),
            ("reply_bytes", self.reply_bytes),
            ("unsaved_pieces", self.unsaved_pieces),
            ("history_bytes", self.history_bytes),
            ("compact_after_entries", self.compact_after_entries),
            ("compact_after_bytes", self.compact_after_bytes),
            ("recoveries_at_once", self.recoveries_at_once),
        ];
        let zero = at_least_one.iter().find(|(_, value)| *value == 0).map(|(key, _)| (key, "1"));
        let times = [
            ("body_timeout", self.body_timeout),
            ("wait_max", self.wait_max),
            ("keep_alive", self.keep_alive),
            ("idle_after", self.idle_after),
        ];
        let no_time = times.iter().find(|(_, value)| value.is_zero()).map(|(key, _)| (key, "1s"));
        match zero.or(no_time) {
            Some((key, least)) => {
                Err(ConfigRefused::new(format!("limits.{key}"), format!("is 0: {least} or more would work")))
            }
            None => Ok(()),
        }
    }
}
