//! Making the connections of a lane: one that writes and waits, one that reads beside it, both to the same process,
//! which must be a master.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, Value, cmd};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;

use super::address::{Address, KEEPALIVE, USER_TIMEOUT, at};
use super::options::RedisOptions;
use crate::net::{AnyStream, Dial, Vigil};

/// Who opens the TCP connections: the client itself, TLS included, or another network, in plain TCP.
#[derive(Clone)]
pub enum Dialler {
    Client,
    Other(Arc<dyn Dial>),
}

/// Whom a lane connects to, and by whom.
#[derive(Clone)]
pub struct Target {
    pub whom: Whom,
    pub dialler: Dialler,
}

/// Found out again at each connection.
#[derive(Clone)]
pub enum Whom {
    Fixed(ConnectionInfo),
    Sentinel { sentinels: Vec<(String, u16)>, master: String, settings: ConnectionInfo },
}

/// A password of Redis is short; whatever is larger is another file.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// What every connection is made with, beside where it leads.
#[derive(Clone, Debug)]
pub struct Manner {
    pub connect: Duration,
    /// Of a read.
    pub answer: Duration,
    /// Of a batch, which may wait for replicas.
    pub batch: Duration,
    /// Read at each connection, so that a password changes without a restart.
    pub password_file: Option<PathBuf>,
}

pub struct Connected {
    pub writer: MultiplexedConnection,
    pub reader: MultiplexedConnection,
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("no sentinel of {0} could name the master")]
    NoSentinel(String),
    #[error("it is no master but a {0}")]
    NoMaster(String),
    #[error("its two connections led to different servers")]
    TwoServers,
}

impl Manner {
    pub fn new(options: &RedisOptions) -> Self {
        let RedisOptions { connect_timeout, answer_timeout, replica_timeout, .. } = *options;
        Self {
            connect: connect_timeout,
            answer: answer_timeout,
            batch: answer_timeout + replica_timeout,
            password_file: options.password_file.clone(),
        }
    }

    /// With the password as it is in its file now.
    async fn log_in(&self, info: ConnectionInfo) -> io::Result<ConnectionInfo> {
        let Some(path) = &self.password_file else { return Ok(info) };
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("redis.password_file: {} cannot be read: {error}", path.display()))
        };
        let mut text = String::new();
        let file = tokio::fs::File::open(path).await.map_err(named)?;
        file.take(PASSWORD_BYTES_MAX).read_to_string(&mut text).await.map_err(named)?;
        let settings = info.redis_settings().clone().set_password(text.trim_end_matches(['\r', '\n']));
        Ok(info.set_redis_settings(settings))
    }
}

impl Target {
    /// None for a cluster, whose masters are targets of their own.
    pub fn of(address: &Address, dialler: Dialler) -> Option<Self> {
        let whom = match address.clone() {
            Address::Single(info) => Whom::Fixed(info),
            Address::Sentinel { sentinels, master, settings } => Whom::Sentinel { sentinels, master, settings },
            Address::Cluster { .. } => return None,
        };
        Some(Self { whom, dialler })
    }

    pub async fn connect(&self, manner: &Manner) -> Result<Connected, ConnectError> {
        let info = self.find(manner).await?;
        let mut writer = log_in_to(&self.dialler, info.clone(), manner, manner.batch).await?;
        let mut reader = log_in_to(&self.dialler, info, manner, manner.answer).await?;
        must_be_master(&mut writer).await?;
        // A name may lead to another server each time.
        if run_id(&mut writer).await? != run_id(&mut reader).await? {
            return Err(ConnectError::TwoServers);
        }
        Ok(Connected { writer, reader })
    }

