//! What was seen, and what is told of it. Times are since the death, in s.

use super::{DEATH_NS, Scenario};
use crate::redis::{Redis, WINDOW_NS, Window};
use crate::summary::Summary;

/// Beats before this are not counted as steady: all begin at once.
const STEADY_FROM_NS: u64 = 1_000_000_000;

#[derive(Default)]
pub struct Seen {
    pub buried_ns: Vec<u64>,
    /// When the last node learnt of a new view.
    pub told_ns: u64,
    /// Open turns that go on.
    pub recovered_ns: Vec<u64>,
    pub messages_waited_ns: Vec<u64>,
    steady_beats_ns: Vec<u64>,
    beats_after_ns: Vec<u64>,
    stood_still_ns: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub scenario: Scenario,
    pub lost: usize,
    pub open_turns: usize,
    pub recovered: usize,
    pub first_buried: f64,
    pub last_buried: f64,
    pub last_told: f64,
    /// Until an open turn went on.
    pub recovery: Summary,
    /// How many messages needed an activation, and how long each waited for it.
    pub messages: usize,
    pub waited: Summary,
    /// In the busiest tenth of a second, per second.
    pub claims_peak: f64,
    pub log_reads_peak: f64,
    pub open_reads_peak: f64,
    pub view_reads_peak: f64,
    pub megabytes_peak: f64,
    /// Altogether, after the death.
    pub claims: u64,
    pub open_reads: u64,
    /// Share of the time of the table's primary: before, and in its busiest second after.
    pub table_before: f64,
    pub table_peak: f64,
    /// The busiest tenth of a second of any other primary; none where there is no other.
    pub logs_peak: Option<f64>,
    /// Before the death: beats that were made, and how long one took, in ms.
    pub beats_per_second: f64,
    pub beat_ms: Summary,
    /// The same after it.
    pub beat_after_ms: Summary,
    /// Longest time that a living node's counter stood still, in s: near 1 its neighbours would knock at its door.
    pub stood_still: f64,
    /// For each tenth of a second from the death on: burials and turns that go on so far, and claims in it.
    pub series: Vec<[usize; 3]>,
}

impl Seen {
    pub fn beat_took(&mut self, now_ns: u64, took_ns: u64) {
        if now_ns >= DEATH_NS {
            self.beats_after_ns.push(took_ns);
        } else if now_ns >= STEADY_FROM_NS {
            self.steady_beats_ns.push(took_ns);
        }
    }

    pub fn stood_still(&mut self, for_ns: u64) {
        self.stood_still_ns = self.stood_still_ns.max(for_ns);
    }

    pub fn outcome(self, scenario: Scenario, lost: usize, open_turns: usize, redis: &Redis) -> Outcome {
        let death = (DEATH_NS / WINDOW_NS) as usize;
        let (before, after) = redis.windows.split_at(death.min(redis.windows.len()));
        let steady = &before[(STEADY_FROM_NS / WINDOW_NS) as usize..];
        let per_second = 1e9 / WINDOW_NS as f64;
        let peak = |count: fn(&Window) -> f64| after.iter().map(count).fold(0.0, f64::max) * per_second;
        let millis = |took_ns: &[u64]| Summary::of(took_ns.iter().map(|ns| *ns as f64 / 1e6));
        let table = |window: &Window| redis.busy_share(window, 0);
        let seconds = after.chunks(per_second as usize);
        let table_second = |second: &[Window]| second.iter().map(table).sum::<f64>() / second.len() as f64;
        let others = |window: &Window| (1..redis.primaries()).map(|one| redis.busy_share(window, one)).reduce(f64::max);
        Outcome {
            scenario,
            lost,
            open_turns,
            recovered: self.recovered_ns.len(),
            first_buried: self.buried_ns.first().map_or(f64::NAN, |ns| since(*ns)),
            last_buried: self.buried_ns.last().map_or(f64::NAN, |ns| since(*ns)),
            last_told: since(self.told_ns),
            recovery: Summary::of(self.recovered_ns.iter().map(|ns| since(*ns))),
            messages: self.messages_waited_ns.len(),
            waited: Summary::of(self.messages_waited_ns.iter().map(|ns| *ns as f64 / 1e9)),
            claims_peak: peak(|window| window.claims as f64),
            log_reads_peak: peak(|window| window.log_reads as f64),
            open_reads_peak: peak(|window| window.open_reads as f64),
            view_reads_peak: peak(|window| window.view_reads as f64),
            megabytes_peak: peak(|window| window.answer_bytes / 1e6),
            claims: after.iter().map(|window| window.claims).sum(),
            open_reads: after.iter().map(|window| window.open_reads).sum(),
            table_before: steady.iter().map(table).sum::<f64>() / steady.len() as f64,
            table_peak: seconds.map(table_second).fold(0.0, f64::max),
            logs_peak: after.iter().filter_map(others).reduce(f64::max),
            beats_per_second: steady.iter().map(|window| window.beats as f64).sum::<f64>() / steady.len() as f64
                * per_second,
            beat_ms: millis(&self.steady_beats_ns),
            beat_after_ms: millis(&self.beats_after_ns),
            stood_still: self.stood_still_ns as f64 / 1e9,
            series: self.series(after),
        }
    }

    fn series(&self, after: &[Window]) -> Vec<[usize; 3]> {
        let so_far = |times: &[u64], until_ns: u64| times.partition_point(|ns| *ns < until_ns);
        let point = |(number, window): (usize, &Window)| {
            let until_ns = DEATH_NS + (number as u64 + 1) * WINDOW_NS;
            [so_far(&self.buried_ns, until_ns), so_far(&self.recovered_ns, until_ns), window.claims as usize]
        };
        after.iter().enumerate().map(point).collect()
    }
}

fn since(at_ns: u64) -> f64 {
    (at_ns as f64 - DEATH_NS as f64) / 1e9
}
