//! Traces: what one turn did and on which nodes, sent to a collector over OTLP. Started by `serve`, where a collector is
//! configured; else a trace that a client began is passed on, and nothing is recorded.
//!
//! Whether a trace is recorded is decided once, at the edge. A span says what was done, where and for how long; never what
//! was said. A collector that is away costs spans, and no turn.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::http::HeaderMap;
use bytes::Bytes;
use klatch_actors::trace::{PassOn, Span, Traced, Tracer};
use klatch_protocol::trace::TraceContext;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use serde::{Deserialize, Serialize};

use crate::config::ConfigRefused;

const TRACEPARENT: &str = "traceparent";
/// Of the OTLP specification, below the collector's address.
const PATH: &str = "/v1/traces";
/// Where all programs look for their collector.
const STANDARD: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// A collector takes a batch within this, or the batch is lost.
const SEND_MAX: Duration = Duration::from_secs(10);
/// The last batch of a program that ends.
const LAST_BATCH_MAX: Duration = Duration::from_secs(3);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryOptions {
    /// Address of a collector that takes OTLP over HTTP, such as `http://127.0.0.1:4318`. Empty: that of
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, and without it nothing is recorded.
    pub otlp_endpoint: String,
    /// Share of the requests that are recorded, from 0 to 1. Those whose client records them are recorded always.
    pub sample_ratio: f64,
}

impl Default for TelemetryOptions {
    fn default() -> Self {
        Self { otlp_endpoint: String::new(), sample_ratio: 1.0 }
    }
}

impl TelemetryOptions {
    pub fn refuse_contradictions(&self) -> Result<(), ConfigRefused> {
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return Err(ConfigRefused::new("telemetry.sample_ratio", "must be between 0 and 1"));
        }
        let url = reqwest::Url::parse(&self.otlp_endpoint);
        let fits = url.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !self.otlp_endpoint.is_empty() && !fits {
            let said = "must be http(s)://HOST:PORT of a collector that takes OTLP over HTTP, mostly at port 4318";
            return Err(ConfigRefused::new("telemetry.otlp_endpoint", said));
        }
        Ok(())
    }

    fn wanted(&self) -> bool {
        let named = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        !self.otlp_endpoint.is_empty() || STANDARD.into_iter().any(named)
    }
}

struct Recorder {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    sample_ratio: f64,
}

/// One per program, as the recorder of the metrics is.
static RECORDER: OnceLock<Recorder> = OnceLock::new();

