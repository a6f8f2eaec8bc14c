//! The life of one world: nodes start, clients come, faults happen, faults end, everything comes to rest, and what is
//! left is checked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::client::Client;
use crate::nodes::Nodes;
use crate::plan::{Disturbance, Due, Plan};
use crate::planted::Planted;
use crate::shared::Shared;
use crate::{ending, entropy};

/// When all faults are over, no turn stays open for longer...
const REST_MAX: Duration = Duration::from_secs(90);

/// ...but for those that wait for others: the slowest responder says a word in three seconds.
const REST_PER_TURN: Duration = Duration::from_secs(40);

/// At the end one node crashes for so long, with turns that nobody asks for any more.
const CRASHED_FOR: Duration = Duration::from_secs(4);

/// What a node has to do at its start is done by then.
const ALL_QUIET_AFTER: Duration = Duration::from_secs(2);

const LOOKS_EVERY: Duration = Duration::from_millis(100);

/// How a world ended.
pub struct Outcome {
    pub failure: Option<String>,
    pub simulated: Duration,
    pub trace: u64,
    pub counts: BTreeMap<&'static str, u64>,
}

/// Lives a world on a thread of its own.
pub fn live(plan: Plan, planted: Option<Planted>, trace_is_shown: bool) -> Outcome {
    entropy::seeded(plan.seed);
    let life = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without IO needs nothing of the system");
        runtime.block_on(async {
            let shared = Shared::new(plan, planted, trace_is_shown);
            tokio::select! {
                biased;
                () = shared.failed() => {}
                () = run(shared.clone()) => {}
            }
            Outcome {
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
    let plan = &shared.plan;
    let mut nodes = Nodes::new(shared.clone());
    nodes.start_all();
    nodes.settle(plan.nodes).await;
    tokio::time::sleep(ALL_QUIET_AFTER).await;
    let tasks = nodes.tasks().await;
    let mut clients = JoinSet::new();
    for place in 0..plan.clients {
        let client = Client::new(&format!("c{place}"), shared.clone(), nodes.handles());
        clients.spawn(client.run(plan.lasts));
    }
    disturb(&shared, &mut nodes).await;
    shared.calm();
    nodes.settle(plan.nodes).await;
    // They give up by themselves what cannot be.
    while clients.join_next().await.is_some() {}
    nodes.burst_is_over().await;
    come_to_rest(&shared, &mut nodes).await;
    leave_turns_to_a_crash(&shared, &mut nodes).await;
    come_to_rest(&shared, &mut nodes).await;
    nodes.settle(plan.nodes).await;
    ending::every_conversation_goes_on(&shared, &nodes).await;
    ending::webhooks_heard_all(&shared).await;
    ending::mortals_are_gone(&shared).await;
    ending::promises_are_kept(&shared, &nodes).await;
    ending::nothing_is_left_over(&shared, &nodes, tasks).await;
}

/// Does what is due, and undoes it in time, until all faults are over.
async fn disturb(shared: &Shared, nodes: &mut Nodes) {
    let mut done: Vec<Due> = Vec::new();
    let mut due = shared.plan.disturbances.iter().peekable();
    while shared.elapsed() < shared.plan.lasts {
        tokio::time::sleep(LOOKS_EVERY).await;
        nodes.look().await;
        nodes.are_within_limits().await;
        let (over, lasting) = done.into_iter().partition(|due: &Due| shared.elapsed() >= due.at + due.lasts);
        done = lasting;
        over.iter().for_each(|due: &Due| nodes.undo(due));
        while let Some(due) = due.next_if(|due| shared.elapsed() >= due.at) {
            if nodes.disturb(due).await {
                done.push(*due);
            }
        }
    }
    done.iter().for_each(|due| nodes.undo(due));
}

/// Turns are accepted, their clients go away, and a node crashes: only the rows of unfinished turns tell of them.
async fn leave_turns_to_a_crash(shared: &Arc<Shared>, nodes: &mut Nodes) {
    let lasting = shared.ledger().lasting();
    let mut client = Client::new("leaving", shared.clone(), nodes.handles());
    for conversation in lasting {
        client.leave_turn(conversation).await;
    }
    if shared.failure().is_none() {
        let crash = Due { at: shared.elapsed(), what: Disturbance::Crash, node: 0, other: 0, lasts: CRASHED_FOR };
        nodes.disturb(&crash).await;
    }
}

/// Without a word from any client, every turn ends.
async fn come_to_rest(shared: &Shared, nodes: &mut Nodes) {
    let (begun, mut most_open) = (shared.elapsed(), 0);
    loop {
        let open = shared.journal().open_turns();
        if open.is_empty() {
            return;
        }
        most_open = most_open.max(open.len() as u32);
        if shared.elapsed() - begun > REST_MAX + REST_PER_TURN * most_open {
            return shared.fail(format!("turns stay open when all faults are over: {open:?}"));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        nodes.look().await;
    }
}
