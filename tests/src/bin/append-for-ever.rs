//! Opens an embedded store and writes to it until it is killed: appends to some conversations at a time, compacting
//! each now and then. Prints a line for what was acknowledged, only then: `entry CONVERSATION EPOCH SEQ`, `compacted
//! CONVERSATION ITEMS`. Each conversation's items are numbered from 0, and its snapshot says how many it has.

use std::sync::Arc;

use anyhow::Context;
use klatch_actors::Store;
use klatch_actors::store::{Compaction, LogEnd};
use klatch_protocol::state::Settled;
use klatch_protocol::{Body, ClaimToken, ConversationId, Entry, Event, Item, Position, State};
use tokio::task::JoinSet;

const CONVERSATIONS: u8 = 32;
/// Entries between compactions.
const COMPACTED_EVERY: u64 = 20;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).context("usage: append-for-ever FOLDER")?;
    let store = klatch::stores::open(&format!("file:{folder}"), &Default::default()).await?.store;
    println!("open");
    let mut writers = JoinSet::new();
    for n in 0..CONVERSATIONS {
        writers.spawn(write(store.clone(), n));
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    Ok(())
}

async fn write(store: Arc<dyn Store>, n: u8) -> anyhow::Result<()> {
    let conversation = ConversationId([n; 16]);
    let mut items = State::replay(&store.log(conversation).await?.entries).next_item;
    let position = store.log_end(conversation).await?.map_or(Position::default(), |end| end.position).claim();
    let mut end = LogEnd { position, token: ClaimToken::random() };
    append(&*store, n, end, Event::Claimed { node: "test".into(), incarnation: 1, view: 1 }).await?;
    loop {
        end.position = end.position.next();
        let text = format!("piece {} of an answer ", end.position.seq).repeat(usize::from(n) + 1);
        append(&*store, n, end, Event::Delta { turn: 0, pieces: [text].into() }).await?;
        if end.position.seq.is_multiple_of(COMPACTED_EVERY) {
            items += 1;
            end = compact(&*store, conversation, end, items).await?;
            println!("compacted {n} {items}");
        }
    }
}

async fn append(store: &dyn Store, n: u8, at: LogEnd, event: Event) -> anyhow::Result<()> {
    let entry = Entry { position: at.position, token: at.token, at_ms: 1, events: vec![event] };
    store.append(ConversationId([n; 16]), Arc::new(entry)).await?;
    println!("entry {n} {} {}", at.position.epoch, at.position.seq);
    Ok(())
}

/// Adds one item, and leaves a snapshot that counts it.
async fn compact(
    store: &dyn Store,
    conversation: ConversationId,
    expected: LogEnd,
    items: u64,
) -> anyhow::Result<LogEnd> {
    let end = LogEnd { position: expected.position.next(), ..expected };
    let events = vec![Event::Snapshot(Box::new(State { next_item: items, ..State::default() }))];
    let snapshot = Arc::new(Entry { position: end.position, token: end.token, at_ms: 1, events });
    let item = Item { ordinal: items - 1, client_id: None, body: Body::user("text").into() };
    let settled = Settled { items: vec![item.into()], ..Settled::default() };
    store.compact(conversation, Compaction { expected, snapshot, settled, clear_but_items_below: None }).await?;
    Ok(end)
}
