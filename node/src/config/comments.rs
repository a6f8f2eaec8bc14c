//! What `--print-config` says beside each key: the doc comments of the structures that the configuration is read into.
//!
//! They are taken from the source at compile time, so that the words exist once; a test keeps this table complete.

/// A section of the file, and the structure that it is read into with the source that this is in. `*` stands for a
/// name of the operator's own. Sections of which there are several kinds have one each.
struct Section {
    path: &'static str,
    structure: &'static str,
    source: &'static str,
}

const LIMITS: &str = include_str!("limits.rs");

const SECTIONS: &[Section] = &[
    Section { path: "", structure: "Config", source: include_str!("../config.rs") },
    Section { path: "responder.eliza", structure: "ElizaOptions", source: include_str!("../responders/eliza.rs") },
    Section { path: "responder.echo", structure: "EchoOptions", source: include_str!("../responders/echo.rs") },
    Section {
        path: "responder.openai",
        structure: "OpenAiOptions",
        source: include_str!("../responders/openai/mod.rs"),
    },
    Section { path: "webhook.", structure: "WebhookOptions", source: include_str!("../webhooks/options.rs") },
    Section { path: "log", structure: "LogOptions", source: include_str!("../telemetry.rs") },
    Section { path: "telemetry", structure: "TelemetryOptions", source: include_str!("../traces.rs") },
    Section { path: "cluster", structure: "ClusterOptions", source: include_str!("../peers/options.rs") },
    Section { path: "auth", structure: "AuthOptions", source: include_str!("../auth/options.rs") },
    Section { path: "limits", structure: "LimitOptions", source: LIMITS },
    Section { path: "limits.tenant.*", structure: "TenantLimits", source: LIMITS },
    Section { path: "retention", structure: "RetentionOptions", source: include_str!("retention.rs") },
    Section { path: "redis", structure: "RedisOptions", source: include_str!("../stores/redis/options.rs") },
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Comment {
    pub(super) key: String,
    pub(super) lines: Vec<String>,
}

/// The keys of a section in the order of its structure.
pub(super) fn of_section(path: &str) -> Vec<Comment> {
    let section = SECTIONS.iter().find(|section| matches(section.path, path));
    section.map(|section| of_structure(section.structure, section.source)).unwrap_or_default()
}

fn matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(begin) => path.strip_prefix(begin).is_some_and(|name| !name.is_empty()),
        None => pattern == path,
    }
}

fn of_structure(name: &str, source: &str) -> Vec<Comment> {
    let begin = format!("pub struct {name} {{");
    let body = source.lines().skip_while(|line| *line != begin).skip(1).take_while(|line| *line != "}");
    let mut comments = Vec::new();
    let (mut lines, mut renamed) = (Vec::new(), None);
    for line in body.map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            lines.push(text.trim().to_owned());
        } else if line.starts_with("#[serde(") {
            renamed = line.split_once("rename = \"").and_then(|(_, name)| name.split('"').next());
        } else if let Some((field, _)) = line.strip_prefix("pub ").and_then(|field| field.split_once(':')) {
            let key = renamed.take().unwrap_or(field).to_owned();
            comments.push(Comment { key, lines: std::mem::take(&mut lines) });
        }
    }
    comments
}
