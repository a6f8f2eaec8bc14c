//! One turn: its input, and what has become of it so far. The fold of the turn's events.
//!
//! A watcher keeps a copy and is sent what is news to it: `news` and `apply` are each other's inverse, so the same
//! mechanism serves the first reader, a slow one, a resumed one, and one whose owner died.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{Accepted, Attempt, Call};
use crate::item::{Body, Part, Role, Status};
use crate::{Item, Pieces, State};

/// Output items that one turn may have. Its block of ordinals is inputs + this many.
pub const OUTPUTS_MAX: u64 = 256;

/// What a piece weighs in memory beside its text, in bytes: a thousand tokens of four letters are not four kilobytes.
const PIECE_OVERHEAD: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    pub accepted: Arc<Accepted>,
    /// The turn's block of ordinals begins here.
    pub first_item: u64,
    /// How many inputs the block holds; `accepted.input` itself may have moved to the item list.
    pub inputs: u64,
    pub attempts: Vec<Attempt>,
    pub outputs: Vec<Output>,
    pub outcome: Option<Outcome>,
    pub ended_at_ms: u64,
    /// Texts and inputs stand in the item list only: see [`Turn::strip`].
    pub stripped: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// `pieces` are the lengths, in bytes, of the stream's deltas: they add up to the text.
    Message {
        text: String,
        pieces: Vec<u32>,
    },
    Call(Call),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Completed {
        usage: Usage,
    },
    Incomplete {
        why: Incomplete,
        usage: Usage,
    },
    Failed {
        code: String,
        message: String,
    },
    /// `keep`: what was said stays in the conversation; else the turn leaves nothing there.
    Cancelled {
        keep: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Incomplete {
    MaxOutputTokens,
    ContentFilter,
    /// Another turn was sent with `on_busy: interrupt`.
    Interrupted,
    /// The responder could not go on after its owner died.
    TakenOver,
}

/// Tokens, as the responder counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub input: u64,
    pub input_cached: u64,
    pub output: u64,
    pub output_reasoning: u64,
}

/// How much of a turn a watcher has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    pub attempts: u32,
    /// Outputs begun.
    pub outputs: u32,
    /// Pieces of the last of them, where it is a message.
    pub pieces: u32,
    pub ended: bool,
}

/// A change of one turn, as a watcher is told it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    Attempt(Attempt),
    /// Go on with the last output, or begin a new message where it is not one.
    Pieces {
        pieces: Pieces,
    },
    Call(Call),
    Ended {
        outcome: Outcome,
        at_ms: u64,
    },
}

