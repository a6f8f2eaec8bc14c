//! What the code must never do, as absences.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

/// Every Rust file below the folder: path from the root, and text.
fn sources(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("the entry can be read").path();
            if path.is_dir() && !path.ends_with("target") && !path.ends_with("node_modules") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("it lies below the root").display().to_string();
                found.push((name, std::fs::read_to_string(&path).expect("the file can be read")));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} has no Rust files");
    found
}

/// Code without its comments and without its unit tests.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn none_says(files: &[(String, String)], forbidden: &[&str], why: &str) {
    for (name, text) in files {
        let code = code(text);
        for word in forbidden {
            let found = code.lines().find(|line| line.contains(word));
            assert!(found.is_none(), "{name} says {word:?}, but {why}: {}", found.unwrap_or_default().trim());
        }
    }
}

#[test]
fn the_runtime_names_no_database_and_no_wire_protocol() {
    let files: Vec<_> = [sources("actors/src"), sources("protocol/src")].concat();
    let forbidden = ["redis", "Redis", "fjall", "axum", "hyper", "reqwest", "serde_json", "http::"];
    none_says(&files, &forbidden, "the runtime must work with any store and any wire");
}

#[test]
fn what_decides_has_no_clock_no_io_and_no_randomness() {
    let pure = ["activating.rs", "decide.rs", "plan.rs", "running.rs", "saving.rs", "telling.rs", "window.rs"];
    let files: Vec<_> =
        sources("actors/src").into_iter().filter(|(name, _)| pure.iter().any(|pure| name.ends_with(pure))).collect();
    assert!(files.len() >= 7, "the deciding files are not where they were");
    let forbidden = [".await", "async ", "Instant::", "SystemTime", "tokio::", "random", "std::fs", "std::net"];
    none_says(&files, &forbidden, "deciding is pure");
    let protocol: Vec<_> = sources("protocol/src").into_iter().filter(|(name, _)| !name.ends_with("ids.rs")).collect();
    none_says(&protocol, &forbidden, "the protocol has no IO");
}

#[test]
fn bincode_is_named_in_one_file() {
    let files: Vec<_> = ["protocol/src", "actors/src", "node/src"].into_iter().flat_map(sources).collect();
    let others: Vec<_> = files.into_iter().filter(|(name, _)| name != "protocol/src/envelope.rs").collect();
    none_says(&others, &["bincode"], "it must be replaceable");
}

#[test]
fn every_file_introduces_itself() {
    for folder in ["protocol/src", "actors/src", "actors/tests", "node/src", "tests/src", "tests/tests"] {
        for (name, text) in sources(folder) {
            assert!(text.starts_with("//!"), "{name} does not say what it is");
        }
    }
}

#[test]
fn no_test_is_ignored() {
    for folder in ["protocol", "actors", "node/src", "tests/src", "tests/tests"] {
        for (name, text) in sources(folder) {
            let attribute = concat!("#[", "ignore");
            assert!(!text.contains(attribute), "{name} has an ignored test");
        }
    }
}

#[test]
fn no_metric_is_labelled_by_conversation_or_user() {
    let files: Vec<_> = [sources("actors/src"), sources("node/src")].concat();
    let forbidden = ["\"conversation\" =>", "\"user\" =>", "\"subject\" =>", "\"tenant\" =>", "\"response\" =>"];
    none_says(&files, &forbidden, "a label must have few values");
}
