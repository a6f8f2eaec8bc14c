//! Makes and fills the conversations before anything is measured, and reads their items afterwards.
//! Setting up is no measurement: what is refused here is repeated, as any client would.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::client::failure::Failure;
use super::super::client::{ApiClient, Call};
use super::messages::Messages;
use super::plan::Plan;

/// The API takes no more items at once.
const ITEMS_PER_CALL: u64 = 20;

/// Conversations in the making at one time.
pub const AT_ONCE: usize = 32;

#[derive(Deserialize)]
struct Created {
    id: String,
}

#[derive(Deserialize)]
struct Page {
    data: Vec<Item>,
    last_id: Option<String>,
    #[serde(default)]
    has_more: bool,
}

#[derive(Deserialize)]
pub struct Item {
    #[serde(default)]
    pub role: String,
    #[serde(default)]
    content: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    text: String,
}

impl Item {
    pub fn text(&self) -> String {
        self.content.iter().map(|part| part.text.as_str()).collect()
    }
}

/// Counts those that are made.
pub async fn prepare(
    client: &ApiClient,
    plan: &Plan,
    messages: &Messages,
    done: &AtomicU64,
) -> Result<Vec<String>, Failure> {
    let one = |_| async {
        let made = make(client, u64::from(plan.items), messages).await;
        done.fetch_add(1, Ordering::Relaxed);
        made
    };
    futures::stream::iter(0..plan.conversations).map(one).buffer_unordered(AT_ONCE).try_collect().await
}

async fn make(client: &ApiClient, items: u64, messages: &Messages) -> Result<String, Failure> {
    let body = json!({"items": batch(0, items, messages)}).to_string();
    let Created { id } = client.patiently(&Call::post("/v1/conversations", body)).await?;
    for first in (ITEMS_PER_CALL..items).step_by(ITEMS_PER_CALL as usize) {
        let body = json!({"items": batch(first, items, messages)}).to_string();
        client.patiently::<Value>(&Call::post(format!("/v1/conversations/{id}/items"), body)).await?;
    }
    Ok(id)
}

fn batch(first: u64, items: u64, messages: &Messages) -> Vec<Value> {
    let role = |number: u64| if number.is_multiple_of(2) { "user" } else { "assistant" };
    let item = |number| json!({"type": "message", "role": role(number), "content": messages.fill_text(number)});
    (first..items.min(first + ITEMS_PER_CALL)).map(item).collect()
}

/// All items, the oldest first.
pub async fn items(client: &ApiClient, conversation: &str) -> Result<Vec<Item>, Failure> {
    let (mut all, mut after) = (vec![], String::new());
    loop {
        let path = format!("/v1/conversations/{conversation}/items?limit=100&order=asc{after}");
        let page: Page = client.patiently(&Call::get(path)).await?;
        all.extend(page.data);
        match page.last_id {
            Some(last) if page.has_more => after = format!("&after={last}"),
            Some(_) | None => return Ok(all),
        }
    }
}
