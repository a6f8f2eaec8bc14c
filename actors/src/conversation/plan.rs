//! From a request to events: who may, what it means, and what is said once it is durable. Pure.

use std::sync::Arc;
use std::time::Duration;

use klatch_protocol::event::{Accepted, Created, Event, KeyUse, Parent};
use klatch_protocol::state::Did;
use klatch_protocol::turn::Incomplete;
use klatch_protocol::{ConversationId, Item, Mark, Outcome, Turn};

use super::decide::{Effect, EndWait, Fixed, Owed, Row, Serving, Waiting, Watcher, full, refuse};
use crate::reader::belongs;
use crate::request::{Answer, Caller, Chain, Full, Missing, OnBusy, Param, Refusal, Request, Submit, Wait};
use crate::store::IndexRow;
use crate::trace::Traced;

/// A retry without a key counts as the attempt before it for so long.
const UNDELIVERED_KEPT_MS: u64 = 10 * 60 * 1_000;

/// Undelivered turns remembered; a client that loses more answers than that in ten minutes should send keys.
const UNDELIVERED_MAX: usize = 32;

/// Watchers of one conversation; beyond it a client is told to come again.
const WATCHERS_MAX: usize = 4_096;

/// A deleted conversation is looked at again so long after, in case its lists were not cleared.
const CLEAR_AGAIN_AFTER_MS: u64 = 60_000;

impl<R> Serving<R> {
    pub(super) fn asked(&mut self, now_ms: u64, asked: Waiting<R>) {
        let Waiting { request, reply, admitted, traced } = asked;
        if self.staged.owed.len() + self.watchers.len() + self.waits.len() >= WATCHERS_MAX {
            return self.refuse(reply, full(Full::Conversation));
        }
        self.asking = traced;
        match request {
            Request::Create(created) => self.create(now_ms, *created, reply),
            Request::Submit(submit) => self.submit(now_ms, *submit, reply, admitted),
            Request::AddItems { caller, items, key } => self.add_items(now_ms, &caller, items, key, reply),
            Request::SetMetadata { caller, metadata, key } => self.set_metadata(now_ms, &caller, metadata, key, reply),
            Request::DeleteItem { caller, ordinal } => {
                self.guarded(now_ms, &caller, reply, Event::ItemDeleted { ordinal });
            }
            Request::Fork { caller, child, before, key } => self.fork(now_ms, &caller, child, before, key, reply),
            Request::Cancel { caller, turn } => self.cancel(now_ms, &caller, turn, reply),
            Request::DeleteResponse { caller, turn } => self.delete_response(now_ms, &caller, turn, reply),
            Request::Delete { caller } => match self.known_to(&caller) {
                Ok(()) => self.delete(now_ms, reply),
                Err(refusal) => self.refuse(reply, refusal),
            },
            Request::Expire { retention_ms } => self.expire(now_ms, retention_ms, reply),
            Request::Watch { caller, turn, have, bytes_max } => self.watch(&caller, turn, have, bytes_max, reply),
            Request::Undelivered { turn } => self.undelivered(now_ms, turn),
            Request::Wake => {
                // If it was found by its row, that goes when it is closed with nothing open.
                self.stale_row = true;
                // None is open here. But somebody else may have owned the conversation since, and have died with it.
                if self.end.is_some() && self.state.open.is_empty() && self.is_saved() {
                    self.out.push(Effect::CheckEnd);
                }
                self.out.extend(reply.map(|reply| Effect::Reply(reply, Ok(Answer::Done))));
            }
            Request::Settle => {
                self.stale_row = true;
                self.out.extend(reply.map(|reply| Effect::Reply(reply, Ok(Answer::Done))));
                if self.state.open.is_empty() && self.state.untold.is_empty() {
                    self.out.push(Effect::AskToClose);
                }
            }
        }
        self.asking = Traced::default();
        if self.end.is_none() && self.staged.events.is_empty() {
            self.out.push(Effect::AskToClose);
        }
    }

    fn known_to(&self, caller: &Caller) -> Result<(), Refusal> {
        if belongs(&self.state, caller) { Ok(()) } else { Err(Refusal::NotFound(Missing::Conversation)) }
    }

