//! The primaries of a Redis: one command at a time each, in the order of arrival. Turns that stream take a fixed share of
//! their time, so that everything else takes longer by as much; it is not simulated append by append.

use crate::inputs::{self, with_rows};

/// Commands are counted in windows of so long, in ns.
pub const WINDOW_NS: u64 = 100_000_000;
const ONE_WAY_NS: u64 = inputs::ONE_WAY_US * 1_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Of a table of so many rows.
    Beat(usize),
    ReadView(usize),
    /// Of so many.
    Bury(usize),
    /// So many rows in one page.
    ReadOpen(usize),
    ReadLog,
    LogEnd,
    Claim,
    Append,
}

impl Command {
    fn cost_us(self) -> f64 {
        match self {
            Self::Beat(rows) => with_rows(inputs::BEAT_US, rows),
            Self::ReadView(rows) => with_rows(inputs::READ_VIEW_US, rows),
            Self::Bury(dead) => inputs::BURY_US * dead as f64,
            Self::ReadOpen(rows) => with_rows(inputs::READ_OPEN_US, rows),
            Self::ReadLog => inputs::READ_LOG_US,
            Self::LogEnd => inputs::LOG_END_US,
            Self::Claim | Self::Append => inputs::APPEND_US,
        }
    }

    fn answer_bytes(self) -> f64 {
        match self {
            Self::Beat(rows) => with_rows(inputs::BEAT_BYTES, rows),
            Self::ReadView(rows) => with_rows(inputs::READ_VIEW_BYTES, rows),
            Self::ReadOpen(rows) => inputs::READ_OPEN_ROW_BYTES * rows as f64,
            Self::ReadLog => inputs::READ_LOG_BYTES,
            Self::Bury(_) | Self::LogEnd | Self::Claim | Self::Append => 0.0,
        }
    }
}

/// What was done in one window of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    pub beats: u64,
    pub view_reads: u64,
    pub open_reads: u64,
    pub claims: u64,
    pub log_reads: u64,
    pub answer_bytes: f64,
    /// By primary, in ns; what streams is not in it.
    pub busy_ns: Vec<u64>,
}

pub struct Redis {
    free_at_ns: Vec<u64>,
    streaming_share: f64,
    pub windows: Vec<Window>,
}

impl Redis {
    pub fn new(nodes: usize) -> Self {
        let streaming_share = inputs::streaming_share(nodes);
        Self { free_at_ns: vec![0; inputs::primaries(nodes)], streaming_share, windows: Vec::new() }
    }

    pub fn primaries(&self) -> usize {
        self.free_at_ns.len()
    }

    /// When the answer is back at the node. Commands must be sent in the order of time.
    pub fn send(&mut self, now_ns: u64, primary: usize, command: Command) -> u64 {
        let free_at_ns = &mut self.free_at_ns[primary];
        let cost_ns = (command.cost_us() * 1e3) as u64;
        let taken_ns = (cost_ns as f64 / (1.0 - self.streaming_share)) as u64;
        let done_ns = (now_ns + ONE_WAY_NS).max(*free_at_ns) + taken_ns;
        *free_at_ns = done_ns;
        self.count(done_ns, primary, command, cost_ns);
        done_ns + ONE_WAY_NS
    }

    fn count(&mut self, done_ns: u64, primary: usize, command: Command, cost_ns: u64) {
        let (window, primaries) = ((done_ns / WINDOW_NS) as usize, self.primaries());
        while self.windows.len() <= window {
            self.windows.push(Window { busy_ns: vec![0; primaries], ..Window::default() });
        }
        let window = &mut self.windows[window];
        window.busy_ns[primary] += cost_ns;
        window.answer_bytes += command.answer_bytes();
        match command {
            Command::Beat(_) => window.beats += 1,
            Command::ReadView(_) => window.view_reads += 1,
            Command::ReadOpen(_) => window.open_reads += 1,
            Command::Claim => window.claims += 1,
            Command::ReadLog => window.log_reads += 1,
            Command::Bury(_) | Command::LogEnd | Command::Append => {}
        }
    }

    /// Share of its time that this primary was at work in the window, what streams included.
    pub fn busy_share(&self, window: &Window, primary: usize) -> f64 {
        window.busy_ns[primary] as f64 / WINDOW_NS as f64 + self.streaming_share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_second_waits_for_the_first() {
        let mut redis = Redis::new(1);
        let first = redis.send(0, 0, Command::ReadLog);
        let second = redis.send(0, 0, Command::ReadLog);
        let alone = first - 2 * ONE_WAY_NS;
        assert_eq!(second - first, alone);
        assert!(alone as f64 > inputs::READ_LOG_US * 1e3, "what streams takes its share");
    }

    #[test]
    fn primaries_do_not_wait_for_one_another() {
        let mut redis = Redis::new(2 * inputs::NODES_PER_PRIMARY);
        assert_eq!(redis.send(0, 0, Command::Claim), redis.send(0, 1, Command::Claim));
    }
}
