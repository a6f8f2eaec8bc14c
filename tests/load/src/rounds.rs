//! The rounds: in each, every subject makes its turns, in an order that is turned around from one round to the next, so
//! that whatever else the machine does falls on all alike. Answers are checked while they come, contents after it.

use std::time::Instant;

use anyhow::Context;
use klatch_tests::history::Stored;
use klatch_tests::measure::cpu_nanos;

use crate::generator::{Exchange, Load};
use crate::results::{Cost, Results};
use crate::subjects::{Part, Running};

pub const MESSAGE_BYTES: usize = 200;
const WORDS: &str = "the quick brown fox jumps over the lazy dog ";

#[derive(Clone, Debug)]
pub struct Plan {
    /// That count; one before them only warms up.
    pub rounds: usize,
    /// In a round.
    pub turns: usize,
    pub connections: usize,
    /// Items that a conversation has before its first turn of a round; two make a turn.
    pub history: usize,
    /// Each request has an `Idempotency-Key`.
    pub keys: bool,
}

pub async fn measure(running: &[Running], plan: &Plan) -> anyhow::Result<Results> {
    let mut results = Results::new(running.iter().map(|it| it.subject));
    let mut order: Vec<&Running> = running.iter().collect();
    for round in 0..=plan.rounds {
        for running in &order {
            let (title, begun) = (running.subject.title(), Instant::now());
            let cost = once(running, plan, round).await.with_context(|| format!("{title}, round {round}"))?;
            eprintln!("round {round}: {title}: {:.1} µs a turn ({:.1?})", cost.total(), begun.elapsed());
            if round > 0 {
                results.add(running.subject, cost);
            }
        }
        order.reverse();
    }
    Ok(results)
}

async fn once(running: &Running, plan: &Plan, round: usize) -> anyhow::Result<Cost> {
    let Running { subject, token, model, contents, .. } = running;
    let turns_each = subject.turns(plan.turns).div_ceil(plan.connections);
    let turn = |text: String| Stored { reply: subject.reply(&text), text };
    let history: Vec<Stored> = (0..plan.history / 2).map(|n| turn(message(&format!("earlier {n}")))).collect();
    // A conversation each: they are people who wait for an answer before they go on.
    let ids = running.conversations(plan.connections).await?;
    contents.fill(&ids, &history).await?;
    let said = |place: usize, n: usize| turn(message(&format!("turn {n} of {place} in round {round}")));
    let rows = ids.iter().enumerate().map(|(place, id)| {
        let exchange = |n| {
            let (turn, key) = (said(place, n), plan.keys.then(|| format!("{round}-{place}-{n}")));
            Exchange::new(token, model, id, &turn.text, key.as_deref(), &turn.reply)
        };
        (0..turns_each).map(exchange).collect()
    });
    let rows: Vec<Vec<Exchange>> = rows.collect();
    let load = Load::connect(running.address, plan.connections).await?;

    let processes = running.processes();
    let before = nanos(&processes)?;
    load.run(rows).await?;
    let after = nanos(&processes)?;

    for (place, id) in ids.iter().enumerate() {
        let expected = history.iter().cloned().chain((0..turns_each).map(|n| said(place, n)));
        contents.check(id, &expected.collect::<Vec<Stored>>()).await?;
    }
    let mut cost = Cost::default();
    for (((part, _), before), after) in processes.iter().zip(before).zip(after) {
        cost.add(*part, (after - before) as f64 / 1e3 / (turns_each * plan.connections) as f64);
    }
    Ok(cost)
}

fn nanos(processes: &[(Part, u32)]) -> anyhow::Result<Vec<u64>> {
    processes.iter().map(|(_, id)| cpu_nanos(*id)).collect()
}

/// This, and words behind it, up to the length of all messages.
fn message(this: &str) -> String {
    let mut text = format!("{this}: ");
    text.extend(WORDS.chars().cycle().take(MESSAGE_BYTES.saturating_sub(text.len())));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_of_one_length() {
        let text = message("turn 3 of 31 in round 11");
        assert_eq!(text.len(), MESSAGE_BYTES);
        assert!(text.starts_with("turn 3 of 31 in round 11: the quick"));
    }
}
