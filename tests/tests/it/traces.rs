//! One turn through two nodes is one trace, from the client's span to the model server's, as a collector sees it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context, bail, ensure};
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use klatch_tests::cluster::{ClusterProcesses, ClusterSettings, Links, until};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Said;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use prost::Message;
use serde_json::{Value, json};

use crate::cluster::alone;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
const CLIENT: &str = "00f067aa0ba902b7";
const SECRET: &str = "nobody else must read this";

/// A collector, and a model server that says which trace it was called in.
#[derive(Clone, Default)]
struct Beside {
    batches: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Beside {
    async fn start(&self) -> anyhow::Result<String> {
        let routes = Router::new().route("/v1/traces", post(collect)).route("/v1/chat/completions", post(complete));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(axum::serve(listener, routes.with_state(self.clone())).into_future());
        Ok(format!("http://{address}"))
    }

    /// All spans, each with the node that sent it.
    fn spans(&self) -> Vec<(String, Span)> {
        let batches = self.batches.lock().expect("nobody panics with it").clone();
        let resources = batches.into_iter().flat_map(|batch| batch.resource_spans);
        let of = |resource: ResourceSpans| {
            let node = node_of(&resource);
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.map(|span| (node.clone(), span)).collect::<Vec<_>>()
        };
        resources.flat_map(of).collect()
    }

    fn calls(&self) -> Vec<String> {
        self.calls.lock().expect("nobody panics with it").clone()
    }
}

async fn collect(State(beside): State<Beside>, body: Bytes) -> Bytes {
    let batch = ExportTraceServiceRequest::decode(body).expect("a batch is what OTLP says");
    beside.batches.lock().expect("nobody panics with it").push(batch);
    Bytes::new()
}

async fn complete(State(beside): State<Beside>, headers: HeaderMap) -> Json<Value> {
    let parent = headers.get("traceparent").and_then(|value| value.to_str().ok()).unwrap_or_default();
    beside.calls.lock().expect("nobody panics with it").push(parent.to_owned());
    let message = json!({"role": "assistant", "content": SECRET});
    Json(
        json!({"id": "c", "object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}),
    )
}

fn node_of(resource: &ResourceSpans) -> String {
    let attributes = resource.resource.iter().flat_map(|resource| &resource.attributes);
    let mut named = attributes.filter(|attribute| attribute.key == "service.instance.id");
    match named.next().and_then(|attribute| attribute.value.clone()?.value) {
        Some(Said::StringValue(name)) => name,
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_turn_through_two_nodes_is_one_trace() -> anyhow::Result<()> {
    let _alone = alone().await;
    let beside = Beside::default();
    let address = beside.start().await?;
    let sections = format!(
        "[log]\nlevel = \"info,klatch::http=debug\"\n\n[telemetry]\notlp_endpoint = \"{address}\"\nsample_ratio = 0.0\n\n\
         [[responder]]\nname = \"model\"\nkind = \"openai\"\nbase_url = \"{address}/v1\"\n"
    );
    let settings = ClusterSettings { nodes: 2, links: Links::Direct, limits: String::new(), sections };
    let mut cluster = ClusterProcesses::start(settings).await?;
    let api = cluster.api("ann").await?;
    let conversation = cluster.owned_by(1, &api, 1).await?.remove(0);
    let token = cluster.nodes[0].token("ann", "default").await?;
    let edge = format!("{}/v1/responses", cluster.nodes[0].url);
    for parent in [UNSAMPLED, &format!("00-{TRACE}-{CLIENT}-01")] {
        let body = json!({"model": "model", "input": SECRET, "conversation": conversation});
        let request = reqwest::Client::new().post(&edge).bearer_auth(&token).header("traceparent", parent);
        let answer: Value = request.json(&body).send().await?.error_for_status()?.json().await?;
        ensure!(answer["status"] == "completed", "{answer}");
    }
    // What is not sent yet is sent at the end.
    for node in &mut cluster.nodes {
        ensure!(node.terminate().await? == 0, "a node did not end clean");
    }
    let logged = format!("trace.id=\"{TRACE}\"");
    ensure!(cluster.nodes[0].log().contains(&logged), "the edge's log does not say {logged}");
    until("the whole trace is there", async || check(&beside.spans(), &beside.calls())).await
}

/// The one trace, and nothing but it.
fn check(spans: &[(String, Span)], calls: &[String]) -> anyhow::Result<()> {
    let strange = spans.iter().find(|(_, span)| hex(&span.trace_id) != TRACE);
    ensure!(strange.is_none(), "a span of no recorded trace: {strange:?}");
    ensure!(!format!("{spans:?}").contains(SECRET), "a span holds what was said");
    let [unsampled, sampled] = calls else { bail!("the model was called {calls:?}") };
    ensure!(unsampled == UNSAMPLED, "a trace that nobody records is passed on as it is, and not as {unsampled}");

    let mut found: BTreeMap<&str, Vec<(&str, &Span)>> = BTreeMap::new();
    for (node, span) in spans {
        found.entry(&span.name).or_default().push((node, span));
    }
    let names: Vec<_> = found.keys().copied().collect();
    ensure!(names == ["POST /v1/responses", "append", "forward", "respond", "turn"], "there are {names:?}");
    let one = |name: &str, node: &str| {
        let [(its_node, span)] = found[name][..] else { bail!("{name} is there {} times", found[name].len()) };
        ensure!(its_node == node, "{name} was done by {its_node}");
        anyhow::Ok(span)
    };
    let edge = one("POST /v1/responses", "node-0")?;
    let forward = one("forward", "node-0")?;
    let turn = one("turn", "node-1")?;
    let respond = one("respond", "node-1")?;
    ensure!(hex(&edge.parent_span_id) == CLIENT, "the edge is no part of the client's span");
    for (span, parent) in [(forward, edge), (turn, forward), (respond, turn)] {
        ensure!(span.parent_span_id == parent.span_id, "{} is no part of {}", span.name, parent.name);
        ensure!(span.start_time_unix_nano >= parent.start_time_unix_nano, "{} began before {}", span.name, parent.name);
    }
    for (node, append) in &found["append"] {
        ensure!(*node == "node-1" && append.parent_span_id == turn.span_id, "an append is no part of its turn");
        ensure!(append.end_time_unix_nano <= turn.end_time_unix_nano, "the turn ended before its append");
    }
    ensure!(found["append"].len() == 2, "the turn begins and ends in {} appends", found["append"].len());
    ensure!(*sampled == format!("00-{TRACE}-{}-01", hex(&respond.span_id)), "the model was called in {sampled}");
    edge.attributes.iter().find(|it| it.key == "http.response.status_code").context("the edge says no status")?;
    Ok(())
}
