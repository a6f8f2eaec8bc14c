//! What reaches the nodes, what reaches the clients, and what is logged.

use klatch_tests::cluster::until;
use reqwest::Version;
use reqwest::header::{HeaderMap, HeaderValue};

use super::{edge, has_all_headers, is_api_error};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().expect("a text"))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[tokio::test]
async fn only_the_proxy_names_attempts_and_only_where_there_is_no_key() -> anyhow::Result<()> {
    let (nginx, nodes, client) = edge(1).await?;
    let url = format!("{}/v1/responses", nginx.url);
    client.post(&url).header("X-Klatch-Attempt-Key", "mine").body("{}").send().await?;
    let first = nodes[0].one();
    let attempts: Vec<&HeaderValue> = first.headers.get_all("x-klatch-attempt-key").iter().collect();
    assert!(attempts.len() == 1 && is_hex(attempts[0].to_str()?, 32), "{attempts:?}");
    client.post(&url).body("{}").send().await?;
    assert_ne!(
        nodes[0].one().headers.get("x-klatch-attempt-key"),
        Some(attempts[0]),
        "each request is another attempt"
    );
    let keyed = client.post(&url).header("Idempotency-Key", "k").header("X-Klatch-Attempt-Key", "mine");
    keyed.body("{}").send().await?;
    let keyed = nodes[0].one().headers;
    assert_eq!((text(&keyed, "idempotency-key"), text(&keyed, "x-klatch-attempt-key")), (Some("k"), None));
    Ok(())
}

#[tokio::test]
async fn the_address_that_nodes_believe_is_that_of_the_connection() -> anyhow::Result<()> {
    let (nginx, nodes, client) = edge(1).await?;
    client.get(format!("{}/v1/models", nginx.url)).header("X-Forwarded-For", "6.6.6.6").send().await?;
    let headers = nodes[0].one().headers;
    assert_eq!(headers.get_all("x-forwarded-for").iter().collect::<Vec<_>>(), ["127.0.0.1"]);
    assert_eq!((text(&headers, "x-forwarded-proto"), text(&headers, "connection")), (Some("https"), None));
    Ok(())
}

#[tokio::test]
async fn ids_are_taken_over_where_they_are_sane_and_made_where_not_and_logged() -> anyhow::Result<()> {
    let (nginx, nodes, client) = edge(1).await?;
    let url = format!("{}/v1/models?secret=never", nginx.url);
    let known = client.get(&url).header("X-Request-Id", "abc-1").header("traceparent", TRACEPARENT).send().await?;
    assert_eq!(text(known.headers(), "x-request-id"), Some("abc-1"));
    let headers = nodes[0].one().headers;
    assert_eq!((text(&headers, "x-request-id"), text(&headers, "traceparent")), (Some("abc-1"), Some(TRACEPARENT)));

    let strange = HeaderValue::from_bytes(b"\xff\xfe\"\\")?;
    let odd = client.get(format!("{}/v1/%ff%22\u{7}?x", nginx.url)).header("User-Agent", strange.clone());
    let odd = odd.header("X-Request-Id", strange).header("traceparent", "00-short").send().await?;
    let headers = nodes[0].one().headers;
    let made = text(&headers, "x-request-id").expect("an id").to_owned();
    assert!(made.strip_prefix("req_").is_some_and(|rest| is_hex(rest, 32)), "{made}");
    assert_eq!(text(odd.headers(), "x-request-id"), Some(made.as_str()));
    let traceparent = text(&headers, "traceparent").expect("a trace").to_owned();
    let parts: Vec<&str> = traceparent.split('-').collect();
    assert!(is_hex(parts[1], 32) && is_hex(parts[2], 16) && parts[0] == "00" && parts[3] == "00", "{traceparent}");

    // A line is written once the client has its answer.
    until("both requests are logged", async || {
        let lines = nginx.log()?.len();
        anyhow::ensure!(lines == 2, "{lines} lines");
        Ok(())
    })
    .await?;
    let log = nginx.log()?;
    let ids = |n: usize| (log[n]["request_id"].as_str().expect("an id"), log[n]["trace_id"].as_str().expect("an id"));
    assert_eq!(ids(0), ("abc-1", "4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_eq!(ids(1), (made.as_str(), parts[1]));
    assert_eq!((&log[0]["path"], &log[0]["status"]), (&"/v1/models".into(), &"200".into()));
    assert_eq!(log[0]["upstream"].as_str(), Some(nodes[0].url.trim_start_matches("http://")));
    assert!(
        log[0]["duration"].is_number() && log[0]["upstream_response_time"].as_str().is_some_and(|it| !it.is_empty())
    );
    assert_eq!((log[0]["agent"].as_str(), log[1]["agent"].as_str()), (Some(""), Some("(not printable)")));
    assert!(!format!("{log:?}").contains("never"), "a query is in the log");
    Ok(())
}

#[tokio::test]
async fn every_location_has_the_security_headers_once() -> anyhow::Result<()> {
    let (nginx, nodes, client) = edge(1).await?;
    let at = |path: &str| format!("{}{path}", nginx.url);
    for path in
        ["/", "/openapi.json", "/.well-known/jwks.json", "/v1/models", "/v1/conversations/conv_1/items", "/metrics"]
    {
        has_all_headers(&client.get(at(path)).send().await?);
    }
    for path in ["/v1/responses", "/v1/chat/completions", "/v1/conversations", "/auth/login"] {
        let answer = client.post(at(path)).body("{}").send().await?;
        has_all_headers(&answer);
        assert!(answer.headers()["content-security-policy"].to_str()?.starts_with("default-src 'none'"), "{path}");
    }
    drop(nodes);
    // The node's own connections are closed a little later than its port.
    until("no node is there", async || {
        let status = client.get(at("/v1/models")).send().await?.status();
        anyhow::ensure!(status == 502, "{status}");
        Ok(())
    })
    .await?;
    let answer = client.get(at("/v1/models")).send().await?;
    assert_eq!(answer.headers()["retry-after-ms"], "1000");
    is_api_error(answer, 502, Some("server_error")).await;
    Ok(())
}

#[tokio::test]
async fn public_documents_are_kept_for_a_minute_and_answers_of_the_api_by_nobody() -> anyhow::Result<()> {
    let (nginx, _nodes, client) = edge(1).await?;
    for path in ["/", "/openapi.json"] {
        let answer = client.get(format!("{}{path}", nginx.url)).send().await?;
        assert_eq!(text(answer.headers(), "cache-control"), Some("public, max-age=60"));
    }
    let answer = client.get(format!("{}/v1/models", nginx.url)).send().await?;
    assert_eq!(text(answer.headers(), "cache-control"), None, "what the node says stands");
    Ok(())
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_over_tls_and_none_without() -> anyhow::Result<()> {
    let (nginx, nodes, client) = edge(1).await?;
    let url = format!("{}/v1/models", nginx.url);
    assert_eq!(client.get(&url).send().await?.version(), Version::HTTP_2);
    let older = nginx.client()?.http1_only().build()?;
    assert_eq!(older.get(&url).send().await?.version(), Version::HTTP_11);
    nodes[0].take();
    let plain = client.get(url.replace("https://", "http://")).send().await?;
    assert_eq!(plain.status(), 400);
    assert!(nodes[0].take().is_empty(), "a node was asked in the clear");
    Ok(())
}
