//! `klatch serve --check`: what would go wrong at start, found without starting. Opens ports, connects to Redis and
//! touches a file in the data folder, and leaves all as they were.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use super::{Config, ConfigRefused};
use crate::auth::{Auth, admin};
use crate::peers::tls::Tls;
use crate::responders;
use crate::stores::memory_records::MemoryRecords;
use crate::stores::redis;

/// One sentence per problem; none where the node would start. A configuration that is refused is no problem but an
/// error.
pub async fn check(config: &Config) -> Result<Vec<String>, ConfigRefused> {
    let ports = [("http_addr", config.http_addr), ("ops_addr", config.ops_addr)];
    let mut problems: Vec<String> = ports.iter().filter_map(|(key, address)| port(key, *address)).collect();
    let folder = config.data_folder()?;
    problems.extend(data_folder(&folder));
    problems.extend(cluster(config)?);
    if running(&folder) {
        problems.push(format!("store: a node is running with {} already", folder.display()));
    }
    if let Some(address) = config.redis_address()? {
        problems.extend(redis::problems(&address, &config.redis).await);
    }
    responders::build(&config.responder)?;
    keys(config, &folder)?;
    Ok(problems)
}

/// Keys that are there can be read, and those that are named are there. The node's own is made at its first start.
fn keys(config: &Config, folder: &Path) -> Result<(), ConfigRefused> {
    if !config.has_keys() {
        return Ok(());
    }
    let nobody = Arc::new(MemoryRecords::default());
    Ok(Auth::open(&config.auth, nobody, Some(folder)).map(drop)?)
}

/// The port, the secret and the certificates with which nodes meet.
fn cluster(config: &Config) -> Result<Vec<String>, ConfigRefused> {
    let Some(address) = config.cluster_addr() else { return Ok(Vec::new()) };
    config.cluster.read_secret()?;
    let certificates = config.cluster.tls().map(Tls::open).transpose();
    let certificates = certificates.err().map(|error| format!("{}: {error}", error.option));
    Ok(port("cluster.addr", address).into_iter().chain(certificates).collect())
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