impl Turn {
    pub fn new(accepted: impl Into<Arc<Accepted>>, first_item: u64) -> Self {
        let accepted = accepted.into();
        let inputs = accepted.input.len() as u64;
        Self {
            accepted,
            first_item,
            inputs,
            attempts: Vec::new(),
            outputs: Vec::new(),
            outcome: None,
            ended_at_ms: 0,
            stripped: false,
        }
    }

    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Attempt(attempt) => self.attempts.push(attempt),
            Change::Pieces { pieces } => self.add_pieces(&pieces),
            Change::Call(call) => self.outputs.push(Output::Call(call)),
            Change::Ended { outcome, at_ms } => {
                self.outcome = Some(outcome);
                self.ended_at_ms = at_ms;
            }
        }
    }

    /// Goes on with the last output, or begins a new message where it is not one.
    pub fn add_pieces(&mut self, pieces: &Pieces) {
        if !matches!(self.outputs.last(), Some(Output::Message { .. })) {
            self.outputs.push(Output::Message { text: String::new(), pieces: Vec::new() });
        }
        let Some(Output::Message { text, pieces: lengths }) = self.outputs.last_mut() else { return };
        text.push_str(pieces.text());
        lengths.extend_from_slice(pieces.lengths());
    }

    /// The mark of all that there is.
    pub fn mark(&self) -> Mark {
        Mark {
            attempts: self.attempts.len() as u32,
            outputs: self.outputs.len() as u32,
            pieces: match self.outputs.last() {
                Some(Output::Message { pieces, .. }) => pieces.len() as u32,
                _ => 0,
            },
            ended: self.outcome.is_some(),
        }
    }

    /// What happened after `have`, as far as `durable` allows and `bytes_max` in memory; always at least one change
    /// where there is one.
    pub fn news(&self, have: Mark, durable: Mark, bytes_max: usize) -> Vec<Change> {
        let mut changes: Vec<Change> = Vec::new();
        let attempts = self.attempts.iter().take(durable.attempts as usize).skip(have.attempts as usize);
        changes.extend(attempts.map(|attempt| Change::Attempt(*attempt)));
        let mut bytes = 0;
        let first = (have.outputs as usize).saturating_sub(1);
        for (index, output) in self.outputs.iter().enumerate().take(durable.outputs as usize).skip(first) {
            let begun = index < have.outputs as usize;
            match output {
                Output::Call(call) if !begun => {
                    bytes += call.arguments.len();
                    changes.push(Change::Call(call.clone()));
                }
                Output::Call(_) => {}
                Output::Message { text, pieces } => {
                    let skip = if begun { have.pieces as usize } else { 0 };
                    let last = index + 1 == durable.outputs as usize;
                    let until = if last { durable.pieces as usize } else { pieces.len() };
                    let mut at: usize = pieces.iter().take(skip).map(|length| *length as usize).sum();
                    let mut fresh = Pieces::default();
                    for length in pieces.iter().take(until).skip(skip) {
                        let weight = *length as usize + PIECE_OVERHEAD;
                        if bytes > 0 && bytes + weight > bytes_max {
                            break;
                        }
                        fresh.push(&text[at..at + *length as usize]);
                        at += *length as usize;
                        bytes += weight;
                    }
                    let all = skip + fresh.len() >= until;
                    if !fresh.is_empty() {
                        changes.push(Change::Pieces { pieces: fresh });
                    }
                    if !all {
                        return changes;
                    }
                }
            }
        }
        if let (Some(outcome), true, false) = (&self.outcome, durable.ended, have.ended) {
            changes.push(Change::Ended { outcome: outcome.clone(), at_ms: self.ended_at_ms });
        }
        changes
    }

    /// The output items as they enter the conversation, with their ordinals.
    pub fn output_items(&self) -> Vec<Item> {
        let last = self.outputs.len().saturating_sub(1);
        let complete = matches!(self.outcome, Some(Outcome::Completed { .. }));
        let item = |(index, output): (usize, &Output)| {
            let status = if complete || index < last { Status::Completed } else { Status::Incomplete };
            let body = match output {
                Output::Message { text, .. } => {
                    Body::Message { role: Role::Assistant, status, content: vec![Part::OutputText(text.clone())] }
                }
                Output::Call(Call { call_id, name, arguments }) => Body::FunctionCall {
                    call_id: call_id.clone(),
                    name: name.clone(),
                    arguments: arguments.clone(),
                    status,
                },
            };
            Item { ordinal: self.output_ordinal(index), client_id: None, body: body.into() }
        };
        self.outputs.iter().enumerate().map(item).collect()
    }

    pub fn output_ordinal(&self, output: usize) -> u64 {
        self.first_item + self.inputs + output as u64
    }

    /// The first ordinal behind the turn's block.
    pub fn block_end(&self) -> u64 {
        self.first_item + self.inputs + OUTPUTS_MAX
    }

    /// Whether its input and output items stand in the conversation.
    pub fn entered(&self) -> bool {
        match self.outcome {
            Some(Outcome::Completed { .. } | Outcome::Incomplete { .. }) => true,
            Some(Outcome::Cancelled { keep }) => keep,
            Some(Outcome::Failed { .. }) | None => false,
        }
    }

    /// Roughly what it weighs in memory, in bytes.
    pub fn bytes(&self) -> usize {
        const OVERHEAD: usize = 256;
        let outputs = self.outputs.iter().map(|output| match output {
            Output::Message { text, pieces } => text.len() + 4 * pieces.len(),
            Output::Call(call) => call.name.len() + call.arguments.len(),
        });
        let inputs = self.accepted.input.iter().map(|item| item.body.bytes());
        OVERHEAD + self.accepted.parameters.request.len() + outputs.chain(inputs).sum::<usize>()
    }

    /// All text said so far, calls left out.
    pub fn text(&self) -> String {
        let texts = self.outputs.iter().filter_map(|output| match output {
            Output::Message { text, .. } => Some(text.as_str()),
            Output::Call(_) => None,
        });
        texts.collect()
    }

    /// Drops what the conversation's items hold anyway. Only for a turn that entered.
    pub fn strip(&mut self) {
        debug_assert!(self.entered());
        Arc::make_mut(&mut self.accepted).input.clear();
        for output in &mut self.outputs {
            match output {
                Output::Message { text, .. } => text.clear(),
                Output::Call(call) => call.arguments.clear(),
            }
        }
        self.stripped = true;
    }

    /// Undoes [`Turn::strip`] from the items of the turn's block. What was deleted from the conversation since is
    /// gone here too: an input is left out, an output is empty.
    pub fn refill(&mut self, items: impl IntoIterator<Item = Item>) {
        for item in items {
            let Some(place) = item.ordinal.checked_sub(self.first_item) else { continue };
            if place < self.inputs {
                Arc::make_mut(&mut self.accepted).input.push(item);
                continue;
            }
            match (self.outputs.get_mut((place - self.inputs) as usize), &*item.body) {
                (Some(Output::Message { text, .. }), body @ Body::Message { .. }) => *text = body.text(),
                (Some(Output::Call(call)), Body::FunctionCall { arguments, .. }) => {
                    call.arguments.clone_from(arguments)
                }
                _ => {}
            }
        }
        for output in &mut self.outputs {
            if let Output::Message { text, pieces } = output
                && text.is_empty()
            {
                pieces.clear();
            }
        }
        self.stripped = false;
    }
}

