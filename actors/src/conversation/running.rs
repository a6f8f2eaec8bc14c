//! The turn at the head of the queue: its attempt is recorded, its history found, its responder called, what it says
//! batched, its end staged. Pure.

use std::time::Duration;

use klatch_protocol::event::{Attempt, AttemptReason, Event, Memory};
use klatch_protocol::turn::{Incomplete, OUTPUTS_MAX};
use klatch_protocol::{Item, Outcome, Pieces, Turn};

use super::decide::{Effect, Running, RunningStep, Serving};
use super::window::Window;
use crate::responder::{Answered, Ask, End, MEMORY_BYTES_MAX, ResponderError, Said};
use crate::store::StoreError;

/// Crashes in a row, with a call of the turn before each, after which the turn is held to be what crashes it.
const CRASHES_MAX: u32 = 2;

/// A running turn adds something to the log so often, where other nodes may own it: one that does not for longer is
/// taken over.
const SIGN_EVERY: Duration = Duration::from_secs(2);

/// Attempts in all: a turn that takes its nodes down with it must end at some time.
const ATTEMPTS_MAX: usize = 16;

impl<R> Serving<R> {
    /// Begins the next turn if none is running.
    pub(super) fn start_next(&mut self, now_ms: u64) {
        while self.running.is_none() && !self.closing {
            let Some(turn) = self.state.open.front() else { return };
            let number = turn.accepted.turn;
            match self.hopeless(now_ms, turn) {
                Some(outcome) => self.end(now_ms, number, outcome, None),
                None => self.start(now_ms, number),
            }
        }
    }

    /// Ends the turns in the queue that waited for longer than their clients would.
    pub(super) fn queue_due(&mut self, now_ms: u64) {
        let late = |turn: &&Turn| turn.attempts.is_empty() && is_late(turn, now_ms);
        let late: Vec<u64> = self.state.open.iter().filter(late).map(|turn| turn.accepted.turn).collect();
        for turn in late {
            self.end(now_ms, turn, failed(WAITED_TOO_LONG), None);
        }
    }

    /// Why the turn cannot be begun, if so.
    fn hopeless(&self, now_ms: u64, turn: &Turn) -> Option<Outcome> {
        let this_life = turn.attempts.iter().filter(|attempt| attempt.incarnation == self.fixed.incarnation).count();
        let too_late = turn.attempts.is_empty() && is_late(turn, now_ms);
        // A store that failed makes attempts too, and is not the turn's fault.
        let crashed = self.fixed.crashes >= CRASHES_MAX && this_life >= CRASHES_MAX as usize;
        if crashed || turn.attempts.len() >= ATTEMPTS_MAX {
            Some(failed("the turn crashed its conversation more than once"))
        } else if too_late {
            Some(failed(WAITED_TOO_LONG))
        } else if self.traits(&turn.accepted.parameters.model).is_none() {
            Some(failed("the model of this turn is not configured any more"))
        } else {
            None
        }
    }

    fn start(&mut self, now_ms: u64, turn: u64) {
        let reply_bytes = self.state.turn(turn).map_or(0, |turn| turn.text().len());
        let attempt = self.stage_attempt(now_ms, turn);
        self.running = Some(Running {
            turn,
            attempt,
            step: RunningStep::Recording,
            unsaved: Vec::new(),
            unsaved_calls: 0,
            reply_bytes,
            batched_ms: 0,
            wake_set: false,
        });
        if self.fixed.shared && self.sign.is_none() {
            self.wake_for_sign();
        }
    }

    fn wake_for_sign(&mut self) {
        self.sign = Some(self.end);
        self.out.push(Effect::WakeForSign(SIGN_EVERY));
    }

    /// Adds a sign of life if nothing else was added since the last wake.
    pub(super) fn sign_due(&mut self, now_ms: u64) {
        let before = self.sign.take();
        if self.running.is_none() {
            return;
        }
        if before == Some(self.end) && self.is_saved() && self.staged.events.is_empty() {
            self.stage(now_ms, Event::AtWork);
        }
        self.wake_for_sign();
    }

    fn stage_attempt(&mut self, now_ms: u64, turn: u64) -> Attempt {
        let made = self.state.turn(turn).map_or(0, |turn| turn.attempts.len());
        let reason = if made == 0 { AttemptReason::First } else { AttemptReason::TakenOver };
        let attempt = Attempt { n: made as u32 + 1, incarnation: self.fixed.incarnation, reason };
        self.stage(now_ms, Event::AttemptStarted { turn, attempt });
        attempt
    }

    /// The attempt is on record: the responder may be called, once its history is there.
    pub(super) fn recorded(&mut self, turn: u64, attempt: Attempt) {
        let this = |running: &&mut Running| {
            running.step == RunningStep::Recording && running.turn == turn && running.attempt == attempt
        };
        let Some(running) = self.running.as_mut().filter(this) else { return };
        let turn = running.turn;
        let wanted = self.history_wanted(turn);
        let Some(first_item) = self.state.turn(turn).map(|turn| turn.first_item) else { return };
        if wanted > 0 && self.window.is_none() {
            self.set_step(RunningStep::LoadingHistory);
            self.out.push(Effect::LoadHistory { turn, before: first_item, limit: self.fixed.limits.history_items });
        } else {
            self.call(turn);
        }
    }

