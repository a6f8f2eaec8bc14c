//! Which node a request goes to, and where it goes when that node is gone.

use std::collections::BTreeMap;
use std::slice;
use std::time::Duration;

use futures::StreamExt;
use klatch_tests::nginx::Nginx;
use reqwest::{Client, Response, StatusCode};

use super::nodes::{Recorder, breaking};
use super::{edge, has_all_headers, is_api_error};

const PATIENCE: Duration = Duration::from_secs(30);
const CONVERSATIONS: u64 = 60;

/// 32 digits, as no two conversations share them.
fn digits(n: u64) -> String {
    format!("{:032x}", u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

fn node_of(answer: &Response) -> usize {
    answer.headers()["x-node"].to_str().expect("a text").parse().expect("a number")
}

/// Where requests about this conversation go: all of them to the same node.
async fn node(client: &Client, nginx: &Nginx, conversation: u64) -> anyhow::Result<usize> {
    let (url, digits) = (&nginx.url, digits(conversation));
    let id = format!("conv_{digits}{:016x}", 0);
    let gets = [
        format!("{url}/v1/conversations/{id}"),
        format!("{url}/v1/conversations/{id}/items?limit=3"),
        format!("{url}/v1/conversations/{id}/items/msg_{digits}{:016x}", 7),
        format!("{url}/v1/responses/resp_{digits}{:016x}?stream=true", 3),
        format!("{url}/v1/responses/resp_{digits}{:016x}/input_items", 4),
    ];
    let mut nodes = Vec::new();
    for get in gets {
        nodes.push(node_of(&client.get(get).send().await?));
    }
    let named = client.post(format!("{url}/v1/responses")).header("X-Conversation-Id", &id).body("{}");
    nodes.push(node_of(&named.send().await?));
    nodes.push(node_of(&client.post(format!("{url}/v1/conversations/{id}/fork")).send().await?));
    let first = nodes[0];
    assert!(nodes.iter().all(|node| *node == first), "conversation {conversation} goes to {nodes:?}");
    Ok(first)
}

/// How many of these each node got.
fn counted(nodes: impl IntoIterator<Item = usize>) -> BTreeMap<usize, usize> {
    let mut counts = BTreeMap::new();
    nodes.into_iter().for_each(|node| *counts.entry(node).or_default() += 1);
    counts
}

#[tokio::test]
async fn a_conversation_stays_with_its_node_and_only_those_of_a_lost_node_move() -> anyhow::Result<()> {
    let (nginx, mut nodes, client) = edge(3).await?;
    let mut before = Vec::new();
    for conversation in 0..CONVERSATIONS {
        // One address may ask 200 times a second.
        before.push(node(&client, &nginx, conversation).await?);
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    let counts = counted(before.iter().copied());
    assert!(counts.len() == 3 && counts.values().all(|count| *count >= 5), "{counts:?}");

    drop(nodes.remove(1));
    for (conversation, was) in (0..CONVERSATIONS).zip(before) {
        let is = node(&client, &nginx, conversation).await?;
        assert!(if was == 1 { is != 1 } else { is == was }, "{conversation} went from {was} to {is}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    Ok(())
}

#[tokio::test]
async fn requests_that_name_no_conversation_go_to_all_nodes() -> anyhow::Result<()> {
    let (nginx, _nodes, client) = edge(3).await?;
    let mut nodes = Vec::new();
    for _ in 0..90 {
        nodes.push(node_of(&client.post(format!("{}/v1/responses", nginx.url)).body("{}").send().await?));
    }
    let counts = counted(nodes);
    assert!(counts.len() == 3 && counts.values().all(|count| *count >= 10), "{counts:?}");
    Ok(())
}

#[tokio::test]
async fn a_stream_comes_piece_by_piece() -> anyhow::Result<()> {
    let (nginx, nodes, client) = edge(1).await?;
    // Over HTTP/2 NGINX keeps the head for the first piece, and a node's first event follows its head at once.
    nodes[0].pieces.send("one")?;
    let mut body = client.get(format!("{}/v1/pieces", nginx.url)).send().await?.bytes_stream();
    for (piece, next) in [("one", Some("two")), ("two", Some("three")), ("three", None)] {
        let got = tokio::time::timeout(PATIENCE, body.next()).await?.expect("more")?;
        assert_eq!(got, piece, "it came before the next was sent");
        next.map(|next| nodes[0].pieces.send(next)).transpose()?;
    }
    Ok(())
}

#[tokio::test]
async fn what_a_node_dropped_goes_to_another_under_the_same_name() -> anyhow::Result<()> {
    let (broken, mut heads) = breaking().await?;
    let whole = Recorder::start(0).await?;
    let nginx = Nginx::start(&[broken, whole.url.clone()]).await?;
    let client = nginx.client()?.build()?;
    let mut again = 0;
    for _ in 0..40 {
        let answer = client.post(format!("{}/v1/responses", nginx.url)).body("{}").send().await?;
        assert_eq!(answer.status(), StatusCode::OK);
        has_all_headers(&answer);
        let reached = whole.one();
        let name = reached.headers["x-klatch-attempt-key"].to_str()?.to_owned();
        if let Ok(head) = heads.try_recv() {
            assert!(head.contains(&format!("x-klatch-attempt-key: {name}\r\n")), "{head} was sent again as {name}");
            again += 1;
        }
    }
    // After two failures a node is left alone for two seconds.
    assert!(again >= 2, "{again} requests met the broken node");
    Ok(())
}

#[tokio::test]
async fn a_refresh_token_is_never_sent_twice() -> anyhow::Result<()> {
    let (broken, mut heads) = breaking().await?;
    let whole = Recorder::start(0).await?;
    let nginx = Nginx::start(&[broken, whole.url.clone()]).await?;
    let client = nginx.client()?.build()?;
    let mut refused = 0;
    for _ in 0..10 {
        let answer = client.post(format!("{}/auth/refresh", nginx.url)).body("{}").send().await?;
        match heads.try_recv() {
            Ok(_) => {
                is_api_error(answer, 502, Some("server_error")).await;
                assert!(whole.take().is_empty(), "it went to another node too");
                refused += 1;
            }
            Err(_) => {
                whole.one();
                assert_eq!(answer.status(), StatusCode::OK);
            }
        }
    }
    assert!(refused > 0, "no request met the broken node");
    Ok(())
}

#[tokio::test]
async fn signing_in_and_its_keys_have_upstreams_of_their_own() -> anyhow::Result<()> {
    let (node, signs_in) = (Recorder::start(0).await?, Recorder::start(1).await?);
    let nginx = Nginx::start_with(slice::from_ref(&node.url), slice::from_ref(&signs_in.url), "").await?;
    let client = nginx.client()?.build()?;
    let asked = async |path: &str| anyhow::Ok(node_of(&client.get(format!("{}{path}", nginx.url)).send().await?));
    for (path, number) in [("/auth/login", 1), ("/.well-known/jwks.json", 1), ("/openapi.json", 0), ("/v1/models", 0)] {
        assert_eq!(asked(path).await?, number, "{path}");
    }
    Ok(())
}
