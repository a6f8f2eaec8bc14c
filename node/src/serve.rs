//! `klatch serve`: a node from start to end. Started by `main`; when this ends, so does the program.
//!
//! Order of a start: logs, ports reserved, store, auth, conversations, ports served. The stop is decided in [`drain`]
//! and carried out here. Restarts nothing: what runs this program does.

mod assemble;
mod banner;
pub mod drain;
pub mod listener;
pub mod open_files;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use axum::Router;
use futures::future::BoxFuture;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub use banner::Invocation;

use crate::config::{self, Config};
use crate::ops::{self, MembersSource, Ops, Readiness, StatusSource};
use crate::telemetry::LogFormat;
use crate::{net, telemetry, traces};
use drain::{Drain, Effect, Event, Wait};
use listener::Port;

/// Requests on connections that were accepted last may still be on their way.
const LINGER: Duration = Duration::from_millis(500);
/// The least that handing off gets where the connections have used up all the time.
const HAND_OFF_LEAST: Duration = Duration::from_secs(5);
/// The store has little left to write by then; a disk that takes longer than this is stuck.
const FLUSH_MAX: Duration = Duration::from_secs(10);
/// Connections to the ops port: a few scrapers and probes.
const OPS_CONNECTIONS_MAX: usize = 64;
/// How often a person who stopped the node is told what it still waits for.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Events of the drain that wait: each of its steps has at most one, and a person can press Ctrl-C.
const EVENTS_WAITING_MAX: usize = 16;

/// How long a stop lasts at the most, with all its waits; whoever kills a node that stops must give it longer.
pub fn longest_stop(config: &Config) -> Duration {
    let hand_off = HAND_OFF_LEAST + HAND_OFF_LEAST;
    config.drain_lag() + LINGER + config.drain_timeout + hand_off + FLUSH_MAX
}

type HandOff = Box<dyn FnOnce(Duration) -> BoxFuture<'static, ()> + Send>;
type Flush = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// What a node is made of, behind its ports; made by [`assemble`].
pub struct Parts {
    pub routes: Router,
    pub status: StatusSource,
    pub members: MembersSource,
    /// Reads the keys again.
    pub reload: Arc<dyn Fn() + Send + Sync>,
    /// Gives the shards to other nodes, where there are any; what runs here goes on.
    pub leave: Box<dyn Fn() + Send>,
    /// Puts the conversations away within the time; what is unfinished then is left to whoever owns it next.
    pub hand_off: HandOff,
    pub flush: Flush,
    /// Ends when the conversations' actors ended by themselves.
    pub fault: BoxFuture<'static, ()>,
    /// Nobody can log in yet.
    pub without_accounts: bool,
}

/// All ports, reserved before anything is opened or changed: that another program has one is found first.
struct Listeners {
    http: TcpListener,
    ops: TcpListener,
    /// None: this node is alone.
    cluster: Option<TcpListener>,
}

/// Runs the node until it is told to stop. Answers the program's exit code.
pub async fn run(config: Config, invocation: Invocation) -> anyhow::Result<u8> {
    telemetry::start_logs(&config.log)?;
    traces::start(&config.telemetry, &config.node_name)?;
    let metrics = telemetry::start_metrics()?;
    tokio::spawn(telemetry::upkeep(metrics.clone()));
    let incarnation = incarnation();
    tracing::info!(
        node.name = config.node_name,
        node.incarnation = incarnation,
        version = env!("CARGO_PKG_VERSION"),
        config.changed = config::changed(&config).join("; "),
        "starting"
    );
    open_files::raise(config.limits.connections);
    let mut listeners = listen(&config)?;
    let mut signals = Signals::watch()?;
    let parts = tokio::select! {
        parts = assemble::assemble(&config, incarnation, listeners.cluster.take()) => parts?,
        () = signals.stop(|| ()) => {
            tracing::info!("stopped before it served");
            return Ok(0);
        }
    };
    let without_accounts = parts.without_accounts;
    let node = Node::open(&config, incarnation, listeners, parts, metrics)?;
    tracing::info!(http.url = %format!("http://{}", node.http.address()), ops.url = %format!("http://{}", node.ops.address()), "serving");
    invocation.greet(&config, node.http.address(), node.ops.address(), without_accounts);
    let (events, received) = mpsc::channel(EVENTS_WAITING_MAX);
    tokio::spawn(signals.tell(events.clone(), node.reload.clone()));
    let code = node.until_ended(events, received).await;
    traces::finish().await;
    Ok(code)
}

