//! The commands of the program beside `serve`. Each reads its own arguments and answers with an exit code.

pub mod chat;
pub mod client;
pub mod load;
