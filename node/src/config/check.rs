//! `klatch serve --check`: what would go wrong at start, and what would go wrong later without being noticed at it, found
//! without starting. Opens ports, connects to Redis and to what answers, touches a file in the data folder, and leaves all as
//! they were. Whatever is wrong is told, not only the first.

use std::fmt;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::join_all;
use reqwest::Url;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Config, ConfigRefused, StoreKind};
use crate::auth::{Auth, admin};
use crate::peers::certificates;
use crate::responders::{self, ResponderOptions};
use crate::serve::open_files;
use crate::stores::memory_records::MemoryRecords;
use crate::stores::{embedded, redis};
use crate::webhooks;

/// What is further away would be too slow for a turn.
const REACH_MAX: Duration = Duration::from_secs(5);

/// A sentence for each, with the key it is about before it. A warning keeps nobody from starting.
#[derive(Debug, Default)]
pub struct Findings {
    pub errors: Vec<String>,
    pub warnings: Vec<String>,
}

impl Findings {
    pub fn error(&mut self, said: impl Into<String>) {
        self.errors.push(said.into());
    }

    pub fn warn(&mut self, said: impl Into<String>) {
        self.warnings.push(said.into());
    }

    fn take(&mut self, other: Self) {
        self.errors.extend(other.errors);
        self.warnings.extend(other.warnings);
    }

    fn is_so<T, E: Into<ConfigRefused>>(&mut self, done: Result<T, E>) -> Option<T> {
        done.map_err(|refused| self.error(refused.into().to_string())).ok()
    }
}

/// One a line.
impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.errors.iter().try_for_each(|said| writeln!(f, "error: {said}"))?;
        self.warnings.iter().try_for_each(|said| writeln!(f, "warning: {said}"))
    }
}

/// Also of a configuration that is refused: all that can be looked at is.
pub async fn check(config: &Config, refused: Vec<ConfigRefused>) -> Findings {
    let mut found = Findings::default();
    refused.iter().for_each(|refused| found.error(refused.to_string()));
    ports(config, &mut found);
    if let Ok(kind) = config.store_kind() {
        store_folder(config, &kind, &mut found);
    }
    cluster(config, &mut found);
    // What makes the section refused was told.
    if config.auth.check().is_ok() {
        keys(config, &mut found);
    }
    found.is_so(responders::build(&config.responder));
    // What makes the section refused was told.
    if webhooks::check(&config.webhook).is_ok() {
        found.is_so(webhooks::build(&config.webhook));
    }
    if let Some(said) = open_files::too_few(config.limits.connections) {
        found.error(said);
    }
    let redis = async {
        match config.redis_address() {
            Ok(Some(address)) => redis::check(&address, &config.redis).await,
            Ok(None) | Err(_) => Findings::default(),
        }
    };
    let (redis, others) = tokio::join!(redis, join_all(others(config).into_iter().map(unreachable)));
    found.take(redis);
    others.into_iter().flatten().for_each(|said| found.warn(said));
    found
}

fn ports(config: &Config, found: &mut Findings) {
    let ports = [
        ("http_addr", Some(config.http_addr)),
        ("ops_addr", Some(config.ops_addr)),
        ("cluster.addr", config.cluster_addr()),
    ];
    for (key, address) in ports {
        if let Some(said) = address.and_then(|address| port(key, address)) {
            found.error(said);
        }
    }
}

/// The embedded store's, or where others keep keys and the admin socket.
fn store_folder(config: &Config, kind: &StoreKind, found: &mut Findings) {
    let Ok(folder) = config.data_folder() else { return };
    if let Some(said) = data_folder(&folder) {
        return found.error(said);
    }
    if running(&folder) {
        return found.error(format!("store: a node is running with {} already", folder.display()));
    }
    if matches!(kind, StoreKind::File(_))
        && let Err(error) = embedded::look_at(&folder)
    {
        found.error(format!("store: {error}"));
    }
}

