//! One client: it takes turns in some conversations through whichever node it meets, repeats what was not answered under
//! the same key, reads streams, and holds every answer against what it was told before.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klatch_actors::request::{OnBusy, Wait};
use klatch_actors::{Answer, Caller, Handle, Refusal, Request, Submit};
use klatch_protocol::event::{Created, KeyUse, Parameters};
use klatch_protocol::{Body, ConversationId, Item, Turn};
use tokio::time::{sleep, timeout};

use crate::ledger::ToldTurn;
use crate::nodes::MODELS;
use crate::planted::Planted;
use crate::shared::{Shared, lock};

/// Repeats of one request, after which its client has given up.
const REPEATS_MAX: usize = 60;

/// The place of a client that waits for nothing.
pub const LEAVING: usize = usize::MAX - 1;

const FINGERPRINT: [u8; 16] = [1; 16];

pub struct Client {
    name: String,
    shared: Arc<Shared>,
    handles: Arc<Mutex<BTreeMap<String, Handle>>>,
    sent: u64,
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

fn created(key: Option<KeyUse>) -> Created {
    Created {
        tenant: "acme".into(),
        subject: "ann".into(),
        metadata: vec![],
        ttl_seconds: None,
        explicit: true,
        items: vec![],
        parent: None,
        key,
    }
}

impl Client {
    pub fn new(place: usize, shared: Arc<Shared>, handles: Arc<Mutex<BTreeMap<String, Handle>>>) -> Self {
        let name = match place {
            usize::MAX => "last".to_owned(),
            LEAVING => "leaving".to_owned(),
            _ => format!("c{place}"),
        };
        Self { name, shared, handles, sent: 0 }
    }

    pub async fn run(mut self, lasts: Duration) {
        while self.shared.elapsed() < lasts {
            let pause = self.shared.dice.up_to(self.shared.plan().clients_pause);
            sleep(pause).await;
            let living = self.shared.ledger().living();
            let Some(conversation) = self.shared.dice.pick(&living).copied() else {
                self.make().await;
                continue;
            };
            let few = living.len() < self.shared.plan().conversations;
            match self.shared.dice.below(100) {
                _ if few && self.shared.dice.permille(300) => self.make().await,
                0..70 => drop(self.turn(conversation, self.on_busy(), false).await),
                70..78 => self.add_items(conversation).await,
                78..83 => self.delete_item(conversation).await,
                83..89 => self.cancel(conversation).await,
                89..93 => self.set_metadata(conversation).await,
                93..97 => self.fork(conversation).await,
                97.. => self.delete(conversation).await,
            }
        }
    }

    fn on_busy(&self) -> OnBusy {
        match self.shared.dice.below(10) {
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
        let Some(handle) = self.shared.dice.pick(&handles) else {
            sleep(Duration::from_millis(200)).await;
            return Said::Silence;
        };
        let patience = self.shared.dice.secs(2, 30);
        match timeout(patience, handle.ask(conversation, request)).await {
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
        let is_there = !self.shared.ledger().deletions.contains(&conversation);
        match refusal {
            Refusal::NotFound(what) if is_there => self.shared.fail(format!("{conversation}: there is no {what}")),
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
                Said::Refused(_) | Said::Silence => sleep(self.shared.dice.secs(0, 1)).await,
            }
        }
        None
    }

    fn key(&self) -> KeyUse {
        KeyUse { key: self.shared.dice.bytes(), fingerprint: FINGERPRINT }
    }

    async fn make(&mut self) {
        let (id, key) = (ConversationId(self.shared.dice.bytes()), self.key());
        let answer = self.insist(id, Request::Create(Box::new(created(Some(key))))).await;
        if let Some(Answer::Conversation { .. }) = answer {
            self.shared.ledger().conversations.push(id);
        }
    }

    /// Whether it has ended.
    pub async fn turn(&mut self, conversation: ConversationId, on_busy: OnBusy, insists: bool) -> bool {
        let (text, dice) = (self.next_text(), self.shared.dice.clone());
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
        let dice = &self.shared.dice;
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
        let leaves = self.shared.dice.permille(300);
        for _ in 0..REPEATS_MAX {
            if turn.outcome.is_some() || (leaves && self.shared.dice.permille(300)) {
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

    async fn add_items(&mut self, conversation: ConversationId) {
        let bodies: Vec<Body> = (0..self.shared.dice.between(1, 3)).map(|_| Body::user(self.next_text())).collect();
        let item = |body: &Body| Item { ordinal: 0, client_id: None, body: body.clone() };
        let items = bodies.iter().map(item).collect();
        let request = Request::AddItems { caller: caller(), items, key: Some(self.key()) };
        if let Some(Answer::Items { ordinals, .. }) = self.insist(conversation, request).await {
            self.shared.count("items added");
            let added = ordinals.into_iter().zip(bodies).map(|(ordinal, body)| (conversation, ordinal, body));
            self.shared.ledger().items.extend(added);
        }
    }

    async fn delete_item(&self, conversation: ConversationId) {
        let items = self.shared.ledger().items.clone();
        let mine: Vec<u64> = items.iter().filter(|item| item.0 == conversation).map(|item| item.1).collect();
        let Some(ordinal) = self.shared.dice.pick(&mine).copied() else { return };
        let request = Request::DeleteItem { caller: caller(), ordinal };
        if self.insist(conversation, request).await.is_some() {
            self.shared.ledger().items_deleted.insert((conversation, ordinal));
        }
    }

    async fn cancel(&self, conversation: ConversationId) {
        let turns = self.shared.ledger().turns.clone();
        let Some(told) = turns.iter().rev().find(|told| told.conversation == conversation) else { return };
        let request = Request::Cancel { caller: caller(), turn: told.turn };
        if let Some(Answer::Turn { turn, .. }) = self.insist(conversation, request).await {
            self.shared.count("cancels");
            if turn.outcome.is_none() {
                self.shared.fail(format!("{conversation} turn {} was cancelled, and is open", told.turn));
            }
        }
    }

    async fn set_metadata(&mut self, conversation: ConversationId) {
        let metadata = vec![("topic".to_owned(), self.next_text())];
        let request = Request::SetMetadata { caller: caller(), metadata, key: Some(self.key()) };
        self.insist(conversation, request).await;
    }

    async fn fork(&self, conversation: ConversationId) {
        let child = ConversationId(self.shared.dice.bytes());
        let request = Request::Fork { caller: caller(), child, before: None, key: Some(self.key()) };
        let Some(Answer::Forked { child, created, .. }) = self.insist(conversation, request).await else { return };
        if let Some(Answer::Conversation { .. }) = self.insist(child, Request::Create(created)).await {
            self.shared.count("forks");
            self.shared.ledger().conversations.push(child);
        }
    }

    async fn delete(&self, conversation: ConversationId) {
        self.shared.ledger().deletions.insert(conversation);
        if let Said::Answer(Answer::Done) = self.ask(conversation, Request::Delete { caller: caller() }).await {
            self.shared.count("deletions");
            self.shared.ledger().deleted.insert(conversation);
        }
    }
}
