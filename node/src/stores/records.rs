//! Small records by key, with compare-and-set: accounts, refresh tokens, and what else is not a conversation.
//!
//! Implemented by every store beside [`klatch_actors::Store`], so that a cluster shares them.

use futures::future::BoxFuture;
use klatch_actors::store::StoreError;

/// A record and the number of times that it was written, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub version: u64,
    pub bytes: Vec<u8>,
}

pub trait Records: Send + Sync + 'static {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Record>, StoreError>>;

    /// Writes durably if the record's version is still `expected` (none: if there is no such record); says whether.
    fn put(&self, key: String, expected: Option<u64>, bytes: Vec<u8>) -> BoxFuture<'_, Result<bool, StoreError>>;

    fn remove(&self, key: String) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Keys that begin so, in order, at most `limit`, behind `after`.
    fn keys(
        &self,
        prefix: String,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<String>, StoreError>>;
}
