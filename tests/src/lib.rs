//! What the tests of whole programs share.

pub mod measure;
pub mod model_server;
pub mod process;
pub mod redis_server;
