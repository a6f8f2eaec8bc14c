//! The embedded store on a real disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use klatch_actors::store::contract;
use klatch_protocol::{ClaimToken, Event, Position};
use tempfile::TempDir;

use super::*;
use crate::stores::records::contract as records_contract;

/// The store of a folder that goes with it.
async fn fresh() -> (TempDir, Embedded) {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(&folder.path().join("store")).await.unwrap();
    (folder, store)
}

fn entry(seq: u64) -> Arc<Entry> {
    let events = vec![Event::Delta { turn: 0, pieces: ["text".repeat(50)].into() }];
    Arc::new(Entry { position: Position { epoch: 1, seq }, token: ClaimToken(7), at_ms: 1, events })
}

async fn written(store: &Embedded, entries: u64) -> ConversationId {
    let conversation = ConversationId::random();
    for seq in 0..entries {
        store.append(conversation, entry(seq)).await.unwrap();
    }
    conversation
}

async fn refusal(folder: &Path) -> StoreOpenError {
    match Embedded::open(folder).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_contract() {
    let folders = tempfile::tempdir().unwrap();
    let next = std::sync::atomic::AtomicUsize::new(0);
    contract::suite(async || {
        let n = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Arc::new(Embedded::open(&folders.path().join(n.to_string())).await.unwrap()) as Arc<dyn Store>
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_contract_of_records() {
    let (_folder, store) = fresh().await;
    records_contract::suite(&store).await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_opening_it_again() {
    let (folder, store) = fresh().await;
    let conversation = written(&store, 5).await;
    assert!(store.put("key".into(), None, vec![1]).await.unwrap());
    let before = store.log(conversation).await.unwrap();
    store.close().await;
    assert!(matches!(store.append(conversation, entry(5)).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.log(conversation).await, Err(StoreError::Unavailable(_))));
    let again = Embedded::open(&folder.path().join("store")).await.unwrap();
    assert_eq!(again.log(conversation).await.unwrap(), before);
    assert_eq!(again.get("key".into()).await.unwrap(), Some(Record { version: 1, bytes: vec![1] }));
    again.append(conversation, entry(5)).await.unwrap();
}

#[tokio::test]
async fn the_folder_is_its_owners_alone() {
    let (folder, _store) = fresh().await;
    let mode = fs::metadata(folder.path().join("store")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn a_second_opener_is_told_that_the_folder_is_in_use() {
    let (folder, _store) = fresh().await;
    let path = folder.path().join("store");
    let error = refusal(&path).await;
    assert!(matches!(error, StoreOpenError::Locked(_)), "{error:?}");
    assert!(error.to_string().contains(path.to_str().unwrap()));
}

#[tokio::test]
async fn a_newer_format_is_refused_and_so_is_a_foreign_folder() {
    let (folder, store) = fresh().await;
    store.close().await;
    let path = folder.path().join("store");
    fs::write(path.join("FORMAT"), "format = 2\n").unwrap();
    let error = refusal(&path).await;
    assert!(matches!(&error, StoreOpenError::Newer { found, .. } if found == "2"), "{error:?}");
    fs::write(path.join("FORMAT"), "nonsense").unwrap();
    assert!(matches!(refusal(&path).await, StoreOpenError::Damaged { .. }));
    fs::remove_file(path.join("FORMAT")).unwrap();
    assert!(matches!(refusal(&path).await, StoreOpenError::Damaged { .. }));
    let foreign = folder.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.txt"), "precious").unwrap();
    assert!(matches!(refusal(&foreign).await, StoreOpenError::Foreign(_)));
    fs::write(folder.path().join("file"), "").unwrap();
    assert!(matches!(refusal(&folder.path().join("file")).await, StoreOpenError::Io { .. }));
}

/// Changes the bytes at one place of the journal after another. Whatever the place, the damage is told, unless it is
/// in the very last batch: that is as if it had never been finished. Never a panic, never anything else.
#[tokio::test]
async fn damage_is_told_and_never_a_panic() {
    const ENTRIES: usize = 40;
    let (folder, store) = fresh().await;
    let path = folder.path().join("store");
    let conversation = written(&store, ENTRIES as u64).await;
    let whole = store.log(conversation).await.unwrap();
    store.close().await;
    let journal = journal(&path);
    let good = fs::read(&journal).unwrap();
    let used = good.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for place in (0..used).step_by(used / 60).chain([used - 1]) {
        let mut bad = good[..used].to_vec();
        bad[place..used.min(place + 8)].iter_mut().for_each(|byte| *byte ^= 0x5a);
        fs::write(&journal, &bad).unwrap();
        match Embedded::open(&path).await {
            Err(StoreOpenError::Damaged { .. }) => {}
            Err(other) => panic!("damage at {place} is told as {other:?}"),
            Ok(store) => match store.log(conversation).await {
                Ok(log) if log.entries == whole.entries[..ENTRIES - 1] => {}
                other => panic!("damage at {place} of {used} was not told, and this was read: {other:?}"),
            },
        }
        fs::write(&journal, &good[..used]).unwrap();
    }
}

/// As a crash of the machine leaves it: cut anywhere, the log ends with a whole entry, and goes on from there.
#[tokio::test]
async fn a_torn_journal_loses_only_what_was_torn() {
    let (folder, store) = fresh().await;
    let path = folder.path().join("store");
    let conversation = written(&store, 10).await;
    let whole = store.log(conversation).await.unwrap();
    store.close().await;
    let journal = journal(&path);
    let mut bytes = fs::read(&journal).unwrap();
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1);
    while let Some(length) = bytes.len().checked_sub(111).filter(|length| *length > 2_000) {
        bytes.truncate(length);
        fs::write(&journal, &bytes).unwrap();
        let store = Embedded::open(&path).await.unwrap();
        let log = store.log(conversation).await.unwrap();
        assert!(whole.entries.starts_with(&log.entries), "cut at {length}: {log:?}");
        let next = Position { epoch: 1, seq: log.entries.len() as u64 };
        let last = log.entries.last().map(|entry| entry.position.next());
        assert_eq!(last.unwrap_or_default().seq, next.seq, "cut at {length}");
    }
}

fn journal(store: &Path) -> std::path::PathBuf {
    let files = fs::read_dir(store.join("database")).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|ending| ending == "jnl")).max().unwrap()
}

/// Takes entries out behind the store's back.
#[tokio::test]
async fn a_log_with_a_hole_is_damaged() {
    for hole in [0, 3, 9] {
        let (_folder, store) = fresh().await;
        let conversation = written(&store, 10).await;
        let engine = store.engine().unwrap();
        engine.log.remove(keys::log(conversation, Position { epoch: 1, seq: hole })).unwrap();
        let read = store.log(conversation).await;
        assert!(matches!(read, Err(StoreError::Damaged(_))), "a hole at {hole}: {read:?}");
    }
}

#[tokio::test]
async fn a_record_key_has_a_maximum() {
    let (_folder, store) = fresh().await;
    assert_eq!(store.put("k".repeat(RECORD_KEY_BYTES_MAX), None, vec![]).await, Ok(true));
    for key in [String::new(), "k".repeat(RECORD_KEY_BYTES_MAX + 1)] {
        assert!(matches!(store.put(key, None, vec![]).await, Err(StoreError::Unavailable(_))));
    }
}

/// The commit panics over a key that is too long for the database, which check_key lets nobody else send.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_commit_it_opens_itself_again() {
    let (_folder, store) = fresh().await;
    let conversation = written(&store, 3).await;
    let failed = store.write(Change::RemoveRecord { key: vec![b'k'; 70_000] }, 0).await;
    assert!(matches!(failed, Err(StoreError::Unknown(_))), "{failed:?}");
    let refused = store.append(conversation, entry(3)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    while let Err(error) = store.append(conversation, entry(3)).await {
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        tokio::task::yield_now().await;
    }
    assert_eq!(store.log(conversation).await.unwrap().entries.len(), 4);
}
