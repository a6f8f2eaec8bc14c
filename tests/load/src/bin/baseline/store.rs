//! The connection to Redis: one, over which all requests travel together.

use klatch_load::lists::{self, Turn};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, RedisResult};

use crate::server::{Asked, Refused};

/// How long Redis remembers a key.
pub const KEY_SECS: u64 = 86_400;

pub async fn connect(url: &str) -> RedisResult<MultiplexedConnection> {
    let address = url.into_connection_info()?.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    // A timer for each command would only cost.
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    Client::open(address)?.get_multiplexed_async_connection_with_config(&config).await
}

/// Of the conversation's list.
pub fn key(asked: &Asked) -> String {
    lists::key(&asked.owner, asked.conversation)
}

/// As it is stored.
pub fn bytes(turn: &Turn) -> Result<Vec<u8>, Refused> {
    Ok(serde_json::to_vec(turn)?)
}

/// As they were stored.
pub fn turns(values: &[Vec<u8>]) -> Result<Vec<Turn<'_>>, Refused> {
    values.iter().map(|value| Ok(serde_json::from_slice(value)?)).collect()
}

/// A turn that outlives what it was read from.
pub fn owned(turn: Turn) -> Turn<'static> {
    Turn {
        response: turn.response.into_owned().into(),
        at: turn.at,
        input: turn.input.into_owned().into(),
        output: turn.output.into_owned().into(),
    }
}
