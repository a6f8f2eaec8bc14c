//! A whole turn of a conversation as it is decided: no store, no actor, no wire. Compactions are part of it, each after
//! 64 turns.

#[path = "../tests/given/mod.rs"]
mod given;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

fn decide(criterion: &mut Criterion) {
    let (mut core, mut numbers) = (given::conversation(), 0..);
    criterion.bench_function("decide/turn", |bencher| {
        bencher.iter_batched(
            || (given::submit(numbers.next().expect("numbers do not end")), given::answer()),
            |(request, said)| assert_eq!(given::turn(&mut core, request, said), 1),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, decide);
criterion_main!(benches);
