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

#[cfg(test)]
pub mod contract {
    //! What every implementation must do.

    use futures::future::join_all;

    use super::*;

    pub async fn suite(records: &dyn Records) {
        a_record_is_replaced_only_by_who_knows_its_version(records).await;
        of_several_writers_one_wins(records).await;
        keys_come_in_pages_of_one_prefix(records).await;
    }

    async fn a_record_is_replaced_only_by_who_knows_its_version(records: &dyn Records) {
        let put = async |expected, byte: u8| records.put("cas".into(), expected, vec![byte]).await;
        assert_eq!(records.get("cas".into()).await, Ok(None));
        assert_eq!(put(Some(1), 0).await, Ok(false));
        assert_eq!(put(None, 1).await, Ok(true));
        assert_eq!(put(None, 2).await, Ok(false));
        assert_eq!(put(Some(2), 2).await, Ok(false));
        assert_eq!(put(Some(1), 3).await, Ok(true));
        assert_eq!(records.get("cas".into()).await, Ok(Some(Record { version: 2, bytes: vec![3] })));
        for _ in 0..2 {
            assert_eq!(records.remove("cas".into()).await, Ok(()));
        }
        assert_eq!(records.get("cas".into()).await, Ok(None));
        assert_eq!(put(Some(2), 4).await, Ok(false));
        assert_eq!(put(None, 5).await, Ok(true));
        assert_eq!(records.get("cas".into()).await, Ok(Some(Record { version: 1, bytes: vec![5] })));
        assert_eq!(records.put("empty".into(), None, vec![]).await, Ok(true));
        assert_eq!(records.get("empty".into()).await, Ok(Some(Record { version: 1, bytes: vec![] })));
    }

    async fn of_several_writers_one_wins(records: &dyn Records) {
        for version in [None, Some(1), Some(2)] {
            let race = (0..16).map(|n| records.put("race".into(), version, vec![n]));
            let won: Vec<usize> =
                join_all(race).await.into_iter().enumerate().filter(|(_, won)| *won == Ok(true)).map(|w| w.0).collect();
            assert_eq!(won.len(), 1, "winners at version {version:?}: {won:?}");
            let record = records.get("race".into()).await.unwrap().unwrap();
            assert_eq!(record, Record { version: version.unwrap_or(0) + 1, bytes: vec![won[0] as u8] });
        }
    }

    async fn keys_come_in_pages_of_one_prefix(records: &dyn Records) {
        for key in ["p/a/1", "p/b/1", "p/b/2", "p/b/3", "p/b", "p/c/1", "p/b/ä"] {
            assert_eq!(records.put(key.into(), None, vec![]).await, Ok(true));
        }
        let page = async |prefix: &str, after: Option<&str>, limit| {
            records.keys(prefix.into(), after.map(str::to_owned), limit).await.unwrap()
        };
        assert_eq!(page("p/b/", None, 2).await, ["p/b/1", "p/b/2"]);
        assert_eq!(page("p/b/", Some("p/b/2"), 9).await, ["p/b/3", "p/b/ä"]);
        assert_eq!(page("p/b/", Some("p/b/11"), 1).await, ["p/b/2"]);
        assert_eq!(page("p/b/", Some("a"), 9).await.len(), 4);
        assert!(page("p/b/", Some("z"), 9).await.is_empty());
        assert!(page("p/b/", None, 0).await.is_empty());
        assert!(page("q", None, 9).await.is_empty());
        assert_eq!(page("", None, usize::MAX).await.iter().filter(|key| key.starts_with("p/")).count(), 7);
    }
}
