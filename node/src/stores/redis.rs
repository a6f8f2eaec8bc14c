//! The store of a cluster: Redis, one server, a master that sentinels know, or a Redis Cluster.
//!
//! A conversation's log is a stream whose ids are given, `<epoch>-<seq>`: Redis refuses one that is not above the last,
//! and that is the fence. Writes go through the batcher of a lane, together, and in durability `replica` are answered
//! once the replicas have them; reads go beside them. The program makes it, and it connects again by itself; while there
//! is no connection everything is refused as unavailable.
//!
//! In durability `replica` an end and a log are answered only once the replicas have them too, so that nobody builds upon
//! what a failover may take back. Lists and rows are read as they are: what compaction moved was acknowledged before.
//!
//! **A log that went back** (a server that was restarted with less than it had acknowledged, a replica that was promoted
//! and lacked something) would take an owner's next entry with a hole before it. So on each new connection the first
//! entry of a conversation is sent only after its log was read to end with that owner's own last entry, under its own
//! token; both follow from the entry itself. Done here and not by the conversation, since an entry cannot overtake the
//! look of its own batcher, and no conversation has to know of connections. The conversation is told `Damaged` and gives
//! up what it has in memory; the next owner goes on from the log as it is. It is not written again from memory: what
//! compaction moved to the lists may have gone back too, and nobody would know.

mod address;
mod around;
mod batcher;
mod blocks;
mod check;
mod cluster;
mod compaction;
mod connect;
mod job;
mod keys;
mod lane;
mod options;
mod page;
mod read;
mod records;
mod replies;
mod scripts;
mod store;
#[cfg(test)]
mod tests;
mod views;

/// Of the tests of whole programs: one starter of servers for both.
#[cfg(test)]
#[path = "../../../tests/src/redis_server.rs"]
mod redis_server;

use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, Value};
use klatch_actors::store::StoreError;
use tokio::time::timeout;
use xxhash_rust::xxh3::xxh3_64;

pub use self::address::{Address, AddressError, FORMS, is_redis};
pub use self::check::check;
pub use self::options::{Durability, RedisOptions};

use self::cluster::Cluster;
pub use self::connect::Dialler;
use self::connect::{ConnectError, Manner, Target};
use self::keys::Keys;
use self::lane::{Lane, unavailable};
use super::metrics::{Timers, describe};

/// What a start waits for a failover to end.
const FIRST_CONNECTION_MAX: Duration = Duration::from_secs(20);

pub struct RedisStore {
    keys: Keys,
    servers: Servers,
    replicas: Option<usize>,
    timers: Timers,
}

enum Servers {
    One(Vec<Arc<Lane>>),
    Many(Cluster),
}

#[derive(Debug, thiserror::Error)]
pub enum RedisOpenError {
    #[error("Redis cannot be connected to")]
    Connect(#[from] ConnectError),
    #[error("Redis was not connected to in time")]
    Late,
}

impl RedisStore {
    pub async fn open(address: &Address, options: &RedisOptions) -> Result<Self, RedisOpenError> {
        Self::open_by(Dialler::Client, address, options).await
    }

    /// The nodes of a Redis Cluster are always dialled by the client.
    pub async fn open_by(dialler: Dialler, address: &Address, options: &RedisOptions) -> Result<Self, RedisOpenError> {
        describe();
        let manner = Manner::new(options);
        let replicas = options.replicas(address);
        let servers = match address {
            Address::Single(_) | Address::Sentinel { .. } => {
                let target = Target::of(address, dialler).expect("one server is a target");
                // For the reason, which the lanes would only log.
                drop(target.connect(&manner).await?);
                let lane = || Arc::new(Lane::start(target.clone(), manner.clone(), options, replicas));
                let lanes: Vec<_> = (0..options.connections).map(|_| lane()).collect();
                let connected = futures::future::join_all(lanes.iter().map(|lane| lane.connected()));
                timeout(FIRST_CONNECTION_MAX, connected).await.map_err(|_| RedisOpenError::Late)?;
                Servers::One(lanes)
            }
            Address::Cluster { seeds, settings } => {
                let cluster = Cluster::start(seeds.clone(), settings.clone(), manner, options, replicas).await?;
                Servers::Many(cluster)
            }
        };
        let keys = Keys { prefix: options.prefix.clone() };
        Ok(Self { keys, servers, replicas, timers: Timers::default() })
    }

    fn waits(&self) -> bool {
        self.replicas.is_some()
    }

    /// The lane of all keys with this one's hash tag.
    fn lane(&self, key: &str) -> Result<Arc<Lane>, StoreError> {
        match &self.servers {
            Servers::One(lanes) => Ok(pick(lanes, key)),
            Servers::Many(cluster) => cluster.lane(key),
        }
    }

    async fn plain_read(&self, key: &str, command: Cmd) -> Result<Value, StoreError> {
        Ok(self.lane(key)?.read(command).await?.value)
    }
}

fn pick(lanes: &[Arc<Lane>], key: &str) -> Arc<Lane> {
    let place = xxh3_64(tag(key).as_bytes()) % lanes.len() as u64;
    lanes[place as usize].clone()
}

/// What stands in the first braces of a key; all keys of this program have them.
fn tag(key: &str) -> &str {
    let inner = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    inner.map_or(key, |(tag, _)| tag)
}

/// A read whose outcome is unknown has read nothing.
fn nothing_read(error: StoreError) -> StoreError {
    match error {
        StoreError::Unknown(why) => unavailable(&why),
        error => error,
    }
}
