//! The bytes of a turn and of a snapshot: made and read again.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use klatch_protocol::envelope::{open, seal};
use klatch_protocol::event::{Accepted, Attempt, AttemptReason, Created, Parameters};
use klatch_protocol::turn::Usage;
use klatch_protocol::{Body, ClaimToken, Entry, Event, Item, Outcome, Position, State};

fn entry(seq: u64, events: Vec<Event>) -> Entry {
    Entry { position: Position { epoch: 1, seq }, token: ClaimToken(7), at_ms: 1_700_000_000_000, events }
}

/// As a bot that answers at once leaves it: all in one entry, 200 bytes asked and 40 pieces said.
fn turn(turn: u64) -> Entry {
    let ordinal = turn * 257;
    let input = vec![Item { ordinal, client_id: None, body: Body::user("words ".repeat(33)).into() }];
    let parameters = Parameters {
        model: "echo".into(),
        background: false,
        store: true,
        conversation_named: true,
        previous: None,
        cancel_on_disconnect: false,
        start_by_ms: None,
        request: "{}".into(),
    };
    let accepted = Accepted {
        turn,
        input,
        key: None,
        attempt: Some([3; 16]),
        fingerprint: [4; 16],
        parameters,
        queued: false,
        at_ms: 1_700_000_000_000,
    };
    let attempt = Attempt { n: 1, incarnation: 1, reason: AttemptReason::First };
    let usage = Usage { input: 40, input_cached: 0, output: 40, output_reasoning: 0 };
    entry(
        turn + 1,
        vec![
            Event::TurnAccepted(accepted.into()),
            Event::AttemptStarted { turn, attempt },
            Event::Delta { turn, pieces: ["words "; 40].into() },
            Event::TurnEnded { turn, outcome: Outcome::Completed { usage }, memory: None },
        ],
    )
}

/// Of a conversation that is about to be compacted: 64 turns that are not settled yet.
fn snapshot() -> Entry {
    let created = Created {
        tenant: "acme".into(),
        subject: "ann".into(),
        metadata: vec![],
        ttl_seconds: None,
        explicit: true,
        items: vec![],
        parent: None,
        key: None,
    };
    let mut log = vec![entry(0, vec![Event::Created(Box::new(created))])];
    log.extend((0..64).map(turn));
    entry(99, vec![Event::Snapshot(Box::new(State::replay(&log)))])
}

fn envelope(criterion: &mut Criterion) {
    for (name, entry) in [("turn", turn(0)), ("snapshot", snapshot())] {
        let sealed = seal(&entry);
        assert_eq!(open::<Entry>(&sealed).as_ref(), Ok(&entry));
        let mut group = criterion.benchmark_group(format!("envelope/{name}"));
        group.throughput(Throughput::Bytes(sealed.len() as u64));
        group.bench_function("seal", |bencher| bencher.iter(|| seal(black_box(&entry))));
        group.bench_function("open", |bencher| bencher.iter(|| open::<Entry>(black_box(&sealed))));
        group.finish();
    }
}

criterion_group!(benches, envelope);
criterion_main!(benches);
