//! What the tests of whole programs share.

pub mod model_server;
