//! The servers of a Redis Cluster: a map of which master has which slots, and lanes to each.
//!
//! A task of its own reads the map again when a lane finds that its keys moved or loses its connection, and starts and
//! drops lanes as masters come and go. While the map is old, what is asked of a wrong server is refused as unavailable:
//! nothing was done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{ConnectionInfo, RedisError, Value, cmd};
use arc_swap::ArcSwap;
use klatch_actors::store::StoreError;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::address::at;
use super::connect::{self, ConnectError, Manner, Target};
use super::lane::{Lane, unavailable};
use super::options::RedisOptions;
use super::{pick, tag};

/// Slots of every Redis Cluster.
const SLOTS: usize = 16_384;
/// The map is read again so often in any case: a master that nobody asks for would not be missed.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// At the least between two looks, so that many refusals cost one.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

type Host = (String, u16);

pub struct Cluster {
    map: Arc<ArcSwap<Map>>,
    looking: AbortHandle,
}

#[derive(Default)]
struct Map {
    lanes: BTreeMap<Host, Vec<Arc<Lane>>>,
    /// First and last slot, and the master that has them.
    slots: Vec<(usize, usize, Host)>,
}

/// Looks at the cluster.
struct Looker {
    seeds: Vec<Host>,
    settings: ConnectionInfo,
    manner: Manner,
    options: RedisOptions,
    replicas: Option<usize>,
    map: Arc<ArcSwap<Map>>,
    look: Arc<Notify>,
}

impl Cluster {
    pub async fn start(
        seeds: Vec<Host>,
        settings: ConnectionInfo,
        manner: Manner,
        options: &RedisOptions,
        replicas: Option<usize>,
    ) -> Result<Self, ConnectError> {
        let map = Arc::new(ArcSwap::default());
        let look = Arc::new(Notify::new());
        let options = options.clone();
        let looker = Looker { seeds, settings, manner: manner.clone(), options, replicas, map: map.clone(), look };
        looker.look().await?;
        let lanes: Vec<_> = map.load().lanes.values().flatten().cloned().collect();
        let connected = futures::future::join_all(lanes.iter().map(|lane| lane.connected()));
        // A master that is away now is waited for later.
        let _ = timeout(manner.connect, connected).await;
        Ok(Self { map, looking: tokio::spawn(looker.run()).abort_handle() })
    }

    pub fn lane(&self, key: &str) -> Result<Arc<Lane>, StoreError> {
        let map = self.map.load();
        let slot = slot(tag(key).as_bytes());
        let found = map.slots.iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        let lanes = found.and_then(|(.., host)| map.lanes.get(host));
        lanes.map(|lanes| pick(lanes, key)).ok_or_else(|| unavailable("no server of the cluster has this slot now"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

impl Looker {
    async fn run(self) {
        loop {
            // By the clock if nobody asks.
            let _ = timeout(LOOK_EVERY, self.look.notified()).await;
            if let Err(error) = self.look().await {
                tracing::warn!(%error, "the map of the Redis Cluster cannot be read");
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    async fn look(&self) -> Result<(), ConnectError> {
        let old = self.map.load_full();
        let known = old.slots.iter().map(|(.., host)| host.clone());
        let mut failed = ConnectError::NoSentinel("the cluster".to_owned());
        for host in known.chain(self.seeds.iter().cloned()) {
            match self.ask(&host).await {
                Ok(slots) if !slots.is_empty() => {
                    self.take(&old, slots);
                    return Ok(());
                }
                Ok(_) => {}
                Err(error) => failed = error.into(),
            }
        }
        Err(failed)
    }

    async fn ask(&self, host: &Host) -> Result<Vec<(usize, usize, Host)>, RedisError> {
        let info = at(&self.settings, host.clone());
        let mut connection = connect::log_in_to(info, &self.manner, self.manner.answer).await?;
        let said: Value = cmd("CLUSTER").arg("SLOTS").query_async(&mut connection).await?;
        let ranges: Vec<(usize, usize, Vec<Value>)> = match said {
            Value::Array(ranges) => ranges.into_iter().filter_map(range).collect(),
            _ => Vec::new(),
        };
        let masters = ranges.into_iter().filter_map(|(first, last, master)| Some((first, last, server(master, host)?)));
        Ok(masters.collect())
    }

    fn take(&self, old: &Map, slots: Vec<(usize, usize, Host)>) {
        let mut lanes = BTreeMap::new();
        for (.., host) in &slots {
            lanes.entry(host.clone()).or_insert_with(|| match old.lanes.get(host) {
                Some(kept) => kept.clone(),
                None => self.start_lanes(host),
            });
        }
        self.map.store(Arc::new(Map { lanes, slots }));
    }

    fn start_lanes(&self, host: &Host) -> Vec<Arc<Lane>> {
        let target = Target::Fixed(at(&self.settings, host.clone()));
        let look = self.look.clone();
        let start = || {
            let lane = Lane::start(target.clone(), self.manner.clone(), &self.options, self.replicas);
            lane.tell(look.clone());
            Arc::new(lane)
        };
        (0..self.options.connections).map(|_| start()).collect()
    }
}

/// `[first, last, [host, port, …], replicas…]`
fn range(value: Value) -> Option<(usize, usize, Vec<Value>)> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    match (parts.next()?, parts.next()?, parts.next()?) {
        (Value::Int(first), Value::Int(last), Value::Array(master)) => {
            Some((usize::try_from(first).ok()?, usize::try_from(last).ok()?, master))
        }
        _ => None,
    }
}

/// An empty host is the one that was asked.
fn server(master: Vec<Value>, asked: &Host) -> Option<Host> {
    let mut parts = master.into_iter();
    match (parts.next()?, parts.next()?) {
        (Value::BulkString(host), Value::Int(port)) => {
            let host = String::from_utf8(host).ok().filter(|host| !host.is_empty());
            Some((host.unwrap_or_else(|| asked.0.clone()), u16::try_from(port).ok()?))
        }
        (Value::Nil, Value::Int(port)) => Some((asked.0.clone(), u16::try_from(port).ok()?)),
        _ => None,
    }
}

/// CRC-16/XMODEM of the hash tag, as Redis Cluster has it.
fn slot(tag: &[u8]) -> usize {
    let crc = tag.iter().fold(0_u16, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 },
        )
    });
    usize::from(crc) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // CLUSTER KEYSLOT of a redis-server.
        for (key, expected) in [("123456789", 12_739), ("foo", 12_182), ("", 0)] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }
}