fn listen(config: &Config) -> anyhow::Result<Listeners> {
    Ok(Listeners {
        http: reserve("http_addr", config.http_addr)?,
        ops: reserve("ops_addr", config.ops_addr)?,
        cluster: match config.cluster_addr() {
            Some(address) => Some(reserve("cluster.addr", address)?),
            None => None,
        },
    })
}

fn reserve(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    net::listen(address).map_err(|error| anyhow::anyhow!(config::check::cannot_listen(key, address, &error)))
}

/// Later starts have higher numbers, as long as the clock does not go back by more than the time between them; the
/// low bits tell two apart that start in the same millisecond. Stays below 2^53, which JSON's numbers hold.
fn incarnation() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let random = getrandom::u32().expect("the system has a random source");
    (u64::try_from(now.as_millis()).unwrap_or_default() << 10) | u64::from(random & 0x3ff)
}

/// A node that serves.
struct Node {
    http: Port,
    ops: Port,
    readiness: watch::Sender<Readiness>,
    reload: Arc<dyn Fn() + Send + Sync>,
    leave: Box<dyn Fn() + Send>,
    hand_off: Option<HandOff>,
    flush: Option<Flush>,
    fault: Option<BoxFuture<'static, ()>>,
    drain_lag: Duration,
    drain_timeout: Duration,
    /// A person reads along.
    tells: bool,
    /// When the time to finish is over; none before it began.
    finish_by: Option<Instant>,
}

impl Node {
    fn open(
        config: &Config,
        incarnation: u64,
        listeners: Listeners,
        parts: Parts,
        metrics: PrometheusHandle,
    ) -> anyhow::Result<Self> {
        let (readiness, readiness_seen) = watch::channel(Readiness::Starting);
        let shown = Ops {
            node_name: config.node_name.as_str().into(),
            incarnation,
            readiness: readiness_seen,
            status: parts.status,
            members: parts.members,
            metrics,
        };
        let ops = Port::open("ops", listeners.ops, ops::router(shown), OPS_CONNECTIONS_MAX)
            .context("cannot open the ops port")?;
        let http = Port::open("http", listeners.http, parts.routes, config.limits.connections)
            .context("cannot open the http port")?;
        readiness.send_replace(Readiness::Serving);
        Ok(Self {
            http,
            ops,
            readiness,
            reload: parts.reload,
            leave: parts.leave,
            hand_off: Some(parts.hand_off),
            flush: Some(parts.flush),
            fault: Some(parts.fault),
            drain_lag: config.drain_lag(),
            drain_timeout: config.drain_timeout,
            tells: config.log.format == LogFormat::Human,
            finish_by: None,
        })
    }

    async fn until_ended(mut self, events: mpsc::Sender<Event>, mut received: mpsc::Receiver<Event>) -> u8 {
        let mut drain = Drain::default();
        let fault = self.fault.take().expect("a node runs once");
        report(&events, async {
            fault.await;
            Event::Fault
        });
        while let Some(event) = received.recv().await {
            for effect in drain.decide(event) {
                if let Some(code) = self.carry_out(effect, &events) {
                    tracing::info!(exit.code = code, "stopped");
                    return code;
                }
            }
            tracing::info!(drain.phase = ?drain.phase(), drain.event = ?event, "draining");
        }
        unreachable!("this function holds a sender")
    }

    fn carry_out(&mut self, effect: Effect, events: &mpsc::Sender<Event>) -> Option<u8> {
        match effect {
            Effect::LeaveBalancers => self.leave_balancers(),
            Effect::Start(wait) => self.start(wait, events),
            Effect::CloseListener => self.http.close_listener(),
            Effect::FinishConnections => {
                self.http.finish_connections();
                let finished = self.http.finished();
                report(events, async {
                    finished.await;
                    Event::ConnectionsFinished
                });
            }
            Effect::HandOff => self.hand_off(events),
            Effect::AbortConnections => self.http.abort_connections(),
            Effect::Flush => self.flush(events),
            Effect::Exit(code) => return Some(code),
        }
        None
    }

