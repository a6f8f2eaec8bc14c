//! What tests read of the repository's pages: commands that are run as they stand, links, and headings.

use std::path::{Path, PathBuf};

use anyhow::Context;

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The commands of the `sh` block that follows `<!-- run: NAME -->`.
pub fn commands(page: &str, name: &str) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(root().join(page))?;
    let after = text.split_once(&format!("<!-- run: {name} -->\n```sh\n"));
    let (_, after) = after.with_context(|| format!("{page} has no commands named {name}"))?;
    let (commands, _) = after.split_once("\n```\n").context("the block has an end")?;
    Ok(commands.to_owned())
}

/// All Markdown files, without what was installed or built.
pub fn pages() -> anyhow::Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// Lines outside of blocks of code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    })
}

/// Targets of all links and pictures.
pub fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in prose(text) {
        let without_code: String = line.split('`').step_by(2).collect();
        let mut rest = without_code.as_str();
        while let Some((_, after)) = rest.split_once("](") {
            let Some((target, after)) = after.split_once(')') else { break };
            found.push(target.to_owned());
            rest = after;
        }
    }
    found
}

/// Names that headings can be linked to by, as the usual hosts make them.
pub fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let slug = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|it| it.is_alphanumeric() || matches!(it, ' ' | '-' | '_'));
        kept.map(|it| if it == ' ' { '-' } else { it }).collect()
    };
    headings.map(slug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_anchors_are_found_outside_of_code_only() {
        let text =
            "# Two words, here\n[a](b.md#c) `[no](x)` ![d](e.png)\n```sh\n# no heading\n[f](g)\n```\n## One-more\n";
        assert_eq!(links(text), ["b.md#c", "e.png"]);
        assert_eq!(anchors(text), ["two-words-here", "one-more"]);
    }
}
