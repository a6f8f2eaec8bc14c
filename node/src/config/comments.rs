//! What `--print-config` says beside each key: the doc comments of the structures that the configuration is read into.
//!
//! They are taken from the source at compile time, so that the words exist once; a test keeps this table complete.

/// A section of the file, and the structure that it is read into with the source that this is in. `*` stands for a
/// name of the operator's own, or for one of several.
struct Section {
    path: &'static str,
    structures: &'static [(&'static str, &'static str)],
}

const LIMITS: &str = include_str!("limits.rs");

const SECTIONS: &[Section] = &[
    Section { path: "", structures: &[("Config", include_str!("../config.rs"))] },
    Section { path: "log", structures: &[("LogOptions", include_str!("../telemetry.rs"))] },
    Section { path: "limits", structures: &[("LimitOptions", LIMITS)] },
    Section { path: "limits.tenant.*", structures: &[("TenantLimits", LIMITS)] },
    Section { path: "retention", structures: &[("RetentionOptions", include_str!("retention.rs"))] },
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Comment {
    pub(super) key: String,
    pub(super) lines: Vec<String>,
}

/// The keys of a section in the order of its structure.
pub(super) fn of_section(path: &str) -> Vec<Comment> {
    let section = SECTIONS.iter().find(|section| matches(section.path, path));
    let structures = section.map_or(&[][..], |section| section.structures);
    structures.iter().flat_map(|(name, source)| of_structure(name, source)).collect()
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
    let mut lines = Vec::new();
    for line in body.map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            lines.push(text.trim().to_owned());
        } else if let Some((key, _)) = line.strip_prefix("pub ").and_then(|field| field.split_once(':')) {
            let key = key.trim_start_matches("r#").to_owned();
            comments.push(Comment { key, lines: std::mem::take(&mut lines) });
        }
    }
    comments
}
