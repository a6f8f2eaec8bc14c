//! What must hold when all faults are over: every conversation takes a turn, and every promise that was made to a client
//! is kept by what is durable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klatch_actors::Reader;
use klatch_actors::reader::Page;
use klatch_actors::request::OnBusy;
use klatch_actors::store::Order;
use klatch_protocol::{ConversationId, Item, State, Turn};

use crate::client::Client;
use crate::journal::Journal;
use crate::ledger::ToldTurn;
use crate::nodes::Nodes;
use crate::plan::Disturbance;
use crate::shared::Shared;

/// The longest life of a conversation is 40 s, and the dead are looked for every 5.
const EXPIRED_MAX: Duration = Duration::from_secs(60);

/// The longest wait of a webhook is 10 s, and what waits outside of memory is looked for every 5.
const HEARD_MAX: Duration = Duration::from_secs(120);

/// The idle ones are looked for now and then, each writes what it has to write, and those that have expired or were deleted
/// are looked at once more.
const ALL_PASSIVATED_AFTER: Duration = Duration::from_secs(240);

/// Not in step with what nodes do several times a second, or one of them would be at it at each look.
const BETWEEN_BEATS: Duration = Duration::from_millis(1_013);

/// A turn of a conversation that nothing is wrong with takes no longer.
const TURN_MAX: Duration = Duration::from_secs(60);

pub async fn every_conversation_goes_on(shared: &Arc<Shared>, nodes: &Nodes) {
    let lasting = shared.ledger().lasting();
    let mut client = Client::new("last", shared.clone(), nodes.handles()).strict();
    for conversation in lasting {
        let turn = client.turn(conversation, OnBusy::Enqueue, true);
        if tokio::time::timeout(TURN_MAX, turn).await != Ok(true) {
            return shared.fail(format!("{conversation} takes no turn when all faults are over"));
        }
    }
    let open = shared.journal().open_turns();
    if !open.is_empty() {
        shared.fail(format!("turns are open at the end: {open:?}"));
    }
}

