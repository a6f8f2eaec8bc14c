//! A host that runs a node: everything that `klatch serve` assembles but its ops port, its admin socket and its data folder.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::middleware::{Next, from_fn};
use klatch::auth::{Auth, AuthOptions};
use klatch::config::LimitOptions;
use klatch::http::{self, Edge, EdgeOptions};
use klatch::net::Net;
use klatch::peers::{LifelongSettings, Lives};
use klatch::serve::listener::Port;
use klatch::stores::records::Records;
use klatch::stores::redis::{Address, Dialler, RedisOptions, RedisStore};
use klatch_actors::node::Cluster;
use klatch_actors::{Limits, Node, NodeOptions};
use tokio::sync::oneshot;

use crate::carrier::ThinCarriers;
use crate::net::Wire;
use crate::planted::{FormerLives, Planted};
use crate::responder;
use crate::shared::Shared;

pub const HTTP_PORT: u16 = 8_080;
pub const PEERS_PORT: u16 = 7_946;
const CONNECTIONS_MAX: usize = 1_000;
/// Between the incarnations of two lives: a node that is declared dead counts its own up.
const LIFE: u64 = 1_000;
/// A supervisor starts a program again that could not start.
const START_AGAIN: Duration = Duration::from_millis(500);
/// A stream that is silent says so much more often than in production, so that a client's patience can be short.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// What all nodes of a world have.
#[derive(Clone)]
pub struct Common {
    pub shared: Arc<Shared>,
    pub net: Wire,
    /// Of Redis, or of a sentinel.
    pub store: String,
    pub secret_file: PathBuf,
    pub lives: Rc<Cell<u64>>,
    pub former: Arc<FormerLives>,
}

/// The tokens that all nodes believe.
pub fn auth_options(secret_file: PathBuf) -> AuthOptions {
    AuthOptions { hs256_secret_file: Some(secret_file), ..AuthOptions::default() }
}

/// Times that make an outage short, in the proportions of production.
fn redis_options() -> RedisOptions {
    RedisOptions { replica_timeout: Duration::from_millis(200), ..RedisOptions::default() }
}

fn limits() -> LimitOptions {
    let runtime = Limits { compact_after_entries: 24, idle_after: Duration::from_secs(4), ..Limits::default() };
    LimitOptions {
        keep_alive: KEEP_ALIVE,
        compact_after_entries: runtime.compact_after_entries,
        idle_after: runtime.idle_after,
        ..LimitOptions::default()
    }
}

/// Serves until its host crashes.
pub async fn serve(name: String, common: Common) -> turmoil::Result {
    common.lives.set(common.lives.get() + 1);
    let incarnation = common.lives.get() * LIFE;
    common.shared.trace(format_args!("start {name}.{incarnation}"));
    let address = Address::parse(&common.store)?;
    let store = loop {
        let dialler = Dialler::Other(Arc::new(common.net.clone()));
        match RedisStore::open_by(dialler, &address, &redis_options()).await {
            Ok(store) => break Arc::new(store),
            Err(_) => tokio::time::sleep(START_AGAIN).await,
        }
    };
    let (net, responders) = (common.net.clone(), Arc::new(responder::responders(&common.shared.dice)));
    let is_former = common.shared.planted == Some(Planted::FormerLife);
    let carriers = ThinCarriers { shared: common.shared.clone(), former: is_former.then(|| common.former.clone()) };
    let settings = LifelongSettings {
        name: name.as_str().into(),
        host: name.clone(),
        secret: b"what the nodes of a simulated world share".to_vec(),
        tls: None,
    };
    let (serve, served) = oneshot::channel();
    let port = net.listen(([0, 0, 0, 0], PEERS_PORT).into()).await?;
    let peers = Lives::start_over(Arc::new(net.clone()), Arc::new(carriers), settings, incarnation, port, served)?;
    let cluster =
        Cluster { views: store.clone(), peers: Arc::new(peers), address: format!("{name}:{PEERS_PORT}"), serve };
    let limits = limits();
    let options = NodeOptions {
        cluster: Some(cluster),
        limits: limits.runtime(),
        ..NodeOptions::new(name.as_str(), incarnation, store.clone(), responders.clone())
    };
    let mut node = Node::start(options).await.map_err(|error| anyhow!("node {name} did not start: {error}"))?;
    let records: Arc<dyn Records> = store;
    let auth = Arc::new(Auth::open(&auth_options(common.secret_file), records, None)?);
    let edge = Edge::new(node.handle(), responders, auth, EdgeOptions { limits, ..EdgeOptions::default() });
    tokio::spawn(edge.clone().tell_spending());
    let routes = if common.shared.planted == Some(Planted::ResumedLate) {
        Router::new().fallback_service(http::router(edge)).layer(from_fn(resume_late))
    } else {
        http::router(edge)
    };
    let port = net.listen(([0, 0, 0, 0], HTTP_PORT).into()).await?;
    let _port = Port::open("http", port, routes, CONNECTIONS_MAX)?;
    common.shared.trace(format_args!("up {name}.{incarnation}"));
    node.ended().await;
    Err(anyhow!("node {name} ended by itself").into())
}

/// Planted.
async fn resume_late(mut request: Request, next: Next) -> axum::response::Response {
    let uri = request.uri().to_string();
    if let Some((before, after)) = uri.split_once("starting_after=")
        && let Ok(after) = after.parse::<u64>()
        && let Ok(later) = format!("{before}starting_after={}", after + 1).parse::<Uri>()
    {
        *request.uri_mut() = later;
    }
    next.run(request).await
}
