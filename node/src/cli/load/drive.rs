//! The clients of the load: each takes a turn from the pace, makes it, and writes it into its own tally.
//! Started by `load.rs` once per phase; a client that panics ends the program, since its numbers would be missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use tokio::task::JoinSet;

use super::super::client::ApiClient;
use super::check::Kind;
use super::messages::{Message, Messages, Random};
use super::pacing::{Limit, Pace, Ticket, conversation_of_client};
use super::plan::Plan;
use super::tally::{Record, Tally, record};
use super::turn::{Turn, Turned};

pub struct Drive {
    pub client: ApiClient,
    pub plan: Plan,
    pub messages: Messages,
    pub conversations: Vec<String>,
    pub stopped: AtomicBool,
    pub counters: Arc<Counters>,
    /// The next turn's number, over all phases.
    next: AtomicU64,
}

/// What the progress shows while tallies are still apart.
#[derive(Default)]
pub struct Counters {
    pub completed: AtomicU64,
    pub failed: AtomicU64,
}

impl Drive {
    pub fn new(client: ApiClient, plan: Plan, messages: Messages, mut conversations: Vec<String>) -> Self {
        Random(plan.seed).shuffle(&mut conversations);
        let (stopped, counters, next) = (AtomicBool::new(false), Arc::default(), AtomicU64::new(0));
        Self { client, plan, messages, conversations, stopped, counters, next }
    }

    pub async fn phase(self: &Arc<Self>, limit: Limit) -> Tally {
        if limit == Limit::Until(std::time::Duration::ZERO) {
            return Tally::default();
        }
        let pace = Arc::new(Pace::new(limit, self.plan.rate));
        let (drive, time) = (self.clone(), pace.clone());
        let keeper = std::thread::spawn(move || time.keep_time(drive.plan.clients, &drive.stopped));
        let mut clients: JoinSet<_> =
            (0..u64::from(self.plan.clients)).map(|client| self.clone().client_life(client, pace.clone())).collect();
        let mut all = Tally::default();
        while let Some(tally) = clients.join_next().await {
            all.add(tally.expect("a client of the load does not panic"));
        }
        keeper.join().expect("the pacer does not panic");
        all.not_started = pace.not_started();
        all
    }

    async fn client_life(self: Arc<Self>, client: u64, pace: Arc<Pace>) -> Tally {
        let (mut tally, mut turns) = (Tally::default(), 0);
        while let Some(ticket) = pace.next(&self.stopped).await {
            let at = self.conversation_for(client, turns, ticket);
            turns += 1;
            self.one(at, ticket, &mut tally).await;
        }
        tally
    }

    async fn one(&self, at: usize, ticket: Ticket, tally: &mut Tally) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let conversation = &self.conversations[at];
        let message: Message = self.messages.message(conversation, number);
        let turn = Turn { client: &self.client, plan: &self.plan, conversation, message };
        let sent = Instant::now();
        let (turned, ended) = turn.run().await;
        let now = Instant::now();
        self.count(tally, ticket, sent, now, &turned, ended);
        if self.plan.verify {
            let acknowledged = ended.is_ok().then_some(now);
            tally.records.push(Record { conversation: at as u32, number, sent, acknowledged });
        }
    }

    fn count(
        &self,
        tally: &mut Tally,
        ticket: Ticket,
        sent: Instant,
        now: Instant,
        turned: &Turned,
        ended: Result<(), Kind>,
    ) {
        tally.retries += turned.retries;
        record(&mut tally.start_lag, sent.saturating_duration_since(ticket.due));
        if let Err(kind) = ended {
            *tally.errors.entry(kind).or_default() += 1;
            self.counters.failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        tally.completed += 1;
        self.counters.completed.fetch_add(1, Ordering::Relaxed);
        record(&mut tally.latency, now.saturating_duration_since(ticket.due));
        if let Some(first) = turned.first_token {
            record(&mut tally.first_token, first.saturating_duration_since(ticket.due));
        }
    }

    fn conversation_for(&self, client: u64, turn: u64, ticket: Ticket) -> usize {
        let conversations = self.conversations.len() as u64;
        let at = match self.plan.rate {
            Some(_) => ticket.number % conversations,
            None => conversation_of_client(client, u64::from(self.plan.clients), turn, conversations),
        };
        at as usize
    }
}

#[cfg(test)]
mod tests;
