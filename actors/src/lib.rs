//! The runtime: pure decisions and thin actors. Names no database and no wire protocol: its two boundaries are the
//! traits [`Store`] and [`Responder`].

pub mod limits;
pub mod request;
pub mod responder;
pub mod store;
pub mod reader;
pub mod node;

pub use limits::Limits;
pub use node::Handle;
pub use reader::Reader;
pub use request::{Answer, Caller, Refusal, Request, Submit};
pub use responder::Responder;
pub use store::Store;
