//! The embedded store under SIGKILL: a process that writes to it is killed again and again, and whatever it had been
//! told to be durable is there.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use klatch::stores::{StoreOpenError, open};
use klatch_actors::Store;
use klatch_actors::store::Order;
use klatch_protocol::{ConversationId, Position, State};

const KILLS: usize = 12;
/// Acknowledgements before a kill, at most.
const ACKS_MAX: u64 = 3_000;

/// What a process said that it was told, by conversation.
#[derive(Default)]
struct Acknowledged {
    ends: BTreeMap<u8, Position>,
    items: BTreeMap<u8, u64>,
}

impl Acknowledged {
    fn note(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |word: &str| word.parse::<u64>().expect("a number");
        match words.as_slice() {
            ["entry", of, epoch, seq] => {
                let position = Position { epoch: number(epoch), seq: number(seq) };
                self.ends.insert(number(of) as u8, position);
            }
            ["compacted", of, items] => {
                self.items.insert(number(of) as u8, number(items));
            }
            other => panic!("the writer said {other:?}"),
        }
    }
}

fn writer(folder: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut writer = Command::new(env!("CARGO_BIN_EXE_append-for-ever"));
    let mut child = writer.arg(folder).stdout(Stdio::piped()).spawn().expect("the writer starts");
    let mut said = BufReader::new(child.stdout.take().expect("its output is a pipe"));
    let mut line = String::new();
    said.read_line(&mut line).expect("the writer says something");
    assert_eq!(line, "open\n", "the writer could not open the store");
    (child, said)
}

/// Lets it write until so many acknowledgements were heard, and kills it.
fn kill_after(acks: u64, folder: &Path, acknowledged: &mut Acknowledged) {
    let (mut child, mut said) = writer(folder);
    let mut line = String::new();
    for _ in 0..acks {
        line.clear();
        said.read_line(&mut line).expect("the writer goes on");
        acknowledged.note(&line);
    }
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("what it said can be read");
    for line in rest.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
        acknowledged.note(line);
    }
}

/// Reading a log checks that it has no hole.
async fn check(store: &dyn Store, acknowledged: &Acknowledged) {
    for (n, end) in &acknowledged.ends {
        let conversation = ConversationId([*n; 16]);
        let log = store.log(conversation).await.expect("the log is whole");
        let last = log.entries.last().expect("there is a log").position;
        assert!(last >= *end, "conversation {n} ends at {last:?}, and {end:?} was acknowledged");
        let counted = State::replay(&log.entries).next_item;
        let rows = store.items(conversation, 0, u64::MAX, Order::Ascending, usize::MAX).await.expect("items are read");
        let ordinals: Vec<u64> = rows.iter().map(|row| row.ordinal).collect();
        assert_eq!(ordinals, (0..counted).collect::<Vec<_>>(), "conversation {n} has half a compaction");
        let items = acknowledged.items.get(n).copied().unwrap_or(0);
        assert!(counted >= items, "conversation {n} has {counted} items, and {items} were acknowledged");
    }
}

#[tokio::test]
async fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    let mut acknowledged = Acknowledged::default();
    for _ in 0..KILLS {
        let mut random = [0; 8];
        getrandom::fill(&mut random).expect("the system has a random source");
        let acks = 1 + u64::from_le_bytes(random) % ACKS_MAX;
        kill_after(acks, &path, &mut acknowledged);
        let opened =
            open(&format!("file:{}", path.display()), &Default::default()).await.expect("the store opens after a kill");
        check(&*opened.store, &acknowledged).await;
        opened.close().await;
    }
    assert_eq!(acknowledged.ends.len(), 32, "some conversations were never written to");
}

#[tokio::test]
async fn another_process_is_told_that_the_store_is_in_use() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mut child, _said) = writer(folder.path());
    let Err(error) = open(&format!("file:{}", folder.path().display()), &Default::default()).await else {
        panic!("two have it open")
    };
    assert!(matches!(error, StoreOpenError::Locked(_)), "{error:?}");
    assert!(error.to_string().contains(&folder.path().display().to_string()), "{error}");
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
}
