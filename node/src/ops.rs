//! The operators' port: metrics, probes, what this node knows of the cluster, and a page that shows it. Started by `serve` as the first port,
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
use klatch_actors::node::{MemberStatus, Status};
use klatch_protocol::Shard;
use klatch_protocol::ids::SHARDS;
use metrics_exporter_prometheus::PrometheusHandle;
use metrics_process::Collector;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::page;

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

/// Asks all nodes of the view.
pub type MembersSource = Arc<dyn Fn() -> BoxFuture<'static, Vec<MemberStatus>> + Send + Sync>;

/// What the port shows.
#[derive(Clone)]
pub struct Ops {
    pub node_name: Arc<str>,
    pub incarnation: u64,
    pub readiness: watch::Receiver<Readiness>,
    pub status: StatusSource,
    pub members: MembersSource,
    pub metrics: PrometheusHandle,
}

/// Of one node, as `/cluster` shows it and `klatch cluster` reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeShown {
    pub node: String,
    pub incarnation: u64,
    pub version: String,
    /// Number of the view by which this node routes.
    pub view: u64,
    pub draining: bool,
    /// Itself among them, unless it is in no view.
    pub members: Vec<MemberShown>,
}

/// A member of the view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberShown {
    pub node: String,
    pub incarnation: u64,
    /// `joining`, `up` or `leaving`.
    pub status: String,
    /// Where other nodes reach it; empty where there are none.
    pub address: String,
    /// Shards that are its by placement.
    pub shards: usize,
    /// None where it does not say.
    pub load: Option<LoadShown>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadShown {
    /// By which it routes.
    pub view: u64,
    pub shards_started: usize,
    pub active_conversations: usize,
    pub open_turns: usize,
}

/// The placement of all shards by the view by which this node routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct ShardsShown {
    view: u64,
    nodes: Vec<String>,
    /// By shard: the place of its node in `nodes`; null where no node can have it.
    owners: Vec<Option<usize>>,
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
        .route("/cluster/shards", get(shards))
        .with_state(ops)
        .merge(page::operators())
}

async fn metrics(State(ops): State<Ops>) -> impl IntoResponse {
    Collector::default().collect();
    ([(CONTENT_TYPE, METRICS_FORMAT)], ops.metrics.render())
}

async fn readyz(State(ops): State<Ops>) -> impl IntoResponse {
    let readiness = *ops.readiness.borrow();
    let joined = (ops.status)().await.is_some_and(|status| status.joined);
    let reasons = match readiness {
        Readiness::Serving if !joined => vec!["joining: this node is not in the cluster's view"],
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
        view: status.view.number(),
        draining,
        members: (ops.members)().await.into_iter().map(shown).collect(),
    })
}

async fn shards(State(ops): State<Ops>) -> Json<ShardsShown> {
    let view = (ops.status)().await.unwrap_or_default().view;
    let names: Vec<Arc<str>> = view.members().keys().cloned().collect();
    let place = |shard| view.owner(Shard(shard)).and_then(|owner| names.iter().position(|name| *name == owner.name));
    let owners = (0..SHARDS).map(place).collect();
    Json(ShardsShown { view: view.number(), nodes: names.iter().map(ToString::to_string).collect(), owners })
}

fn shown(member: MemberStatus) -> MemberShown {
    let MemberStatus { id, member, shards, load } = member;
    MemberShown {
        node: id.name.to_string(),
        incarnation: id.incarnation,
        status: format!("{:?}", member.status).to_lowercase(),
        address: member.address,
        shards,
        load: load.map(|load| LoadShown {
            view: load.view,
            shards_started: load.shards_started,
            active_conversations: load.active_conversations,
            open_turns: load.open_turns,
        }),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::{Request, Response};
    use http_body_util::BodyExt;
    use klatch_actors::gateway::forward::NodeLoad;
    use klatch_actors::membership::view::{Member, View};
    use klatch_actors::peers::PeerId;
    use klatch_protocol::view::MemberStatus::Up;
    use klatch_protocol::view::{Row, ViewTable};
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tower::ServiceExt;

    use super::*;

    fn member() -> MemberStatus {
        let load = NodeLoad { open_turns: 3, ..NodeLoad::default() };
        let member = Member { incarnation: 7, status: Up, address: "a:1".into() };
        MemberStatus { id: PeerId { name: "klatch-0".into(), incarnation: 7 }, member, shards: 1024, load: Some(load) }
    }

    fn ops(readiness: Readiness) -> Router {
        router(shown_ops(readiness))
    }

    fn shown_ops(readiness: Readiness) -> Ops {
        Ops {
            node_name: "klatch-0".into(),
            incarnation: 7,
            readiness: watch::channel(readiness).1,
            status: Arc::new(|| Box::pin(async { Some(Status { joined: true, ..Status::default() }) })),
            members: Arc::new(|| Box::pin(async { vec![member()] })),
            metrics: PrometheusBuilder::new().build_recorder().handle(),
        }
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
        assert_eq!((shown.node.as_str(), shown.incarnation), ("klatch-0", 7));
        let load = shown.members[0].load.as_ref().map(|load| load.open_turns);
        assert_eq!((shown.members[0].status.as_str(), shown.members[0].shards, load), ("up", 1024, Some(3)));
        assert!(!shown.draining);
    }

    #[tokio::test]
    async fn the_map_places_every_shard_as_the_view_does() {
        let nobody: serde_json::Value =
            serde_json::from_str(&text(get(ops(Readiness::Serving), "/cluster/shards").await).await).unwrap();
        assert_eq!(nobody["owners"].as_array().unwrap().len(), usize::from(SHARDS));
        assert!(nobody["owners"][0].is_null(), "a view of nobody places nothing");
        let row = || Row { incarnation: 1, address: String::new(), status: Up, format: 1 };
        let rows = ["a", "b"].map(|name| (name.to_owned(), row())).into();
        let view = View::new(&ViewTable { number: 1, rows });
        let seen = view.clone();
        let status = Arc::new(move || -> BoxFuture<'static, Option<Status>> {
            let status = Status { view: seen.clone(), ..Status::default() };
            Box::pin(async { Some(status) })
        });
        let shown = text(get(router(Ops { status, ..shown_ops(Readiness::Serving) }), "/cluster/shards").await).await;
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let names = ["a", "b"];
        for (shard, owner) in shown["owners"].as_array().unwrap().iter().enumerate() {
            let name = names[owner.as_u64().unwrap() as usize];
            assert_eq!(view.owner(Shard(shard as u16)).unwrap().name.as_ref(), name);
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_found() {
        assert_eq!(get(ops(Readiness::Serving), "/v1/conversations").await.status(), 404);
        assert_eq!(get(ops(Readiness::Serving), "/metrics").await.status(), 200);
    }
}
