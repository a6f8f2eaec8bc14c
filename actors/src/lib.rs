//! The runtime: pure decisions and thin actors. Names no database and no wire protocol: its two boundaries are the
//! traits [`Store`] and [`Responder`].

pub mod limits;
pub mod request;
pub mod responder;
pub mod store;

pub use limits::Limits;
pub use request::{Answer, Caller, Refusal, Request, Submit};
pub use responder::Responder;
pub use store::Store;
