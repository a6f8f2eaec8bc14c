//! What is measured: each subject with its servers, started on free ports with temporary folders, and ended when it is
//! dropped.

mod start;

use std::net::SocketAddr;

use clap::ValueEnum;
use klatch_tests::cluster::ClusterProcesses;
use klatch_tests::model_server::ModelServer;
use klatch_tests::nginx::Nginx;
use klatch_tests::process::NodeProcess;
use klatch_tests::redis_server::RedisServer;

use crate::contents::Contents;
use crate::program::Program;

/// In the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Subject {
    Echo,
    Append,
    Stateless,
    Optimistic,
    Locking,
    Klatch,
    Embedded,
    Forwarded,
    Openai,
    EchoNginx,
    OptimisticNginx,
    KlatchPlainNginx,
    KlatchNginx,
    Flask,
}

impl Subject {
    pub fn title(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Append => "append",
            Self::Stateless => "stateless",
            Self::Optimistic => "optimistic",
            Self::Locking => "locking",
            Self::Klatch => "Klatch",
            Self::Embedded => "Klatch, embedded",
            Self::Forwarded => "Klatch, forwarded",
            Self::Openai => "Klatch, openai",
            Self::EchoNginx => "echo behind NGINX",
            Self::OptimisticNginx => "optimistic behind NGINX",
            Self::KlatchPlainNginx => "Klatch behind a plain NGINX",
            Self::KlatchNginx => "Klatch behind NGINX",
            Self::Flask => "Flask behind NGINX",
        }
    }

    pub fn is_klatch(self) -> bool {
        matches!(
            self,
            Self::Klatch | Self::Embedded | Self::Forwarded | Self::Openai | Self::KlatchPlainNginx | Self::KlatchNginx
        )
    }

    /// What the model says to that.
    pub fn reply(self, input: &str) -> String {
        match self {
            Self::Openai => format!("You said: {input}"),
            _ => input.to_owned(),
        }
    }

    /// Of so many turns those that it makes in a round: slow ones would need minutes, and fewer tell as much.
    pub fn turns(self, turns: usize) -> usize {
        match self {
            Self::Openai | Self::Flask => turns.div_ceil(12),
            _ => turns,
        }
    }
}

/// Whose CPU time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Server,
    Redis,
    Nginx,
}

impl Part {
    pub const ALL: [Self; 3] = [Self::Server, Self::Redis, Self::Nginx];

    pub fn title(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Redis => "Redis",
            Self::Nginx => "NGINX",
        }
    }
}

/// A subject whose servers run.
pub struct Running {
    pub subject: Subject,
    /// Where requests are sent.
    pub address: SocketAddr,
    pub token: String,
    pub model: &'static str,
    pub contents: Contents,
    servers: Servers,
}

/// Dropped from the edge inwards.
#[derive(Default)]
struct Servers {
    nginx: Option<Nginx>,
    program: Option<Program>,
    node: Option<NodeProcess>,
    cluster: Option<ClusterProcesses>,
    redis: Option<RedisServer>,
    /// Its time is nobody's: it stands for a machine of its own.
    _model: Option<ModelServer>,
}

impl Running {
    /// Every process that has a part in a turn.
    pub fn processes(&self) -> Vec<(Part, u32)> {
        let Servers { nginx, program, node, cluster, redis, .. } = &self.servers;
        let nodes = node.iter().chain(cluster.iter().flat_map(|cluster| &cluster.nodes)).filter_map(NodeProcess::id);
        let servers = nodes.chain(program.iter().map(Program::id)).map(|id| (Part::Server, id));
        let stores = redis.iter().chain(cluster.iter().map(|cluster| &cluster.redis)).filter_map(RedisServer::id);
        let stores = stores.map(|id| (Part::Redis, id));
        servers.chain(stores).chain(nginx.iter().map(|nginx| (Part::Nginx, nginx.id()))).collect()
    }
}
