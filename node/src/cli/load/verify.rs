//! `--verify`: what the server has stored against what it has acknowledged. The judgement is pure.
//!
//! A turn may be in the store though its answer was lost, but then once at most; and of two turns, the one that was
//! acknowledged before the other was sent must stand before it. Turns that overlapped may stand in either order.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use futures::{StreamExt, TryStreamExt};
use serde::Serialize;

use super::super::client::ApiClient;
use super::super::client::failure::Failure;
use super::conversations::{AT_ONCE, Item, items};
use super::drive::Drive;
use super::messages::Messages;
use super::tally::Record;

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    pub conversations: u64,
    pub items: u64,
    /// Acknowledged turns that were looked for.
    pub turns: u64,
    pub errors: BTreeMap<&'static str, u64>,
}

/// Counts the conversations that are read.
pub async fn read_back(
    client: &ApiClient,
    drive: &Drive,
    records: Vec<Record>,
    done: &AtomicU64,
) -> Result<Verified, Failure> {
    let mut by_conversation: Vec<Vec<Record>> = vec![vec![]; drive.conversations.len()];
    records.into_iter().for_each(|record| by_conversation[record.conversation as usize].push(record));
    let judge = Judge { messages: &drive.messages, fill: u64::from(drive.plan.items), any_text: drive.plan.any_text };
    let one = |(conversation, records): (&String, Vec<Record>)| {
        let (conversation, judge) = (conversation.clone(), &judge);
        async move {
            let found = items(client, &conversation).await?;
            done.fetch_add(1, Ordering::Relaxed);
            let found: Vec<_> = found.iter().map(|item: &Item| (item.role.clone(), item.text())).collect();
            Ok::<_, Failure>(judge.conversation(&records, &found))
        }
    };
    let each: Vec<_> = drive.conversations.iter().zip(by_conversation).collect();
    let all: Vec<Verified> = futures::stream::iter(each).map(one).buffer_unordered(AT_ONCE).try_collect().await?;
    Ok(all.into_iter().fold(Verified::default(), Verified::add))
}

impl Verified {
    fn add(mut self, other: Self) -> Self {
        self.conversations += other.conversations;
        self.items += other.items;
        self.turns += other.turns;
        other.errors.into_iter().for_each(|(kind, count)| *self.errors.entry(kind).or_default() += count);
        self
    }

    fn error(&mut self, kind: &'static str) {
        *self.errors.entry(kind).or_default() += 1;
    }
}

struct Judge<'a> {
    messages: &'a Messages,
    fill: u64,
    any_text: bool,
}

impl Judge<'_> {
    /// `found` are role and text of each item, the oldest first.
    fn conversation(&self, records: &[Record], found: &[(String, String)]) -> Verified {
        let mut verified = Verified { conversations: 1, items: found.len() as u64, ..Verified::default() };
        let (filled, turns) = found.split_at(found.len().min(self.fill as usize));
        if filled.len() as u64 != self.fill
            || !(0..).zip(filled).all(|(number, item)| item.1 == self.messages.fill_text(number))
        {
            verified.error("fill_damaged");
        }
        let stored = self.stored(turns, &mut verified);
        judge_counts(records, &stored, &mut verified);
        judge_order(records, &stored, &mut verified);
        verified
    }

    /// The numbers of the turns in the order of the store, each with its reply right behind it.
    fn stored(&self, mut items: &[(String, String)], verified: &mut Verified) -> Vec<u64> {
        let mut stored = vec![];
        while let [(role, text), rest @ ..] = items {
            items = rest;
            let Some(number) = self.messages.number_of(text).filter(|_| role == "user") else {
                verified.error("foreign_item");
                continue;
            };
            stored.push(number);
            match rest {
                [(role, reply), rest @ ..] if role == "assistant" && (self.any_text || reply == text) => items = rest,
                _ => verified.error("reply_missing"),
            }
        }
        stored
    }
}

fn judge_counts(records: &[Record], stored: &[u64], verified: &mut Verified) {
    let mut counts: HashMap<u64, u64> = HashMap::new();
    stored.iter().for_each(|number| *counts.entry(*number).or_default() += 1);
    for record in records {
        let count = counts.remove(&record.number).unwrap_or(0);
        verified.turns += u64::from(record.acknowledged.is_some());
        match count {
            0 if record.acknowledged.is_some() => verified.error("lost"),
            0 | 1 => {}
            _ => verified.error("duplicate"),
        }
    }
    // Turns of this run that belong to another conversation.
    counts.into_keys().for_each(|_| verified.error("misplaced"));
}

/// From the last to the first, with the earliest acknowledgement of all that stand later.
fn judge_order(records: &[Record], stored: &[u64], verified: &mut Verified) {
    let by_number: HashMap<_, _> = records.iter().map(|record| (record.number, record)).collect();
    let mut earliest_later: Option<Instant> = None;
    for record in stored.iter().rev().filter_map(|number| by_number.get(number)) {
        if earliest_later.is_some_and(|acknowledged| acknowledged < record.sent) {
            verified.error("out_of_order");
        }
        earliest_later = [earliest_later, record.acknowledged].into_iter().flatten().min();
    }
}

#[cfg(test)]
mod tests;
