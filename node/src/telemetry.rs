//! What a node tells about itself: logs, and the recorder behind `/metrics`. Started first by `serve`, so that all
//! that comes after is seen.
//!
//! Logs for people go to stderr, beside what `serve` prints on stdout; logs for machines go to stdout, alone.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::ConfigRefused;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogOptions {
    /// `human` for a terminal (stderr), `json` for machines (stdout, one object per line).
    pub format: LogFormat,
    /// What is logged: a level, or directives per module as in `info,klatch=debug`.
    pub level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Human,
    Json,
}

impl Default for LogOptions {
    /// ractor tells of each actor that starts and stops, and a conversation is one; fjall of each file of the store.
    fn default() -> Self {
        Self {
            format: LogFormat::Human,
            level: "info,ractor=warn,ractor_cluster=info,fjall=warn,lsm_tree=warn".to_owned(),
        }
    }
}

impl LogOptions {
    pub fn refuse_contradictions(&self) -> Result<(), ConfigRefused> {
        self.filter().map(drop)
    }

    fn filter(&self) -> Result<EnvFilter, ConfigRefused> {
        EnvFilter::builder().parse(&self.level).map_err(|error| {
            let said = format!("`{}` cannot be read ({error}): a level such as `debug`, or directives such as `info,klatch=debug`, would do", self.level);
            ConfigRefused::new("log.level", said)
        })
    }
}

/// Logs from here on, panics included: a panic costs one connection or one turn, and someone should look.
pub fn start_logs(options: &LogOptions) -> anyhow::Result<()> {
    let registry = tracing_subscriber::registry().with(options.filter()?).with(filter_fn(shows_no_payload));
    match options.format {
        LogFormat::Human => {
            let layer = tracing_subscriber::fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal());
            registry.with(layer.with_target(false)).try_init()
        }
        LogFormat::Json => {
            let layer = tracing_subscriber::fmt::layer().json().flatten_event(true);
            registry.with(layer.with_current_span(true).with_span_list(false)).try_init()
        }
    }
    .context("cannot start logging")?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// At debug ractor_cluster prints what nodes say to one another, and that is what people say: whatever is configured, not
/// here.
fn shows_no_payload(event: &tracing::Metadata<'_>) -> bool {
    *event.level() <= tracing::Level::INFO || !event.target().starts_with("ractor_cluster")
}

fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let payload = panic.payload();
    let message =
        payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or_default();
    let backtrace = std::backtrace::Backtrace::capture();
    tracing::error!(panic.message = message.unwrap_or_default(), panic.place = place, thread.name = thread, %backtrace, "panicked");
}

pub const BUILD: &str = "klatch_build_info";
pub const DRAINING: &str = "klatch_draining";
pub const DRAIN_DEADLINE: &str = "klatch_drain_deadline_timestamp_seconds";
pub const CONNECTIONS: &str = "klatch_http_connections";
pub const CONNECTIONS_REFUSED: &str = "klatch_http_accept_errors_total";
pub const RUNTIME_WORKERS: &str = "klatch_runtime_workers";
pub const RUNTIME_BUSY: &str = "klatch_runtime_busy_ratio";
pub const RUNTIME_QUEUE: &str = "klatch_runtime_queue_depth";
pub const RUNTIME_TASKS: &str = "klatch_runtime_tasks";

/// From a step of the runtime to the longest reply; shared by all, so that one dashboard reads all latencies.
const SECONDS: [f64; 18] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// From a short message to the largest body.
const BYTES: [f64; 9] = [256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];

/// Counts, such as a batch's.
const COUNTS: [f64; 12] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0];

/// How often what the recorder holds is folded, and the runtime is looked at.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Metrics from here on. Once per program.
pub fn start_metrics() -> anyhow::Result<PrometheusHandle> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES)?
        .set_buckets(&COUNTS)?
        .install_recorder()
        .context("cannot start the metrics")?;
    describe();
    metrics::gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    metrics::gauge!(DRAINING).set(0.0);
    metrics::gauge!(DRAIN_DEADLINE).set(0.0);
    // A counter that appears with its first event hides that event.
    for port in ["http", "ops"] {
        metrics::counter!(CONNECTIONS_REFUSED, "port" => port).increment(0);
    }
    Ok(handle)
}

fn describe() {
    metrics_process::Collector::default().describe();
    klatch_actors::metrics::describe();
    metrics::describe_gauge!(BUILD, "1, with the version that runs as its label");
    metrics::describe_gauge!(DRAINING, "1 from the signal to stop until the end, else 0");
    metrics::describe_gauge!(
        DRAIN_DEADLINE,
        "when a node that was told to stop has to be gone, in seconds since 1970; else 0"
    );
    metrics::describe_gauge!(CONNECTIONS, "open client connections by port");
    metrics::describe_counter!(CONNECTIONS_REFUSED, "connections that the system could not give us, by port");
    metrics::describe_gauge!(RUNTIME_WORKERS, "threads of the runtime");
    metrics::describe_gauge!(RUNTIME_BUSY, "share of their time that the runtime's threads were busy");
    metrics::describe_gauge!(RUNTIME_QUEUE, "tasks that wait for a thread of the runtime");
    metrics::describe_gauge!(RUNTIME_TASKS, "tasks that live in the runtime");
}

/// Runs until the program ends.
pub async fn upkeep(handle: PrometheusHandle) {
    let monitor = tokio_metrics::RuntimeMonitor::new(&tokio::runtime::Handle::current());
    let mut every = tokio::time::interval(UPKEEP_EVERY);
    for interval in monitor.intervals() {
        every.tick().await;
        metrics::gauge!(RUNTIME_WORKERS).set(interval.workers_count as f64);
        metrics::gauge!(RUNTIME_BUSY).set(interval.busy_ratio() / interval.workers_count.max(1) as f64);
        metrics::gauge!(RUNTIME_QUEUE).set(interval.global_queue_depth as f64);
        metrics::gauge!(RUNTIME_TASKS).set(interval.live_tasks_count as f64);
        handle.run_upkeep();
    }
}
