//! A configuration that is refused: which key, where it was set, what would be right. Exit code 2.

use std::fmt;

use super::Sources;
use super::sources::Origin;
use crate::auth::AuthConfigError;
use crate::responders::ResponderConfigError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigRefused {
    /// With dots, as in `limits.body_bytes`; empty where the file as a whole cannot be read as TOML.
    pub key: String,
    pub origin: Option<Origin>,
    pub said: String,
}

impl ConfigRefused {
    pub fn new(key: impl Into<String>, said: impl Into<String>) -> Self {
        Self { key: key.into(), origin: None, said: said.into() }
    }

    pub(super) fn set_in(self, sources: &Sources) -> Self {
        Self { origin: sources.origin(&self.key), ..self }
    }

    pub(super) fn from_serde(wrong: &serde_path_to_error::Error<toml::de::Error>, sources: &Sources) -> Self {
        let path = match wrong.path().to_string() {
            root if root == "." => String::new(),
            path => path,
        };
        let said = wrong.inner().message().trim();
        match unknown(said) {
            Some(unknown) => Self::new(unknown.place(&path), unknown.advice()),
            None => Self::new(path, plain(said)),
        }
        .set_in(sources)
    }
}

impl std::error::Error for ConfigRefused {}

impl From<AuthConfigError> for ConfigRefused {
    fn from(wrong: AuthConfigError) -> Self {
        let why = wrong.source.map(|source| format!(": {source}")).unwrap_or_default();
        Self::new(format!("auth.{}", wrong.key), format!("{}{why}", wrong.problem))
    }
}

impl From<ResponderConfigError> for ConfigRefused {
    fn from(wrong: ResponderConfigError) -> Self {
        let why = std::error::Error::source(&wrong).map(|source| format!(": {source}")).unwrap_or_default();
        Self::new("responder", format!("{wrong}{why}"))
    }
}

impl fmt::Display for ConfigRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.key.as_str(), &self.origin) {
            ("", Some(origin)) => write!(f, "{origin}: {}", self.said),
            ("", None) => f.write_str(&self.said),
            (key, Some(origin)) => write!(f, "{key} ({origin}): {}", self.said),
            (key, None) => write!(f, "{key}: {}", self.said),
        }
    }
}

/// serde's words for a name that a structure does not have, taken apart.
struct Unknown<'a> {
    /// `key` or `value`.
    kind: &'static str,
    name: &'a str,
    right: Vec<&'a str>,
}

impl Unknown<'_> {
    /// The key that is wrong, or whose value is. serde's path sometimes ends with the unknown name, and sometimes not.
    fn place(&self, path: &str) -> String {
        let parent = match path.strip_suffix(self.name) {
            Some(parent) if parent.is_empty() || parent.ends_with('.') => parent.trim_end_matches('.'),
            Some(_) | None => path,
        };
        match (self.kind, parent) {
            ("value", key) => key.to_owned(),
            (_, "") => self.name.to_owned(),
            (_, section) => format!("{section}.{}", self.name),
        }
    }

    fn advice(&self) -> String {
        let kind = self.kind;
        match nearest(self.name, self.right.iter().copied()) {
            Some(near) => format!("there is no {kind} `{}`; `{near}` is probably meant", self.name),
            None => format!("there is no {kind} `{}`; there are {}", self.name, self.right.join(", ")),
        }
    }
}

fn unknown(said: &str) -> Option<Unknown<'_>> {
    let (kind, rest) = [("key", "unknown field `"), ("value", "unknown variant `")]
        .into_iter()
        .find_map(|(kind, begin)| Some((kind, said.strip_prefix(begin)?)))?;
    let (name, rest) = rest.split_once('`')?;
    let right = rest.split('`').skip(1).step_by(2).collect();
    Some(Unknown { kind, name, right })
}

/// What a value should be, in an operator's words instead of Rust's.
fn plain(said: &str) -> String {
    match said.split_once(", expected ") {
        Some((found, "usize" | "u32" | "u64")) => format!("{found}, expected a whole number"),
        Some((found, "f64")) => format!("{found}, expected a number"),
        Some((found, right)) if right.starts_with("struct ") => format!("{found}, expected a section in [ ]"),
        Some(_) | None => said.to_owned(),
    }
}

/// The name that a person who wrote `wrong` meant, if any is near enough.
pub(super) fn nearest<'a>(wrong: &str, right: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    right
        .map(|name| (strsim::damerau_levenshtein(wrong, name), name))
        .filter(|(distance, name)| *distance <= name.len().div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
