//! What NGINX refuses, so that no node sees it.

use std::slice;
use std::time::Duration;

use klatch_tests::cluster::until;
use klatch_tests::nginx::Nginx;
use tokio::task::JoinSet;

use super::nodes::Recorder;
use super::{edge, is_api_error};

/// Longer than anything here takes, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_body_at_the_limit_passes_and_one_byte_more_does_not() -> anyhow::Result<()> {
    let (nginx, nodes, client) = edge(1).await?;
    for (path, bytes_max) in [("/v1/responses", 1 << 20), ("/v1/conversations", 1 << 20), ("/auth/login", 16 << 10)] {
        let send = |bytes: usize| client.post(format!("{}{path}", nginx.url)).body(vec![b'x'; bytes]).send();
        assert_eq!(send(bytes_max).await?.status(), 200, "{path}");
        nodes[0].one();
        is_api_error(send(bytes_max + 1).await?, 413, Some("body_too_large")).await;
        assert!(nodes[0].take().is_empty(), "a node saw it");
    }
    Ok(())
}

#[tokio::test]
async fn logins_of_an_address_are_limited_apart_from_everything_else() -> anyhow::Result<()> {
    let (nginx, nodes, client) = edge(1).await?;
    let login = || client.post(format!("{}/auth/login", nginx.url)).body("{}").send();
    let mut passed = 0;
    let refused = loop {
        let answer = login().await?;
        if answer.status() != 200 {
            break answer;
        }
        passed += 1;
        // Two a second come back, so a machine would have to need ten seconds for these.
        assert!(passed < 50, "nothing stops logins");
    };
    assert!(passed >= 31, "only {passed} passed, and 31 may at once");
    assert_eq!(refused.headers()["retry-after"], "1");
    is_api_error(refused, 429, Some("rate_limit_exceeded")).await;
    assert_eq!(nodes[0].take().len(), passed);
    assert_eq!(client.get(format!("{}/v1/models", nginx.url)).send().await?.status(), 200);
    Ok(())
}

#[tokio::test]
async fn behind_a_balancer_that_is_trusted_each_client_has_limits_of_its_own() -> anyhow::Result<()> {
    let node = Recorder::start(0).await?;
    let trusted = "set_real_ip_from 127.0.0.1;\nreal_ip_header X-Forwarded-For;\nreal_ip_recursive on;\n";
    let nginx = Nginx::start_with(slice::from_ref(&node.url), slice::from_ref(&node.url), trusted).await?;
    let client = nginx.client()?.build()?;
    let login = |from: &'static str| {
        client.post(format!("{}/auth/login", nginx.url)).header("X-Forwarded-For", from).body("{}").send()
    };
    let mut passed = 0;
    while login("6.6.6.6, 203.0.113.7").await?.status() == 200 {
        let seen = node.one().headers;
        assert_eq!(seen["x-forwarded-for"], "203.0.113.7", "what the client wrote itself does not count");
        passed += 1;
        assert!(passed < 50, "nothing stops logins");
    }
    assert_eq!(login("203.0.113.8").await?.status(), 200, "another client pays for the first");
    let inside = client.get(format!("{}/stub_status", nginx.status_url)).header("X-Forwarded-For", "203.0.113.7");
    assert_eq!(inside.send().await?.status(), 200, "the port inside believes nobody");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_from_one_address_is_stopped() -> anyhow::Result<()> {
    let (nginx, nodes, client) = edge(1).await?;
    // 401 may pass at once, and 200 a second: this many in less than the 13 seconds that they may take.
    let flood =
        futures::future::try_join_all((0..3_000).map(|_| client.get(format!("{}/v1/models", nginx.url)).send()));
    let answers = flood.await?;
    let mut refused: Vec<_> = answers.into_iter().filter(|answer| answer.status() != 200).collect();
    assert!(!refused.is_empty(), "nothing stops a flood");
    assert_eq!(nodes[0].take().len(), 3_000 - refused.len());
    is_api_error(refused.remove(0), 429, Some("rate_limit_exceeded")).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_so_many_requests_open_and_no_more() -> anyhow::Result<()> {
    let (nginx, mut nodes, mut client) = edge(1).await?;
    let (url, other) = (format!("{}/v1/hold", nginx.url), format!("{}/v1/models", nginx.url));
    let mut open = JoinSet::new();
    // 400 are let in at once, and 200 a second from then on: the rest comes at half that pace.
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    for n in 0..500 {
        // A connection carries 128 requests at a time, and the node's queue as many new connections.
        if n % 100 == 0 {
            tokio::time::timeout(PATIENCE, nodes[0].held.wait_for(|held| *held == n)).await??;
            client = nginx.client()?.build()?;
        }
        if n >= 400 {
            pace.tick().await;
        }
        open.spawn(client.get(&url).send());
    }
    tokio::time::timeout(PATIENCE, nodes[0].held.wait_for(|held| *held == 500)).await??;
    is_api_error(client.get(&other).send().await?, 429, Some("rate_limit_exceeded")).await;
    nodes[0].let_go();
    while let Some(answer) = open.join_next().await {
        assert_eq!(answer??.status(), 200);
    }
    assert_eq!(client.get(&other).send().await?.status(), 200);
    Ok(())
}

#[tokio::test]
async fn the_paths_of_operators_are_not_there() -> anyhow::Result<()> {
    let (nginx, nodes, client) = edge(1).await?;
    for path in ["/metrics", "/livez", "/readyz", "/cluster", "/metrics/", "//metrics", "/%6detrics", "/v1/../metrics"]
    {
        is_api_error(client.get(format!("{}{path}", nginx.url)).send().await?, 404, Some("not_found")).await;
        assert!(nodes[0].take().is_empty(), "{path} reached a node");
    }
    Ok(())
}

#[tokio::test]
async fn the_exporter_reads_its_numbers_inside_only() -> anyhow::Result<()> {
    let (nginx, nodes, client) = edge(1).await?;
    let inside = client.get(format!("{}/stub_status", nginx.status_url)).send().await?.text().await?;
    assert!(inside.starts_with("Active connections:"), "{inside}");
    assert_eq!(client.get(format!("{}/healthz", nginx.status_url)).send().await?.status(), 200);
    client.get(format!("{}/stub_status", nginx.url)).send().await?;
    assert_eq!(nodes[0].one().uri, "/stub_status", "outside it is a path like any other");
    until("NGINX has counted", async || {
        let text = client.get(format!("{}/stub_status", nginx.status_url)).send().await?.text().await?;
        let requests = text.lines().nth(2).and_then(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
        anyhow::ensure!(requests.is_some_and(|requests| requests >= 4), "{text}");
        Ok(())
    })
    .await
}
