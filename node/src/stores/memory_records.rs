//! Records in memory, for tests and `--store memory:`. Gone with the process; bounded by nothing but what it holds.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use klatch_actors::store::StoreError;

use super::records::{Record, Records};

#[derive(Default)]
pub struct MemoryRecords {
    records: Mutex<BTreeMap<String, Record>>,
}

impl MemoryRecords {
    /// No operation leaves the map half changed, so a panic elsewhere poisons nothing.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_now(&self, key: String, expected: Option<u64>, bytes: Vec<u8>) -> bool {
        match (self.lock().entry(key), expected) {
            (Entry::Vacant(vacant), None) => {
                vacant.insert(Record { version: 1, bytes });
                true
            }
            (Entry::Occupied(mut occupied), Some(version)) if occupied.get().version == version => {
                occupied.insert(Record { version: version + 1, bytes });
                true
            }
            (Entry::Vacant(_), Some(_)) | (Entry::Occupied(_), _) => false,
        }
    }
}

impl Records for MemoryRecords {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        ready(Ok(self.lock().get(&key).cloned())).boxed()
    }

    fn put(&self, key: String, expected: Option<u64>, bytes: Vec<u8>) -> BoxFuture<'_, Result<bool, StoreError>> {
        ready(Ok(self.put_now(key, expected, bytes))).boxed()
    }

    fn remove(&self, key: String) -> BoxFuture<'_, Result<(), StoreError>> {
        self.lock().remove(&key);
        ready(Ok(())).boxed()
    }

    fn keys(
        &self,
        prefix: String,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix.clone()),
        };
        let records = self.lock();
        let keys = records.range((from, Bound::Unbounded)).map(|(key, _)| key);
        let page = keys.take_while(|key| key.starts_with(&prefix)).take(limit).cloned().collect();
        ready(Ok(page)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_record_is_replaced_only_by_who_knows_its_version() {
        let records = MemoryRecords::default();
        assert!(records.put("a".into(), None, vec![1]).await.unwrap());
        assert!(!records.put("a".into(), None, vec![2]).await.unwrap());
        assert!(!records.put("a".into(), Some(2), vec![2]).await.unwrap());
        assert!(records.put("a".into(), Some(1), vec![2]).await.unwrap());
        assert_eq!(records.get("a".into()).await.unwrap(), Some(Record { version: 2, bytes: vec![2] }));
        records.remove("a".into()).await.unwrap();
        assert!(!records.put("a".into(), Some(2), vec![3]).await.unwrap());
        assert_eq!(records.get("a".into()).await.unwrap(), None);
    }

    #[tokio::test]
    async fn keys_come_in_pages_of_one_prefix() {
        let records = MemoryRecords::default();
        for key in ["a/1", "b/1", "b/2", "b/3", "c/1"] {
            records.put(key.into(), None, vec![]).await.unwrap();
        }
        assert_eq!(records.keys("b/".into(), None, 2).await.unwrap(), ["b/1", "b/2"]);
        assert_eq!(records.keys("b/".into(), Some("b/2".into()), 2).await.unwrap(), ["b/3"]);
        assert_eq!(records.keys("b/".into(), Some("a".into()), 9).await.unwrap().len(), 3);
        assert!(records.keys("b/".into(), Some("c".into()), 9).await.unwrap().is_empty());
    }
}