/// Traces from here on, where a collector is configured. Within the runtime that sends them.
pub fn start(options: &TelemetryOptions, node_name: &str) -> anyhow::Result<()> {
    if !options.wanted() {
        return Ok(());
    }
    let http = reqwest::Client::builder().timeout(SEND_MAX).build()?;
    let client = Collector { http, runtime: tokio::runtime::Handle::current() };
    let exporter = SpanExporter::builder().with_http().with_http_client(client).with_protocol(Protocol::HttpBinary);
    let exporter = match options.otlp_endpoint.trim_end_matches('/') {
        "" => exporter,
        endpoint => exporter.with_endpoint(format!("{endpoint}{PATH}")),
    };
    let exporter = exporter.build().context("cannot start the traces")?;
    let about = [
        KeyValue::new("service.name", "klatch"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", node_name.to_owned()),
    ];
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        // Decided at the edge: what comes here is to be recorded.
        .with_sampler(Sampler::AlwaysOn)
        .with_resource(Resource::builder_empty().with_attributes(about).build())
        .build();
    let tracer = provider.tracer("klatch");
    // A program has one node; the tests of this one start none with a collector.
    let _ = RECORDER.set(Recorder { provider, tracer, sample_ratio: options.sample_ratio });
    Ok(())
}

/// Sends what is recorded and not sent yet.
pub async fn finish() {
    let Some(recorder) = RECORDER.get() else { return };
    let sent = tokio::task::spawn_blocking(|| recorder.provider.shutdown_with_timeout(LAST_BATCH_MAX)).await;
    if !matches!(sent, Ok(Ok(()))) {
        tracing::warn!("the last spans could not be sent to the collector");
    }
}

/// For requests of other nodes.
pub fn tracer() -> Arc<dyn Tracer> {
    match RECORDER.get() {
        Some(recorder) => Arc::new(Remotes(recorder.tracer.clone())),
        None => Arc::new(PassOn),
    }
}

/// A client's request, from its head to its answer's head.
pub struct EdgeSpan {
    pub traced: Traced,
    recorded: Option<Arc<Recorded>>,
}

impl EdgeSpan {
    /// The client's trace goes on; without one a trace begins here.
    pub fn begin(headers: &HeaderMap, method: &str, route: &str) -> Self {
        let parent = headers.get(TRACEPARENT).and_then(|value| TraceContext::read(value.to_str().ok()?));
        match RECORDER.get().filter(|recorder| is_recorded(parent, recorder.sample_ratio, random_share())) {
            Some(recorder) => {
                let parent = parent.map(known_elsewhere).unwrap_or_default();
                let builder = recorder.tracer.span_builder(format!("{method} {route}")).with_kind(SpanKind::Server);
                let about = [
                    KeyValue::new("http.request.method", method.to_owned()),
                    KeyValue::new("http.route", route.to_owned()),
                ];
                let recorded = Recorded::begin(&recorder.tracer, builder.with_attributes(about), &parent);
                Self { traced: Traced::new(recorded.clone()), recorded: Some(recorded.0) }
            }
            None => Self { traced: parent.map(Traced::passed_on).unwrap_or_default(), recorded: None },
        }
    }

    /// As logs show it; empty where the request is part of no trace.
    pub fn trace_id(&self) -> String {
        self.traced.context().map(|context| context.trace_id()).unwrap_or_default()
    }

    /// It is over, also where something that it began still goes on.
    pub fn answered(&self, status: u16) {
        if let Some(recorded) = &self.recorded {
            let mut span = recorded.span.lock().unwrap_or_else(PoisonError::into_inner);
            span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
            if status >= 500 {
                span.set_status(Status::error(""));
            }
            span.end();
        }
    }
}

/// A proxy in front may begin a trace for each request and record none: then this node decides, by the trace's id, so that
/// all nodes would decide alike.
fn is_recorded(parent: Option<TraceContext>, ratio: f64, random: f64) -> bool {
    match parent {
        Some(parent) if parent.sampled() => true,
        Some(parent) => {
            let [.., a, b, c, d] = parent.trace;
            f64::from(u32::from_be_bytes([a, b, c, d])) / 2f64.powi(32) < ratio
        }
        None => random < ratio,
    }
}

/// In `0.0..1.0`.
fn random_share() -> f64 {
    getrandom::u32().map_or(0.5, |random| f64::from(random) / 2f64.powi(32))
}

fn known_elsewhere(context: TraceContext) -> Context {
    let (trace, span) = (TraceId::from_bytes(context.trace), SpanId::from_bytes(context.span));
    let remote = SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::NONE);
    Context::new().with_remote_span_context(remote)
}

struct Recorded {
    context: TraceContext,
    span: Mutex<opentelemetry_sdk::trace::Span>,
    tracer: SdkTracer,
}

#[derive(Clone)]
struct Handle(Arc<Recorded>);

impl Recorded {
    fn begin(tracer: &SdkTracer, builder: opentelemetry::trace::SpanBuilder, parent: &Context) -> Handle {
        let span = tracer.build_with_context(builder, parent);
        let known = span.span_context();
        let (trace, id) = (known.trace_id().to_bytes(), known.span_id().to_bytes());
        let context = TraceContext { trace, span: id, flags: known.trace_flags().to_u8() };
        Handle(Arc::new(Self { context, span: Mutex::new(span), tracer: tracer.clone() }))
    }
}

impl Span for Handle {
    fn context(&self) -> TraceContext {
        self.0.context
    }

