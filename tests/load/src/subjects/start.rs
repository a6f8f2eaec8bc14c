//! How each subject is started. Every Redis keeps its data as a careful user would have it: `appendonly yes`, `appendfsync
//! everysec`, no snapshots.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use jsonwebtoken::{EncodingKey, Header};
use klatch_tests::client::Api;
use klatch_tests::cluster::{ClusterProcesses, ClusterSettings, Links};
use klatch_tests::markdown::root;
use klatch_tests::model_server::ModelServer;
use klatch_tests::nginx::Nginx;
use klatch_tests::process::{NodeProcess, NodeSettings, free_port};
use klatch_tests::redis_server::RedisServer;
use redis::aio::MultiplexedConnection;
use serde_json::json;

use super::{Running, Servers, Subject};
use crate::contents::Contents;
use crate::program::Program;

const SECRET: &str = "the secret of a measurement, which needs none";
const OWNER: &str = "ann";
const TOKEN_TTL: Duration = Duration::from_secs(12 * 3600);
/// Of the node that the conversations of `forwarded` belong to; requests go to node 0.
const OWNING_NODE: usize = 1;
/// Processes of gunicorn: with one core more than two only take turns.
const FLASK_PROCESSES: &str = "2";
const MODEL: &str = "model";

impl Running {
    pub async fn start(subject: Subject, connections: usize) -> anyhow::Result<Self> {
        let started = match subject {
            Subject::Echo | Subject::EchoNginx => Self::baseline(subject, "echo").await,
            Subject::Append => Self::baseline(subject, "append").await,
            Subject::Stateless => Self::baseline(subject, "stateless").await,
            Subject::Optimistic | Subject::OptimisticNginx => Self::baseline(subject, "optimistic").await,
            Subject::Locking => Self::baseline(subject, "locking").await,
            Subject::Klatch | Subject::KlatchPlainNginx | Subject::KlatchNginx => {
                Self::cluster(subject, 1, None, connections).await
            }
            Subject::Forwarded => Self::cluster(subject, 2, None, connections).await,
            Subject::Openai => Self::cluster(subject, 1, Some(ModelServer::start().await?), connections).await,
            Subject::Embedded => Self::embedded().await,
            Subject::Flask => Self::flask().await,
        };
        started.with_context(|| format!("{} cannot be started", subject.title()))
    }

    /// Conversations that are new.
    pub async fn conversations(&self, count: usize) -> anyhow::Result<Vec<String>> {
        let Contents::Klatch { api, url, .. } = &self.contents else { return (0..count).map(|_| new_id()).collect() };
        if let (Subject::Forwarded, Some(cluster)) = (self.subject, &self.servers.cluster) {
            return cluster.owned_by(OWNING_NODE, api, count).await;
        }
        let mut created = Vec::new();
        for _ in 0..count {
            created.push(api.create(url).await?);
        }
        Ok(created)
    }

    async fn baseline(subject: Subject, mode: &str) -> anyhow::Result<Self> {
        let redis = if mode == "echo" { None } else { Some(everysec().await?) };
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut command = Command::new(beside("baseline")?);
        command.args([mode, "--addr", &address]).env("BASELINE_SECRET", SECRET);
        let mut contents = Contents::Nothing;
        if let Some(redis) = &redis {
            command.args(["--redis", &redis.url()]);
            contents = Contents::Lists { redis: connection(redis).await?, owner: OWNER };
        }
        let program = Program::start(&format!("baseline {mode}"), command, &address)?;
        let nginx = match subject {
            Subject::EchoNginx | Subject::OptimisticNginx => Some(Nginx::start_plain(&address).await?),
            _ => None,
        };
        let address = nginx.as_ref().map_or(address.as_str(), |nginx| nginx.url.as_str());
        let address = socket(address)?;
        let servers = Servers { nginx, program: Some(program), redis, ..Servers::default() };
        Ok(Self { subject, address, token: token()?, model: "echo", contents, servers })
    }

