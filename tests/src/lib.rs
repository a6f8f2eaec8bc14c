//! What the tests of whole programs share.

pub mod balancer;
pub mod client;
pub mod cluster;
pub mod container;
pub mod edge;
pub mod failover;
pub mod faulty_proxy;
pub mod history;
pub mod manifests;
pub mod markdown;
pub mod measure;
pub mod model_server;
pub mod names;
pub mod namespaces;
pub mod nginx;
pub mod one_writer;
pub mod pods;
pub mod process;
pub mod random;
pub mod redis_server;
pub mod sockets;
pub mod terminal;
pub mod webhook_receiver;
