//! `klatch serve`: reads the configuration and runs a node, or says what it would do.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::config::check::Findings;
use crate::config::{self, CONFIG_REFUSED, Config, ConfigRefused, Sources};
use crate::serve::{self, Invocation};

const CONFIG_VARIABLE: &str = "KLATCH_CONFIG";

#[derive(Debug, Args)]
#[command(after_help = "Every option with a value is also an environment variable (KLATCH_ and its name: \
    KLATCH_HTTP_ADDR) and a key in the file (http_addr). The command line wins over the environment, and that over \
    the file. Responders, auth and limits are in the file only: --print-config shows all keys.")]
pub(super) struct ServeArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Name of this node, its own within a cluster [default: the host's]
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Public API [default: 127.0.0.1:8080]
    #[arg(long, value_name = "IP:PORT")]
    http_addr: Option<String>,
    /// Metrics, probes and cluster state; keep it inside [default: 127.0.0.1:9090]
    #[arg(long, value_name = "IP:PORT")]
    ops_addr: Option<String>,
    /// `all`, or `auth` for a process that only signs in and out [default: all]
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// How long a stopping node goes on accepting, until balancers notice [default: 0s on loopback, else 25s]
    #[arg(long, value_name = "DURATION")]
    drain_lag: Option<String>,
    /// How long a stopping node then waits for answers and streams in flight [default: 60s]
    #[arg(long, value_name = "DURATION")]
    drain_timeout: Option<String>,
    /// `human` (on stderr) or `json` (on stdout) [default: human]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// A level, or directives such as info,klatch=debug [default: info, libraries less]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Collector that traces are sent to, by OTLP over HTTP [default: none]
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Where other nodes connect [default: 127.0.0.1:7946 with Redis, else none]
    #[arg(long, value_name = "IP:PORT")]
    cluster_addr: Option<String>,
    /// What other nodes are told to connect to [default: the cluster address]
    #[arg(long, value_name = "HOST[:PORT]")]
    advertise: Option<String>,
    /// The secret that all nodes share; itself it is only a variable, KLATCH_CLUSTER_SECRET
    #[arg(long, value_name = "FILE")]
    cluster_secret_file: Option<String>,
    /// This node's certificate for TLS with other nodes, in PEM
    #[arg(long, value_name = "FILE")]
    cluster_cert: Option<String>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE")]
    cluster_key: Option<String>,
    /// The CA of all nodes' certificates, in PEM
    #[arg(long, value_name = "FILE")]
    cluster_ca: Option<String>,
    /// Let nodes talk without TLS beyond this host
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    cluster_plain: Option<String>,
    /// Say all that would go wrong, and exit: 0 nothing, or only warnings, 2 something
    #[arg(long)]
    check: bool,
    /// Print the whole configuration in force as TOML, secrets masked, and exit
    #[arg(long)]
    print_config: bool,
}

/// What every command needs that looks for a node's folder.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct NodeArgs {
    /// Configuration of the node, in TOML
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Where the node keeps its data: file:FOLDER, redis://HOST:PORT, or memory:FOLDER for tests [default: file:./klatch-data]
    #[arg(long, value_name = "STORE")]
    pub(super) store: Option<String>,
}

impl NodeArgs {
    pub(super) fn load(&self) -> Result<Config, ConfigRefused> {
        Config::load(&self.sources(BTreeMap::new())?)
    }

    /// The world, read once.
    fn sources(&self, mut command_line: BTreeMap<String, String>) -> Result<Sources, ConfigRefused> {
        let environment: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with("KLATCH_"))
            .collect();
        let named = environment.get(CONFIG_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        let path = self.config.clone().or(named);
        let file = path.map(|path| config::read_file(&path).map(|text| (path, text))).transpose()?;
        command_line.extend(self.store.clone().map(|store| ("store".to_owned(), store)));
        Ok(Sources { file, environment, command_line })
    }

    fn as_typed(&self) -> String {
        let config = self.config.iter().map(|path| format!(" --config {}", path.display()));
        let store = self.store.iter().map(|store| format!(" --store {}", config::without_password(store)));
        config.chain(store).collect()
    }
}

impl ServeArgs {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let sources = self.node.sources(self.given())?;
        for (wrong, right) in config::misspelt(sources.environment.keys()) {
            eprintln!("klatch: the environment variable {wrong} is no option; {right} is probably meant");
        }
        if self.check && !self.print_config {
            let (config, refused) = Config::read(&sources)?;
            return Ok(report(&config::check::check(&config, refused).await));
        }
        let config = Config::load(&sources)?;
        if self.print_config {
            print!("{}", config::print(&config));
            return Ok(ExitCode::SUCCESS);
        }
        serve::run(config, self.invocation()).await.map(ExitCode::from)
    }

    /// By the option's name.
    fn given(&self) -> BTreeMap<String, String> {
        let options = [
            ("node-name", &self.node_name),
            ("http-addr", &self.http_addr),
            ("ops-addr", &self.ops_addr),
            ("role", &self.role),
            ("drain-lag", &self.drain_lag),
            ("drain-timeout", &self.drain_timeout),
            ("log-format", &self.log_format),
            ("log-level", &self.log_level),
            ("otlp-endpoint", &self.otlp_endpoint),
            ("cluster-addr", &self.cluster_addr),
            ("advertise", &self.advertise),
            ("cluster-secret-file", &self.cluster_secret_file),
            ("cluster-cert", &self.cluster_cert),
            ("cluster-key", &self.cluster_key),
            ("cluster-ca", &self.cluster_ca),
            ("cluster-plain", &self.cluster_plain),
        ];
        options.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))).collect()
    }

    fn invocation(&self) -> Invocation {
        let program = std::env::args().next().unwrap_or_else(|| "klatch".to_owned());
        Invocation { program, options: self.node.as_typed() }
    }
}

/// A configuration that cannot be read at all ends the program with the same code.
fn report(found: &Findings) -> ExitCode {
    print!("{found}");
    if found.errors.is_empty() {
        println!("nothing would keep it from serving");
        return ExitCode::SUCCESS;
    }
    ExitCode::from(CONFIG_REFUSED)
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};

    use super::*;

    fn command() -> Command {
        ServeArgs::augment_args(Command::new("serve"))
    }

    #[test]
    fn every_option_of_the_configuration_is_one_of_the_command_line_and_the_other_way_round() {
        let others = ["config", "check", "print-config"];
        let command = command();
        let mut typed: Vec<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        typed.retain(|name| !others.contains(name));
        let mut options: Vec<&str> = config::OPTIONS.iter().map(|(name, _)| *name).collect();
        typed.sort_unstable();
        options.sort_unstable();
        assert_eq!(typed, options);
    }

    #[test]
    fn every_option_that_is_given_arrives() {
        for (option, _) in config::OPTIONS {
            let matches = command().get_matches_from(["serve", &format!("--{option}=there")]);
            let arguments = ServeArgs::from_arg_matches(&matches).unwrap();
            let sources = arguments.node.sources(arguments.given()).unwrap();
            assert_eq!(sources.command_line.get(*option).map(String::as_str), Some("there"), "{option}");
        }
    }
}
