//! A client: one turn under one idempotency key, and all that it was ever told.
//!
//! It submits to any owner that serves, and again to the same or another one, as if the answer were lost or late: a
//! client that repeats itself without a reason is the worst one. It also watches: whatever an owner may show, it has
//! seen.

use crate::store::{Place, Token};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    pub submits_left: u8,
    /// The entries that it was told have accepted its turn. More than one is a fault.
    pub accepted: Vec<Place>,
    /// The longest text that it was shown. A piece is known by who wrote it.
    pub shown: Vec<Token>,
    /// It was shown that the turn is over.
    pub ended: bool,
    /// It was shown two texts of which neither is the beginning of the other.
    pub contradicted: bool,
}

impl Client {
    pub fn new(submits_left: u8) -> Self {
        Self { submits_left, accepted: Vec::new(), shown: Vec::new(), ended: false, contradicted: false }
    }

    pub fn tell_accepted(&mut self, place: Place) {
        if let Err(at) = self.accepted.binary_search(&place) {
            self.accepted.insert(at, place);
        }
    }

    pub fn show(&mut self, text: &[Token], ended: bool) {
        if text.starts_with(&self.shown) {
            self.shown = text.to_vec();
        } else if !self.shown.starts_with(text) {
            self.contradicted = true;
        }
        self.ended |= ended;
    }
}
