//! The whole configuration of a node: what the modules own, put together, read once at start.
//!
//! The command line wins over the environment (`KLATCH_` and the option's name in capitals), and that over the TOML
//! file. Nothing here opens a port or a store: [`check`] does that, for `klatch serve --check`.
//!
//! The doc comments of the fields are what `--print-config` prints beside the values.

pub mod check;
mod comments;
mod limits;
mod print;
mod refusal;
mod retention;
mod sources;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

pub use limits::{LimitOptions, TenantLimits};
pub use print::{changed, print, without_password};
pub use refusal::ConfigRefused;
pub use retention::RetentionOptions;
pub use sources::{OPTIONS, Sources, misspelt};

use crate::auth::AuthOptions;
use crate::peers::ClusterOptions;
use crate::responders::ResponderOptions;
use crate::stores::redis::{self, Address, RedisOptions};
use crate::telemetry::LogOptions;
use crate::traces::TelemetryOptions;
use crate::webhooks::{self, WebhookOptions};

/// The code that the program ends with.
pub const CONFIG_REFUSED: u8 = 2;

const DATA_FOLDER: &str = "./klatch-data";

/// Balancers in front keep idle connections for 20 s (see `nginx/`) and ask for readiness every 2 s.
const LAG_BEHIND_A_BALANCER: Duration = Duration::from_secs(25);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of this node, one of its own within a cluster. By default the host's, which in a StatefulSet is the pod's.
    pub node_name: String,
    /// Address and port of the public API. Loopback by default: whoever opens it to others decides
    /// that.
    #[serde(deserialize_with = "address")]
    pub http_addr: SocketAddr,
    /// Address and port of metrics, probes and cluster state. Answers everyone who reaches it: keep it inside.
    #[serde(deserialize_with = "address")]
    pub ops_addr: SocketAddr,
    /// Where conversations and accounts are kept: `file:FOLDER` is the embedded store of a single node; `memory:` is
    /// for tests and forgets them; `redis://[user:password@]HOST:PORT/DB` is a cluster's, as are `rediss://` (TLS),
    /// `redis+sentinel://HOST:PORT,…/MASTER` and `redis+cluster://HOST:PORT,…`. Keys and the admin socket are in the
    /// folder too; of `memory:FOLDER` they are all. With Redis the admin socket is in `./klatch-data`.
    pub store: String,
    /// What this process does: `all` is a node with everything; `auth` only signs in and out, and shows the keys that verify
    /// tokens. It shares the nodes' Redis and keys, holds no conversation and is in no view, so it scales apart.
    pub role: Role,
    /// How long a node that is told to stop goes on accepting, so that balancers notice first. Make it longer than
    /// they keep idle connections. By default 0s where http_addr is loopback, since nothing balances there, else 25s.
    #[serde(with = "optional_duration")]
    pub drain_lag: Option<Duration>,
    /// How long a node that stops then waits for answers and streams in flight; what is still open is handed off.
    #[serde(with = "crate::durations")]
    pub drain_timeout: Duration,
    /// Take a client's address from the last entry of `X-Forwarded-For`. Only where every request comes through a
    /// proxy that writes it: else anybody chooses the address that is slowed for wrong passwords.
    pub trust_forwarded_for: bool,
    /// What answers, by the name that requests give as `model`. `eliza` and `echo` are there unless named here.
    pub responder: Vec<ResponderOptions>,
    /// Who is told when a response is over, as OpenAI's webhooks tell it. The same on all nodes. Default: nobody.
    pub webhook: Vec<WebhookOptions>,
    pub log: LogOptions,
    pub telemetry: TelemetryOptions,
    pub cluster: ClusterOptions,
    pub auth: AuthOptions,
    pub limits: LimitOptions,
    pub retention: RetentionOptions,
    pub redis: RedisOptions,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node_name: host_name(),
            http_addr: SocketAddr::from(([127, 0, 0, 1], 8080)),
            ops_addr: SocketAddr::from(([127, 0, 0, 1], 9090)),
            store: format!("file:{DATA_FOLDER}"),
            role: Role::default(),
            drain_lag: None,
            drain_timeout: Duration::from_secs(60),
            trust_forwarded_for: false,
            responder: Vec::new(),
            webhook: Vec::new(),
            log: LogOptions::default(),
            telemetry: TelemetryOptions::default(),
            cluster: ClusterOptions::default(),
            auth: AuthOptions::default(),
            limits: LimitOptions::default(),
            retention: RetentionOptions::default(),
            redis: RedisOptions::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    #[default]
    All,
    Auth,
}