    pub(super) fn history_loaded(&mut self, now_ms: u64, turn: u64, items: Result<Vec<Item>, StoreError>) {
        let waiting = |running: &Running| running.turn == turn && running.step == RunningStep::LoadingHistory;
        if !self.running.as_ref().is_some_and(waiting) {
            return;
        }
        match items {
            Ok(items) => {
                self.window = Some(self.window_behind(items));
                self.call(turn);
            }
            Err(error @ (StoreError::Unavailable(_) | StoreError::Unknown(_))) => self.give_up(error),
            Err(error) => {
                let message = format!("the conversation's history could not be read: {error}");
                self.running = None;
                self.end(now_ms, turn, Outcome::Failed { code: "server_error".into(), message }, None);
            }
        }
    }

    /// The window of what was read, and of what has entered meanwhile.
    fn window_behind(&self, items: Vec<Item>) -> Window {
        let next = items.last().map_or(0, |item| item.ordinal + 1);
        let entered = self.state.items.range(next..).map(|(_, item)| item.clone());
        let visible = |item: &Item| !self.state.hidden.contains_key(&item.ordinal);
        Window::new(items.into_iter().chain(entered).filter(visible).collect(), &self.fixed.limits)
    }

    fn call(&mut self, turn: u64) {
        self.set_step(RunningStep::Calling);
        if let Some(ask) = self.ask(turn) {
            self.out.push(Effect::Call(Box::new(ask)));
        }
    }

    fn ask(&self, number: u64) -> Option<Ask> {
        let turn = self.state.turn(number)?;
        let parameters = &turn.accepted.parameters;
        let wanted = self.history_wanted(number);
        let memory = self.state.memory.as_ref().filter(|memory| *memory.model == *parameters.model);
        Some(Ask {
            conversation: self.fixed.conversation,
            turn: number,
            attempt: turn.attempts.len() as u32,
            model: parameters.model.clone(),
            request: parameters.request.clone(),
            history: self.window.as_ref().map(|window| window.history(turn.first_item, wanted)).unwrap_or_default(),
            input: turn.accepted.input.clone(),
            partial: turn.text(),
            memory: memory.map(|memory| memory.bytes.clone()),
            traced: self.traced.get(&number).cloned().unwrap_or_default(),
        })
    }

    fn history_wanted(&self, turn: u64) -> usize {
        let model = self.state.turn(turn).map(|turn| &*turn.accepted.parameters.model);
        model.and_then(|model| self.traits(model)).map_or(0, |traits| traits.history_items)
    }

    fn set_step(&mut self, step: RunningStep) {
        if let Some(running) = &mut self.running {
            running.step = step;
        }
    }

    /// The whole turn is staged with what the responder says now; one append saves it.
    pub(super) fn answer_at_once(&mut self, now_ms: u64, turn: u64) {
        self.start(now_ms, turn);
        self.set_step(RunningStep::AnsweringAtOnce);
        if let Some(ask) = self.ask(turn) {
            self.out.push(Effect::AnswerAtOnce(Box::new(ask)));
        }
    }

    pub(super) fn answered_at_once(&mut self, now_ms: u64, turn: u64, answered: Answered) {
        if self.running.as_ref().is_none_or(|running| running.turn != turn) {
            return;
        }
        let Answered { mut pieces, mut end } = answered;
        if pieces.cut_beyond(self.fixed.limits.reply_bytes) {
            end = End { incomplete: Some(Incomplete::MaxOutputTokens), ..End::default() };
        }
        if !pieces.is_empty() {
            self.stage(now_ms, Event::Delta { turn, pieces });
        }
        self.ended(now_ms, end);
    }

    pub(super) fn said(&mut self, now_ms: u64, turn: u64, attempt: u32, said: Result<Said, ResponderError>) {
        let current = |running: &&mut Running| running.turn == turn && running.attempt.n == attempt;
        // What a stopped call still had to say is nobody's any more.
        let Some(running) = self.running.as_mut().filter(current) else { return };
        match said {
            Ok(Said::End(end)) => self.ended(now_ms, end),
            Err(ResponderError { code, message }) => self.over(now_ms, Outcome::Failed { code, message }, None),
            Ok(said) => {
                running.reply_bytes += match &said {
                    Said::Text(text) => text.len(),
                    Said::Call(call) => call.name.len() + call.arguments.len(),
                    Said::End(_) => 0,
                };
                running.unsaved_calls += usize::from(matches!(said, Said::Call(_)));
                running.unsaved.push(said);
                self.keep_within_limits(now_ms);
            }
        }
    }