    fn create(&mut self, now_ms: u64, created: Created, reply: Option<R>) {
        if let Some(known) = &self.state.created {
            let same = known.tenant == created.tenant
                && known.subject == created.subject
                && known.key.map(|key| key.key) == created.key.map(|key| key.key)
                && known.parent.map(|parent| parent.conversation) == created.parent.map(|parent| parent.conversation);
            if !same {
                return self.refuse(reply, Refusal::NotFound(Missing::Conversation));
            }
            if known.key != created.key {
                return self.refuse(reply, Refusal::KeyReused);
            }
            return self.owe(reply, self.summary(true));
        }
        if self.state.deleted {
            return self.refuse(reply, Refusal::NotFound(Missing::Conversation));
        }
        self.begin_log(now_ms, created);
        self.owe(reply, self.summary(false));
    }

    /// Stages the log's first entry, and the rows by which the conversation will be found.
    fn begin_log(&mut self, now_ms: u64, created: Created) {
        let row = IndexRow {
            tenant: created.tenant.clone(),
            subject: created.subject.clone(),
            created_at_ms: *self.staged.at_ms.get_or_insert(now_ms),
            conversation: self.fixed.conversation,
        };
        if created.explicit {
            self.staged.rows.push(Row::Index(row));
        }
        if let Some(lives_ms) = lives_ms(created.ttl_seconds, self.fixed.retention_ms) {
            self.staged.rows.push(Row::Due { at_ms: now_ms.saturating_add(lives_ms) });
        }
        let Fixed { node, incarnation, view, .. } = self.fixed.clone();
        let claimed = Event::Claimed { node, incarnation, view };
        self.stage(now_ms, claimed);
        self.stage(now_ms, Event::Created(Box::new(created)));
    }

    fn submit(&mut self, now_ms: u64, mut submit: Submit, reply: Option<R>, admitted: bool) {
        if self.state.alive().is_none() && !self.state.deleted && submit.create.is_none() {
            return self.refuse(reply, Refusal::NotFound(Missing::Conversation));
        }
        if self.state.created.is_some() || self.state.deleted {
            if let Err(refusal) = self.known_to(&submit.caller) {
                return self.refuse(reply, refusal);
            }
            if let Some(turn) = self.attempted(&submit) {
                if let Some(reply) = reply {
                    self.join(turn, submit.wait, false, reply);
                }
                return;
            }
            if self.repeats(now_ms, &submit) {
                return self.repeat(now_ms, submit, reply);
            }
        }
        let Some(traits) = self.traits(&submit.parameters.model) else {
            let message = format!("there is no model {:?}", submit.parameters.model);
            return self.refuse(reply, Refusal::Invalid { param: Param::Model, message });
        };
        if let Some(chain) = submit.chain.filter(|chain| !self.goes_on_here(chain)) {
            return self.fork_for(now_ms, &submit, chain, reply);
        }
        let room = self.room_for(&submit, admitted).and_then(|()| self.room_for_bytes(&submit.input));
        if let Err(refusal) = room.and_then(|()| self.drop_known(&mut submit.input)) {
            return self.refuse(reply, refusal);
        }
        if let Some(created) = submit.create.take().filter(|_| self.state.created.is_none()) {
            self.begin_log(now_ms, *created);
        }
        self.make_way(now_ms, submit.on_busy);
        let turn = self.accept(now_ms, submit, reply);
        if traits.at_once && traits.history_items == 0 && self.state.open.len() == 1 {
            self.answer_at_once(now_ms, turn);
        } else if !self.open_row {
            self.open_row = true;
            let epoch = self.next_position().epoch;
            self.staged.rows.push(Row::Open { epoch });
        }
    }

    fn accept(&mut self, now_ms: u64, submit: Submit, reply: Option<R>) -> u64 {
        let turn = self.state.next_turn;
        let at_ms = *self.staged.at_ms.get_or_insert(now_ms);
        let mut input = submit.input;
        (self.state.next_item..).zip(&mut input).for_each(|(ordinal, item)| item.ordinal = ordinal);
        let accepted = Accepted {
            turn,
            input,
            key: submit.key,
            attempt: submit.attempt,
            fingerprint: submit.fingerprint,
            queued: submit.parameters.background || !self.state.open.is_empty(),
            parameters: submit.parameters,
            at_ms,
        };
        let start_by_ms = accepted.parameters.start_by_ms.filter(|_| !self.state.open.is_empty());
        self.stage(now_ms, Event::TurnAccepted(Arc::new(accepted)));
        if let Some(start_by_ms) = start_by_ms {
            // Behind the last moment, so that it is over by then.
            let after_ms = start_by_ms.saturating_sub(now_ms) + 1;
            self.out.push(Effect::WakeForQueue(Duration::from_millis(after_ms)));
        }
        self.shown.insert(turn, Mark::default());
        if !self.asking.is_none() {
            self.traced.insert(turn, std::mem::take(&mut self.asking));
        }
        if let Some(reply) = reply {
            match submit.wait {
                Wait::Accepted => self.staged.owed.push(Owed::Turn { reply, turn, replayed: false }),
                Wait::Ended => self.waits.push(EndWait { turn, replayed: false, reply }),
            }
        }
        turn
    }