/// Which store, without what it needs to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreKind {
    File(PathBuf),
    /// The folder holds keys and the admin socket.
    Memory(PathBuf),
    /// See [`Config::redis_address`].
    Redis,
}

impl Config {
    /// Reads the world once. The error names the key, where it was set and what would be right.
    pub fn load(sources: &Sources) -> Result<Self, ConfigRefused> {
        let (config, refused) = Self::read(sources)?;
        refused.into_iter().next().map_or(Ok(config), Err)
    }

    /// With all that contradicts itself in it, of each section the first: such a configuration may be looked at further, and
    /// is not to be started.
    pub fn read(sources: &Sources) -> Result<(Self, Vec<ConfigRefused>), ConfigRefused> {
        let table = sources.merged()?;
        let mut config: Self = serde_path_to_error::deserialize(toml::Value::Table(table))
            .map_err(|wrong| ConfigRefused::from_serde(&wrong, sources))?;
        let refused = config.contradictions().into_iter().map(|refused| refused.set_in(sources)).collect();
        config.drain_lag = Some(config.drain_lag());
        Ok((config, refused))
    }

    pub fn store_kind(&self) -> Result<StoreKind, ConfigRefused> {
        if redis::is_redis(&self.store) {
            return self.redis_address().map(|_| StoreKind::Redis);
        }
        match self.store.split_once(':') {
            Some(("file", path)) if !path.is_empty() => Ok(StoreKind::File(PathBuf::from(path))),
            Some(("memory", "")) => Ok(StoreKind::Memory(PathBuf::from(DATA_FOLDER))),
            Some(("memory", path)) => Ok(StoreKind::Memory(PathBuf::from(path))),
            Some(_) | None => Err(ConfigRefused::new(
                "store",
                format!(
                    "`{}` is not a store of this build: `file:FOLDER` (embedded, one node), `redis://HOST:PORT` (a \
                     cluster's) and `memory:` (for tests) are",
                    print::without_password(&self.store)
                ),
            )),
        }
    }

    /// None where the store is another.
    pub fn redis_address(&self) -> Result<Option<Address>, ConfigRefused> {
        if !redis::is_redis(&self.store) {
            return Ok(None);
        }
        Address::parse(&self.store).map(Some).map_err(|error| ConfigRefused::new("store", error.to_string()))
    }

    /// Where keys, the admin socket and the embedded store are.
    pub fn data_folder(&self) -> Result<PathBuf, ConfigRefused> {
        self.store_kind().map(|kind| match kind {
            StoreKind::File(folder) | StoreKind::Memory(folder) => folder,
            StoreKind::Redis => PathBuf::from(DATA_FOLDER),
        })
    }

    /// Whether there are keys to sign and verify with: a node without makes its own at its first start.
    pub fn has_keys(&self) -> bool {
        let named = !self.auth.signing_keys.is_empty() || self.auth.hs256_secret_file.is_some();
        named || self.data_folder().is_ok_and(|folder| folder.join("keys").is_dir())
    }

    /// Whether other nodes have the same store, so that there is a cluster.
    pub fn shares_store(&self) -> bool {
        self.store.starts_with("redis")
    }

    /// Where other nodes connect, if any do.
    pub fn cluster_addr(&self) -> Option<SocketAddr> {
        match self.role {
            Role::All => self.cluster.addr(self.shares_store()),
            Role::Auth => None,
        }
    }