    async fn find(&self, manner: &Manner) -> Result<ConnectionInfo, ConnectError> {
        match &self.whom {
            Whom::Fixed(info) => Ok(info.clone()),
            Whom::Sentinel { sentinels, master, settings } => {
                for sentinel in sentinels {
                    match ask(&self.dialler, sentinel, master, settings, manner).await {
                        Ok(Some(found)) => return Ok(at(settings, found)),
                        Ok(None) => tracing::warn!(sentinel.host = sentinel.0, "a sentinel does not know the master"),
                        Err(error) => tracing::warn!(sentinel.host = sentinel.0, %error, "a sentinel does not answer"),
                    }
                }
                Err(ConnectError::NoSentinel(master.clone()))
            }
        }
    }
}

/// Sentinels are asked without the password of the master: it is not theirs, and mostly they have none.
async fn ask(
    dialler: &Dialler,
    sentinel: &(String, u16),
    master: &str,
    settings: &ConnectionInfo,
    manner: &Manner,
) -> Result<Option<(String, u16)>, RedisError> {
    let plain = at(settings, sentinel.clone()).set_redis_settings(::redis::RedisConnectionInfo::default());
    let mut connection = open(dialler, plain, manner.connect, manner.answer).await?;
    cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(master).query_async(&mut connection).await
}

pub async fn log_in_to(
    dialler: &Dialler,
    info: ConnectionInfo,
    manner: &Manner,
    answer: Duration,
) -> Result<MultiplexedConnection, RedisError> {
    open(dialler, manner.log_in(info).await?, manner.connect, answer).await
}

async fn open(
    dialler: &Dialler,
    info: ConnectionInfo,
    connect: Duration,
    answer: Duration,
) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(connect)).set_response_timeout(Some(answer));
    match dialler {
        Dialler::Client => Client::open(info)?.get_multiplexed_async_connection_with_config(&config).await,
        Dialler::Other(dial) => {
            let introduced = async {
                let stream = dialled(&**dial, &info).await?;
                MultiplexedConnection::new_with_config(info.redis_settings(), stream, config).await
            };
            let late = |_| RedisError::from(io::Error::from(io::ErrorKind::TimedOut));
            let (connection, driver) = timeout(connect, introduced).await.map_err(late)??;
            // Ends with the last clone of the connection.
            tokio::spawn(driver);
            Ok(connection)
        }
    }
}

async fn dialled(dial: &dyn Dial, info: &ConnectionInfo) -> Result<Box<dyn AnyStream>, RedisError> {
    let ConnectionAddr::Tcp(host, port) = info.addr() else {
        return Err(RedisError::from((ErrorKind::InvalidClientConfig, "only plain TCP can be dialled by others")));
    };
    let vigil = Vigil { unacknowledged_max: USER_TIMEOUT, keepalive_after: KEEPALIVE, keepalive_every: KEEPALIVE };
    Ok(dial.dial_any(format!("{host}:{port}"), vigil).await?)
}

/// A server that was a master may have become a replica, and then refuses all writes for ever.
pub async fn must_be_master(connection: &mut MultiplexedConnection) -> Result<(), ConnectError> {
    let role: Vec<Value> = cmd("ROLE").query_async(connection).await?;
    match role.first() {
        Some(Value::BulkString(role)) if role == b"master" => Ok(()),
        Some(Value::BulkString(role)) => Err(ConnectError::NoMaster(String::from_utf8_lossy(role).into_owned())),
        _ => Err(ConnectError::NoMaster("server without a role".to_owned())),
    }
}

/// The id of what this server has written: its own from its promotion on, and as a replica its master's.
pub async fn history(connection: &mut MultiplexedConnection) -> Result<String, RedisError> {
    let said: String = cmd("INFO").arg("replication").query_async(connection).await?;
    let id = said.lines().find_map(|line| line.strip_prefix("master_replid:"));
    id.map(|id| id.trim().to_owned())
        .ok_or_else(|| RedisError::from((ErrorKind::UnexpectedReturnType, "it has no history")))
}

async fn run_id(connection: &mut MultiplexedConnection) -> Result<Option<String>, RedisError> {
    let said: String = cmd("INFO").arg("server").query_async(connection).await?;
    Ok(said.lines().find_map(|line| line.strip_prefix("run_id:")).map(|id| id.trim().to_owned()))
}
