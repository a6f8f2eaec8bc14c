//! Lists in a Redis that are not as this build writes them.

use klatch_actors::store::{Compaction, Order};
use klatch_protocol::envelope::seal;
use klatch_protocol::state::{ItemRow, Settled};

use super::*;

/// What cannot be read is never taken for something else, and what is stored stays as it is.
#[tokio::test(flavor = "multi_thread")]
async fn lists_that_are_damaged_or_of_earlier_builds_are_refused_with_the_reason() {
    let server = RedisServer::start().await.unwrap();
    let store = fresh(&server).await;
    let send = async |name: &str, arguments: &[&[u8]]| {
        let command = ::redis::cmd(name).arg(arguments).take();
        store.lane("").unwrap().submit(command, job::Kind::Plain, true).await.unwrap();
    };
    let row = ItemRow { ordinal: 7, client_id: None, body: None, hidden_at: None };
    let alone = [&7_u64.to_be_bytes()[..], &seal(&row)].concat();
    let cut_off = [&7_u64.to_be_bytes()[..], &[blocks::FORMAT], &7_u64.to_be_bytes(), &[7, 9, 1]].concat();
    // What lies above a block does not look into its rows.
    for (member, part, touched) in [
        (&alone, "its items are stored one by one, as builds before", &[3, 9][..]),
        (&cut_off, "a block of items: a row is cut off", &[3]),
    ] {
        let conversation = written(&store, 1).await;
        let key = store.keys.items(conversation);
        send("ZADD", &[key.as_bytes(), b"0", member]).await;
        let read = store.items(conversation, 0, 9, Order::Ascending, 9).await;
        assert!(matches!(&read, Err(StoreError::Damaged(why)) if why.contains(part)), "{read:?}");
        for ordinal in touched {
            let items = vec![ItemRow { ordinal: *ordinal, ..row.clone() }];
            let refused = compacted(&store, conversation, items).await;
            assert!(matches!(&refused, Err(StoreError::Damaged(why)) if why.contains(part)), "{ordinal}: {refused:?}");
        }
        assert_eq!(store.log(conversation).await.unwrap().entries.len(), 1);
    }
    let conversation = written(&store, 1).await;
    let key = store.keys.turns(conversation);
    send("HSET", &[key.as_bytes(), &7_u64.to_be_bytes(), b"turn"]).await;
    let read = store.turn(conversation, 7).await;
    assert!(matches!(&read, Err(StoreError::Damaged(why)) if why.contains("another type")), "{read:?}");
    let refused = compacted(&store, conversation, vec![row]).await;
    assert!(matches!(&refused, Err(StoreError::Damaged(why)) if why.contains("kept turns in a hash")), "{refused:?}");
    assert!(store.lane("").unwrap().is_up(), "the connection is not to blame");
}

async fn compacted(store: &RedisStore, conversation: ConversationId, items: Vec<ItemRow>) -> Result<(), StoreError> {
    let expected = store.log_end(conversation).await.unwrap().unwrap();
    let events = vec![Event::Snapshot(Box::default())];
    let snapshot = Arc::new(Entry { position: expected.position.next(), events, ..Entry::clone(&entry(0)) });
    let settled = Settled { items, ..Settled::default() };
    store.compact(conversation, Compaction { expected, snapshot, settled, clear_but_items_below: None }).await
}
