//! The node: HTTP edge, auth, stores, responders, metrics, configuration. The program `klatch` is this crate's `main`.

pub mod auth;
pub mod cli;
pub mod config;
pub mod durations;
pub mod http;
pub mod net;
pub mod ops;
pub mod page;
pub mod peers;
pub mod responders;
pub mod serve;
pub mod stores;
pub mod telemetry;
pub mod traces;
pub mod webhooks;
