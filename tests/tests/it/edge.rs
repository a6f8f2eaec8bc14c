//! NGINX as it is shipped: what each of its directives is there for, before nodes that write down what reaches them. The
//! program `edge` does the rest, before real nodes.

mod headers;
mod limits;
mod nodes;
mod routing;

use std::collections::BTreeSet;

use klatch_tests::nginx::Nginx;
use reqwest::{Client, Response};
use serde_json::Value;

use nodes::Recorder;

/// Answers of NGINX and of nodes have each of these once.
const ON_EVERY_ANSWER: [&str; 7] = [
    "strict-transport-security",
    "x-content-type-options",
    "x-frame-options",
    "referrer-policy",
    "cross-origin-resource-policy",
    "content-security-policy",
    "x-request-id",
];

/// NGINX before so many recorders, and a client that trusts it.
async fn edge(nodes: usize) -> anyhow::Result<(Nginx, Vec<Recorder>, Client)> {
    let mut recorders = Vec::new();
    for n in 0..nodes {
        recorders.push(Recorder::start(n).await?);
    }
    let urls: Vec<String> = recorders.iter().map(|recorder| recorder.url.clone()).collect();
    let nginx = Nginx::start(&urls).await?;
    let client = nginx.client()?.build()?;
    Ok((nginx, recorders, client))
}

fn has_all_headers(answer: &Response) {
    for name in ON_EVERY_ANSWER {
        let count = answer.headers().get_all(name).iter().count();
        assert_eq!(count, 1, "{} of {} is there {count} times", name, answer.url());
    }
}

/// An error in the API's shape.
async fn is_api_error(answer: Response, status: u16, code: Option<&str>) {
    let url = answer.url().clone();
    assert_eq!(answer.status(), status, "{url}");
    has_all_headers(&answer);
    assert_eq!(answer.headers()["content-type"], "application/json", "{url}");
    let text = answer.text().await.expect("a body");
    let body: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let error = body["error"].as_object().expect("an error");
    let keys: BTreeSet<&str> = error.keys().map(String::as_str).collect();
    assert_eq!(keys, BTreeSet::from(["code", "message", "param", "type"]), "{url}");
    assert_eq!(error["code"].as_str(), code, "{url}");
}