    pub fn drain_lag(&self) -> Duration {
        let default = if self.http_addr.ip().is_loopback() { Duration::ZERO } else { LAG_BEHIND_A_BALANCER };
        self.drain_lag.unwrap_or(default)
    }

    fn contradictions(&self) -> Vec<ConfigRefused> {
        let sections = [
            self.store_kind().map(drop),
            self.refuse_unnamed(),
            self.refuse_shared_ports(),
            self.log.refuse_contradictions(),
            self.refuse_for_its_role(),
            self.telemetry.refuse_contradictions(),
            self.auth.check().map_err(ConfigRefused::from),
            webhooks::check(&self.webhook).map_err(ConfigRefused::from),
            self.limits.refuse_contradictions(),
            self.retention.refuse_contradictions(),
            self.refuse_without_shared_keys(),
            self.refuse_with_redis(),
        ];
        sections.into_iter().filter_map(Result::err).collect()
    }
}

impl Config {
    fn refuse_unnamed(&self) -> Result<(), ConfigRefused> {
        if self.node_name.is_empty() {
            return Err(ConfigRefused::new("node_name", "is empty: a name of its own, such as klatch-0, would do"));
        }
        Ok(())
    }

    fn refuse_shared_ports(&self) -> Result<(), ConfigRefused> {
        let ports = [
            ("http_addr", Some(self.http_addr)),
            ("ops_addr", Some(self.ops_addr)),
            ("cluster.addr", self.cluster_addr()),
        ];
        let named: Vec<_> = ports.into_iter().filter_map(|(key, address)| Some((key, address?))).collect();
        for (n, (key, address)) in named.iter().enumerate() {
            let same = named[..n].iter().find(|(_, other)| other == address && address.port() != 0);
            if let Some((other, _)) = same {
                return Err(ConfigRefused::new(*key, format!("is {other} too: the two need a port each")));
            }
        }
        Ok(())
    }

    fn refuse_for_its_role(&self) -> Result<(), ConfigRefused> {
        match self.role {
            Role::All => self.cluster.refuse_contradictions(self.shares_store(), self.store.starts_with("file:")),
            Role::Auth if self.store.starts_with("file:") => {
                let said = "is auth with a store of one process, and the nodes have another: share a Redis (redis://…)";
                Err(ConfigRefused::new("role", said))
            }
            Role::Auth => Ok(()),
        }
    }

    /// Every node of a cluster must accept what another has signed, so none may make keys of its own.
    fn refuse_without_shared_keys(&self) -> Result<(), ConfigRefused> {
        if self.shares_store() && self.auth.signing_keys.is_empty() && self.auth.hs256_secret_file.is_none() {
            let said = "is empty, and with Redis all nodes must sign with the same keys: name a PEM file, such as one \
                        of `openssl genpkey -algorithm ed25519`";
            return Err(ConfigRefused::new("auth.signing_keys", said));
        }
        Ok(())
    }

    /// An address that cannot be read was refused already.
    fn refuse_with_redis(&self) -> Result<(), ConfigRefused> {
        let address = self.redis_address().ok().flatten();
        self.redis.refuse_contradictions(address.as_ref())
    }
}

/// The file's text, or why it cannot be read.
pub fn read_file(path: &Path) -> Result<String, ConfigRefused> {
    std::fs::read_to_string(path)
        .map_err(|error| ConfigRefused::new("config", format!("{} cannot be read: {error}", path.display())))
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom(format!(
            "`{text}` is not an address: an IP address and a port are, such as 127.0.0.1:8080 or [::]:8080"
        ))
    })
}

/// A duration that has no value of its own until it is set.
mod optional_duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Text(#[serde(with = "crate::durations")] Duration);

    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        value.map(Text).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Text>::deserialize(deserializer)?.map(|Text(duration)| duration))
    }
}

#[cfg(test)]
mod tests;
