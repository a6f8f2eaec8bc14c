//! The result: JSON for scripts, a few lines for people. Its member names are read by tests and graphs.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::LoadArgs;
use super::check::by_name;
use super::host::{self, Host};
use super::tally::{Percentiles, Tally, percentiles};
use super::verify::Verified;

#[derive(Debug, Serialize)]
pub struct Report {
    /// Completed and found right, within the measurement.
    pub turns: u64,
    /// Within the measurement and the warmup.
    pub failed: u64,
    pub errors: BTreeMap<String, u64>,
    pub turns_per_second: f64,
    pub seconds: f64,
    /// Of right answers, from when a turn was due.
    pub latency_ms: Option<Percentiles>,
    pub first_token_ms: Option<Percentiles>,
    /// How late the generator itself began: part of the latencies of an open loop.
    pub start_lag_ms: Option<Percentiles>,
    pub retries: u64,
    /// Due in an open loop, but no client was free for them before the end.
    pub not_started: u64,
    pub warmup_turns: u64,
    pub verify: Option<Verified>,
    pub interrupted: bool,
    pub configuration: Configuration,
    pub host: Host,
    pub version: &'static str,
}

#[derive(Debug, Serialize)]
pub struct Configuration {
    url: String,
    model: String,
    connections: Option<u32>,
    rate: Option<f64>,
    in_flight: Option<u32>,
    conversations: Option<u32>,
    items: u32,
    message_bytes: u32,
    duration_seconds: Option<f64>,
    turns: Option<u64>,
    warmup_seconds: f64,
    timeout_seconds: f64,
    stream: bool,
    retry: bool,
    any_text: bool,
    verify: bool,
    seed: u64,
}

impl Report {
    pub fn new(
        args: &LoadArgs,
        warmed: &Tally,
        measured: &Tally,
        seconds: f64,
        verify: Option<Verified>,
        interrupted: bool,
    ) -> Self {
        let mut errors = by_name(&measured.errors);
        by_name(&warmed.errors).into_iter().for_each(|(kind, count)| *errors.entry(kind).or_default() += count);
        Self {
            turns: measured.completed,
            failed: measured.failed() + warmed.failed(),
            errors,
            turns_per_second: measured.completed as f64 / seconds.max(f64::EPSILON),
            seconds,
            latency_ms: percentiles(&measured.latency),
            first_token_ms: percentiles(&measured.first_token),
            start_lag_ms: percentiles(&measured.start_lag).filter(|_| args.rate.is_some()),
            retries: measured.retries + warmed.retries,
            not_started: measured.not_started,
            warmup_turns: warmed.completed,
            verify,
            interrupted,
            configuration: Configuration::of(args),
            host: host::this(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    pub fn all_well(&self) -> bool {
        self.failed == 0 && self.verify.as_ref().is_none_or(|verified| verified.errors.is_empty())
    }
}

impl Configuration {
    fn of(args: &LoadArgs) -> Self {
        let open = args.rate.is_some();
        Self {
            url: args.url.clone(),
            model: args.model.clone(),
            connections: (!open).then_some(args.connections),
            rate: args.rate,
            in_flight: open.then_some(args.in_flight),
            conversations: args.conversations.or(Some(if open { args.in_flight } else { args.connections })),
            items: args.items,
            message_bytes: args.message_bytes,
            duration_seconds: args.duration.map(|duration| duration.as_secs_f64()),
            turns: args.turns,
            warmup_seconds: args.warmup.as_secs_f64(),
            timeout_seconds: args.timeout.as_secs_f64(),
            stream: args.stream,
            retry: args.retry,
            any_text: args.any_text,
            verify: args.verify,
            seed: args.seed,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (turns, seconds, rate) = (self.turns, self.seconds, self.turns_per_second);
        writeln!(f, "{turns} turns in {seconds:.1} s: {rate:.1} per second, {} failed", self.failed)?;
        for (what, measured) in
            [("latency", self.latency_ms), ("first token", self.first_token_ms), ("started late", self.start_lag_ms)]
        {
            if let Some(Percentiles { p50, p90, p99, p99_9, max, .. }) = measured {
                writeln!(f, "{what:<12} ms: p50 {p50:.2}, p90 {p90:.2}, p99 {p99:.2}, p99.9 {p99_9:.2}, max {max:.2}")?;
            }
        }
        self.errors.iter().try_for_each(|(kind, count)| writeln!(f, "failed: {kind} {count}"))?;
        if self.retries + self.not_started > 0 {
            writeln!(f, "{} repeated, {} never started", self.retries, self.not_started)?;
        }
        let Some(verified) = &self.verify else { return Ok(()) };
        writeln!(
            f,
            "read back {} turns, {} items in {} conversations",
            verified.turns, verified.items, verified.conversations
        )?;
        verified.errors.iter().try_for_each(|(kind, count)| writeln!(f, "wrong in the store: {kind} {count}"))
    }
}
