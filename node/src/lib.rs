//! The node: HTTP edge, auth, stores, responders, metrics, configuration. The program `klatch` is this crate's `main`.

pub mod auth;
pub mod durations;
pub mod http;
pub mod responders;
pub mod stores;
