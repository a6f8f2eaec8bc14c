//! A StatefulSet without Kubernetes: its pods, who is ready, and clients that use them all the time.

pub mod clients;
pub mod ready;
pub mod set;
