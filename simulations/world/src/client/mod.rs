//! One client: it takes turns in some conversations through whichever node it meets, repeats what was not answered under
//! the same key, reads streams, and holds every answer against what it was told before.

mod changes;
mod turns;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klatch_actors::request::{Missing, OnBusy};
use klatch_actors::{Answer, Caller, Handle, Refusal, Request};
use klatch_protocol::ConversationId;
use klatch_protocol::event::KeyUse;
use tokio::time::{sleep, timeout};

use crate::dice::Dice;
use crate::shared::{Shared, lock};

/// When all faults are over, the slowest responder says a word in three seconds, and twelve are a reply.
const ANSWERED_MAX: Duration = Duration::from_secs(45);

/// Repeats of one request, after which its client has given up.
const REPEATS_MAX: usize = 60;

const FINGERPRINT: [u8; 16] = [1; 16];

pub struct Client {
    name: String,
    dice: Dice,
    shared: Arc<Shared>,
    handles: Arc<Mutex<BTreeMap<String, Handle>>>,
    sent: u64,
    /// All faults are over, so that no request may fail or wait for long.
    strict: bool,
}

/// What a request came to.
enum Said {
    Answer(Answer),
    Refused(Refusal),
    /// Nobody knows.
    Silence,
}

pub fn caller() -> Caller {
    Caller { tenant: "acme".into(), subject: "ann".into() }
}

impl Client {
    /// Another name for each.
    pub fn new(name: &str, shared: Arc<Shared>, handles: Arc<Mutex<BTreeMap<String, Handle>>>) -> Self {
        let dice = shared.dice(name);
        Self { name: name.to_owned(), dice, shared, handles, sent: 0, strict: false }
    }

    pub fn strict(self) -> Self {
        Self { strict: true, ..self }
    }

    pub async fn run(mut self, lasts: Duration) {
        while self.shared.elapsed() < lasts {
            let pause = self.dice.up_to(self.shared.plan.clients_pause);
            sleep(pause).await;
            let living = self.shared.ledger().living();
            let Some(conversation) = self.dice.pick(&living).copied() else {
                self.make().await;
                continue;
            };
            let few = living.len() < self.shared.plan.conversations;
            match self.dice.below(100) {
                _ if few && self.dice.permille(300) => self.make().await,
                0..56 => drop(self.turn(conversation, self.on_busy(), false).await),
                56..62 => self.chain(conversation).await,
                62..68 => self.read_back(conversation).await,
                68..75 => self.add_items(conversation).await,
                75..79 => self.delete_item(conversation).await,
                79..85 => self.cancel(conversation).await,
                85..89 => self.set_metadata(conversation).await,
                89..92 => self.fork(conversation).await,
                92..94 => self.delete_response(conversation).await,
                94..97 => self.ask_the_deleted().await,
                97.. => self.delete(conversation).await,
            }
        }
    }

    fn on_busy(&self) -> OnBusy {
        match self.dice.below(10) {
            0 => OnBusy::Reject,
            1 => OnBusy::Interrupt,
            2 => OnBusy::Rollback,
            _ => OnBusy::Enqueue,
        }
    }

    fn next_text(&mut self) -> String {
        self.sent += 1;
        format!("{}-{}", self.name, self.sent)
    }

    /// Through any node, for as long as a client has patience.
    async fn ask(&self, conversation: ConversationId, request: Request) -> Said {
        let handles: Vec<Handle> = lock(&self.handles).values().cloned().collect();
        let Some(handle) = self.dice.pick(&handles) else {
            sleep(Duration::from_millis(200)).await;
            return Said::Silence;
        };
        let patience = if self.strict { ANSWERED_MAX } else { self.dice.secs(2, 30) };
        let answer = timeout(patience, handle.ask(conversation, request)).await;
        if self.strict && !matches!(answer, Ok(Ok(_) | Err(Refusal::Busy { .. }))) {
            self.shared.fail(format!("{conversation}: when all faults are over, a request ends as {answer:?}"));
        }
        match answer {
            Ok(Ok(answer)) => Said::Answer(answer),
            Ok(Err(refusal)) => {
                self.shared.trace(format_args!("{} refused {refusal:?}", self.name));
                self.check(conversation, &refusal);
                Said::Refused(refusal)
            }
            Err(_) => Said::Silence,
        }
    }

    /// Refusals that say something wrong.
    fn check(&self, conversation: ConversationId, refusal: &Refusal) {
        let ledger = self.shared.ledger();
        let is_there = ledger.lasting().contains(&conversation);
        let response_is_there = !ledger.responses_deleted.iter().any(|(of, _)| *of == conversation);
        drop(ledger);
        match refusal {
            Refusal::NotFound(Missing::Conversation) if is_there => {
                self.shared.fail(format!("{conversation} is not there"));
            }
            Refusal::NotFound(Missing::Response) if is_there && response_is_there => {
                self.shared.fail(format!("{conversation}: there is no such response"));
            }
            Refusal::KeyReused => self.shared.fail(format!("{conversation}: a key was used once and is known twice")),
            _ => {}
        }
    }

    /// Again and again until there is an answer, or a refusal that says that there will be none.
    async fn insist(&self, conversation: ConversationId, request: Request) -> Option<Answer> {
        for _ in 0..REPEATS_MAX {
            match self.ask(conversation, request.clone()).await {
                Said::Answer(answer) => return Some(answer),
                Said::Refused(
                    Refusal::NotFound(_) | Refusal::Locked | Refusal::Invalid { .. } | Refusal::KeyReused,
                ) => {
                    return None;
                }
                Said::Refused(Refusal::Busy { retry_after_ms, .. }) => {
                    sleep(Duration::from_millis(retry_after_ms) + self.dice.secs(0, 1)).await;
                }
                Said::Refused(_) | Said::Silence => sleep(self.dice.secs(0, 1)).await,
            }
        }
        None
    }

    fn key(&self) -> KeyUse {
        KeyUse { key: self.dice.bytes(), fingerprint: FINGERPRINT }
    }
}
