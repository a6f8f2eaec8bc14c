//! NGINX as it is shipped: the files of `nginx/` before nodes of a test's own, with a certificate of its own. Only addresses,
//! ports and the certificate's folder are put in their place; a file that does not have them where they are looked for fails
//! the test.
//!
//! Runs in a folder of its own, as whoever runs the test, and ends with it.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::Value;
use tempfile::TempDir;

use crate::cluster::until;
use crate::process::free_port;

/// Its workers have a moment to put away what they do.
const STOP_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

pub struct Nginx {
    /// `https://localhost:PORT`.
    pub url: String,
    /// `http://127.0.0.1:PORT` of stub_status and healthz.
    pub status_url: String,
    folder: TempDir,
    child: Child,
}

impl Nginx {
    /// Before the nodes at these URLs, once it answers.
    pub async fn start(nodes: &[String]) -> anyhow::Result<Self> {
        Self::start_with(nodes, nodes, "").await
    }

    /// With others that sign in, and with lines of its own in place of trusted-proxies.conf.
    pub async fn start_with(nodes: &[String], sign_in: &[String], trusted: &str) -> anyhow::Result<Self> {
        let folder = new_folder()?;
        let (port, status_port) = (free_port()?, free_port()?);
        certify(folder.path())?;
        lay(folder.path(), port, status_port)?;
        let conf = folder.path().join("conf");
        upstreams(&conf.join("upstreams.conf"), nodes)?;
        upstreams(&conf.join("upstreams-auth.conf"), sign_in)?;
        if !trusted.is_empty() {
            std::fs::write(conf.join("trusted-proxies.conf"), trusted)?;
        }
        Self::answering(folder, format!("https://localhost:{port}"), status_port).await
    }

    /// For a measurement: before one node as it is shipped, but in the clear, and with room for one client's load.
    pub async fn start_for_load(node: &str) -> anyhow::Result<Self> {
        let folder = new_folder()?;
        let (port, status_port) = (free_port()?, free_port()?);
        certify(folder.path())?;
        lay(folder.path(), port, status_port)?;
        let conf = folder.path().join("conf");
        upstreams(&conf.join("upstreams.conf"), &[node.to_owned()])?;
        upstreams(&conf.join("upstreams-auth.conf"), &[node.to_owned()])?;
        put(&conf.join("klatch/site.conf"), &format!(":{port} ssl http2;"), &format!(":{port};"))?;
        put(&conf.join("klatch/limits.conf"), "rate=200r/s;", "rate=1000000r/s;")?;
        Self::answering(folder, format!("http://127.0.0.1:{port}"), status_port).await
    }

    /// For a measurement: a proxy that keeps its connections to one server, and does nothing else.
    pub async fn start_plain(server: &str) -> anyhow::Result<Self> {
        let folder = new_folder()?;
        let (port, status_port) = (free_port()?, free_port()?);
        std::fs::create_dir(folder.path().join("conf"))?;
        let server = server.trim_start_matches("http://");
        std::fs::write(folder.path().join("conf/nginx.conf"), plain(server, port, status_port))?;
        Self::answering(folder, format!("http://127.0.0.1:{port}"), status_port).await
    }

    async fn answering(folder: TempDir, url: String, status_port: u16) -> anyhow::Result<Self> {
        let child = spawn(folder.path())?;
        let status_url = format!("http://127.0.0.1:{status_port}");
        let nginx = Self { url, status_url, folder, child };
        let http = reqwest::Client::builder().no_proxy().build()?;
        let alive = async || {
            http.get(format!("{}/healthz", nginx.status_url)).send().await?.error_for_status()?;
            Ok(())
        };
        until("NGINX answers", alive).await.with_context(|| nginx.complaints())?;
        Ok(nginx)
    }

    /// The certificate that signed its own, as a file in PEM.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("tls/authority.crt")
    }

    /// A client that trusts it.
    pub fn client(&self) -> anyhow::Result<reqwest::ClientBuilder> {
        let authority = reqwest::Certificate::from_pem(&std::fs::read(self.authority())?)?;
        Ok(reqwest::Client::builder().no_proxy().tls_certs_only([authority]))
    }

    /// As an operator does it: new workers take over, the old ones finish what they have.
    pub fn reload(&self) -> anyhow::Result<()> {
        let output = command(self.folder.path()).args(["-s", "reload"]).output()?;
        ensure!(output.status.success(), "nginx -s reload: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Id of the master, whose children serve.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Processes that serve, those that only finish included.
    pub fn workers(&self) -> anyhow::Result<Vec<u32>> {
        let master = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children"))?;
        Ok(children.split_whitespace().filter_map(|id| id.parse().ok()).collect())
    }

    /// The lines of the access log that are whole.
    pub fn log(&self) -> anyhow::Result<Vec<Value>> {
        let bytes = std::fs::read(self.folder.path().join("access.log"))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text = std::str::from_utf8(&bytes[..whole]).context("the access log is not UTF-8")?;
        let parse = |line: &str| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"));
        text.lines().map(parse).collect()
    }

    /// What it said of errors.
    pub fn complaints(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // A master that is killed leaves its workers behind.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < STOP_MAX {
            std::thread::sleep(POLL);
        }
    }
}

