//! The shipped binary as a process of its own: started on free loopback ports with a folder of its own, killed, frozen,
//! started again, and ended when the test ends.
//!
//! Waits for what the program prints, never for a time to pass; every wait has an end.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

/// A debug build on a busy machine takes seconds to start.
const START_MAX: Duration = Duration::from_secs(60);
/// Until one comes that nobody was given.
const PORTS_TRIED: usize = 100;

/// What a node is started with.
#[derive(Clone, Debug, Default)]
pub struct NodeSettings {
    /// The TOML file, beside what the harness sets itself.
    pub config: String,
    /// `file:` in a folder of its own where empty.
    pub store: String,
    /// Address that its ports are opened at; loopback where none is given.
    pub host: Option<IpAddr>,
    /// Network namespace that it runs in; the test's own where none is given.
    pub namespace: Option<String>,
    pub environment: Vec<(String, String)>,
}

pub struct NodeProcess {
    pub settings: NodeSettings,
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    pub ops_url: String,
    folder: TempDir,
    child: Option<Child>,
}

impl NodeProcess {
    pub async fn start(settings: NodeSettings) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("klatch-test-").tempdir()?;
        std::fs::write(folder.path().join("klatch.toml"), &settings.config)?;
        let host = settings.host.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (url, ops_url) = (format!("http://{host}:{}", free_port()?), format!("http://{host}:{}", free_port()?));
        let mut node = Self { settings, url, ops_url, folder, child: None };
        node.spawn().await?;
        Ok(node)
    }

    /// As an operator's supervisor would: the same folder, the same ports.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.spawn().await
    }

    /// SIGKILL, and waits until the process is gone.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().await?;
        }
        Ok(())
    }

    /// SIGSTOP: it keeps its connections and does nothing.
    pub async fn freeze(&self) -> anyhow::Result<()> {
        self.signal("-STOP").await
    }

    pub async fn thaw(&self) -> anyhow::Result<()> {
        self.signal("-CONT").await
    }

    /// SIGTERM; the exit code once it has drained.
    pub async fn terminate(&mut self) -> anyhow::Result<i32> {
        self.signal("-TERM").await?;
        let mut child = self.child.take().context("the node runs")?;
        let status = tokio::time::timeout(START_MAX, child.wait()).await.context("the node did not drain")??;
        status.code().context("the node ended by a signal")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Id of the process, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// What the node has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Runs another command of the program with this node's settings; its stdout.
    pub async fn command(&self, arguments: &[&str], stdin: &str) -> anyhow::Result<String> {
        let mut command = self.program(arguments)?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("stdin is a pipe")?.write_all(stdin.as_bytes()).await?;
        let output = tokio::time::timeout(START_MAX, child.wait_with_output()).await??;
        if !output.status.success() {
            bail!("klatch {arguments:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    pub async fn token(&self, subject: &str, tenant: &str) -> anyhow::Result<String> {
        let printed = self.command(&["token", "--sub", subject, "--tenant", tenant, "--ttl", "3h"], "").await?;
        Ok(printed.trim().to_owned())
    }

    pub async fn add_user(&self, name: &str, password: &str) -> anyhow::Result<()> {
        self.command(&["user", "add", name], &format!("{password}\n")).await.map(drop)
    }

    async fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let id = self.id().context("the node runs")?;
        let sent = Command::new("kill").arg(signal).arg(id.to_string()).status().await?;
        anyhow::ensure!(sent.success(), "{signal} was not delivered");
        Ok(())
    }

    fn program(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = match &self.settings.namespace {
            None => Command::new(binary()?),
            // It becomes the program, so the process is the node's own.
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(binary()?);
                command
            }
        };
        let store = match self.settings.store.as_str() {
            "" => format!("file:{}", self.folder.path().join("data").display()),
            store => store.to_owned(),
        };
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("KLATCH_STORE", store)
            .env("KLATCH_CONFIG", self.folder.path().join("klatch.toml"))
            .env("KLATCH_HTTP_ADDR", self.url.trim_start_matches("http://"))
            .env("KLATCH_OPS_ADDR", self.ops_url.trim_start_matches("http://"))
            .envs(self.settings.environment.iter().cloned())
            .kill_on_drop(true);
        Ok(command)
    }

    async fn spawn(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.path().join("log"))?;
        let mut command = self.program(&["serve"])?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let stdout = child.stdout.take().context("stdout is a pipe")?;
        let mut lines = BufReader::new(stdout).lines();
        let said = async {
            while let Some(line) = lines.next_line().await? {
                if line.contains(&self.url) {
                    return Ok(());
                }
            }
            bail!("the node ended before it said where it listens: {}", self.log())
        };
        tokio::time::timeout(START_MAX, said).await.context("the node did not start")??;
        // What it prints later is read and dropped, so that a full pipe never stops it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        self.child = Some(child);
        Ok(())
    }
}

static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// Before the first node is started: all are of this program.
pub fn choose_binary(program: PathBuf) -> anyhow::Result<()> {
    anyhow::ensure!(program.is_file(), "there is no program {}", program.display());
    let program = program.canonicalize()?;
    CHOSEN.set(program).map_err(|program| anyhow::anyhow!("another was chosen than {}", program.display()))
}

/// The one that was chosen, that of `KLATCH_BIN`, or the one beside this test in the target folder.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(chosen) = CHOSEN.get() {
        return Ok(chosen.clone());
    }
    if let Some(named) = std::env::var_os("KLATCH_BIN") {
        return Ok(named.into());
    }
    let me = std::env::current_exe()?;
    let folders = me.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join("klatch")).find(|program| program.is_file());
    found.context("there is no klatch beside this test: run `cargo build` first, or set KLATCH_BIN")
}

/// A port that was free a moment ago.
pub fn free_port() -> anyhow::Result<u16> {
    // The system may give one that it has got back again at once, and a node needs three that differ.
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    for _ in 0..PORTS_TRIED {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return Ok(port);
        }
    }
    bail!("of {PORTS_TRIED} free ports each was given to somebody before")
}
