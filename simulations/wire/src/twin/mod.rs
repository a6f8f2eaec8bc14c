//! A twin of Redis: the commands that the client of this project sends, the real scripts in the real Lua, one master and
//! its replica. It speaks RESP 2 over the simulated network.
//!
//! Whatever it has executed survives its crash, as with `appendfsync always`; its scripts and its connections do not. A
//! replica gets all that is there, then what is written, some time later, and acknowledges it; `WAIT` waits for that. It
//! knows no expiry, no eviction, no transactions, no users, no cluster. What it does not know is refused loudly.
//!
//! Read in this order: what is kept, the commands, the scripts, the bytes, the server, its replica.

pub mod data;

pub mod commands;
pub mod script;

pub mod resp;

pub mod server;

pub mod replication;
pub mod sentinel;
