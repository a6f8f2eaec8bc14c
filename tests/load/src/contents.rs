//! What is stored: conversations with a history before a round, and every turn of it behind that history afterwards, once
//! and in order. Baselines are filled and read in their Redis, Klatch over its API. None of it is measured.

use std::borrow::Cow;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use klatch_tests::client::Api;
use klatch_tests::history::Stored;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

use crate::lists::{self, Turn};

/// Klatch takes so many items with one request.
const ITEMS_AT_ONCE: usize = 20;
const REQUESTS_AT_ONCE: usize = 8;
/// To read one conversation back, on a machine that others use too.
const READ_MAX: Duration = Duration::from_secs(60);

/// Where a subject keeps conversations.
pub enum Contents {
    /// Nowhere.
    Nothing,
    /// A list of turns each.
    Lists {
        redis: MultiplexedConnection,
        owner: &'static str,
    },
    /// One JSON value each, with all items in it.
    Values {
        redis: MultiplexedConnection,
        owner: &'static str,
    },
    Klatch {
        api: Api,
        http: reqwest::Client,
        url: String,
        token: String,
    },
}

impl Contents {
    /// Puts these turns into conversations that are new.
    pub async fn fill(&self, ids: &[String], history: &[Stored]) -> anyhow::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Lists { redis, owner } => {
                let turns = history.iter().enumerate().map(|(n, turn)| list_value(n, turn));
                let turns = turns.collect::<anyhow::Result<Vec<String>>>()?;
                for id in ids {
                    let mut push = redis::cmd("RPUSH");
                    push.arg(lists::key(owner, id)).arg(&turns);
                    push.exec_async(&mut redis.clone()).await?;
                }
                Ok(())
            }
            Self::Values { redis, owner } => {
                let items: Vec<Value> = history.iter().flat_map(items).collect();
                let value = json!({"items": items}).to_string();
                for id in ids {
                    let mut set = redis::cmd("SET");
                    set.arg(value_key(owner, id)).arg(&value).exec_async(&mut redis.clone()).await?;
                }
                Ok(())
            }
            Self::Klatch { http, url, token, .. } => {
                let items: Vec<Value> = history.iter().flat_map(items).collect();
                let fill = async |id: &String| -> anyhow::Result<()> {
                    for some in items.chunks(ITEMS_AT_ONCE) {
                        let added = http.post(format!("{url}/v1/conversations/{id}/items")).bearer_auth(token);
                        added.json(&json!({"items": some})).send().await?.error_for_status()?.bytes().await?;
                    }
                    Ok(())
                };
                let filled = stream::iter(ids).map(fill).buffer_unordered(REQUESTS_AT_ONCE);
                filled.try_collect().await
            }
        }
    }

    /// Nothing but these turns, each once and in this order.
    pub async fn check(&self, id: &str, expected: &[Stored]) -> anyhow::Result<()> {
        let found = match self {
            Self::Nothing => return Ok(()),
            Self::Lists { redis, owner } => {
                let mut read = redis::cmd("LRANGE");
                let read = read.arg(lists::key(owner, id)).arg(0).arg(-1);
                let values: Vec<String> = read.query_async(&mut redis.clone()).await?;
                let turns = values.iter().map(|value| {
                    let turn: Turn = serde_json::from_str(value)?;
                    Ok(Stored { text: turn.input.into_owned(), reply: turn.output.into_owned() })
                });
                turns.collect::<anyhow::Result<Vec<Stored>>>()?
            }
            Self::Values { redis, owner } => {
                let value: String = redis::cmd("GET").arg(value_key(owner, id)).query_async(&mut redis.clone()).await?;
                pairs(&serde_json::from_str(&value)?)?
            }
            Self::Klatch { api, url, .. } => api.turns(url, id, READ_MAX).await?,
        };
        same(id, &found, expected)
    }
}

fn same(id: &str, found: &[Stored], expected: &[Stored]) -> anyhow::Result<()> {
    let same = found.iter().zip(expected).take_while(|(found, expected)| found == expected).count();
    ensure!(
        same == expected.len() && found.len() == expected.len(),
        "{id} should have {} turns, and has {}; turn {same} should be {:?}, and is {:?}",
        expected.len(),
        found.len(),
        expected.get(same),
        found.get(same),
    );
    Ok(())
}

fn list_value(n: usize, turn: &Stored) -> anyhow::Result<String> {
    let (input, output) = (Cow::Borrowed(turn.text.as_str()), Cow::Borrowed(turn.reply.as_str()));
    Ok(serde_json::to_string(&Turn { response: format!("resp_{n:032x}").into(), at: 0, input, output })?)
}

/// As flask/app.py names it.
fn value_key(owner: &str, conversation: &str) -> String {
    format!("conversation:{owner}:{conversation}")
}

/// Of a turn: what was said, and what was answered.
fn items(turn: &Stored) -> [Value; 2] {
    let item =
        |role, kind, text: &str| json!({"type": "message", "role": role, "content": [{"type": kind, "text": text}]});
    [item("user", "input_text", &turn.text), item("assistant", "output_text", &turn.reply)]
}

fn pairs(value: &Value) -> anyhow::Result<Vec<Stored>> {
    let items = value["items"].as_array().context("a value has items")?;
    let said = |item: &Value, role: &str| -> anyhow::Result<String> {
        ensure!(item["role"] == role, "{item} is not of the role {role}");
        Ok(item["content"][0]["text"].as_str().context("an item has a text")?.to_owned())
    };
    ensure!(items.len().is_multiple_of(2), "an input has no reply");
    items
        .chunks(2)
        .map(|pair| Ok(Stored { text: said(&pair[0], "user")?, reply: said(&pair[1], "assistant")? }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_is_missing_twice_there_or_elsewhere_is_noticed() {
        let turn = |text: &str| Stored { text: text.to_owned(), reply: text.to_owned() };
        let [a, b, c] = ["a", "b", "c"].map(turn);
        let expected = [a.clone(), b.clone(), c.clone()];
        same("conv", &expected, &expected).unwrap();
        for wrong in [vec![&a, &b], vec![&a, &c], vec![&a, &b, &b, &c], vec![&a, &c, &b], vec![&a, &b, &c, &c]] {
            let found: Vec<Stored> = wrong.into_iter().cloned().collect();
            assert!(same("conv", &found, &expected).is_err(), "{found:?}");
        }
    }

    #[test]
    fn a_value_is_read_as_turns() {
        let turn = Stored { text: "a".to_owned(), reply: "b".to_owned() };
        let value = json!({"items": items(&turn)});
        assert_eq!(pairs(&value).unwrap(), [turn]);
        let mut half = value;
        half["items"].as_array_mut().unwrap().pop();
        assert!(pairs(&half).is_err());
    }
}
