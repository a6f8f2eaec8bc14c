//! Conversations as the client names and lists them. Used by `session.rs`; prints nothing.

use serde::Deserialize;
use serde_json::Value;

use crate::cli::client::failure::Failure;
use crate::cli::client::{ApiClient, Call};

/// A person looks at one screen.
const LISTED: usize = 20;

/// So many messages of a conversation that is taken up again are shown.
const RECALLED: usize = 4;

#[derive(Debug, Deserialize)]
pub struct Conversation {
    pub id: String,
    pub created_at: u64,
    #[serde(default)]
    pub metadata: Value,
}

#[derive(Deserialize)]
struct Page<T> {
    data: Vec<T>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    role: String,
    #[serde(default)]
    content: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    text: String,
}

/// An id goes into paths, so it must be one.
pub fn id(text: &str) -> Result<String, String> {
    let right = text.starts_with("conv_") && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if right { Ok(text.to_owned()) } else { Err(format!("`{text}` is not a conversation's id: conv_… is")) }
}

pub async fn create(client: &ApiClient) -> Result<String, Failure> {
    client.patiently::<Conversation>(&Call::post("/v1/conversations", "{}")).await.map(|created| created.id)
}

/// Fails where there is none, or where it belongs to someone else.
pub async fn find(client: &ApiClient, id: &str) -> Result<String, Failure> {
    client.patiently::<Conversation>(&Call::get(format!("/v1/conversations/{id}"))).await.map(|found| found.id)
}

/// The newest first.
pub async fn list(client: &ApiClient) -> Result<Vec<Conversation>, Failure> {
    page(client, format!("/v1/conversations?limit={LISTED}&order=desc")).await
}

pub async fn newest(client: &ApiClient) -> Result<Option<String>, Failure> {
    let newest: Vec<Conversation> = page(client, "/v1/conversations?limit=1&order=desc".to_owned()).await?;
    Ok(newest.into_iter().next().map(|found| found.id))
}

/// The last messages as `role: text`, the oldest first.
pub async fn recall(client: &ApiClient, id: &str) -> Result<Vec<String>, Failure> {
    let items: Vec<Item> = page(client, format!("/v1/conversations/{id}/items?limit={RECALLED}&order=desc")).await?;
    let said = |item: &Item| item.content.iter().map(|part| part.text.as_str()).collect::<String>();
    Ok(items.iter().rev().map(|item| format!("{}: {}", item.role, said(item))).collect())
}

async fn page<T: serde::de::DeserializeOwned>(client: &ApiClient, path: String) -> Result<Vec<T>, Failure> {
    client.patiently::<Page<T>>(&Call::get(path)).await.map(|page| page.data)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::client::tests::{FakeServer, Reply};

    #[test]
    fn only_an_id_is_put_into_a_path() {
        assert_eq!(id("conv_0a").as_deref(), Ok("conv_0a"));
        for wrong in ["", "resp_1", "conv_1/items", "conv_1?x", "conv_ä"] {
            assert!(id(wrong).is_err(), "{wrong}");
        }
    }

    #[tokio::test]
    async fn the_newest_is_the_first_of_the_list_if_there_is_any() {
        let list = |data| Reply::ok(json!({"object": "list", "data": data}));
        let server = FakeServer::script([list(json!([{"id": "conv_2", "created_at": 2}])), list(json!([]))]).await;
        assert_eq!(newest(&server.client()).await.unwrap().as_deref(), Some("conv_2"));
        assert_eq!(newest(&server.client()).await.unwrap(), None);
        assert_eq!(server.asked()[0], "GET /v1/conversations?limit=1&order=desc");
    }

    #[tokio::test]
    async fn what_was_said_last_is_recalled_in_the_order_it_was_said() {
        let item = |role: &str, text: &str| json!({"role": role, "content": [{"type": "x", "text": text}]});
        let data = json!([item("assistant", "Why?"), item("user", "Hi"), {"type": "function_call"}]);
        let server = FakeServer::script([Reply::ok(json!({ "data": data }))]).await;
        assert_eq!(recall(&server.client(), "conv_1").await.unwrap(), [": ", "user: Hi", "assistant: Why?"]);
    }
}
