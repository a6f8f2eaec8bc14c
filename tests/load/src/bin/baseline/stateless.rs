//! One trip, as good as a stateless server gets: it has the newest turns in memory, and a script adds the turn and its key if
//! the conversation is as long as the server believes; else it answers with what is missing, and the server tries again.
//! In order, idempotent, and fenced against each server that knows less.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard};

use klatch_load::lists::{self, TAIL_TURNS, Turn};
use lru::LruCache;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Script, Value};

use crate::server::{Asked, Refused, Turns};
use crate::store::{self, KEY_SECS};

/// Conversations in memory: some 50 MB.
const REMEMBERED_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not zero");
/// A conversation is one person's: more than a few at once is a loop somewhere.
const ATTEMPTS_MAX: usize = 16;

/// 1 once it is added; the turn that the key belongs to; or the length and the newest turns.
const ADD: &str = "
local length = redis.call('LLEN', KEYS[1])
if length == tonumber(ARGV[1]) then
    if redis.call('SET', KEYS[2], length, 'NX', 'EX', ARGV[3]) then
        redis.call('RPUSH', KEYS[1], ARGV[2])
        return 1
    end
end
local place = redis.call('GET', KEYS[2])
if place then return redis.call('LINDEX', KEYS[1], place) end
return {length, redis.call('LRANGE', KEYS[1], ARGV[4], -1)}";

pub struct Stateless {
    redis: MultiplexedConnection,
    add: Script,
    remembered: Mutex<LruCache<String, Remembered>>,
}

/// What the server believes of a conversation.
struct Remembered {
    length: u64,
    tail: VecDeque<Turn<'static>>,
}

enum Added {
    Yes,
    Before(Turn<'static>),
    Otherwise(Remembered),
}

impl Stateless {
    pub fn new(redis: MultiplexedConnection) -> Self {
        Self { redis, add: Script::new(ADD), remembered: Mutex::new(LruCache::new(REMEMBERED_MAX)) }
    }

    fn remembered(&self) -> MutexGuard<'_, LruCache<String, Remembered>> {
        self.remembered.lock().expect("nothing panics while it holds what is remembered")
    }

    /// The turn, and the length that it rests on; unknown conversations are as long as none is.
    fn answered<'a>(&self, key: &str, asked: &'a Asked<'a>) -> (i64, Turn<'a>) {
        match self.remembered().get_mut(key) {
            Some(known) => (known.length.cast_signed(), asked.answered(known.tail.make_contiguous())),
            None => (-1, asked.answered(&[])),
        }
    }

    async fn add(&self, key: &str, request: &str, length: i64, turn: &Turn<'_>) -> Result<Added, Refused> {
        let mut add = self.add.key(key);
        add.key(request).arg(length).arg(store::bytes(turn)?).arg(KEY_SECS).arg(-(TAIL_TURNS as i64));
        let value: Value = add.invoke_async(&mut self.redis.clone()).await?;
        Ok(match value {
            Value::Int(_) => Added::Yes,
            Value::BulkString(known) => Added::Before(store::owned(serde_json::from_slice(&known)?)),
            value => {
                let (length, tail) = <(u64, Vec<Vec<u8>>)>::from_redis_value(value).map_err(redis::RedisError::from)?;
                let tail = store::turns(&tail)?.into_iter().map(store::owned).collect();
                Added::Otherwise(Remembered { length, tail })
            }
        })
    }

    /// A turn of this server's stands behind that length.
    fn added(&self, key: &str, length: i64, turn: &Turn) {
        let mut remembered = self.remembered();
        let Some(known) = remembered.get_mut(key) else { return };
        // Another request may have learnt more meanwhile.
        if known.length.cast_signed() == length {
            known.length += 1;
            if known.tail.len() == TAIL_TURNS {
                known.tail.pop_front();
            }
            known.tail.push_back(store::owned(turn.clone()));
        }
    }
}

impl Turns for Stateless {
    async fn turn<'a>(&self, asked: &'a Asked<'a>) -> Result<Turn<'a>, Refused> {
        let key = store::key(asked);
        let request = lists::request_key(&asked.owner, asked.conversation, &asked.key);
        for _ in 0..ATTEMPTS_MAX {
            let (length, turn) = self.answered(&key, asked);
            match self.add(&key, &request, length, &turn).await? {
                Added::Yes => {
                    self.added(&key, length, &turn);
                    return Ok(turn);
                }
                Added::Before(turn) => return Ok(turn),
                Added::Otherwise(Remembered { length: 0, .. }) => return Err(Refused::NotFound),
                Added::Otherwise(newer) => {
                    self.remembered().put(key.clone(), newer);
                }
            }
        }
        Err(Refused::Busy)
    }
}