    fn child(&self, name: &'static str) -> Traced {
        let parent = known_elsewhere(self.0.context);
        let builder = self.0.tracer.span_builder(name).with_kind(kind(name));
        Traced::new(Recorded::begin(&self.0.tracer, builder, &parent))
    }
}

/// What goes to another process, and what stays here.
fn kind(name: &str) -> SpanKind {
    if matches!(name, "forward" | "respond") { SpanKind::Client } else { SpanKind::Internal }
}

/// Goes on with what another node began. One that it does not record is passed on.
struct Remotes(SdkTracer);

impl Tracer for Remotes {
    fn remote(&self, context: TraceContext) -> Traced {
        if context.sampled() {
            Traced::new(Remote { context, tracer: self.0.clone() })
        } else {
            Traced::passed_on(context)
        }
    }
}

/// A span of another node.
struct Remote {
    context: TraceContext,
    tracer: SdkTracer,
}

impl Span for Remote {
    fn context(&self) -> TraceContext {
        self.context
    }

    fn child(&self, name: &'static str) -> Traced {
        let builder = self.tracer.span_builder(name).with_kind(SpanKind::Server);
        Traced::new(Recorded::begin(&self.tracer, builder, &known_elsewhere(self.context)))
    }
}

/// Sends batches from within the runtime; they are made in a thread of their own, which has none.
#[derive(Debug)]
struct Collector {
    http: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

impl HttpClient for Collector {
    fn send_bytes<'a, 'sent>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'sent>>
    where
        'a: 'sent,
        Self: 'sent,
    {
        let sent = self.runtime.spawn(send(self.http.clone(), request));
        Box::pin(async move {
            let sent = sent.await?;
            if let Err(error) = &sent {
                tracing::warn!(error, "spans could not be sent to the collector");
            }
            sent.map_err(HttpError::from)
        })
    }
}

async fn send(http: reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
    // Without the address: it may hold a password.
    let said = |error: reqwest::Error| format!("{:#}", anyhow::Error::from(error.without_url()));
    let answer = http.execute(request.try_into().map_err(said)?).await.map_err(said)?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(said)?;
    if !status.is_success() {
        return Err(format!("it answers {status}"));
    }
    let mut response = Response::new(body);
    *response.status_mut() = status;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parent(last: u8, flags: u8) -> Option<TraceContext> {
        Some(TraceContext { trace: [last; 16], span: [1; 8], flags })
    }

    #[test]
    fn what_the_client_records_is_recorded_here_and_of_the_rest_a_share() {
        assert!(is_recorded(parent(0xff, 1), 0.0, 0.9), "the client records it");
        assert!(is_recorded(parent(0x10, 0), 0.5, 0.9) && !is_recorded(parent(0xf0, 0), 0.5, 0.0), "by its id");
        assert!(is_recorded(parent(0xff, 0), 1.0, 0.0) && !is_recorded(parent(0, 0), 0.0, 0.0));
        assert!(is_recorded(None, 0.5, 0.4) && !is_recorded(None, 0.5, 0.6));
    }

    #[test]
    fn without_a_collector_a_trace_is_passed_on_and_none_begins() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut headers = HeaderMap::new();
        assert!(EdgeSpan::begin(&headers, "GET", "/").traced.is_none());
        headers.insert(TRACEPARENT, text.parse().unwrap());
        let edge = EdgeSpan::begin(&headers, "GET", "/");
        assert_eq!(edge.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let further = edge.traced.child("forward").context().map(|context| context.to_string());
        assert_eq!(further.as_deref(), Some(text));
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        let with =
            |address: &str| TelemetryOptions { otlp_endpoint: address.to_owned(), ..TelemetryOptions::default() };
        assert!(with("").refuse_contradictions().is_ok());
        assert!(with("http://collector:4318").refuse_contradictions().is_ok());
        assert!(with("collector:4318").refuse_contradictions().is_err());
        let share = TelemetryOptions { sample_ratio: 1.5, ..TelemetryOptions::default() };
        assert!(share.refuse_contradictions().is_err());
    }
}
