//! The operators' port: metrics, probes and what this node knows of the cluster. Started by `serve` as the first port,
//! and the last to close.
//!
//! Liveness looks at nothing but this process: a probe that asked the store would restart every node when it blips.
//! There is no login: whoever reaches the port may read it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use futures::future::BoxFuture;
use klatch_actors::node::Status;
use metrics_exporter_prometheus::PrometheusHandle;
use metrics_process::Collector;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

const METRICS_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    Starting,
    Serving,
    Draining,
}

/// Asks the actors; none where they are stopping.
pub type StatusSource = Arc<dyn Fn() -> BoxFuture<'static, Option<Status>> + Send + Sync>;

/// What the port shows.
#[derive(Clone)]
pub struct Ops {
    pub node_name: Arc<str>,
    pub incarnation: u64,
    pub readiness: watch::Receiver<Readiness>,
    pub status: StatusSource,
    pub metrics: PrometheusHandle,
}

/// Of one node, as `/cluster` shows it and `klatch cluster` reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeShown {
    pub node: String,
    pub incarnation: u64,
    pub version: String,
    /// Number of the membership table; 0 where this node is alone.
    pub view: u64,
    pub draining: bool,
    pub shards_started: usize,
    pub active_conversations: usize,
    pub open_turns: usize,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    /// Why not.
    reasons: Vec<&'static str>,
}

pub fn router(ops: Ops) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .route("/cluster", get(cluster))
        .with_state(ops)
}

async fn metrics(State(ops): State<Ops>) -> impl IntoResponse {
    Collector::default().collect();
    ([(CONTENT_TYPE, METRICS_FORMAT)], ops.metrics.render())
}

async fn readyz(State(ops): State<Ops>) -> impl IntoResponse {
    let reasons = match *ops.readiness.borrow() {
        Readiness::Serving => Vec::new(),
        Readiness::Starting => vec!["starting: the public port is not open yet"],
        Readiness::Draining => vec!["draining: this node was told to stop"],
    };
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready: reasons.is_empty(), reasons }))
}

async fn cluster(State(ops): State<Ops>) -> Json<NodeShown> {
    let stopping = Status { draining: true, ..Status::default() };
    let status = (ops.status)().await.unwrap_or(stopping);
    let draining = status.draining || *ops.readiness.borrow() == Readiness::Draining;
    Json(NodeShown {
        node: ops.node_name.to_string(),
        incarnation: ops.incarnation,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        view: status.view,
        draining,
        shards_started: status.shards_started,
        active_conversations: status.active_conversations,
        open_turns: status.open_turns,
    })
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, Response};
    use http_body_util::BodyExt;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tower::ServiceExt;

    use super::*;

    fn ops(readiness: Readiness) -> Router {
        router(Ops {
            node_name: "klatch-0".into(),
            incarnation: 7,
            readiness: watch::channel(readiness).1,
            status: Arc::new(|| Box::pin(async { Some(Status { open_turns: 3, ..Status::default() }) })),
            metrics: PrometheusBuilder::new().build_recorder().handle(),
        })
    }

    async fn get(router: Router, path: &str) -> Response<Body> {
        router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap()
    }

    async fn text(response: Response<Body>) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_node_is_ready_only_while_it_serves_and_alive_always() {
        for (readiness, status) in [(Readiness::Starting, 503), (Readiness::Serving, 200), (Readiness::Draining, 503)] {
            assert_eq!(get(ops(readiness), "/readyz").await.status(), status, "{readiness:?}");
            assert_eq!(get(ops(readiness), "/livez").await.status(), 200);
        }
        let said = text(get(ops(Readiness::Draining), "/readyz").await).await;
        assert!(said.contains("draining"), "{said}");
    }

    #[tokio::test]
    async fn the_cluster_is_shown_as_the_client_reads_it() {
        let shown: NodeShown =
            serde_json::from_str(&text(get(ops(Readiness::Serving), "/cluster").await).await).unwrap();
        assert_eq!((shown.node.as_str(), shown.incarnation, shown.open_turns), ("klatch-0", 7, 3));
        assert!(!shown.draining);
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_found() {
        assert_eq!(get(ops(Readiness::Serving), "/v1/conversations").await.status(), 404);
        assert_eq!(get(ops(Readiness::Serving), "/metrics").await.status(), 200);
    }
}
