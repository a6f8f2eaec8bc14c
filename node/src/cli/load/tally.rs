//! What was counted and measured. Each client keeps its own tally, without a lock; they are added up at the end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::check::Kind;

/// An hour in microseconds: a turn times out long before.
const LONGEST_US: u64 = 3_600_000_000;

pub struct Tally {
    pub latency: Histogram<u64>,
    pub first_token: Histogram<u64>,
    /// How late the generator itself began, after the turn was due.
    pub start_lag: Histogram<u64>,
    pub completed: u64,
    pub errors: BTreeMap<Kind, u64>,
    pub retries: u64,
    pub not_started: u64,
    /// For `--verify`; empty without.
    pub records: Vec<Record>,
}

/// One turn, as `verify.rs` needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Index of its conversation.
    pub conversation: u32,
    pub number: u64,
    pub sent: Instant,
    /// When its answer was complete and right; None if it never was.
    pub acknowledged: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
    pub mean: f64,
}

impl Default for Tally {
    fn default() -> Self {
        let histogram = || Histogram::new_with_max(LONGEST_US, 3).expect("these bounds are valid ones");
        Self {
            latency: histogram(),
            first_token: histogram(),
            start_lag: histogram(),
            completed: 0,
            errors: BTreeMap::new(),
            retries: 0,
            not_started: 0,
            records: vec![],
        }
    }
}

impl Tally {
    pub fn add(&mut self, mut other: Self) {
        for (ours, theirs) in [
            (&mut self.latency, &other.latency),
            (&mut self.first_token, &other.first_token),
            (&mut self.start_lag, &other.start_lag),
        ] {
            ours.add(theirs).expect("all tallies have the same bounds");
        }
        self.completed += other.completed;
        self.retries += other.retries;
        self.not_started += other.not_started;
        for (kind, count) in other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
        self.records.append(&mut other.records);
    }

    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }
}

pub fn record(histogram: &mut Histogram<u64>, took: Duration) {
    histogram.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST_US));
}

/// In milliseconds; None where nothing was measured.
pub fn percentiles(histogram: &Histogram<u64>) -> Option<Percentiles> {
    let ms = |us: u64| us as f64 / 1000.0;
    let at = |quantile| ms(histogram.value_at_quantile(quantile));
    (!histogram.is_empty()).then(|| Percentiles {
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p99_9: at(0.999),
        max: ms(histogram.max()),
        mean: (histogram.mean()).round() / 1000.0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(range: std::ops::RangeInclusive<u64>) -> Tally {
        let mut tally = Tally { completed: 1, errors: [(Kind::Refused(503), 2)].into(), ..Tally::default() };
        range.for_each(|ms| record(&mut tally.latency, Duration::from_millis(ms)));
        tally
    }

    #[test]
    fn tallies_of_clients_add_up() {
        let mut all = measured(1..=500);
        all.add(measured(501..=1000));
        assert_eq!((all.completed, all.failed()), (2, 4));
        let told = percentiles(&all.latency).unwrap();
        for (found, meant) in
            [(told.p50, 500.0), (told.p90, 900.0), (told.p99, 990.0), (told.p99_9, 999.0), (told.max, 1000.0)]
        {
            assert!((found - meant).abs() <= meant / 1000.0, "{found} {meant}");
        }
    }

    #[test]
    fn nothing_measured_has_no_percentiles_and_the_endless_is_an_hour() {
        let mut tally = Tally::default();
        assert_eq!(percentiles(&tally.latency), None);
        record(&mut tally.latency, Duration::MAX);
        assert!(percentiles(&tally.latency).unwrap().max >= 3_600_000.0);
    }
}
