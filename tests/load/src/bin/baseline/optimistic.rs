//! Two trips: the version and the newest turns are read, and the turn is added if nothing was meanwhile, else all is done
//! again. In order, without idempotency.

use klatch_load::lists::{TAIL_TURNS, Turn};
use redis::Script;
use redis::aio::MultiplexedConnection;

use crate::server::{Asked, Refused, Turns};
use crate::store;

/// A conversation is one person's: more than a few at once is a loop somewhere.
const ATTEMPTS_MAX: usize = 16;

const ADD: &str = "
if redis.call('LLEN', KEYS[1]) ~= tonumber(ARGV[1]) then return 0 end
return redis.call('RPUSH', KEYS[1], ARGV[2])";

pub struct Optimistic {
    redis: MultiplexedConnection,
    add: Script,
}

impl Optimistic {
    pub fn new(redis: MultiplexedConnection) -> Self {
        Self { redis, add: Script::new(ADD) }
    }
}

impl Turns for Optimistic {
    async fn turn<'a>(&self, asked: &'a Asked<'a>) -> Result<Turn<'a>, Refused> {
        let (key, mut redis) = (store::key(asked), self.redis.clone());
        for _ in 0..ATTEMPTS_MAX {
            let mut read = redis::pipe();
            read.llen(&key).lrange(&key, -(TAIL_TURNS as isize), -1);
            let (version, tail): (u64, Vec<Vec<u8>>) = read.query_async(&mut redis).await?;
            if version == 0 {
                return Err(Refused::NotFound);
            }
            let turn = asked.answered(&store::turns(&tail)?);
            let mut add = self.add.key(&key);
            let added: u64 = add.arg(version).arg(store::bytes(&turn)?).invoke_async(&mut redis).await?;
            if added > 0 {
                return Ok(turn);
            }
        }
        Err(Refused::Busy)
    }
}
