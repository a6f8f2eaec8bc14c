//! What the tests of whole programs share.

pub mod history;
pub mod measure;
pub mod model_server;
pub mod process;