    fn room_for(&self, submit: &Submit, admitted: bool) -> Result<(), Refusal> {
        if submit.on_busy == OnBusy::Reject && !self.state.open.is_empty() {
            return Err(Refusal::Locked);
        }
        if self.state.open.len() >= self.fixed.limits.queue_per_conversation {
            return Err(full(Full::Queue));
        }
        if admitted { Ok(()) } else { Err(full(Full::Node)) }
    }

    /// Ends the running turn where the new one asked for it.
    fn make_way(&mut self, now_ms: u64, on_busy: OnBusy) {
        let Some(running) = self.running.as_ref().map(|running| running.turn) else { return };
        match on_busy {
            OnBusy::Enqueue | OnBusy::Reject => {}
            OnBusy::Interrupt => {
                let usage = Default::default();
                self.stop_running(now_ms, running, Outcome::Incomplete { why: Incomplete::Interrupted, usage });
            }
            OnBusy::Rollback => self.stop_running(now_ms, running, Outcome::Cancelled { keep: false }),
        }
    }

    /// The turn that this very request began, before its edge lost the answer.
    fn attempted(&self, submit: &Submit) -> Option<u64> {
        let attempt = submit.attempt?;
        self.state.attempts.iter().rev().find(|(known, _)| *known == attempt).map(|(_, turn)| *turn)
    }

    /// Whether the request was accepted before: under its key, or as a retry of one whose answer was lost.
    fn repeats(&self, now_ms: u64, submit: &Submit) -> bool {
        match &submit.key {
            Some(key) => self.key(key).is_some(),
            None => submit.retry && self.lost_turn(now_ms, &submit.fingerprint).is_some(),
        }
    }

    fn lost_turn(&self, now_ms: u64, fingerprint: &[u8; 16]) -> Option<u64> {
        let recent = |at_ms: u64| at_ms.saturating_add(UNDELIVERED_KEPT_MS) >= now_ms;
        let same = |turn: &&Turn| turn.accepted.key.is_none() && turn.accepted.fingerprint == *fingerprint;
        let open = self.state.open.iter().find(|turn| same(turn) && recent(turn.accepted.at_ms));
        let lost = self.undelivered.iter().find(|(lost, _, at_ms)| lost == fingerprint && recent(*at_ms));
        open.map(|turn| turn.accepted.turn).or_else(|| lost.map(|(_, turn, _)| *turn))
    }

    fn repeat(&mut self, now_ms: u64, submit: Submit, reply: Option<R>) {
        let did = match &submit.key {
            None => self.lost_turn(now_ms, &submit.fingerprint).map(Did::Turn),
            Some(key) => {
                let known = self.key(key);
                match known.filter(|known| known.used.fingerprint == submit.fingerprint) {
                    Some(known) => Some(known.did.clone()),
                    None => return self.refuse(reply, Refusal::KeyReused),
                }
            }
        };
        match (did, reply) {
            (Some(Did::Turn(turn)), Some(reply)) => self.join(turn, submit.wait, true, reply),
            (Some(Did::Forked(prefix, child)), Some(reply)) => {
                let created = self.child_created(prefix, Some(&submit));
                let answer = Answer::Forked { child, created: Box::new(created), replayed: true };
                self.staged.owed.push(Owed::Answer(reply, answer));
            }
            (_, reply) => self.refuse(reply, Refusal::KeyReused),
        }
    }

    /// Answers with a turn that is there already.
    fn join(&mut self, turn: u64, wait: Wait, replayed: bool, reply: R) {
        let open = self.state.open.iter().any(|open| open.accepted.turn == turn);
        if open || self.shown.contains_key(&turn) {
            match wait {
                Wait::Accepted if self.staged.events.is_empty() && self.is_saved() => {
                    let answer = self.turn_answer(turn, replayed);
                    self.out.push(Effect::Reply(reply, answer));
                }
                Wait::Accepted => self.staged.owed.push(Owed::Turn { reply, turn, replayed }),
                Wait::Ended => self.waits.push(EndWait { turn, replayed, reply }),
            }
        } else if self.state.turns.contains_key(&turn) {
            let answer = self.turn_answer(turn, replayed);
            self.out.push(Effect::Reply(reply, answer));
        } else {
            self.out.push(Effect::ReadTurn { turn, replayed, reply });
        }
    }

