//! Every queue and size of the runtime, with its maximum and the reason. What is over a limit is refused early.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open turns of one conversation, the running one included. A person waits for an answer; 32 unanswered turns
    /// are a loop somewhere.
    pub queue_per_conversation: usize,
    /// Open turns on this node. Each may hold a connection to a model and a reply in memory.
    pub turns_in_flight: usize,
    /// Conversations in memory. Beyond it the least recently used are passivated.
    pub active_conversations: usize,
    /// What they may hold together, in bytes. Beyond it too the least recently used are passivated, and beyond twice
    /// as much new turns are refused.
    pub active_bytes: usize,
    /// Requests of one conversation that wait for it to be activated, or for the store.
    pub waiting_per_conversation: usize,
    /// What of one conversation is not yet in its lists, in bytes. It is written with each snapshot; one entry can
    /// hold 64 MiB.
    pub hot_bytes_per_conversation: usize,
    /// Text of one reply, in bytes; at the limit the turn ends incomplete.
    pub reply_bytes: usize,
    /// Pieces of a reply that are not durable yet; the responder is not read beyond it.
    pub unsaved_pieces: usize,
    /// History given to a responder: the newest items...
    pub history_items: usize,
    /// ...within so many bytes.
    pub history_bytes: usize,
    /// Passivated after so long without a message.
    pub idle_after: Duration,
    /// Compacted after so many entries since the last snapshot...
    pub compact_after_entries: usize,
    /// ...or so many bytes of them.
    pub compact_after_bytes: usize,
    /// Shortest time between two batches of one reply: what arrives meanwhile shares one append.
    pub batch_every: Duration,
    /// Unfinished turns activated at once when a node starts.
    pub recoveries_at_once: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_per_conversation: 32,
            turns_in_flight: 10_000,
            active_conversations: 50_000,
            active_bytes: 1 << 30,
            waiting_per_conversation: 128,
            hot_bytes_per_conversation: 8 << 20,
            reply_bytes: 4 << 20,
            unsaved_pieces: 1_024,
            history_items: 100,
            history_bytes: 256 << 10,
            idle_after: Duration::from_secs(300),
            compact_after_entries: 64,
            compact_after_bytes: 256 << 10,
            batch_every: Duration::from_millis(20),
            recoveries_at_once: 64,
        }
    }
}

/// What of the node's limits is in use; shared by all conversations of a node.
#[derive(Debug, Default)]
pub struct Load {
    open_turns: AtomicUsize,
    bytes: AtomicUsize,
    /// How many conversations have an oldest open turn that was accepted then, in ms since 1970.
    oldest_turns: Mutex<BTreeMap<u64, usize>>,
}

impl Load {
    pub fn open_turns(&self) -> usize {
        self.open_turns.load(Ordering::Relaxed)
    }

    /// Roughly what all conversations hold, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A conversation has `now` open turns, and had `before`.
    pub fn turns_changed(&self, before: usize, now: usize) {
        change(&self.open_turns, before, now);
    }

    /// When the turn was accepted that has been open for longest, in ms since 1970.
    pub fn oldest_turn_ms(&self) -> Option<u64> {
        self.oldest_turns().first_key_value().map(|(since_ms, _)| *since_ms)
    }

    /// A conversation's oldest open turn was accepted at `now`, and the one before at `before`. Most of what happens to a
    /// conversation changes nothing here, and takes no lock.
    pub fn oldest_turn_changed(&self, before: Option<u64>, now: Option<u64>) {
        if before == now {
            return;
        }
        let mut turns = self.oldest_turns();
        if let Some(now) = now {
            *turns.entry(now).or_default() += 1;
        }
        if let Some(before) = before
            && let Some(count) = turns.get_mut(&before)
        {
            *count -= 1;
            if *count == 0 {
                turns.remove(&before);
            }
        }
    }

    fn oldest_turns(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        self.oldest_turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A conversation holds `now` bytes, and held `before`.
    pub fn bytes_changed(&self, before: usize, now: usize) {
        change(&self.bytes, before, now);
    }
}

fn change(counter: &AtomicUsize, before: usize, now: usize) {
    if now >= before {
        counter.fetch_add(now - before, Ordering::Relaxed);
    } else {
        counter.fetch_sub(before - now, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_turn_of_all_conversations_is_known_until_it_ends() {
        let load = Load::default();
        assert_eq!(load.oldest_turn_ms(), None);
        // Two conversations, accepted in the same ms, and a third one later.
        load.oldest_turn_changed(None, Some(5));
        load.oldest_turn_changed(None, Some(5));
        load.oldest_turn_changed(None, Some(9));
        load.oldest_turn_changed(Some(5), Some(7));
        assert_eq!(load.oldest_turn_ms(), Some(5));
        load.oldest_turn_changed(Some(5), None);
        assert_eq!(load.oldest_turn_ms(), Some(7));
        load.oldest_turn_changed(Some(7), None);
        load.oldest_turn_changed(Some(9), None);
        assert_eq!(load.oldest_turn_ms(), None);
    }
}
