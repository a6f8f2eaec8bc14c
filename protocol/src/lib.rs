//! What travels between nodes and into the store, and nothing else: no IO, no clock, no randomness but ids.
//!
//! Read in this order: ids, what an item is, the events of a conversation's log, what they add up to for one
//! turn and for the whole conversation, how a turn is read as a stream, and the bytes.

pub mod envelope;
pub mod event;
pub mod frame;
pub mod ids;
pub mod item;
pub mod pieces;
pub mod state;
pub mod stream;
pub mod trace;
pub mod turn;
pub mod untold;
pub mod view;

pub use event::{Entry, Event, Position};
pub use ids::{ClaimToken, ConversationId, IdError, ItemId, ResponseId, Shard};
pub use item::{Body, Item, Part, Role, Status};
pub use pieces::Pieces;
pub use state::State;
pub use turn::{Mark, Outcome, Turn};
pub use untold::{Ended, Untold, WebhookId};
