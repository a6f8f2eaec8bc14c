//! `klatch serve --check`: what would go wrong at start, found without starting. Opens ports and touches a file in the
//! data folder, and leaves both as they were.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use super::{Config, StoreKind};

/// One sentence per problem; none where the node would start.
pub fn check(config: &Config) -> Vec<String> {
    let ports = [("http_addr", config.http_addr), ("ops_addr", config.ops_addr)];
    let mut problems: Vec<String> = ports.iter().filter_map(|(key, address)| port(key, *address)).collect();
    if let Ok(StoreKind::File(folder)) = config.store_kind() {
        problems.extend(data_folder(&folder));
    }
    problems
}

fn port(key: &str, address: SocketAddr) -> Option<String> {
    TcpListener::bind(address).err().map(|error| cannot_listen(key, address, &error))
}

/// Said by `--check` and at start alike.
pub fn cannot_listen(key: &str, address: SocketAddr, error: &std::io::Error) -> String {
    let option = key.replace('_', "-");
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