    fn ended(&mut self, now_ms: u64, end: End) {
        let outcome = match end.incomplete {
            None => Outcome::Completed { usage: end.usage },
            Some(why) => Outcome::Incomplete { why, usage: end.usage },
        };
        self.over(now_ms, outcome, end.memory.filter(|memory| memory.len() <= MEMORY_BYTES_MAX));
    }

    fn keep_within_limits(&mut self, now_ms: u64) {
        let Some(running) = &self.running else { return };
        let Some(turn) = self.state.turn(running.turn) else { return };
        let outputs = turn.outputs.len() + running.unsaved_calls;
        if running.reply_bytes > self.fixed.limits.reply_bytes || outputs as u64 + 1 > OUTPUTS_MAX {
            let usage = Default::default();
            self.out.push(Effect::StopCall);
            self.over(now_ms, Outcome::Incomplete { why: Incomplete::MaxOutputTokens, usage }, None);
        }
    }

    /// The running turn's end, behind all that it said.
    fn over(&mut self, now_ms: u64, outcome: Outcome, memory: Option<Vec<u8>>) {
        let Some(turn) = self.running.as_ref().map(|running| running.turn) else { return };
        self.stage_unsaved(now_ms);
        self.running = None;
        let model = self.state.turn(turn).map(|turn| turn.accepted.parameters.model.clone()).unwrap_or_default();
        self.end(now_ms, turn, outcome, memory.map(|bytes| Memory { model: model.to_string(), bytes }));
    }

    fn end(&mut self, now_ms: u64, turn: u64, outcome: Outcome, memory: Option<Memory>) {
        if let Some(open) = self.state.turn(turn) {
            self.out.push(Effect::TurnOver {
                model: open.accepted.parameters.model.clone(),
                outcome: label(&outcome),
                took_ms: now_ms.saturating_sub(open.accepted.at_ms),
            });
        }
        self.traced_over.extend(self.traced.remove(&turn));
        self.stage_untold(now_ms, turn, &outcome);
        self.stage(now_ms, Event::TurnEnded { turn, outcome, memory });
    }

    /// Ends an open turn from outside. What it said and nobody was shown is dropped.
    pub(super) fn stop_running(&mut self, now_ms: u64, turn: u64, outcome: Outcome) {
        if self.running.as_ref().is_some_and(|running| running.turn == turn) {
            self.running = None;
            self.out.push(Effect::StopCall);
        }
        self.end(now_ms, turn, outcome, None);
    }

    /// Stages what was said since the last batch, if nothing is in flight and the time has come.
    pub(super) fn stage_batch(&mut self, now_ms: u64) {
        let ready = self.is_saved();
        let every_ms = self.fixed.limits.batch_every.as_millis() as u64;
        let Some(running) = self.running.as_mut().filter(|running| ready && !running.unsaved.is_empty()) else {
            return;
        };
        let due_ms = running.batched_ms + every_ms;
        // A clock that went back must not stop the reply.
        if now_ms >= due_ms || now_ms < running.batched_ms {
            running.batched_ms = now_ms;
            self.stage_unsaved(now_ms);
        } else if !running.wake_set {
            running.wake_set = true;
            self.out.push(Effect::WakeForBatch(Duration::from_millis(due_ms - now_ms)));
        }
    }

    pub(super) fn batch_due(&mut self) {
        if let Some(running) = &mut self.running {
            running.wake_set = false;
        }
    }

    fn stage_unsaved(&mut self, now_ms: u64) {
        let Some(running) = &mut self.running else { return };
        let turn = running.turn;
        let unsaved = std::mem::take(&mut running.unsaved);
        running.unsaved_calls = 0;
        self.staged.pieces += unsaved.len();
        let mut pieces = Pieces::default();
        for said in unsaved {
            match said {
                Said::Text(text) => pieces.push(&text),
                Said::Call(call) => {
                    if !pieces.is_empty() {
                        self.stage(now_ms, Event::Delta { turn, pieces: std::mem::take(&mut pieces) });
                    }
                    self.stage(now_ms, Event::ToolCall { turn, call });
                }
                Said::End(_) => {}
            }
        }
        if !pieces.is_empty() {
            self.stage(now_ms, Event::Delta { turn, pieces });
        }
    }
}

const WAITED_TOO_LONG: &str = "the turn waited in the queue for longer than its client would";

fn is_late(turn: &Turn, now_ms: u64) -> bool {
    turn.accepted.parameters.start_by_ms.is_some_and(|start_by_ms| now_ms > start_by_ms)
}

fn failed(message: &str) -> Outcome {
    Outcome::Failed { code: "server_error".into(), message: message.into() }
}

/// A turn's end as the metrics name it.
fn label(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Completed { .. } => "completed",
        Outcome::Incomplete { .. } => "incomplete",
        Outcome::Failed { .. } => "failed",
        Outcome::Cancelled { .. } => "cancelled",
    }
}