impl State {
    /// An open turn, or a finished one that is not yet in the turn list.
    pub fn turn(&self, ordinal: u64) -> Option<&Turn> {
        self.turns.get(&ordinal).or_else(|| self.open.iter().find(|turn| turn.accepted.turn == ordinal))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::{AttemptReason, Parameters};

    pub fn accepted(turn: u64) -> Accepted {
        Accepted {
            turn,
            input: vec![Item { ordinal: 0, client_id: None, body: Body::user("hello").into() }],
            key: None,
            attempt: None,
            fingerprint: [0; 16],
            parameters: Parameters {
                model: "echo".into(),
                background: false,
                store: true,
                conversation_named: true,
                previous: None,
                cancel_on_disconnect: false,
                start_by_ms: None,
                request: "{}".into(),
            },
            queued: false,
            at_ms: 1,
        }
    }

    pub fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            4 => proptest::collection::vec("[a-zé]{0,5}", 1..4).prop_map(|texts| Change::Pieces { pieces: texts.into_iter().collect() }),
            1 => Just(Change::Call(Call { call_id: "c".into(), name: "f".into(), arguments: "{}".into() })),
            1 => Just(Change::Attempt(Attempt { n: 1, incarnation: 1, reason: AttemptReason::First })),
        ]
    }

    proptest! {
        #[test]
        fn a_watcher_that_is_told_all_news_has_the_whole_turn(
            changes in proptest::collection::vec(change(), 0..20),
            seen in 0usize..20,
            bytes_max in 1usize..20,
        ) {
            let mut turn = Turn::new(accepted(0), 0);
            let mut watcher = turn.clone();
            for (n, change) in changes.into_iter().enumerate() {
                turn.apply(change);
                if n % (seen + 1) == 0 {
                    for news in turn.news(watcher.mark(), turn.mark(), bytes_max) { watcher.apply(news); }
                }
            }
            turn.apply(Change::Ended { outcome: Outcome::Completed { usage: Usage::default() }, at_ms: 5 });
            for _ in 0..1000 {
                let news = turn.news(watcher.mark(), turn.mark(), bytes_max);
                if news.is_empty() { break }
                for news in news { watcher.apply(news); }
            }
            prop_assert_eq!(watcher, turn);
        }

        #[test]
        fn stripping_is_undone_by_the_items(changes in proptest::collection::vec(change(), 0..20)) {
            let mut turn = Turn::new(accepted(0), 0);
            for change in changes { turn.apply(change); }
            turn.apply(Change::Ended { outcome: Outcome::Completed { usage: Usage::default() }, at_ms: 5 });
            let items: Vec<Item> = turn.accepted.input.iter().cloned().chain(turn.output_items()).collect();
            let mut stripped = turn.clone();
            stripped.strip();
            stripped.refill(items);
            for (was, is) in turn.outputs.iter().zip(&stripped.outputs) {
                if let Output::Message { text, .. } = was && text.is_empty() { continue }
                prop_assert_eq!(was, is);
            }
            prop_assert_eq!(stripped.accepted, turn.accepted);
        }
    }
}