/// Keys that are there can be read, and those that are named are there. The node's own is made at its first start.
fn keys(config: &Config, found: &mut Findings) {
    if config.has_keys() {
        let nobody = Arc::new(MemoryRecords::default());
        let folder = config.data_folder().ok();
        found.is_so(Auth::open(&config.auth, nobody, folder.as_deref()));
    }
}

/// The secret and the certificates with which nodes meet.
fn cluster(config: &Config, found: &mut Findings) {
    let Some(address) = config.cluster_addr() else { return };
    // That none is set was told.
    if config.cluster.secret.is_some() || config.cluster.secret_file.is_some() {
        found.is_so(config.cluster.read_secret());
    }
    if let Some(files) = config.cluster.tls() {
        let told = config.cluster.advertised(address);
        let host = told.rsplit_once(':').map_or(told.as_str(), |(host, _)| host);
        found.take(certificates::check(&files, &config.node_name, host, SystemTime::now()));
    }
}

/// What a node asks of others while it serves, and starts without.
fn others(config: &Config) -> Vec<(String, String)> {
    let models = config.responder.iter().filter_map(|responder| match responder {
        ResponderOptions::OpenAi(options) => Some((format!("responder `{}`", options.name), options.base_url.clone())),
        ResponderOptions::Eliza(_) | ResponderOptions::Echo(_) => None,
    });
    let issuer = config.auth.jwks_url.iter().map(|url| ("auth.jwks_url".to_owned(), url.clone()));
    let collector = Some(&config.telemetry.otlp_endpoint).filter(|endpoint| !endpoint.is_empty());
    let collector = collector.map(|endpoint| ("telemetry.otlp_endpoint".to_owned(), endpoint.clone()));
    let webhooks = config.webhook.iter().map(|webhook| ("webhook".to_owned(), webhook.url.clone()));
    models.chain(issuer).chain(collector).chain(webhooks).collect()
}

/// Whether its name has an address, and something listens there: it is asked nothing. What is no URL was refused.
async fn unreachable((what, url): (String, String)) -> Option<String> {
    let parsed = Url::parse(&url).ok()?;
    let (host, port) = (parsed.host_str()?, parsed.port_or_known_default()?);
    // A name's brackets are those of an IPv6 address.
    let host = host.trim_matches(['[', ']']);
    let why = match timeout(REACH_MAX, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => return None,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", REACH_MAX.as_secs()),
    };
    Some(format!("{what}: {host}:{port} cannot be reached: {why}"))
}

/// A socket that a dead node left behind takes no connections.
fn running(folder: &Path) -> bool {
    UnixStream::connect(folder.join(admin::SOCKET)).is_ok()
}

fn port(key: &str, address: SocketAddr) -> Option<String> {
    TcpListener::bind(address).err().map(|error| cannot_listen(key, address, &error))
}

/// Said by `--check` and at start alike.
pub fn cannot_listen(key: &str, address: SocketAddr, error: &std::io::Error) -> String {
    let option = key.replace(['_', '.'], "-");
    match error.kind() {
        std::io::ErrorKind::AddrInUse => format!("{key}: {address} is in use already; --{option} sets another"),
        std::io::ErrorKind::PermissionDenied => {
            format!("{key}: this user may not listen on {address}; --{option} sets another, above 1023")
        }
        _ => format!("{key}: nothing can listen on {address}: {error}"),
    }
}

/// The folder need not be there yet, but whatever is there of its path must let it be made.
fn data_folder(folder: &Path) -> Option<String> {
    let existing = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    let existing = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
    if !existing.is_dir() {
        return Some(format!("store: {} is not a folder", existing.display()));
    }
    let probe = existing.join(format!(".klatch-check-{}", std::process::id()));
    match fs::write(&probe, b"").and_then(|()| fs::remove_file(&probe)) {
        Ok(()) => None,
        Err(error) => Some(format!("store: {} cannot be written to: {error}", existing.display())),
    }
}