/// Without a word from any client, webhooks hear of every end, and that is written down.
pub async fn webhooks_heard_all(shared: &Shared) {
    if !shared.plan.webhooks {
        return;
    }
    let begun = shared.elapsed();
    loop {
        let lacks = shared.heard().lacks(&shared.journal());
        if lacks.is_empty() {
            break;
        }
        if shared.elapsed() - begun > HEARD_MAX {
            return shared.fail(format!("webhooks were not told of all that ended in {lacks:?}"));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let untold = shared.journal().stories().find(|(_, story)| !story.tells_all()).map(|(id, _)| id);
    if let Some(id) = untold {
        shared.fail(format!("a turn of {id} ended, and nobody was to be told"));
    }
}

/// Without a word from any client, whatever has outlived its time is deleted.
pub async fn mortals_are_gone(shared: &Shared) {
    // A turn that a wrong clock dated keeps its conversation for as long as that clock was wrong.
    if shared.plan.disturbances.iter().any(|due| due.what == Disturbance::ClockJump) {
        return;
    }
    let begun = shared.elapsed();
    loop {
        let mortal = shared.ledger().mortal.clone();
        let is_there = |id: &ConversationId| shared.journal().story(*id).is_some_and(|story| !story.whole.deleted);
        let Some(left) = mortal.keys().find(|id| is_there(id)) else { return };
        if shared.elapsed() - begun > EXPIRED_MAX {
            return shared.fail(format!("{left} should have expired, and is there"));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

pub async fn promises_are_kept(shared: &Arc<Shared>, nodes: &Nodes) {
    for handle in nodes.all_handles() {
        if let Some(status) = handle.status().await
            && status.open_turns > 0
        {
            shared.fail(format!("a node counts {} turns as open, and none is", status.open_turns));
        }
    }
    shared.check(turns_are_there(shared));
    shared.check(order_is_that_of_the_clients(&shared.ledger().turns));
    shared.check(items_are_there(shared));
    let reader = nodes.all_handles().first().map(|handle| handle.reader().clone());
    let Some(reader) = reader else { return shared.fail("no node is up at the end") };
    let mortal = shared.ledger().mortal.clone();
    // One that lives and may expire at any time is no witness.
    let stories: Vec<ConversationId> = shared
        .journal()
        .stories()
        .filter(|(id, story)| story.whole.deleted || !mortal.contains_key(id))
        .map(|(id, _)| id)
        .collect();
    for id in stories {
        if let Err(why) = reads_as_it_happened(shared, &reader, id).await {
            shared.fail(format!("{id}: {why}"));
        }
    }
}

/// When nobody asks for anything any more, nothing is in memory, and no task is left behind: at the beginning, with all
/// nodes up and nobody there, there were so many.
pub async fn nothing_is_left_over(shared: &Shared, nodes: &Nodes, tasks_at_first: usize) {
    let until = shared.elapsed() + shared.plan.limits.idle_after * 3 + ALL_PASSIVATED_AFTER;
    loop {
        tokio::time::sleep(BETWEEN_BEATS).await;
        let mut active = 0;
        for handle in nodes.all_handles() {
            let Some(status) = handle.status().await else { return shared.fail("a node has no gateway at the end") };
            active += status.active_conversations;
        }
        let tasks = nodes.tasks().await;
        if active == 0 && tasks <= tasks_at_first {
            return;
        }
        if shared.elapsed() > until {
            return shared.fail(format!(
                "nobody asks for anything, and there are {active} conversations in memory, and {tasks} tasks where \
                 there were {tasks_at_first} at the beginning"
            ));
        }
    }
}

fn turns_are_there(shared: &Shared) -> Result<(), String> {
    let (ledger, journal) = (shared.ledger(), shared.journal());
    for told in &ledger.turns {
        let ToldTurn { conversation, turn, text, .. } = told;
        let accepted = journal.story(*conversation).and_then(|story| story.turns.get(turn));
        let Some(accepted) = accepted else { return Err(format!("an acknowledged turn is not in the log: {told:?}")) };
        let stored: String = accepted.input.iter().map(|item| item.body.text()).collect();
        if stored != *text {
            return Err(format!("{told:?} is in the log as {stored:?}"));
        }
    }
    let turn_of = |(conversation, turn): (ConversationId, u64)| {
        let story = journal.story(conversation)?;
        story.whole.turn(turn).map(|turn| (turn.outcome.clone(), turn.text()))
    };
    for (which, shown) in &ledger.shown {
        if let Some((_, stored)) = turn_of(*which)
            && !stored.starts_with(shown.as_str())
        {
            return Err(format!("{which:?} was shown as {shown:?} and is stored as {stored:?}"));
        }
    }
    for (which, (outcome, text)) in &ledger.ends {
        if let Some(stored) = turn_of(*which)
            && stored != (Some(outcome.clone()), text.clone())
        {
            return Err(format!("{which:?} ended as {outcome:?} {text:?} and is stored as {stored:?}"));
        }
    }
    for conversation in &ledger.deleted {
        if !journal.story(*conversation).is_some_and(|story| story.whole.deleted) {
            return Err(format!("{conversation} was deleted, and is there"));
        }
    }
    Ok(())
}

/// What was acknowledged before something else was asked for stands before it.
fn order_is_that_of_the_clients(told: &[ToldTurn]) -> Result<(), String> {
    let mut by_conversation: BTreeMap<ConversationId, Vec<&ToldTurn>> = BTreeMap::new();
    for turn in told {
        by_conversation.entry(turn.conversation).or_default().push(turn);
    }
    for turns in by_conversation.values() {
        for later in turns {
            let before = turns.iter().filter(|earlier| earlier.told_at < later.asked_at);
            if let Some(earlier) =
                before.into_iter().find(|earlier| earlier.turn >= later.turn && earlier.text != later.text)
            {
                return Err(format!("{earlier:?} was acknowledged before {later:?} was sent, and stands behind it"));
            }
        }
    }
    Ok(())
}

fn items_are_there(shared: &Shared) -> Result<(), String> {
    let (ledger, journal) = (shared.ledger(), shared.journal());
    for (conversation, ordinal, body) in &ledger.items {
        let Some(story) = journal.story(*conversation) else { return Err(format!("{conversation} is not there")) };
        if story.whole.deleted {
            continue;
        }
        if story.whole.items.get(ordinal).is_none_or(|item| item.body != *body) {
            return Err(format!("item {ordinal} of {conversation} was added, and is not there"));
        }
    }
    for (conversation, ordinal) in &ledger.items_deleted {
        let story = journal.story(*conversation);
        if story.is_some_and(|story| !story.whole.deleted && !story.whole.hidden.contains_key(ordinal)) {
            return Err(format!("item {ordinal} of {conversation} was deleted, and is there"));
        }
    }
    Ok(())
}

/// Snapshot, lists and tail read as all events together.
async fn reads_as_it_happened(shared: &Shared, reader: &Reader, id: ConversationId) -> Result<(), String> {
    let error = |error: klatch_actors::store::StoreError| error.to_string();
    let state = Arc::new(reader.state(id).await.map_err(error)?);
    let whole = shared.journal().story(id).map(|story| story.whole.clone()).unwrap_or_default();
    let visible = shared.journal().visible(id);
    if (state.deleted, state.next_turn, state.next_item) != (whole.deleted, whole.next_turn, whole.next_item) {
        return Err("the log reads otherwise than it happened".into());
    }
    if state.metadata != whole.metadata || state.keys != whole.keys {
        return Err("metadata or keys read otherwise than they were written".into());
    }
    if whole.deleted {
        return Ok(());
    }
    let page = Page { from: 0, to: u64::MAX, order: Order::Ascending, limit: usize::MAX };
    let items = reader.items(id, &state, page).await.map_err(error)?;
    if items != visible {
        return Err(format!("its items read as {items:?} instead of {visible:?}"));
    }
    let page = Page { order: Order::Descending, ..page };
    let mut backwards = reader.items(id, &state, page).await.map_err(error)?;
    backwards.reverse();
    if backwards != visible {
        return Err("its items read otherwise backwards".into());
    }
    for (number, known) in &whole.turns {
        let stored = reader.turn(id, &state, *number).await.map_err(error)?;
        if !stored.as_ref().is_some_and(|stored| is_same(stored, known, &whole)) {
            return Err(format!("turn {number} reads as {stored:?} instead of {known:?}"));
        }
    }
    Ok(())
}

/// But for items that were deleted from it.
fn is_same(stored: &Turn, known: &Turn, whole: &State) -> bool {
    let hidden = whole.hidden.range(known.first_item..known.block_end()).next().is_some();
    let text = hidden || (stored.text() == known.text() && stored.accepted.input == known.accepted.input);
    text && stored.outcome == known.outcome && stored.attempts == known.attempts
}

impl Journal {
    /// The items of a conversation as its clients see them, in order, those that it shares with its parent included.
    pub fn visible(&self, id: ConversationId) -> Vec<Item> {
        self.visible_below(id, u64::MAX, u64::MAX)
    }

    fn visible_below(&self, id: ConversationId, before: u64, version: u64) -> Vec<Item> {
        let Some(story) = self.story(id) else { return Vec::new() };
        let whole = &story.whole;
        let is_shown = |ordinal: u64| whole.hidden.get(&ordinal).is_none_or(|hidden| *hidden > version);
        let mut items = match whole.parent {
            Some(parent) => self.visible_below(parent.conversation, parent.before.min(before), parent.version),
            None => Vec::new(),
        };
        items.extend(whole.items.range(..before).map(|(_, item)| item.clone()));
        items.retain(|item| is_shown(item.ordinal));
        items
    }
}
