//! Where conversations, accounts and sessions are kept: in a folder of this machine, in Redis, or in
//! memory.
//!
//! [`open`] makes both boundaries, [`Store`] and [`Records`], from one address.

pub mod embedded;
pub mod memory_records;
pub mod metrics;
pub mod records;
pub mod redis;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use klatch_actors::Store;
use klatch_actors::membership::views::Views;
use klatch_actors::store::memory::MemoryStore;

use self::embedded::Embedded;
use self::memory_records::MemoryRecords;
use self::records::Records;
use self::redis::{Address, RedisOpenError, RedisOptions, RedisStore};
use crate::config::without_password;

/// The addresses that [`open`] takes, for messages.
const SUPPORTED: &str =
    "file:PATH (a folder of this machine), redis://HOST:PORT (a cluster's), memory: (gone when the program ends)";

pub struct Opened {
    pub store: Arc<dyn Store>,
    pub records: Arc<dyn Records>,
    /// Where the store keeps its files, and others may keep theirs beside it; none for a store without files.
    pub data_dir: Option<PathBuf>,
    embedded: Option<Arc<Embedded>>,
    /// The table of nodes that a cluster's store keeps too; none for a store of one node.
    pub views: Option<Arc<dyn Views>>,
}

#[derive(Debug, thiserror::Error)]
pub enum StoreOpenError {
    #[error("the store address {0:?} is not supported; supported are: {SUPPORTED}")]
    Unsupported(String),
    #[error("another process uses the store in {}: stop it, or give this one a folder of its own", .0.display())]
    Locked(PathBuf),
    #[error("the folder {} is not empty and holds no Klatch store: give the path of an empty or a new one", .0.display())]
    Foreign(PathBuf),
    #[error(
        "the store in {} has the format {found}, and this program reads {}: start the newer program that wrote it",
        .folder.display(), embedded::FORMAT
    )]
    Newer { folder: PathBuf, found: String },
    #[error(
        "the store in {} is damaged ({what}): nothing was changed; restore the folder from a backup, or move it away \
         to begin with an empty store",
        .folder.display()
    )]
    Damaged { folder: PathBuf, what: String },
    #[error("the store at {address} cannot be opened")]
    Redis { address: String, source: RedisOpenError },
    #[error("the store in {} cannot be opened", .folder.display())]
    Io { folder: PathBuf, source: io::Error },
}

/// Opens the store at an address; metrics go to the recorder that is installed by then.
pub async fn open(address: &str, redis: &RedisOptions) -> Result<Opened, StoreOpenError> {
    if self::redis::is_redis(address)
        && let Ok(address) = Address::parse(address)
    {
        return in_redis(&address, redis).await;
    }
    match address.split_once(':') {
        Some(("memory", "")) => Ok(memory()),
        Some(("file", path)) if !path.is_empty() => file(Path::new(path)).await,
        _ => Err(StoreOpenError::Unsupported(without_password(address))),
    }
}

fn memory() -> Opened {
    Opened {
        store: Arc::new(MemoryStore::default()),
        records: Arc::new(MemoryRecords::default()),
        data_dir: None,
        embedded: None,
        views: None,
    }
}

async fn file(folder: &Path) -> Result<Opened, StoreOpenError> {
    let embedded = Arc::new(Embedded::open(folder).await?);
    Ok(Opened {
        store: embedded.clone(),
        records: embedded.clone(),
        data_dir: Some(folder.to_owned()),
        embedded: Some(embedded),
        views: None,
    })
}

async fn in_redis(address: &Address, options: &RedisOptions) -> Result<Opened, StoreOpenError> {
    let opened = RedisStore::open(address, options).await;
    let store = opened.map_err(|source| StoreOpenError::Redis { address: address.to_string(), source })?;
    tracing::info!(store.address = %address, store.promise = options.promise(address), "the store is open");
    let store = Arc::new(store);
    Ok(Opened { store: store.clone(), records: store.clone(), data_dir: None, embedded: None, views: Some(store) })
}

impl Opened {
    /// Writes what is queued, then closes the files; whatever comes later is refused as unavailable. What was
    /// acknowledged is durable with or without it.
    pub async fn close(&self) {
        if let Some(embedded) = &self.embedded {
            embedded.close().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unknown_address_is_told_which_ones_are_known() {
        for address in ["", "file", "file:", "redis+sentinel://localhost", "memory:x"] {
            let Err(error) = open(address, &RedisOptions::default()).await else { panic!("{address:?} was opened") };
            assert!(error.to_string().contains("file:PATH"), "{error}");
        }
        assert!(open("memory:", &RedisOptions::default()).await.is_ok());
    }
}
