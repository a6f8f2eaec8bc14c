//! The `redis-server` of the demonstration: which program, and one of it on a port of its own.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::children::Process;

const PROGRAM: &str = "redis-server";
const START_MAX: Duration = Duration::from_secs(20);
/// A server that listens has nothing to load: it can be used.
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub struct RedisProgram(PathBuf);

/// What to do about it.
#[derive(Debug, PartialEq, Eq)]
pub struct NoRedis;

impl fmt::Display for NoRedis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "there is no redis-server in PATH. The three nodes share one; please install it and start this again:\n\n  \
               Debian, Ubuntu  sudo apt-get install redis-server\n  \
               macOS           brew install redis\n  \
               elsewhere       the package is mostly called redis\n\n\
             One node alone needs no Redis: `klatch serve`.",
        )
    }
}

impl RedisProgram {
    pub fn find() -> Result<Self, NoRedis> {
        Self::find_in(&std::env::var_os("PATH").unwrap_or_default())
    }

    fn find_in(path: &OsStr) -> Result<Self, NoRedis> {
        let mut programs = std::env::split_paths(path).map(|folder| folder.join(PROGRAM));
        programs.find(|program| is_program(program)).map(Self).ok_or(NoRedis)
    }

    /// Still loading nothing, perhaps: see [`ready`].
    pub fn start(&self, port: u16, folder: &Path) -> anyhow::Result<Process> {
        let mut command = Command::new(&self.0);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--appendonly", "yes", "--save", ""]);
        command.arg("--dir").arg(folder).current_dir(folder);
        Process::start(PROGRAM, command, &folder.join("redis.log"))
    }
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Until it takes connections.
pub async fn ready(redis: &mut Process, port: u16) -> anyhow::Result<()> {
    let listening = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            redis.still_runs()?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(START_MAX, listening).await.context("redis-server does not listen")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_for_in_every_folder_of_the_path_and_must_be_executable() {
        let (empty, found) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let program = found.path().join(PROGRAM);
        std::fs::write(&program, "").unwrap();
        let path = std::env::join_paths([empty.path(), found.path()]).unwrap();
        assert_eq!(RedisProgram::find_in(&path).map(|it| it.0), Err(NoRedis));
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(RedisProgram::find_in(&path).map(|it| it.0), Ok(program));
        assert_eq!(RedisProgram::find_in(OsStr::new("")).map(|it| it.0), Err(NoRedis));
    }
}
