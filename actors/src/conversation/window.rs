//! The newest items of a conversation in memory: what a responder is given as history. Loaded once, on the first turn
//! that wants it, then kept up with the events; bounded in items and bytes, so its cost does not grow.

use std::collections::VecDeque;
use std::sync::Arc;

use klatch_protocol::{Event, Item, State};

use crate::limits::Limits;

pub struct Window {
    /// By rising ordinal.
    items: VecDeque<Arc<Item>>,
    bytes: usize,
    items_max: usize,
    bytes_max: usize,
}

impl Window {
    /// `items`: the newest of the conversation, oldest first.
    pub fn new(items: Vec<Item>, limits: &Limits) -> Self {
        let mut window =
            Self { items: VecDeque::new(), bytes: 0, items_max: limits.history_items, bytes_max: limits.history_bytes };
        for item in items {
            window.add(Arc::new(item));
        }
        window
    }

    /// Takes in what the event, already applied, has changed.
    pub fn follow(&mut self, event: &Event, state: &State) {
        match event {
            Event::ItemsAdded { items, .. } => {
                let first = state.next_item - items.len() as u64;
                self.add_range(state, first, state.next_item);
            }
            Event::TurnEnded { turn, .. } => {
                if let Some(turn) = state.turns.get(turn) {
                    self.add_range(state, turn.first_item, turn.block_end());
                }
            }
            Event::ItemDeleted { ordinal } => {
                if let Ok(place) = self.items.binary_search_by_key(ordinal, |item| item.ordinal) {
                    self.bytes -= self.items[place].body.bytes();
                    self.items.remove(place);
                }
            }
            Event::Claimed { .. }
            | Event::Created(_)
            | Event::TurnAccepted(_)
            | Event::AttemptStarted { .. }
            | Event::Delta { .. }
            | Event::ToolCall { .. }
            | Event::MetadataSet { .. }
            | Event::ResponseDeleted { .. }
            | Event::Forked { .. }
            | Event::Deleted
            | Event::Snapshot(_)
            | Event::AtWork
            | Event::ToTell(_)
            | Event::Told { .. } => {}
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The newest `limit` items below `before`, oldest first.
    pub fn history(&self, before: u64, limit: usize) -> Vec<Arc<Item>> {
        let end = self.items.partition_point(|item| item.ordinal < before);
        self.items.range(end.saturating_sub(limit)..end).cloned().collect()
    }

    fn add_range(&mut self, state: &State, from: u64, to: u64) {
        for item in state.items.range(from..to).map(|(_, item)| item) {
            self.add(Arc::new(item.clone()));
        }
    }

    fn add(&mut self, item: Arc<Item>) {
        self.bytes += item.body.bytes();
        let place = self.items.partition_point(|known| known.ordinal < item.ordinal);
        self.items.insert(place, item);
        while self.items.len() > self.items_max || (self.bytes > self.bytes_max && self.items.len() > 1) {
            let oldest = self.items.pop_front().expect("there is more than the limit");
            self.bytes -= oldest.body.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use klatch_protocol::Body;

    use super::*;

    fn item(ordinal: u64, text: &str) -> Item {
        Item { ordinal, client_id: None, body: Body::user(text).into() }
    }

    #[test]
    fn it_keeps_the_newest_within_both_limits() {
        let limits = Limits { history_items: 3, history_bytes: 4 * item(0, "x").body.bytes(), ..Limits::default() };
        let mut window = Window::new((0..9).map(|n| item(n, "x")).collect(), &limits);
        let ordinals =
            |window: &Window| window.history(u64::MAX, 10).iter().map(|item| item.ordinal).collect::<Vec<_>>();
        assert_eq!(ordinals(&window), [6, 7, 8]);
        window.add(Arc::new(item(9, &"x".repeat(1_000))));
        assert_eq!(ordinals(&window), [9], "an item above the limit in bytes is kept alone");
    }

    #[test]
    fn a_turn_sees_only_what_stands_before_it() {
        let window = Window::new((0..9).map(|n| item(n, "x")).collect(), &Limits::default());
        let seen: Vec<u64> = window.history(5, 2).iter().map(|item| item.ordinal).collect();
        assert_eq!(seen, [3, 4]);
    }
}
