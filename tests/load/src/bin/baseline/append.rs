//! One `RPUSHX` a turn, and nothing that would make it safe: no order between servers, no idempotency, no fence, no history
//! read. What it costs to make a turn durable in Redis at all.

use klatch_load::lists::Turn;
use redis::aio::MultiplexedConnection;

use crate::server::{Asked, Refused, Turns};
use crate::store;

pub struct Append {
    redis: MultiplexedConnection,
}

impl Append {
    pub fn new(redis: MultiplexedConnection) -> Self {
        Self { redis }
    }
}

impl Turns for Append {
    async fn turn<'a>(&self, asked: &'a Asked<'a>) -> Result<Turn<'a>, Refused> {
        let turn = asked.answered(&[]);
        let mut append = redis::cmd("RPUSHX");
        let append = append.arg(store::key(asked)).arg(store::bytes(&turn)?);
        let length: u64 = append.query_async(&mut self.redis.clone()).await?;
        if length == 0 { Err(Refused::NotFound) } else { Ok(turn) }
    }
}
