//! What a process costs, read from /proc, and how measurements are summed up.

use std::fmt;

use anyhow::Context;

/// Linux counts CPU time in these parts of a second, on every platform that Rust's tier 1 knows.
const TICKS_PER_SECOND: f64 = 100.0;
const NANOS_PER_TICK: u64 = 10_000_000;

/// User and system time of the process so far.
pub fn cpu_seconds(process: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name, in parentheses, may hold spaces; the numbers begin behind it.
    let numbers = stat.rsplit_once(')').context("stat has a name")?.1;
    let field = |place: usize| -> anyhow::Result<f64> {
        Ok(numbers.split_whitespace().nth(place).context("stat has the field")?.parse()?)
    };
    Ok((field(11)? + field(12)?) / TICKS_PER_SECOND)
}

/// User and system time so far of the process, its threads, and its children, those that ended included; in nanoseconds
/// where the kernel counts them.
pub fn cpu_nanos(process: u32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
    let stat = stat.with_context(|| format!("process {process} is gone"))?;
    let numbers: Vec<&str> = stat.rsplit_once(')').context("stat has a name")?.1.split_whitespace().collect();
    let ticks = |place: usize| -> anyhow::Result<u64> {
        Ok(numbers.get(place).context("stat has the field")?.parse::<u64>()? * NANOS_PER_TICK)
    };
    let (mut threads, mut children) = (0, ticks(13)? + ticks(14)?);
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = thread?.path();
        // A thread, or a child, may end while it is looked at.
        let read = |file: &str| std::fs::read_to_string(thread.join(file)).unwrap_or_default();
        threads += read("schedstat").split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0);
        for child in read("children").split_whitespace().filter_map(|id| id.parse().ok()) {
            children += cpu_nanos(child).unwrap_or(0);
        }
    }
    // Of threads that ended only the coarser count knows. Both are never too much.
    Ok(threads.max(ticks(11)? + ticks(12)?) + children)
}

/// Memory that the process has in RAM.
pub fn resident_bytes(process: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("status has VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes << 10)
}

/// The machine, so that a number can be read.
pub fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |it| it.1);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores of {model}, Linux {}", kernel.trim())
}

/// Measurements of one thing.
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let pick = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        Self { median: pick(values.len() / 2), least: pick(0), most: pick(values.len().saturating_sub(1)) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "median {:.0}, from {:.0} to {:.0}", self.median, self.least, self.most)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_a_thread_and_a_child_used_is_counted_once_they_ended() {
        let me = std::process::id();
        let before = cpu_nanos(me).unwrap();
        let spin = move || while cpu_nanos(me).unwrap() < before + 50_000_000 {};
        std::thread::spawn(spin).join().unwrap();
        let between = cpu_nanos(me).unwrap();
        // What is counted in ticks is cut to whole ones, once for the user's and once for the system's time.
        assert!(between >= 50_000_000 - 2 * NANOS_PER_TICK, "a thread that ended is forgotten: {before}, {between}");
        let child = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        assert!(Command::new("sh").args(["-c", child]).status().unwrap().success());
        let after = cpu_nanos(me).unwrap();
        assert!(after >= between + 30_000_000, "a child that ended is forgotten: {between}, {after}");
    }
}