    /// Chaining goes on here while nothing has come since: after the last turn, or behind the last one that is open.
    fn goes_on_here(&self, chain: &Chain) -> bool {
        match self.state.open.back() {
            Some(open) => open.accepted.turn == chain.after_turn && self.state.next_item == open.block_end(),
            None => self
                .state
                .last
                .is_some_and(|last| last.turn == chain.after_turn && self.state.entered_end == last.items_end),
        }
    }

    fn fork_for(&mut self, now_ms: u64, submit: &Submit, chain: Chain, reply: Option<R>) {
        let key = submit.key.map(|key| KeyUse { key, fingerprint: submit.fingerprint });
        match self.stage_fork(now_ms, chain.child, chain.items_end, key) {
            Ok(prefix) => {
                let created = Box::new(self.child_created(prefix, Some(submit)));
                self.owe(reply, Answer::Forked { child: chain.child, created, replayed: false });
            }
            Err(refusal) => self.refuse(reply, refusal),
        }
    }

    fn fork(
        &mut self,
        now_ms: u64,
        caller: &Caller,
        child: ConversationId,
        before: Option<u64>,
        key: Option<KeyUse>,
        reply: Option<R>,
    ) {
        if let Err(refusal) = self.known_to(caller) {
            return self.refuse(reply, refusal);
        }
        let known = self.known_key(key, |did| match did {
            Did::Forked(prefix, child) => Some((*prefix, *child)),
            _ => None,
        });
        let (prefix, child, replayed) = match known {
            Err(refusal) => return self.refuse(reply, refusal),
            Ok(Some((prefix, child))) => (prefix, child, true),
            Ok(None) => match self.stage_fork(now_ms, child, before.unwrap_or(self.state.entered_end), key) {
                Ok(prefix) => (prefix, child, false),
                Err(refusal) => return self.refuse(reply, refusal),
            },
        };
        let created = Created { explicit: true, key, ..self.child_created(prefix, None) };
        self.owe(reply, Answer::Forked { child, created: Box::new(created), replayed });
    }

    /// A child must not see what enters later, so it ends before the first open turn's block.
    fn stage_fork(
        &mut self,
        now_ms: u64,
        child: ConversationId,
        before: u64,
        key: Option<KeyUse>,
    ) -> Result<Parent, Refusal> {
        if self.state.open.front().is_some_and(|open| before > open.first_item) {
            return Err(Refusal::Locked);
        }
        let prefix = self.state.prefix(self.fixed.conversation, before);
        self.stage(now_ms, Event::Forked { child, prefix, key });
        Ok(prefix)
    }

    fn child_created(&self, prefix: Parent, submit: Option<&Submit>) -> Created {
        let mine = self.state.created.as_ref().expect("only what exists is forked");
        Created {
            tenant: mine.tenant.clone(),
            subject: mine.subject.clone(),
            metadata: self.state.metadata.clone(),
            ttl_seconds: mine.ttl_seconds,
            explicit: false,
            items: Vec::new(),
            parent: Some(prefix),
            key: submit.and_then(|submit| submit.key.map(|key| KeyUse { key, fingerprint: submit.fingerprint })),
        }
    }

    fn add_items(&mut self, now_ms: u64, caller: &Caller, mut items: Vec<Item>, key: Option<KeyUse>, reply: Option<R>) {
        if let Err(refusal) = self.known_to(caller) {
            return self.refuse(reply, refusal);
        }
        let known = self.known_key(key, |did| match did {
            Did::ItemsAdded(ordinals) => Some(ordinals.clone()),
            _ => None,
        });
        match known {
            Err(refusal) => self.refuse(reply, refusal),
            Ok(Some(ordinals)) => self.owe(reply, Answer::Items { ordinals, replayed: true }),
            Ok(None) => match self.room_for_bytes(&items).and_then(|()| self.drop_known(&mut items)) {
                Err(refusal) => self.refuse(reply, refusal),
                Ok(known) => {
                    let mut fresh = self.state.next_item..;
                    let ordinals = known.into_iter().filter_map(|known| known.or_else(|| fresh.next())).collect();
                    if !items.is_empty() || key.is_some() {
                        self.stage(now_ms, Event::ItemsAdded { items, key });
                    }
                    self.owe(reply, Answer::Items { ordinals, replayed: false });
                }
            },
        }
    }

