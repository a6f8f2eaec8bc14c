//! Taking turns, reading their streams as an edge does, and the reads of what is stored.

use std::sync::Arc;
use std::time::Duration;

use klatch_actors::request::{OnBusy, Wait};
use klatch_actors::{Answer, Refusal, Request, Submit};
use klatch_protocol::event::Parameters;
use klatch_protocol::{Body, ConversationId, Item, Turn};
use tokio::time::{sleep, timeout};

use super::{Client, FINGERPRINT, REPEATS_MAX, Said, caller};
use crate::ledger::ToldTurn;
use crate::nodes::MODELS;
use crate::planted::Planted;
use crate::shared::lock;

impl Client {
    /// Whether it has ended.
    pub async fn turn(&mut self, conversation: ConversationId, on_busy: OnBusy, insists: bool) -> bool {
        let (text, dice) = (self.next_text(), self.dice.clone());
        let asked_at = self.shared.ledger().tick();
        let keyed = insists || dice.permille(600);
        let wait = if insists || dice.permille(500) { Wait::Ended } else { Wait::Accepted };
        let request = self.submit(&text, on_busy, keyed, wait);
        let answer = if keyed {
            self.insist(conversation, request).await
        } else {
            match self.ask(conversation, request).await {
                Said::Answer(answer) => Some(answer),
                Said::Refused(_) | Said::Silence => None,
            }
        };
        let Some(Answer::Turn { turn, .. }) = answer else { return false };
        let mut turn = Arc::unwrap_or_clone(turn);
        self.told(conversation, &turn, text, asked_at);
        self.follow(conversation, &mut turn).await;
        turn.outcome.is_some()
    }

    /// Sends it, and does not wait for what comes of it.
    pub async fn leave_turn(&mut self, conversation: ConversationId) {
        let text = self.next_text();
        let asked_at = self.shared.ledger().tick();
        let request = self.submit(&text, OnBusy::Enqueue, true, Wait::Accepted);
        if let Some(Answer::Turn { turn, .. }) = self.insist(conversation, request).await {
            self.told(conversation, &turn, text, asked_at);
        }
    }

    fn told(&self, conversation: ConversationId, turn: &Turn, text: String, asked_at: u64) {
        self.shared.count("turns");
        let told_at = self.shared.ledger().tick();
        let told = ToldTurn { conversation, turn: turn.accepted.turn, text, asked_at, told_at };
        self.shared.ledger().turns.push(told);
        self.shared.trace(format_args!("{} told of {conversation} turn {}", self.name, turn.accepted.turn));
        self.note(conversation, turn);
    }

    fn submit(&self, text: &str, on_busy: OnBusy, keyed: bool, wait: Wait) -> Request {
        let dice = &self.dice;
        let key = dice.bytes();
        Request::Submit(Box::new(Submit {
            caller: caller(),
            input: vec![Item { ordinal: 0, client_id: None, body: Body::user(text) }],
            parameters: Parameters {
                model: (*dice.pick(&MODELS).expect("there are some")).into(),
                background: false,
                store: true,
                conversation_named: true,
                previous: None,
                cancel_on_disconnect: false,
                start_by_ms: None,
                request: "{}".into(),
            },
            on_busy,
            key: keyed.then_some(key),
            // As the edge does.
            attempt: (!keyed).then_some(key),
            fingerprint: FINGERPRINT,
            retry: false,
            wait,
            create: None,
            chain: None,
        }))
    }

    fn note(&self, conversation: ConversationId, turn: &Turn) {
        let number = turn.accepted.turn;
        let noted = match &turn.outcome {
            Some(outcome) => self.shared.ledger().end(conversation, number, outcome, &turn.text()),
            None => self.shared.ledger().show(conversation, number, &turn.text()),
        };
        self.shared.check(noted);
    }

    /// Reads the stream, as an edge does; some clients go away in the middle of it.
    async fn follow(&self, conversation: ConversationId, turn: &mut Turn) {
        let leaves = self.dice.permille(300);
        for _ in 0..REPEATS_MAX {
            if turn.outcome.is_some() || (leaves && self.dice.permille(300)) {
                return;
            }
            let have = turn.mark();
            let watch = Request::Watch { caller: caller(), turn: turn.accepted.turn, have, bytes_max: 64 };
            match self.ask(conversation, watch).await {
                Said::Answer(Answer::News(changes)) => {
                    let twice = self.shared.planted == Some(Planted::ForgottenMarks);
                    for change in changes {
                        if twice {
                            turn.apply(change.clone());
                        }
                        turn.apply(change);
                    }
                    self.note(conversation, turn);
                }
                Said::Answer(_) => self.read(conversation, turn).await,
                Said::Refused(Refusal::NotFound(_)) => return,
                Said::Refused(_) | Said::Silence => sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// From the store, where nobody has the turn open.
    async fn read(&self, conversation: ConversationId, turn: &mut Turn) {
        let reader = lock(&self.handles).values().next().map(|handle| handle.reader().clone());
        let Some(reader) = reader else { return };
        let Ok(Ok(Some(state))) = timeout(Duration::from_secs(5), reader.conversation(conversation, &caller())).await
        else {
            return sleep(Duration::from_millis(50)).await;
        };
        let stored = timeout(Duration::from_secs(5), reader.turn(conversation, &state, turn.accepted.turn)).await;
        if let Ok(Ok(Some(stored))) = stored {
            // Items may have been deleted from what is stored, and its text with them.
            let hidden = state.version > 0;
            if !hidden && !stored.text().starts_with(&turn.text()) {
                self.shared.fail(format!("{conversation}: shown {:?}, stored {:?}", turn.text(), stored.text()));
            }
            if !hidden {
                *turn = stored;
                self.note(conversation, turn);
            } else if stored.outcome.is_some() {
                turn.outcome = stored.outcome;
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}
