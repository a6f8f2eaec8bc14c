//! Three trips: a lock with a token is taken; the key is reserved and the newest turns are read; the turn is added, its key
//! recorded and the lock released, if it is still held. In order and idempotent; the lock rests on Redis' clock.

use std::time::Duration;

use klatch_load::lists::{self, TAIL_TURNS, Turn};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Script};

use crate::server::{Asked, Refused, Turns};
use crate::store::{self, KEY_SECS};

/// Longer than a turn takes; what a crash costs.
const LOCK_MILLIS: u64 = 30_000;
/// Together five seconds and more.
const ATTEMPTS_MAX: u32 = 500;
const RETRY_EVERY: Duration = Duration::from_millis(10);

const LOCK: &str = "
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return 0";

/// Answers with the turn that the key belongs to, if it does.
const RESERVE: &str = "
local place = redis.call('GET', KEYS[2])
if place and place ~= '' then return redis.call('LINDEX', KEYS[1], place) end
redis.call('SET', KEYS[2], '', 'EX', ARGV[1])
return false";

const RELEASE: &str = "
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local length = redis.call('RPUSH', KEYS[2], ARGV[2])
redis.call('SET', KEYS[3], length - 1, 'EX', ARGV[3])
redis.call('DEL', KEYS[1])
return 1";

const GIVE_UP: &str = "
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 0";

pub struct Locking {
    redis: MultiplexedConnection,
    lock: Script,
    reserve: Script,
    release: Script,
    give_up: Script,
}

impl Locking {
    pub async fn start(mut redis: MultiplexedConnection) -> anyhow::Result<Self> {
        let reserve = Script::new(RESERVE);
        // Within a pipeline a script is not loaded when it is missed.
        reserve.prepare_invoke().load_async(&mut redis).await?;
        let [lock, release, give_up] = [LOCK, RELEASE, GIVE_UP].map(Script::new);
        Ok(Self { redis, lock, reserve, release, give_up })
    }

    async fn take(&self, lock: &str, token: &str) -> Result<(), Refused> {
        for _ in 0..ATTEMPTS_MAX {
            let mut taking = self.lock.key(lock);
            let taken: u64 = taking.arg(token).arg(LOCK_MILLIS).invoke_async(&mut self.redis.clone()).await?;
            if taken > 0 {
                return Ok(());
            }
            tokio::time::sleep(RETRY_EVERY).await;
        }
        Err(Refused::Busy)
    }

    async fn locked<'a>(&self, asked: &'a Asked<'a>, lock: &str) -> Result<Option<Turn<'a>>, Refused> {
        let (key, mut redis) = (store::key(asked), self.redis.clone());
        let request = lists::request_key(&asked.owner, asked.conversation, &asked.key);
        let mut read = redis::pipe();
        let mut reserve = Cmd::new();
        reserve.arg("EVALSHA").arg(self.reserve.get_hash()).arg(2).arg(&key).arg(&request).arg(KEY_SECS);
        read.add_command(reserve).lrange(&key, -(TAIL_TURNS as isize), -1);
        let (known, tail): (Option<Vec<u8>>, Vec<Vec<u8>>) = read.query_async(&mut redis).await?;
        if tail.is_empty() {
            return Err(Refused::NotFound);
        }
        if let Some(known) = known {
            self.give_up(lock, &asked.response).await?;
            return Ok(Some(store::owned(serde_json::from_slice(&known)?)));
        }
        let turn = asked.answered(&store::turns(&tail)?);
        let mut release = self.release.key(lock);
        release.key(&key).key(&request).arg(&asked.response).arg(store::bytes(&turn)?).arg(KEY_SECS);
        let released: u64 = release.invoke_async(&mut redis).await?;
        Ok((released > 0).then_some(turn))
    }

    async fn give_up(&self, lock: &str, token: &str) -> Result<(), Refused> {
        let _: u64 = self.give_up.key(lock).arg(token).invoke_async(&mut self.redis.clone()).await?;
        Ok(())
    }
}

impl Turns for Locking {
    async fn turn<'a>(&self, asked: &'a Asked<'a>) -> Result<Turn<'a>, Refused> {
        let lock = lists::lock_key(&asked.owner, asked.conversation);
        // The response's id is of this request alone, and so are its token.
        self.take(&lock, &asked.response).await?;
        match self.locked(asked, &lock).await {
            Ok(turn) => turn.ok_or(Refused::Busy),
            Err(refused) => {
                self.give_up(&lock, &asked.response).await?;
                Err(refused)
            }
        }
    }
}
