//! The configuration in force as TOML, with comments, and secrets masked. Read again it gives the same configuration,
//! the masked secrets apart.

use toml::{Table, Value};

use super::Config;
use super::comments::{self, Comment};

/// Stands for a secret that is set.
const MASK: &str = "********";

/// Ends of the keys whose values are never shown, wherever they stand. Keys that end in `_file` or `_env` say where a
/// secret is, and are no secrets.
const SECRETS: [&str; 4] = ["secret", "password", "api_key", "token"];

pub fn print(config: &Config) -> String {
    let mut text = String::from("# The configuration of klatch in force, defaults included.\n");
    section(&mut text, "", "", &masked(config));
    text
}

/// What is not as by default, masked: one `key = value` each. For the log at start.
pub fn changed(config: &Config) -> Vec<String> {
    let default = Config { drain_lag: Some(Config::default().drain_lag()), ..Config::default() };
    let default = flat("", &masked(&default));
    flat("", &masked(config)).into_iter().filter(|line| !default.contains(line)).collect()
}

/// The URL without its query, which may hold a token.
fn without_query(text: &str) -> String {
    match text.split_once('?') {
        Some((rest, _)) if rest.contains("://") => format!("{rest}?{MASK}"),
        Some(_) | None => text.to_owned(),
    }
}

/// The address without what stands before the `@`.
pub fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let authority = rest.split('/').next().unwrap_or(rest);
    match authority.rsplit_once('@') {
        Some((secret, _)) => format!("{scheme}://{MASK}{}", &rest[secret.len()..]),
        None => text.to_owned(),
    }
}

fn masked(config: &Config) -> Table {
    let mut table = Table::try_from(config).expect("the configuration's keys are text and its values TOML's");
    mask_table(&mut table);
    table
}

pub(super) fn mask_table(table: &mut Table) {
    for (key, value) in table.iter_mut() {
        match value {
            Value::String(text) if SECRETS.iter().any(|end| key.ends_with(end)) => MASK.clone_into(text),
            value => mask(value),
        }
    }
}

fn mask(value: &mut Value) {
    match value {
        Value::Table(table) => mask_table(table),
        Value::Array(values) => values.iter_mut().for_each(mask),
        Value::String(text) => *text = without_query(&without_password(text)),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
}

/// A key's line, or the section's, depending on the value.
enum Entry<'a> {
    Line(&'a Value),
    Section(&'a Table),
    Sections(&'a [Value]),
}

fn entry(value: &Value) -> Entry<'_> {
    match value {
        Value::Table(table) => Entry::Section(table),
        Value::Array(values) if values.first().is_some_and(Value::is_table) => Entry::Sections(values),
        value => Entry::Line(value),
    }
}

/// Lines first: in TOML a key after a section's head belongs to that section. The comments are those of `commented`.
fn section(text: &mut String, path: &str, commented: &str, table: &Table) {
    let comments = comments::of_section(commented);
    let keys = in_order(&comments, table);
    for key in &keys {
        lines(text, comments.iter().find(|comment| comment.key == *key), key, table.get(key));
    }
    for key in &keys {
        let path = join(path, key);
        match table.get(key).map(entry) {
            Some(Entry::Section(inner)) => {
                // A section of nothing but sections, such as [limits.tenant], needs no head of its own.
                if inner.is_empty() || inner.values().any(|value| matches!(entry(value), Entry::Line(_))) {
                    text.push_str(&format!("\n[{path}]\n"));
                }
                section(text, &path, &path, inner);
            }
            Some(Entry::Sections(several)) => {
                for inner in several.iter().filter_map(Value::as_table) {
                    text.push_str(&format!("\n[[{path}]]\n"));
                    section(text, &path, &of_kind(&path, inner), inner);
                }
            }
            Some(Entry::Line(_)) | None => {}
        }
    }
}

/// Kinds differ in their keys.
pub(super) fn of_kind(path: &str, table: &Table) -> String {
    let kind = table.get("kind").and_then(Value::as_str).unwrap_or_default();
    format!("{path}.{kind}")
}

fn lines(text: &mut String, comment: Option<&Comment>, key: &str, value: Option<&Value>) {
    let line = match value.map(entry) {
        Some(Entry::Line(value)) => format!("{} = {value}\n", quoted(key)),
        // What stands there as a section says so itself.
        Some(Entry::Section(_) | Entry::Sections(_)) => return,
        None => format!("# {key} is not set\n"),
    };
    text.push('\n');
    for words in comment.iter().flat_map(|comment| &comment.lines) {
        text.push_str(&format!("# {words}\n"));
    }
    text.push_str(&line);
}

/// What the structure does not name, such as its kind, then its own order.
fn in_order(comments: &[Comment], table: &Table) -> Vec<String> {
    let known = comments.iter().map(|comment| comment.key.clone());
    let others = table.keys().filter(|key| comments.iter().all(|comment| comment.key != **key)).cloned();
    others.chain(known).collect()
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { quoted(key) } else { format!("{path}.{}", quoted(key)) }
}

/// Names of tenants may hold anything.
fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if bare { key.to_owned() } else { Value::String(key.to_owned()).to_string() }
}

fn flat(path: &str, table: &Table) -> Vec<String> {
    table
        .iter()
        .flat_map(|(key, value)| match value {
            Value::Table(inner) => flat(&join(path, key), inner),
            value => vec![format!("{} = {value}", join(path, key))],
        })
        .collect()
}
