//! Taking turns, reading their streams as an edge does, and the reads of what is stored.

use std::sync::Arc;
use std::time::Duration;

use klatch_actors::request::{Chain, OnBusy, Wait};
use klatch_actors::{Answer, Reader, Refusal, Request, Submit};
use klatch_protocol::event::Parameters;
use klatch_protocol::{Body, ConversationId, Item, State, Turn};
use tokio::time::{sleep, timeout};

use super::{Client, FINGERPRINT, REPEATS_MAX, Said, caller};
use crate::ledger::ToldTurn;
use crate::nodes::MODELS;
use crate::planted::Planted;
use crate::shared::lock;

/// A read that takes longer is given up.
const READ_MAX: Duration = Duration::from_secs(5);

impl Client {
    /// Whether it has ended.
    pub async fn turn(&mut self, conversation: ConversationId, on_busy: OnBusy, insists: bool) -> bool {
        let (text, dice) = (self.next_text(), self.dice.clone());
        let asked_at = self.shared.ledger().tick();
        let keyed = insists || dice.permille(600);
        let wait = if dice.permille(500) { Wait::Ended } else { Wait::Accepted };
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

    /// A turn that follows one that was told: in the same conversation, or in a fork where something else has come since.
    pub(super) async fn chain(&mut self, conversation: ConversationId) {
        let told: Vec<ToldTurn> =
            self.shared.ledger().turns.iter().filter(|told| told.conversation == conversation).cloned().collect();
        let Some(previous) = self.dice.pick(&told).map(|told| told.turn) else { return };
        let Some(previous) = self.stored(conversation, previous).await else { return };
        let items_end = match previous.outcome {
            None => previous.block_end(),
            Some(_) if previous.entered() => previous.output_ordinal(previous.outputs.len()),
            Some(_) => previous.first_item,
        };
        let child = ConversationId(self.dice.bytes());
        let (text, asked_at) = (self.next_text(), self.shared.ledger().tick());
        let mut submit = self.submission(&text, OnBusy::Enqueue, true, Wait::Accepted);
        submit.chain = Some(Chain { after_turn: previous.accepted.turn, items_end, child });
        submit.parameters.conversation_named = false;
        let again = Submit { chain: None, ..submit.clone() };
        let (place, answer) = match self.insist(conversation, Request::Submit(Box::new(submit))).await {
            Some(Answer::Forked { child, created, .. }) => {
                self.shared.count("chains that forked");
                self.has_child(conversation, child, &created);
                // As the edge does: the child is made with its first turn.
                let again = Submit { create: Some(created), ..again };
                (child, self.insist(child, Request::Submit(Box::new(again))).await)
            }
            answer => (conversation, answer),
        };
        if let Some(Answer::Turn { turn, .. }) = answer {
            let mut turn = Arc::unwrap_or_clone(turn);
            if place == child {
                self.shared.ledger().conversations.push(child);
            }
            self.told(place, &turn, text, asked_at);
            self.follow(place, &mut turn).await;
        }
    }

    /// As any reader sees it, at any node; none where it is gone, or nobody answers.
    async fn stored(&self, conversation: ConversationId, turn: u64) -> Option<Turn> {
        let state = self.read_state(conversation).await?;
        let reader = self.reader()?;
        timeout(READ_MAX, reader.turn(conversation, &state, turn)).await.ok()?.ok()?
    }

    fn reader(&self) -> Option<Reader> {
        let readers: Vec<Reader> = lock(&self.handles).values().map(|handle| handle.reader().clone()).collect();
        self.dice.pick(&readers).cloned()
    }

    async fn read_state(&self, conversation: ConversationId) -> Option<Arc<State>> {
        timeout(READ_MAX, self.reader()?.conversation(conversation, &caller())).await.ok()?.ok()?
    }

    /// Every read shows what was told, and what any read before it has shown, wherever they were made.
    pub(super) async fn read_back(&self, conversation: ConversationId) {
        let expected = self.shared.ledger().turns_to_be_read(conversation);
        let Some(state) = self.read_state(conversation).await else { return };
        self.shared.count("reads");
        if state.next_turn < expected {
            let why = format!("{conversation}: a read shows {} turns after {expected} were known", state.next_turn);
            self.shared.fail(why);
        }
        let mut ledger = self.shared.ledger();
        let read = ledger.read.entry(conversation).or_default();
        *read = state.next_turn.max(*read);
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

    pub(super) fn submit(&self, text: &str, on_busy: OnBusy, keyed: bool, wait: Wait) -> Request {
        Request::Submit(Box::new(self.submission(text, on_busy, keyed, wait)))
    }

    fn submission(&self, text: &str, on_busy: OnBusy, keyed: bool, wait: Wait) -> Submit {
        let dice = &self.dice;
        let key = dice.bytes();
        let (background, start_by) = (dice.permille(100), dice.permille(50));
        Submit {
            caller: caller(),
            input: vec![Item { ordinal: 0, client_id: None, body: Body::user(text).into() }],
            parameters: Parameters {
                model: (*dice.pick(&MODELS).expect("there are some")).into(),
                background,
                store: true,
                conversation_named: true,
                previous: None,
                cancel_on_disconnect: false,
                start_by_ms: start_by.then(|| self.shared.now_ms() + dice.between(500, 20_000)),
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
        }
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
        let leaves = !self.strict && self.dice.permille(300);
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
        let Some(reader) = self.reader() else { return };
        let Some(state) = self.read_state(conversation).await else {
            return sleep(Duration::from_millis(50)).await;
        };
        let stored = timeout(READ_MAX, reader.turn(conversation, &state, turn.accepted.turn)).await;
        if let Ok(Ok(Some(stored))) = stored {
            // Items may have been deleted from what is stored, or all of it between the two reads, and its text with them.
            let hidden = state.version > 0 || self.shared.ledger().deletions.contains(&conversation);
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
