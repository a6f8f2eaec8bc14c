//! The three places a value can come from, merged: command line over environment over file.
//!
//! Reads neither the environment nor the file itself: it is given both, so that tests can too.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use toml::{Table, Value};

use super::ConfigRefused;
use super::refusal::nearest;

/// Options of `klatch serve` and the key of each in the file. All are text: the file's reader says what is wrong.
pub const OPTIONS: &[(&str, &[&str])] = &[
    ("node-name", &["node_name"]),
    ("http-addr", &["http_addr"]),
    ("ops-addr", &["ops_addr"]),
    ("store", &["store"]),
    ("role", &["role"]),
    ("drain-lag", &["drain_lag"]),
    ("drain-timeout", &["drain_timeout"]),
    ("log-format", &["log", "format"]),
    ("log-level", &["log", "level"]),
    ("otlp-endpoint", &["telemetry", "otlp_endpoint"]),
    ("cluster-addr", &["cluster", "addr"]),
    ("advertise", &["cluster", "advertise"]),
    ("cluster-secret-file", &["cluster", "secret_file"]),
    ("cluster-cert", &["cluster", "cert"]),
    ("cluster-key", &["cluster", "key"]),
    ("cluster-ca", &["cluster", "ca"]),
    ("cluster-plain", &["cluster", "plain"]),
];

/// Those that are no options of the command line, which everybody on the host can see.
const SECRETS: &[(&str, &[&str])] = &[("cluster-secret", &["cluster", "secret"])];

fn all() -> impl Iterator<Item = &'static (&'static str, &'static [&'static str])> {
    OPTIONS.iter().chain(SECRETS)
}

/// Variables that begin with `KLATCH_` and are no options of `serve`: the file, and those of the clients.
const OTHER_VARIABLES: [&str; 6] =
    ["KLATCH_CONFIG", "KLATCH_URL", "KLATCH_TOKEN", "KLATCH_MODEL", "KLATCH_OPS_URL", "KLATCH_CONVERSATION"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    CommandLine(String),
    Environment(String),
    File(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine(option) => write!(f, "--{option}"),
            Self::Environment(variable) => write!(f, "environment variable {variable}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Path and text.
    pub file: Option<(PathBuf, String)>,
    /// All variables of the environment, or those that begin with `KLATCH_`.
    pub environment: BTreeMap<String, String>,
    /// By the option's name, as in [`OPTIONS`].
    pub command_line: BTreeMap<String, String>,
}

impl Sources {
    pub(super) fn merged(&self) -> Result<Table, ConfigRefused> {
        let mut table = self.file_table()?;
        for (option, path) in all() {
            if let Some((value, _)) = self.option(option) {
                put(&mut table, path, Value::String(value.to_owned()))?;
            }
        }
        Ok(table)
    }

    /// Where the value of the key came from; none for a default.
    pub(super) fn origin(&self, key: &str) -> Option<Origin> {
        let option = all().find(|(_, path)| path.join(".") == key);
        let given = option.and_then(|(option, _)| self.option(option)).map(|(_, origin)| origin);
        given.or_else(|| self.file.as_ref().map(|(path, _)| Origin::File(path.clone())))
    }

    fn file_table(&self) -> Result<Table, ConfigRefused> {
        let Some((path, text)) = &self.file else { return Ok(Table::new()) };
        text.parse().map_err(|error: toml::de::Error| ConfigRefused {
            key: String::new(),
            origin: Some(Origin::File(path.clone())),
            said: error.to_string().trim_end().to_owned(),
        })
    }

    /// A variable that is set to nothing is not set: `KLATCH_STORE: ${STORE:-}` is common in compose files.
    fn option(&self, option: &str) -> Option<(&str, Origin)> {
        if let Some(value) = self.command_line.get(option) {
            return Some((value, Origin::CommandLine(option.to_owned())));
        }
        let variable = variable(option);
        let value = self.environment.get(&variable).filter(|value| !value.is_empty())?;
        Some((value, Origin::Environment(variable)))
    }
}

fn put(table: &mut Table, path: &[&str], value: Value) -> Result<(), ConfigRefused> {
    match path {
        [] => {}
        [key] => {
            table.insert((*key).to_owned(), value);
        }
        [section, rest @ ..] => match table.entry(*section).or_insert_with(|| Value::Table(Table::new())) {
            Value::Table(inner) => put(inner, rest, value)?,
            _ => return Err(ConfigRefused::new(*section, format!("is a section: write it as [{section}]"))),
        },
    }
    Ok(())
}

fn variable(option: &str) -> String {
    format!("KLATCH_{}", option.to_ascii_uppercase().replace('-', "_"))
}

/// Variables that are nearly an option, with that option's: Kubernetes sets many more that begin with `KLATCH_`, so
/// unknown ones are no error.
pub fn misspelt<'a>(environment: impl Iterator<Item = &'a String>) -> Vec<(String, String)> {
    let known: Vec<String> = all().map(|(option, _)| variable(option)).collect();
    environment
        .filter(|name| name.starts_with("KLATCH_") && !known.contains(name))
        .filter(|name| !OTHER_VARIABLES.contains(&name.as_str()))
        .filter_map(|name| {
            let near = nearest(&name["KLATCH_".len()..], known.iter().map(|known| &known["KLATCH_".len()..]))?;
            Some((name.clone(), format!("KLATCH_{near}")))
        })
        .collect()
}
