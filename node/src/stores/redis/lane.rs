//! One lane: the queue of a batcher, and the connection that reads beside it. Conversations are spread over the lanes of
//! their server, each on one of its own for ever.
//!
//! The batcher is started here, as a task that ends with the lane. Between two connections everything is refused at
//! once.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use arc_swap::ArcSwapOption;
use klatch_actors::store::StoreError;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::batcher::Batcher;
use super::connect::{Manner, Target};
use super::job::{Ack, Job, Kind, Reply};
use super::nothing_read;
use super::options::RedisOptions;

/// Writes waiting at most: a tenth of a second's work; who waits behind more is better told.
pub const WAITING_MAX: usize = 8_192;
/// Their bytes at most, so that large requests cannot fill the memory.
pub const WAITING_BYTES_MAX: usize = 256 << 20;

const NOT_CONNECTED: &str = "Redis is not connected";

pub struct Lane {
    jobs: mpsc::Sender<Job>,
    shared: Arc<Shared>,
    batcher: AbortHandle,
}

/// What the batcher and those who ask share.
#[derive(Default)]
pub struct Shared {
    /// None while there is no connection.
    pub link: ArcSwapOption<Link>,
    pub up: watch::Sender<bool>,
    pub waiting_bytes: AtomicUsize,
    /// A reader found the connection of this number broken, and tells the batcher, which replaces it.
    pub broken: AtomicU64,
    pub broke: Notify,
    /// Told when the map of the cluster is to be read again.
    pub map: OnceLock<Arc<Notify>>,
}

pub struct Link {
    /// Counts the connections of this lane, from 1.
    pub generation: u64,
    pub reader: MultiplexedConnection,
}

impl Lane {
    /// Starts its batcher, which connects by itself.
    pub fn start(target: Target, manner: Manner, options: &RedisOptions, replicas: Option<usize>) -> Self {
        let (jobs, received) = mpsc::channel(WAITING_MAX);
        let shared = Arc::new(Shared::default());
        let batcher = Batcher::new(target, manner, options, replicas, received, shared.clone());
        Self { jobs, shared, batcher: tokio::spawn(batcher.run()).abort_handle() }
    }

    /// Waits for the first connection.
    pub async fn connected(&self) {
        // The sender is this lane's own, so it is there.
        let _ = self.shared.up.subscribe().wait_for(|up| *up).await;
    }

    /// Whom to tell that the map of the cluster is to be read again. Said once.
    pub fn tell(&self, map: Arc<Notify>) {
        // Nobody says it twice.
        let _ = self.shared.map.set(map);
    }

    pub fn is_up(&self) -> bool {
        self.shared.link.load().is_some()
    }

    /// Sends it with the next batch, and waits for its answer.
    pub async fn submit(&self, command: Cmd, kind: Kind, durable: bool) -> Result<Reply, StoreError> {
        let (told, answer) = oneshot::channel();
        // Who no longer waits is not told.
        self.send(command, kind, durable, Ack::new(|answer| drop(told.send(answer))));
        answer.await.unwrap_or_else(|_| Err(StoreError::Unknown("the batcher ended".to_owned())))
    }

    /// Sends it with the next batch; `ack` is told at once where it cannot be.
    pub fn send(&self, command: Cmd, kind: Kind, durable: bool, ack: Ack) {
        if !self.is_up() {
            return ack.tell(Err(unavailable(NOT_CONNECTED)));
        }
        let bytes = command.args_iter().map(|argument| size(&argument)).sum();
        let waiting = self.shared.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let job = Job { command, kind, durable, bytes, ack };
        // One that is larger than all that may wait is taken when alone.
        let full = waiting > 0 && waiting + bytes > WAITING_BYTES_MAX;
        let refused = if full { Some(job) } else { self.jobs.try_send(job).err().map(TrySendError::into_inner) };
        if let Some(job) = refused {
            self.shared.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            job.refused("busy: too many writes wait for Redis");
        }
    }

    /// Reads beside the batches, from the same server; with them, where it forgot the script that reads, since they load
    /// it again.
    pub async fn read(&self, command: Cmd) -> Result<Reply, StoreError> {
        let link = self.shared.link.load_full().ok_or_else(|| unavailable(NOT_CONNECTED))?;
        let mut reader = link.reader.clone();
        match reader.send_packed_command(&command).await.and_then(Value::extract_error) {
            Ok(value) => Ok(Reply { value, generation: link.generation }),
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.submit(command, Kind::Script, false).await.map_err(nothing_read)
            }
            Err(error) => Err(self.read_failed(link.generation, &error)),
        }
    }

    fn read_failed(&self, generation: u64, error: &RedisError) -> StoreError {
        match error.kind() {
            ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) => self.shared.look_at_map(),
            ErrorKind::Server(ServerErrorKind::ResponseError | ServerErrorKind::NoPerm) => {}
            _ if error.code() == Some("WRONGTYPE") => {
                return StoreError::Damaged(format!("a key is of another type than this build writes: {error}"));
            }
            _ => {
                self.shared.broken.fetch_max(generation, Ordering::Relaxed);
                self.shared.broke.notify_one();
            }
        }
        unavailable(&error.to_string())
    }
}

impl Shared {
    /// The keys may be on another server now.
    pub fn look_at_map(&self) {
        if let Some(map) = self.map.get() {
            map.notify_one();
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.batcher.abort();
    }
}

fn size(argument: &::redis::Arg<&[u8]>) -> usize {
    match argument {
        ::redis::Arg::Simple(bytes) => bytes.len(),
        ::redis::Arg::Cursor => 0,
        _ => 0,
    }
}

pub fn unavailable(why: &str) -> StoreError {
    StoreError::Unavailable(why.to_owned())
}