    fn leave_balancers(&self) {
        self.readiness.send_replace(Readiness::Draining);
        metrics::gauge!(telemetry::DRAINING).set(1.0);
        let gone_by = SystemTime::now() + self.drain_longest();
        let gone_by = gone_by.duration_since(UNIX_EPOCH).unwrap_or_default();
        metrics::gauge!(telemetry::DRAIN_DEADLINE).set(gone_by.as_secs_f64());
        (self.leave)();
        self.http.close_connections_with_their_answers();
    }

    /// Each step with all the time that it may take.
    fn drain_longest(&self) -> Duration {
        self.drain_lag + LINGER + self.drain_timeout.max(HAND_OFF_LEAST) + HAND_OFF_LEAST + HAND_OFF_LEAST + FLUSH_MAX
    }

    fn start(&mut self, wait: Wait, events: &mpsc::Sender<Event>) {
        let duration = match wait {
            Wait::Lag => self.drain_lag,
            Wait::Linger => LINGER,
            Wait::Finish => {
                self.finish_by = Some(Instant::now() + self.drain_timeout);
                self.drain_timeout
            }
        };
        if self.tells {
            tokio::spawn(tell(wait, duration, self.http.open_connections()));
        }
        report(events, async move {
            tokio::time::sleep(duration).await;
            Event::TimeOver(wait)
        });
    }

    fn hand_off(&mut self, events: &mpsc::Sender<Event>) {
        let hand_off = self.hand_off.take().expect("the drain hands off once");
        let left = self.finish_by.map_or(Duration::ZERO, |by| by.saturating_duration_since(Instant::now()));
        let time = left.max(HAND_OFF_LEAST);
        report(events, async move {
            // What does not keep its time is left behind: the store has it.
            if tokio::time::timeout(time + HAND_OFF_LEAST, hand_off(time)).await.is_err() {
                tracing::error!("conversations could not be put away in time; the next owner takes them over");
            }
            Event::HandedOff
        });
    }

    fn flush(&mut self, events: &mpsc::Sender<Event>) {
        let flush = self.flush.take().expect("the drain flushes once");
        report(events, async move {
            // Every acknowledged write is durable already: what is missing is read from the journal at the next start.
            if tokio::time::timeout(FLUSH_MAX, flush()).await.is_err() {
                tracing::error!("the store could not be closed in time");
                return Event::NotFlushed;
            }
            Event::Flushed
        });
    }
}

/// Says what is waited for, and how it goes.
async fn tell(wait: Wait, time: Duration, connections: impl Fn() -> usize) {
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let Some(text) = banner::waiting_for(wait, left, connections()) else { return };
        banner::say(&text);
        tokio::time::sleep(left.min(TELL_EVERY)).await;
    }
}

/// Runs it beside the rest and tells the drain how it ended.
fn report(events: &mpsc::Sender<Event>, ends: impl Future<Output = Event> + Send + 'static) {
    let events = events.clone();
    tokio::spawn(async move {
        // Nobody listens any more once the program ends.
        let _ = events.send(ends.await).await;
    });
}

/// SIGTERM and SIGINT stop, SIGHUP reads the keys again. Watched before the store is opened: as a container's first
/// process this program could not be stopped without.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn watch() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot watch SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot watch SIGINT")?,
            hang_up: signal(SignalKind::hangup()).context("cannot watch SIGHUP")?,
        })
    }

    /// Ends with the next signal to stop.
    async fn stop(&mut self, reload: impl Fn()) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => reload(),
            }
        }
    }

    /// Until nobody listens.
    async fn tell(mut self, events: mpsc::Sender<Event>, reload: Arc<dyn Fn() + Send + Sync>) {
        loop {
            self.stop(&*reload).await;
            if events.send(Event::Signal).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