fn new_folder() -> anyhow::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("klatch-nginx-").tempdir()?;
    // Workers of a master that is root are not.
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755))?;
    Ok(folder)
}

/// As whoever reads NGINX's own pages would write it, with its default log.
fn plain(server: &str, port: u16, status_port: u16) -> String {
    format!(
        "worker_processes auto;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path unused-fastcgi;
    uwsgi_temp_path unused-uwsgi;
    scgi_temp_path unused-scgi;
    access_log /dev/stdout;
    client_body_buffer_size 64k;
    keepalive_requests 100000;
    upstream server {{
        server {server};
        keepalive 64;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_pass http://server;
        }}
    }}
    server {{
        listen 127.0.0.1:{status_port};
        location = /healthz {{ return 200; }}
    }}
}}
"
    )
}

/// The shipped files, with what is this test's own in them.
fn lay(folder: &Path, port: u16, status_port: u16) -> anyhow::Result<()> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nginx");
    let (conf, tls) = (folder.join("conf"), folder.join("tls"));
    copy(&shipped, &conf)?;
    put(&conf.join("klatch/site.conf"), "listen 8443 ", &format!("listen 127.0.0.1:{port} "))?;
    put(&conf.join("klatch/site.conf"), "/etc/klatch/tls/tls.crt", &tls.join("tls.crt").display().to_string())?;
    put(&conf.join("klatch/site.conf"), "/etc/klatch/tls/tls.key", &tls.join("tls.key").display().to_string())?;
    put(&conf.join("klatch/status.conf"), "listen 8090;", &format!("listen 127.0.0.1:{status_port};"))
}

/// With the options of the first server that is shipped.
fn upstreams(file: &Path, nodes: &[String]) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file)?;
    let of = |line: &&str| line.starts_with("server ");
    let options = text.lines().find(of).and_then(|line| line.splitn(3, ' ').nth(2)).context("no server is shipped")?;
    let servers = nodes.iter().map(|url| format!("server {} {options}\n", url.trim_start_matches("http://")));
    Ok(std::fs::write(file, servers.collect::<String>())?)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("{}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?
        } else {
            std::fs::write(target, std::fs::read(entry.path())?)?
        }
    }
    Ok(())
}

/// Replaces what must be there once.
fn put(file: &Path, shipped: &str, own: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(file)?;
    ensure!(text.matches(shipped).count() == 1, "{} should have {shipped:?} once", file.display());
    Ok(std::fs::write(file, text.replace(shipped, own))?)
}

/// An authority, and a certificate for this machine.
fn certify(folder: &Path) -> anyhow::Result<()> {
    let tls = folder.join("tls");
    std::fs::create_dir(&tls)?;
    let (root, key) = (KeyPair::generate()?, KeyPair::generate()?);
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, "an authority of these tests");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = parameters.self_signed(&root)?;
    let issuer = Issuer::new(parameters, root);
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut parameters = CertificateParams::new(names)?;
    // Under the authority's name it would be taken for signed by itself; and some clients insist on who issued it.
    parameters.distinguished_name.push(DnType::CommonName, "localhost");
    parameters.use_authority_key_identifier_extension = true;
    let certificate = parameters.signed_by(&key, &issuer)?;
    std::fs::write(tls.join("authority.crt"), authority.pem())?;
    std::fs::write(tls.join("tls.crt"), certificate.pem())?;
    Ok(std::fs::write(tls.join("tls.key"), key.serialize_pem())?)
}

fn command(folder: &Path) -> Command {
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(folder.join("conf/nginx.conf"));
    command
}

fn spawn(folder: &Path) -> anyhow::Result<Child> {
    let file = |name: &str| std::fs::File::options().create(true).append(true).open(folder.join(name));
    let mut test = command(folder);
    match test.arg("-t").stdin(Stdio::null()).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("there is no nginx: install it, with `apt-get install nginx` on Debian")
        }
        // It says at once what else is waited for in vain.
        tested => {
            let tested = tested?;
            ensure!(tested.status.success(), "nginx -t: {}", String::from_utf8_lossy(&tested.stderr));
        }
    }
    let mut command = command(folder);
    command.args(["-g", "daemon off;"]).stdin(Stdio::null()).stdout(file("access.log")?).stderr(file("error.log")?);
    Ok(command.spawn()?)
}
