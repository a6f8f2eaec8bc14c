//! Where conversations, accounts and sessions are kept.

pub mod records;
