//! Where things run: all servers on one core, so that each has one thread for its work and none can hide what it costs in
//! waiting, and the load on another.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// Two that this process may use.
pub struct Cores {
    pub servers: usize,
    pub load: usize,
}

impl Cores {
    /// The first two; with only one, both share it.
    pub fn find() -> anyhow::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status").context("this runs on Linux")?;
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        let allowed = listed(line.context("the kernel says which cores may be used")?.trim())?;
        let servers = *allowed.first().context("there is a core")?;
        Ok(Self { servers, load: allowed.get(1).copied().unwrap_or(servers) })
    }
}

/// This thread, and what it starts from now on, stays on that core.
pub fn stay_on(core: usize) -> anyhow::Result<()> {
    let me = std::fs::read_link("/proc/thread-self")?;
    let id = me.file_name().context("a thread has an id")?;
    let mut command = Command::new("taskset");
    let output = command.args(["-c", "-p", &core.to_string()]).arg(id).stdin(Stdio::null()).output();
    let output = output.context("there is no taskset: it is in the package util-linux")?;
    ensure!(output.status.success(), "taskset: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// As the kernel writes it: `0-1,4`.
fn listed(text: &str) -> anyhow::Result<Vec<usize>> {
    let mut cores = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<usize>()?..=last.parse()?);
    }
    Ok(cores)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_read_as_the_kernel_lists_them() {
        assert_eq!(listed("0-1,4,6-7").unwrap(), [0, 1, 4, 6, 7]);
        assert_eq!(listed("3").unwrap(), [3]);
    }
}
