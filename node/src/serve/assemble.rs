//! The one place where the modules meet: store, auth, responders, conversations and edge, made from the configuration.
//!
//! What it starts runs until the program ends: auth's upkeep, the admin socket, and the owner of the actors' root.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use klatch_actors::membership::views::Views;
use klatch_actors::node::{Cluster, Status};
use klatch_actors::responder::Responders;
use klatch_actors::{Node, NodeOptions};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::{HandOff, Parts};
use crate::auth::{Auth, admin};
use crate::config::{Config, ConfigRefused, Role, StoreKind};
use crate::http::{self, Edge, EdgeOptions, SignIn};
use crate::peers::{LifelongSettings, Lives};
use crate::responders;
use crate::stores::{self, Opened};
use crate::traces;
use crate::webhooks;

/// `listener`: where other nodes connect, if there may be any.
pub(super) async fn assemble(
    config: &Config,
    incarnation: u64,
    listener: Option<TcpListener>,
) -> anyhow::Result<Parts> {
    let Foundation { stores, auth, without_accounts } = found(config).await?;
    let options = EdgeOptions { limits: config.limits.clone(), trust_forwarded_for: config.trust_forwarded_for };
    if config.role == Role::Auth {
        return Ok(only_auth(stores, SignIn { auth, options: Arc::new(options) }, without_accounts));
    }
    let responders = Arc::new(responders::build(&config.responder).map_err(ConfigRefused::from)?);
    let node = start_node(config, incarnation, &stores, listener, responders.clone()).await?;
    let handle = node.handle();
    let edge = Edge::new(handle.clone(), responders, auth.clone(), options);
    tokio::spawn(edge.clone().tell_spending());
    let leave = node.leaver();
    let (hand_off, fault) = own(node);
    let members = handle.clone();
    Ok(Parts {
        routes: http::router(edge),
        status: Arc::new(move || {
            let handle = handle.clone();
            Box::pin(async move { handle.status().await })
        }),
        members: Arc::new(move || {
            let handle = members.clone();
            Box::pin(async move { handle.members().await })
        }),
        reload: Arc::new(move || reload(&auth)),
        leave,
        hand_off,
        flush: Box::new(move || Box::pin(async move { stores.close().await })),
        fault: Box::pin(async move {
            // Without a sender the node was handed off, and has no fault any more.
            if fault.await.is_err() {
                std::future::pending::<()>().await;
            }
        }),
        without_accounts,
    })
}

/// What every role stands on.
struct Foundation {
    stores: Opened,
    auth: Arc<Auth>,
    without_accounts: bool,
}

async fn found(config: &Config) -> anyhow::Result<Foundation> {
    let folder = config.data_folder()?;
    make_folder(&folder)?;
    let stores = open_stores(config).await?;
    let auth = Auth::open(&config.auth, stores.records.clone(), Some(&folder)).map_err(ConfigRefused::from)?;
    let auth = Arc::new(auth);
    let socket =
        admin::bind(&folder).with_context(|| format!("cannot open {}", folder.join(admin::SOCKET).display()))?;
    let without_accounts = auth.list_accounts(None).await.context("cannot read the accounts")?.is_empty();
    tokio::spawn(auth.clone().upkeep());
    tokio::spawn(admin::serve(auth.clone(), socket));
    Ok(Foundation { stores, auth, without_accounts })
}

/// No conversations, and so nothing to join, to hand off or to lose.
fn only_auth(stores: Opened, sign_in: SignIn, without_accounts: bool) -> Parts {
    let auth = sign_in.auth.clone();
    Parts {
        routes: http::auth_router(sign_in),
        status: Arc::new(|| Box::pin(async { Some(Status { joined: true, ..Status::default() }) })),
        members: Arc::new(|| Box::pin(async { Vec::new() })),
        reload: Arc::new(move || reload(&auth)),
        leave: Box::new(|| {}),
        hand_off: Box::new(|_| Box::pin(async {})),
        flush: Box::new(move || Box::pin(async move { stores.close().await })),
        fault: Box::pin(std::future::pending()),
        without_accounts,
    }
}

/// Nobody else has any business there: it holds keys.
fn make_folder(folder: &Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("cannot make the data folder {}", folder.display()))
}

async fn open_stores(config: &Config) -> anyhow::Result<Opened> {
    let address = match config.store_kind()? {
        // Its folder is none of the store's.
        StoreKind::Memory(_) => "memory:",
        StoreKind::File(_) | StoreKind::Redis => &config.store,
    };
    Ok(stores::open(address, &config.redis).await?)
}

async fn start_node(
    config: &Config,
    incarnation: u64,
    stores: &Opened,
    listener: Option<TcpListener>,
    responders: Arc<Responders>,
) -> anyhow::Result<Node> {
    let mut options = NodeOptions::new(config.node_name.as_str(), incarnation, stores.store.clone(), responders);
    if let (Some(views), Some(listener)) = (stores.views.clone(), listener) {
        options.cluster = Some(cluster(config, incarnation, views, listener)?);
    }
    options.webhooks = webhooks::build(&config.webhook).map_err(ConfigRefused::from)?;
    options.tracer = traces::tracer();
    options.limits = config.limits.runtime();
    options.retention_ms = config.retention.conversations_after_ms();
    Node::start(options).await.map_err(|error| anyhow!("the conversations cannot be started: {error}"))
}

fn cluster(config: &Config, incarnation: u64, views: Arc<dyn Views>, listener: TcpListener) -> anyhow::Result<Cluster> {
    let address = config.cluster.advertised(listener.local_addr()?);
    let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host).to_owned();
    let settings = LifelongSettings {
        name: config.node_name.as_str().into(),
        host,
        secret: config.cluster.read_secret()?,
        tls: config.cluster.tls(),
    };
    let (serve, served) = oneshot::channel();
    let peers = Arc::new(Lives::start(settings, incarnation, listener, served)?);
    Ok(Cluster { views, peers, address, serve })
}

/// A task owns the node: it ends when it is handed off, or by a fault.
fn own(mut node: Node) -> (HandOff, oneshot::Receiver<()>) {
    let (hand_off, asked) = oneshot::channel::<(Duration, oneshot::Sender<()>)>();
    let (fault, faults) = oneshot::channel();
    tokio::spawn(async move {
        tokio::select! {
            // Nobody listens any more once the program ends.
            () = node.ended() => drop(fault.send(())),
            Ok((time, done)) = asked => {
                let open = node.drain(time).await;
                tracing::info!(turns.open = open, "the conversations are put away");
                let _ = done.send(());
            }
        }
    });
    let hand_off: HandOff = Box::new(move |time| {
        Box::pin(async move {
            let (done, is_done) = oneshot::channel();
            // A node that has ended by itself has nothing to put away.
            let _ = hand_off.send((time, done));
            let _ = is_done.await;
        })
    });
    (hand_off, faults)
}

/// Keys that cannot be read change nothing.
fn reload(auth: &Auth) {
    match auth.reload() {
        Ok(changed) => tracing::info!(keys.changed = changed, "read the keys again"),
        Err(error) => tracing::error!(error = %ConfigRefused::from(error), "the keys cannot be read again"),
    }
}
