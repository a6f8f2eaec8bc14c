//! Where conversations, accounts and sessions are kept.

pub mod memory_records;
pub mod records;
