//! The embedded store's group commit on a real disk: entries of 400 bytes, each appender waiting for its acknowledgement,
//! so that with 64 of them one sync serves many. The folder is that of `TMPDIR`.

use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures::future::try_join_all;
use klatch::stores::embedded::Embedded;
use klatch_actors::Store;
use klatch_protocol::{ClaimToken, ConversationId, Entry, Event, Position};

const ENTRY_BYTES: usize = 400;

struct Appender {
    conversation: ConversationId,
    seq: u64,
}

impl Appender {
    fn next(&mut self) -> Arc<Entry> {
        let position = Position { epoch: 1, seq: self.seq };
        self.seq += 1;
        let events = vec![Event::Delta { turn: 0, pieces: ["x".repeat(ENTRY_BYTES)].into() }];
        Arc::new(Entry { position, token: ClaimToken(7), at_ms: 1, events })
    }
}

fn commit(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let store = runtime.block_on(Embedded::open(&folder.path().join("store"))).expect("a store");
    let mut group = criterion.benchmark_group("commit/appends");
    for at_once in [1, 64] {
        let new = |_| Appender { conversation: ConversationId::random(), seq: 0 };
        let mut appenders: Vec<Appender> = (0..at_once).map(new).collect();
        group.throughput(Throughput::Elements(at_once));
        group.bench_function(BenchmarkId::from_parameter(at_once), |bencher| {
            bencher.iter(|| {
                let appends = appenders.iter_mut().map(|appender| store.append(appender.conversation, appender.next()));
                runtime.block_on(try_join_all(appends)).expect("they are written");
            });
        });
    }
    group.finish();
    runtime.block_on(store.close());
}

criterion_group!(benches, commit);
criterion_main!(benches);
