//! The wire: what requests and answers look like in JSON. Read and written by the handlers; knows no conversation
//! that runs and no HTTP.

pub mod field;
pub mod given;
pub mod items;
pub mod options;
pub mod conversation;
pub mod create_response;
pub mod response;
pub mod list;
pub mod events;
pub mod chat;
