//! The wire: what requests and answers look like in JSON. Read and written by the handlers; knows no conversation
//! that runs and no HTTP.

pub mod chat;
pub mod conversation;
pub mod create_response;
pub mod events;
pub mod field;
pub mod given;
pub mod items;
pub mod list;
pub mod options;
pub mod response;
