//! How many files this process may have open: each connection is one, and most systems allow 1,024 unless asked.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files beside the connections of clients: the store's, those to models, the ops port's.
const OTHER_FILES: u64 = 1_024;

/// Takes all that the system grants, and says so where that is too little for `connections`.
pub(super) fn raise(connections: usize) {
    let granted = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: granted.maximum, maximum: granted.maximum };
    let allowed = match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => granted.maximum,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be raised");
            granted.current
        }
    };
    let needed = needed(connections);
    if allowed.is_some_and(|allowed| allowed < needed) {
        tracing::warn!(
            files.allowed = allowed,
            files.needed = needed,
            "limits.connections cannot be reached: the system allows fewer open files (ulimit -n)"
        );
    }
}

/// Said by `--check`.
pub fn too_few(connections: usize) -> Option<String> {
    let (allowed, needed) = (getrlimit(Resource::Nofile).maximum?, needed(connections));
    (allowed < needed).then(|| {
        format!(
            "limits.connections: {connections} connections need {needed} open files, and the system allows {allowed}: allow \
             more (ulimit -n, LimitNOFILE, ulimits.nofile), or set it to {} or less",
            allowed.saturating_sub(OTHER_FILES)
        )
    })
}

fn needed(connections: usize) -> u64 {
    (connections as u64).saturating_add(OTHER_FILES)
}