    async fn flask() -> anyhow::Result<Self> {
        let gunicorn = root().join("target/venv-flask/bin/gunicorn");
        ensure!(
            gunicorn.is_file(),
            "there is no {}: run `python3 -m venv target/venv-flask`, and \
             `target/venv-flask/bin/pip install -r tests/load/flask/requirements.txt`",
            gunicorn.display()
        );
        let redis = everysec().await?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut command = Command::new(gunicorn);
        command.args(["--bind", &address, "--workers", FLASK_PROCESSES, "--worker-class", "sync", "app:app"]);
        command.current_dir(root().join("tests/load/flask")).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("REDIS_URL", redis.url()).env("BASELINE_SECRET", SECRET);
        let program = Program::start("gunicorn", command, "Booting worker")?;
        let nginx = Nginx::start_plain(&address).await?;
        let contents = Contents::Values { redis: connection(&redis).await?, owner: OWNER };
        let address = socket(&nginx.url)?;
        let servers = Servers { nginx: Some(nginx), program: Some(program), redis: Some(redis), ..Servers::default() };
        Ok(Self { subject: Subject::Flask, address, token: token()?, model: "echo", contents, servers })
    }

    async fn cluster(
        subject: Subject,
        nodes: usize,
        model: Option<ModelServer>,
        connections: usize,
    ) -> anyhow::Result<Self> {
        let sections = model.as_ref().map(|model| {
            let url = model.base_url();
            format!("[[responder]]\nname = \"{MODEL}\"\nkind = \"openai\"\nbase_url = \"{url}\"\nconcurrency = {connections}\n")
        });
        let sections = sections.unwrap_or_default();
        let settings = ClusterSettings { nodes, links: Links::Direct, limits: String::new(), sections };
        let cluster = ClusterProcesses::start(settings).await?;
        let mut everysec = redis::cmd("CONFIG");
        everysec.arg("SET").arg("appendfsync").arg("everysec");
        everysec.exec_async(&mut connection(&cluster.redis).await?).await?;
        let (contents, token) = klatch(&cluster.nodes[0]).await?;
        let nginx = match subject {
            Subject::KlatchPlainNginx => {
                Some(Nginx::start_plain(cluster.nodes[0].url.trim_start_matches("http://")).await?)
            }
            Subject::KlatchNginx => Some(Nginx::start_for_load(&cluster.nodes[0].url).await?),
            _ => None,
        };
        let address = socket(nginx.as_ref().map_or(&cluster.nodes[0].url, |nginx| &nginx.url))?;
        let shown = if model.is_some() { MODEL } else { "echo" };
        let servers = Servers { nginx, cluster: Some(cluster), _model: model, ..Servers::default() };
        Ok(Self { subject, address, token, model: shown, contents, servers })
    }

    async fn embedded() -> anyhow::Result<Self> {
        let config = "[limits]\nrequests_per_minute = 1000000000\n".to_owned();
        let node = NodeProcess::start(NodeSettings { config, ..NodeSettings::default() }).await?;
        let (contents, token) = klatch(&node).await?;
        let address = socket(&node.url)?;
        let servers = Servers { node: Some(node), ..Servers::default() };
        Ok(Self { subject: Subject::Embedded, address, token, model: "echo", contents, servers })
    }
}

async fn klatch(node: &NodeProcess) -> anyhow::Result<(Contents, String)> {
    let token = node.token(OWNER, "default").await?;
    let http = reqwest::Client::builder().no_proxy().tcp_nodelay(true).build()?;
    let contents =
        Contents::Klatch { api: Api::new(token.clone())?, http, url: node.url.clone(), token: token.clone() };
    Ok((contents, token))
}

async fn everysec() -> anyhow::Result<RedisServer> {
    RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "everysec"]).await
}

async fn connection(redis: &RedisServer) -> anyhow::Result<MultiplexedConnection> {
    Ok(redis::Client::open(redis.url())?.get_multiplexed_async_connection().await?)
}

/// A token of the baselines.
fn token() -> anyhow::Result<String> {
    let expires = SystemTime::now().duration_since(UNIX_EPOCH)? + TOKEN_TTL;
    let claims = json!({"sub": OWNER, "exp": expires.as_secs()});
    Ok(jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes()))?)
}

fn new_id() -> anyhow::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(format!("conv_{:032x}", u128::from_be_bytes(bytes)))
}

fn socket(url: &str) -> anyhow::Result<SocketAddr> {
    url.trim_start_matches("http://").parse().with_context(|| format!("{url} is no address"))
}

/// A program in the folder of this one.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name(name);
    ensure!(program.is_file(), "there is no {}: build all of klatch-load", program.display());
    Ok(program)
}
