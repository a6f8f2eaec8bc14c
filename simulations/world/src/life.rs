//! The life of one world: nodes start, clients come, faults happen, faults end, everything comes to rest, and what is
//! left is checked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::client::{Client, LEAVING};
use crate::dice::Dice;
use crate::nodes::Nodes;
use crate::plan::{Disturbance, Plan};
use crate::planted::Planted;
use crate::shared::Shared;
use crate::{ending, entropy};

/// When all faults are over, no turn stays open for longer.
const REST_MAX: Duration = Duration::from_secs(90);

/// What cuts and freezes last, at most.
const MENDED_AFTER_SECS: u64 = 9;

/// How a world ended.
pub struct Outcome {
    pub plan: Plan,
    pub failure: Option<String>,
    pub simulated: Duration,
    pub trace: u64,
    pub counts: BTreeMap<&'static str, u64>,
}

/// Lives a world on a thread of its own.
pub fn live(seed: u64, planted: Option<Planted>, trace_is_shown: bool) -> Outcome {
    entropy::seeded(seed);
    let life = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without IO needs nothing of the system");
        runtime.block_on(async {
            let dice = Dice::new(seed);
            let plan = Plan::draw(seed, &dice);
            let shared = Shared::new(plan.clone(), dice, planted, trace_is_shown);
            tokio::select! {
                biased;
                () = shared.failed() => {}
                () = run(shared.clone()) => {}
            }
            Outcome {
                plan,
                failure: shared.failure(),
                simulated: shared.elapsed(),
                trace: shared.trace_hash(),
                counts: shared.counts(),
            }
        })
    });
    life.join().expect("a failure of a world is reported, and not a panic")
}

async fn run(shared: Arc<Shared>) {
    let plan = shared.plan();
    let mut nodes = Nodes::new(shared.clone());
    for place in 0..plan.nodes {
        nodes.start(format!("node-{place}"));
    }
    nodes.settle(1).await;
    let mut clients = JoinSet::new();
    for place in 0..plan.clients {
        let client = Client::new(place, shared.clone(), nodes.handles());
        clients.spawn(client.run(plan.lasts));
    }
    disturb(&shared, &mut nodes).await;
    shared.calm();
    nodes.mend();
    nodes.settle(plan.nodes).await;
    // They give up by themselves what cannot be.
    while clients.join_next().await.is_some() {}
    come_to_rest(&shared, &mut nodes).await;
    leave_turns_to_a_crash(&shared, &mut nodes).await;
    come_to_rest(&shared, &mut nodes).await;
    nodes.settle(plan.nodes).await;
    ending::every_conversation_goes_on(&shared, &nodes).await;
    ending::promises_are_kept(&shared, &nodes).await;
}

async fn disturb(shared: &Shared, nodes: &mut Nodes) {
    let (plan, dice) = (shared.plan(), &shared.dice);
    let mut mended_at = Duration::MAX;
    let mut next_at = shared.elapsed() + dice.up_to(plan.disturbed_every);
    while shared.elapsed() < plan.lasts {
        tokio::time::sleep(Duration::from_millis(100)).await;
        nodes.look();
        if shared.elapsed() >= mended_at {
            nodes.mend();
            mended_at = Duration::MAX;
        }
        if shared.elapsed() >= next_at
            && let Some(disturbance) = dice.pick(&plan.disturbances)
        {
            nodes.disturb(*disturbance).await;
            next_at = shared.elapsed() + dice.up_to(plan.disturbed_every);
            mended_at = mended_at.min(shared.elapsed() + dice.secs(0, MENDED_AFTER_SECS));
        }
    }
}

/// Turns are accepted, their clients go away, and a node crashes: only the rows of unfinished turns tell of them.
async fn leave_turns_to_a_crash(shared: &Arc<Shared>, nodes: &mut Nodes) {
    let living = shared.ledger().living();
    let mut client = Client::new(LEAVING, shared.clone(), nodes.handles());
    for conversation in living {
        client.leave_turn(conversation).await;
    }
    if shared.failure().is_none() {
        nodes.disturb(Disturbance::Crash).await;
    }
}

/// Without a word from any client, every turn ends.
async fn come_to_rest(shared: &Shared, nodes: &mut Nodes) {
    let begun = shared.elapsed();
    loop {
        let open = shared.journal().open_turns();
        if open.is_empty() {
            return;
        }
        if shared.elapsed() - begun > REST_MAX {
            return shared.fail(format!("turns stay open when all faults are over: {open:?}"));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        nodes.look();
    }
}
