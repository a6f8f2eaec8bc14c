//! What a process costs, read from /proc, and how measurements are summed up.

use std::fmt;

use anyhow::Context;

/// Linux counts CPU time in these parts of a second, on every platform that Rust's tier 1 knows.
const TICKS_PER_SECOND: f64 = 100.0;

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
