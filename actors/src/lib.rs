//! The runtime: pure decisions and thin actors. Names no database and no wire protocol: its boundaries are
//! the traits [`Store`], [`Responder`] and [`Webhooks`].
//!
//! Read in this order: what can be asked and within which limits, the boundaries, what is read past the actors, then
//! the actors from the node down to the conversation.

pub mod conversation;
pub mod gateway;
pub mod limits;
pub mod membership;
pub mod metrics;
pub mod node;
pub mod peers;
pub mod reader;
pub mod request;
pub mod responder;
pub mod routes;
pub mod shard;
pub mod store;
pub mod trace;
pub mod webhooks;

pub use limits::Limits;
pub use node::{Handle, Node, NodeOptions};
pub use reader::Reader;
pub use request::{Answer, Caller, Refusal, Request, Submit};
pub use responder::Responder;
pub use store::Store;
pub use webhooks::Webhooks;