    /// Leaves out items that are here already under the same id, with the same content. The edge has done so for
    /// those in the item list. Answers, for each of them, the ordinal under which it is known.
    fn drop_known(&self, items: &mut Vec<Item>) -> Result<Vec<Option<u64>>, Refusal> {
        let mut known = Vec::with_capacity(items.len());
        for item in items.iter() {
            let same = self.visible_of_client(item);
            if same.is_some_and(|same| same.body != item.body) {
                let message = "an item of this id is in the conversation with another content".to_owned();
                return Err(Refusal::Invalid { param: Param::Id, message });
            }
            known.push(same.map(|same| same.ordinal));
        }
        let mut is_known = known.iter().map(Option::is_some);
        items.retain(|_| !is_known.next().unwrap_or(false));
        Ok(known)
    }

    fn visible_of_client(&self, item: &Item) -> Option<&Item> {
        let id = item.client_id.as_ref()?;
        let visible = self.state.items.values().filter(|known| !self.state.hidden.contains_key(&known.ordinal));
        visible.into_iter().find(|known| known.client_id.as_ref() == Some(id))
    }

    /// What is hot is written with each snapshot, and an entry can only be so large.
    fn room_for_bytes(&self, items: &[Item]) -> Result<(), Refusal> {
        let more: usize = items.iter().map(|item| item.body.bytes()).sum();
        let fits = self.hot_bytes + more <= self.fixed.limits.hot_bytes_per_conversation;
        if fits { Ok(()) } else { Err(full(Full::Conversation)) }
    }

    fn set_metadata(
        &mut self,
        now_ms: u64,
        caller: &Caller,
        metadata: Vec<(String, String)>,
        key: Option<KeyUse>,
        reply: Option<R>,
    ) {
        if let Err(refusal) = self.known_to(caller) {
            return self.refuse(reply, refusal);
        }
        match self.known_key(key, |did| (*did == Did::MetadataSet).then_some(())) {
            Err(refusal) => self.refuse(reply, refusal),
            Ok(Some(())) => self.owe(reply, self.summary(true)),
            Ok(None) => {
                self.stage(now_ms, Event::MetadataSet { metadata, key });
                self.owe(reply, self.summary(false));
            }
        }
    }

    /// What was done under this key before; refused where it was another kind of request.
    fn known_key<T>(&self, used: Option<KeyUse>, same: impl Fn(&Did) -> Option<T>) -> Result<Option<T>, Refusal> {
        let Some(used) = used else { return Ok(None) };
        match self.key(&used.key) {
            None => Ok(None),
            Some(known) if known.used.fingerprint != used.fingerprint => Err(Refusal::KeyReused),
            Some(known) => same(&known.did).map(Some).ok_or(Refusal::KeyReused),
        }
    }

    fn guarded(&mut self, now_ms: u64, caller: &Caller, reply: Option<R>, event: Event) {
        match self.known_to(caller) {
            Ok(()) => {
                self.stage(now_ms, event);
                self.owe(reply, self.summary(false));
            }
            Err(refusal) => self.refuse(reply, refusal),
        }
    }

    fn cancel(&mut self, now_ms: u64, caller: &Caller, turn: u64, reply: Option<R>) {
        if let Err(refusal) = self.known_to(caller) {
            return self.refuse(reply, refusal);
        }
        if self.state.open.iter().any(|open| open.accepted.turn == turn) {
            let started = self.state.turn(turn).is_some_and(|turn| !turn.attempts.is_empty());
            self.stop_running(now_ms, turn, Outcome::Cancelled { keep: started });
        }
        match reply {
            Some(reply) if turn < self.state.next_turn => self.join(turn, Wait::Ended, true, reply),
            reply => self.no_response(now_ms, reply),
        }
    }

    /// The turn may have been accepted by a newer owner, of which this one has not heard: what it remembers counts once an
    /// append has shown that it is still the owner.
    fn no_response(&mut self, now_ms: u64, reply: Option<R>) {
        let Some(reply) = reply else { return };
        let refusal = Refusal::NotFound(Missing::Response);
        if !self.fixed.shared {
            return self.out.push(refuse(reply, refusal));
        }
        if self.staged.events.is_empty() {
            self.stage(now_ms, Event::AtWork);
        }
        self.staged.owed.push(Owed::Refusal(reply, refusal));
    }

