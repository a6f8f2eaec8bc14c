//! What a change of the view costs a node: the view made from its table, and all shards placed by it; and what a beat does
//! in which nobody died.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use klatch_actors::membership::decide::{BEAT_EVERY_MS, Effect, Input, Membership};
use klatch_actors::membership::view::{FULLEST_PERCENT, View, placed};
use klatch_actors::membership::views::Beat;
use klatch_protocol::Shard;
use klatch_protocol::ids::SHARDS;
use klatch_protocol::view::{MemberStatus, Row, ViewTable};

fn table(nodes: usize) -> ViewTable {
    let row = |n| Row {
        incarnation: 1,
        address: format!("klatch-{n}.klatch.svc.cluster.local:7000"),
        status: MemberStatus::Up,
        format: 2,
    };
    let rows: BTreeMap<String, Row> = (0..nodes).map(|n| (format!("klatch-{n}"), row(n))).collect();
    ViewTable { number: 1, rows }
}

fn placement(criterion: &mut Criterion) {
    for nodes in [3, 10, 100, 1_000] {
        let table = table(nodes);
        let names: Vec<&str> = table.rows.keys().map(String::as_str).collect();
        criterion.bench_with_input(BenchmarkId::new("placement/shards", nodes), &names, |bencher, names| {
            bencher.iter(|| placed(black_box(names), u32::from(SHARDS), FULLEST_PERCENT));
        });
        criterion.bench_with_input(BenchmarkId::new("placement/view", nodes), &table, |bencher, table| {
            bencher.iter(|| View::new(black_box(table)).owner(Shard(0)));
        });
    }
    let view = View::new(&table(100));
    criterion.bench_function("placement/owner", |bencher| bencher.iter(|| view.owner(black_box(Shard(7)))));
}

fn beat(criterion: &mut Criterion) {
    for nodes in [3, 100, 1_000] {
        let table = table(nodes);
        let mut membership = Membership::new("klatch-0".into(), table.rows["klatch-0"].clone());
        let mut beat = Beat { number: table.number, generation: 1, counters: BTreeMap::new() };
        beat.counters.extend(table.rows.keys().map(|name| (name.clone(), 0)));
        for input in [Input::Tick, Input::Joined(true), Input::Read(table)] {
            membership.decide(0, input);
        }
        let mut now_ms = 0;
        criterion.bench_function(&format!("membership/beat/{nodes}"), |bencher| {
            bencher.iter_batched(
                || {
                    now_ms += BEAT_EVERY_MS;
                    beat.counters.values_mut().for_each(|counter| *counter += 1);
                    (now_ms, beat.clone())
                },
                |(now_ms, beat)| {
                    assert_eq!(membership.decide(now_ms, Input::Tick), [Effect::Beat]);
                    assert_eq!(membership.decide(now_ms, Input::Beaten(Some(beat))), [], "nobody died");
                },
                BatchSize::SmallInput,
            );
        });
    }
}

criterion_group!(benches, placement, beat);
criterion_main!(benches);
