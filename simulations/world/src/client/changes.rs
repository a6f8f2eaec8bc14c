//! What else is done to a conversation: made, added to, cut short, forked, deleted.

use klatch_actors::request::{OnBusy, Wait};
use klatch_actors::{Answer, Request};
use klatch_protocol::event::{Created, KeyUse};
use klatch_protocol::{Body, ConversationId, Item};

use super::{Client, Said, caller};

fn created(key: Option<KeyUse>, ttl_seconds: Option<u64>) -> Created {
    Created {
        tenant: "acme".into(),
        subject: "ann".into(),
        metadata: vec![],
        ttl_seconds,
        explicit: true,
        items: vec![],
        parent: None,
        key,
    }
}

impl Client {
    pub(super) async fn make(&mut self) {
        let (id, key) = (ConversationId(self.dice.bytes()), self.key());
        let ttl_seconds = self.dice.permille(150).then(|| self.dice.between(1, 40));
        if let Some(ttl_seconds) = ttl_seconds {
            self.shared.ledger().mortal.insert(id, ttl_seconds);
        }
        let answer = self.insist(id, Request::Create(Box::new(created(Some(key), ttl_seconds)))).await;
        if let Some(Answer::Conversation { .. }) = answer {
            self.shared.ledger().conversations.push(id);
        }
    }

    pub(super) async fn add_items(&mut self, conversation: ConversationId) {
        let bodies: Vec<Body> = (0..self.dice.between(1, 3)).map(|_| Body::user(self.next_text())).collect();
        let item = |body: &Body| Item { ordinal: 0, client_id: None, body: body.clone().into() };
        let items = bodies.iter().map(item).collect();
        let request = Request::AddItems { caller: caller(), items, key: Some(self.key()) };
        if let Some(Answer::Items { ordinals, .. }) = self.insist(conversation, request).await {
            self.shared.count("items added");
            let added = ordinals.into_iter().zip(bodies).map(|(ordinal, body)| (conversation, ordinal, body));
            self.shared.ledger().items.extend(added);
        }
    }

    pub(super) async fn delete_item(&self, conversation: ConversationId) {
        let items = self.shared.ledger().items.clone();
        let mine: Vec<u64> = items.iter().filter(|item| item.0 == conversation).map(|item| item.1).collect();
        let Some(ordinal) = self.dice.pick(&mine).copied() else { return };
        let request = Request::DeleteItem { caller: caller(), ordinal };
        if self.insist(conversation, request).await.is_some() {
            self.shared.ledger().items_deleted.insert((conversation, ordinal));
        }
    }

    pub(super) async fn cancel(&self, conversation: ConversationId) {
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

    pub(super) async fn set_metadata(&mut self, conversation: ConversationId) {
        let metadata = vec![("topic".to_owned(), self.next_text())];
        let request = Request::SetMetadata { caller: caller(), metadata, key: Some(self.key()) };
        self.insist(conversation, request).await;
    }

    pub(super) async fn fork(&self, conversation: ConversationId) {
        let child = ConversationId(self.dice.bytes());
        let request = Request::Fork { caller: caller(), child, before: None, key: Some(self.key()) };
        let Some(Answer::Forked { child, created, .. }) = self.insist(conversation, request).await else { return };
        self.has_child(conversation, child, &created);
        if let Some(Answer::Conversation { .. }) = self.insist(child, Request::Create(created)).await {
            self.shared.count("forks");
            self.shared.ledger().conversations.push(child);
        }
    }

    /// A fork lives as long as what it was made of.
    pub(super) fn has_child(&self, parent: ConversationId, child: ConversationId, created: &Created) {
        self.shared.trace(format_args!("{child} is a fork of {parent}"));
        if let Some(ttl_seconds) = created.ttl_seconds {
            self.shared.ledger().mortal.insert(child, ttl_seconds);
        }
    }

    pub(super) async fn delete_response(&self, conversation: ConversationId) {
        let turns = self.shared.ledger().turns.clone();
        let mine: Vec<u64> =
            turns.iter().filter(|told| told.conversation == conversation).map(|told| told.turn).collect();
        let Some(turn) = self.dice.pick(&mine).copied() else { return };
        self.shared.ledger().responses_deleted.insert((conversation, turn));
        if let Said::Answer(_) = self.ask(conversation, Request::DeleteResponse { caller: caller(), turn }).await {
            self.shared.count("responses deleted");
        }
    }

    /// What is gone stays gone, whatever is asked of it.
    pub(super) async fn ask_the_deleted(&mut self) {
        let deleted: Vec<ConversationId> = self.shared.ledger().deleted.iter().copied().collect();
        let Some(conversation) = self.dice.pick(&deleted).copied() else { return };
        let text = self.next_text();
        let request = self.submit(&text, OnBusy::Enqueue, true, Wait::Accepted);
        if let Said::Answer(answer) = self.ask(conversation, request).await {
            self.shared.fail(format!("{conversation} was deleted, and answers {answer:?}"));
        }
    }

    pub(super) async fn delete(&self, conversation: ConversationId) {
        self.shared.ledger().deletions.insert(conversation);
        if let Said::Answer(Answer::Done) = self.ask(conversation, Request::Delete { caller: caller() }).await {
            self.shared.count("deletions");
            self.shared.ledger().deleted.insert(conversation);
        }
    }
}