    fn delete_response(&mut self, now_ms: u64, caller: &Caller, turn: u64, reply: Option<R>) {
        if let Err(refusal) = self.known_to(caller) {
            return self.refuse(reply, refusal);
        }
        if turn >= self.state.next_turn || self.state.dropped_turns.contains(&turn) {
            return self.no_response(now_ms, reply);
        }
        if self.is_nothing_else() {
            return self.delete(now_ms, reply);
        }
        if self.state.open.iter().any(|open| open.accepted.turn == turn) {
            self.stop_running(now_ms, turn, Outcome::Cancelled { keep: false });
        }
        self.stage(now_ms, Event::ResponseDeleted { turn });
        self.owe(reply, Answer::Done);
    }

    /// A conversation that was made for one response goes with it: nobody could ever find what would be left.
    fn is_nothing_else(&self) -> bool {
        let implicit = self.state.created.as_ref().is_some_and(|created| !created.explicit);
        implicit && self.state.next_turn == 1 && self.state.shared_before == 0 && self.state.parent.is_none()
    }

    fn delete(&mut self, now_ms: u64, reply: Option<R>) {
        self.running = None;
        self.out.push(Effect::StopCall);
        self.window = None;
        if let (Some(created), created_at_ms) = (&self.state.created, self.state.created_at_ms) {
            self.staged.rows.push(Row::Due { at_ms: now_ms + CLEAR_AGAIN_AFTER_MS });
            self.staged.rows.push(Row::Unindex(IndexRow {
                tenant: created.tenant.clone(),
                subject: created.subject.clone(),
                created_at_ms,
                conversation: self.fixed.conversation,
            }));
        }
        self.stage(now_ms, Event::Deleted);
        self.owe(reply, Answer::Done);
    }

    fn expire(&mut self, now_ms: u64, retention_ms: Option<u64>, reply: Option<R>) {
        let ttl_seconds = self.state.alive().and_then(|created| created.ttl_seconds);
        let lives_ms = lives_ms(ttl_seconds, retention_ms);
        let (Some(_), Some(lives_ms)) = (self.state.alive(), lives_ms) else {
            return self.owe(reply, Answer::Done);
        };
        let idle = self.state.open.is_empty();
        let since_ms = if idle { self.state.last_turn_ms } else { now_ms };
        let at_ms = since_ms.saturating_add(lives_ms);
        if idle && at_ms <= now_ms {
            return self.delete(now_ms, reply);
        }
        self.owe(reply, Answer::DueAt(at_ms));
    }

    fn watch(&mut self, caller: &Caller, turn: u64, have: Mark, bytes_max: usize, reply: Option<R>) {
        match (self.known_to(caller), reply) {
            (_, None) => {}
            (Err(refusal), reply) => self.refuse(reply, refusal),
            (Ok(()), Some(reply)) => {
                if let Some(watcher) = self.tell(Watcher { turn, have, bytes_max, reply }) {
                    self.watchers.push(watcher);
                }
            }
        }
    }

    fn undelivered(&mut self, now_ms: u64, turn: u64) {
        let Some(lost) = self.state.turn(turn).filter(|turn| turn.accepted.key.is_none()) else { return };
        self.undelivered.push((lost.accepted.fingerprint, turn, now_ms));
        if self.undelivered.len() > UNDELIVERED_MAX {
            self.undelivered.remove(0);
        }
    }

    fn summary(&self, replayed: bool) -> Answer {
        Answer::Conversation {
            created_at_ms: self.state.created_at_ms,
            metadata: self.state.metadata.clone(),
            replayed,
        }
    }

    /// Tells `answer` as soon as all that it rests on is durable.
    fn owe(&mut self, reply: Option<R>, answer: Answer) {
        let Some(reply) = reply else { return };
        if self.staged.events.is_empty() && self.is_saved() {
            self.out.push(Effect::Reply(reply, Ok(answer)));
        } else {
            self.staged.owed.push(Owed::Answer(reply, answer));
        }
    }
}

/// How long a conversation lives after its last turn, by its own word or the node's.
fn lives_ms(ttl_seconds: Option<u64>, retention_ms: Option<u64>) -> Option<u64> {
    let own = ttl_seconds.map(|seconds| seconds.saturating_mul(1_000));
    own.into_iter().chain(retention_ms).min()
}
