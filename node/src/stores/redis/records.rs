//! [`Records`] on Redis: all under one hash tag, since they are few and small, and their names are kept in order beside
//! them.

use ::redis::cmd;
use futures::future::BoxFuture;
use klatch_actors::store::{Order, StoreError};

use super::job::Kind;
use super::keys::{damaged, excluding, including, number_and_rest, numbered};
use super::scripts::Script;
use super::{RedisStore, read};
use crate::stores::records::{Record, Records};

impl Records for RedisStore {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        Box::pin(async move {
            let values = self.keys.records("values");
            let value = self.plain_read(&values, cmd("HGET").arg(&values).arg(key).take()).await?;
            let Some(value) = read::optional(value)? else { return Ok(None) };
            let (version, bytes) = number_and_rest(&value)?;
            Ok(Some(Record { version, bytes: bytes.to_vec() }))
        })
    }

    fn put(&self, key: String, expected: Option<u64>, bytes: Vec<u8>) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let version = expected.unwrap_or(0).saturating_add(1);
            let expected = expected.map_or_else(Vec::new, |version| version.to_be_bytes().to_vec());
            let mut call = Script::PutRecord.call(&self.record_keys());
            call.arg(key).arg(expected).arg(numbered(version, &bytes));
            let reply = self.lane(&self.keys.records(""))?.submit(call, Kind::Script, true).await?;
            read::whether(&reply.value)
        })
    }

    fn remove(&self, key: String) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let mut call = Script::RemoveRecord.call(&self.record_keys());
            call.arg(key);
            let kind = Kind::Script;
            self.lane(&self.keys.records(""))?.submit(call, kind, true).await.map(drop)
        })
    }

    fn keys(
        &self,
        prefix: String,
        after: Option<String>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        Box::pin(async move {
            let names = self.keys.records("names");
            let low = match after {
                Some(after) if after >= prefix => excluding(after.as_bytes()),
                Some(_) | None => including(prefix.as_bytes()),
            };
            // No text has this byte, so every name that begins with the prefix sorts before it.
            let high = excluding(&[prefix.as_bytes(), b"\xff"].concat());
            let page = read::page_command(&names, &low, &high, Order::Ascending, limit);
            let page = self.plain_read(&names, page).await?;
            read::members(page, |name| {
                String::from_utf8(name.to_vec()).map_err(|_| damaged("a record's key is no text"))
            })
        })
    }
}

impl RedisStore {
    fn record_keys(&self) -> [String; 2] {
        [self.keys.records("values"), self.keys.records("names")]
    }
}
