//! Into the log: one append at a time, its outcome known before the next, and everyone told who waited for it. Pure.

use std::sync::Arc;

use klatch_protocol::{Entry, Event, Mark, Position, Turn};

use super::decide::{
    Effect, EndWait, GivenUp, InFlight, Owed, Row, RunningStep, Saving, Serving, Staged, Watcher, beginning, refuse,
};
use crate::request::{Answer, Missing, Refusal};
use crate::store::{Compaction, LogEnd, StoreError};

/// At passivation a shorter tail is left for the next activation to replay: cheaper than a compaction.
const TAIL_LEFT_ENTRIES: usize = 8;

impl<R> Serving<R> {
    pub(super) fn is_saved(&self) -> bool {
        matches!(self.saving, Saving::Nothing)
    }

    /// Sends what is staged, or compacts when there is nothing to send and enough has come together.
    pub(super) fn flush(&mut self, now_ms: u64) {
        if !self.is_saved() || self.is_answering_at_once() {
            return;
        }
        if self.staged.events.is_empty() {
            // What is owed rests on what was in flight, and that is durable now.
            let owed = std::mem::take(&mut self.staged.owed);
            self.pay(owed);
            if self.should_compact() {
                self.compact(now_ms);
            }
            return;
        }
        let staged = std::mem::take(&mut self.staged);
        self.append(now_ms, staged);
    }

    fn is_answering_at_once(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.step == RunningStep::AnsweringAtOnce)
    }

    fn append(&mut self, now_ms: u64, staged: Staged<R>) {
        let entry = Arc::new(Entry {
            position: self.next_position(),
            token: self.fixed.token,
            at_ms: staged.at_ms.unwrap_or(now_ms),
            events: staged.events,
        });
        // One that was deleted in the same breath is over too, and those who wait for it must hear so.
        let gone = Mark { ended: true, ..Mark::default() };
        let over = entry.events.iter().filter_map(|event| match event {
            Event::TurnEnded { turn, .. } => Some((*turn, self.state.turns.get(turn).map_or(gone, Turn::mark))),
            _ => None,
        });
        let marks = self.state.open.iter().map(|turn| (turn.accepted.turn, turn.mark())).chain(over).collect();
        let (before, after): (Vec<Row>, Vec<Row>) =
            staged.rows.into_iter().partition(|row| !matches!(row, Row::Unindex(_) | Row::NotOpen { .. }));
        self.saving = Saving::Append(InFlight {
            entry: entry.clone(),
            sent_again: false,
            owed: staged.owed,
            marks,
            pieces: staged.pieces,
            rows: after,
        });
        let begun = accepted(&entry.events);
        let mut traced = std::mem::take(&mut self.traced_over);
        traced.extend(begun.iter().filter_map(|turn| self.traced.get(turn).cloned()));
        self.out.push(Effect::Append { entry, rows: before, traced });
    }

    pub(super) fn next_position(&self) -> Position {
        self.end.map_or(Position { epoch: 1, seq: 0 }, |end| end.position.next())
    }

    pub(super) fn appended(&mut self) {
        let Saving::Append(done) = std::mem::replace(&mut self.saving, Saving::Nothing) else {
            unreachable!("an append is acknowledged once");
        };
        self.end = Some(LogEnd { position: done.entry.position, token: done.entry.token });
        self.tail_entries += 1;
        self.tail_bytes += done.entry.events.iter().map(size).sum::<usize>();
        self.out.extend(done.rows.into_iter().map(Effect::Write));
        if done.pieces > 0 {
            self.out.push(Effect::Release(done.pieces));
        }
        for (turn, mark) in done.marks {
            self.shown.insert(turn, mark);
        }
        // Not as soon as it is asked for: until then its turns are open in the log.
        if done.entry.events.contains(&Event::Deleted) {
            self.shown.clear();
        }
        self.ends_saved(&done.entry.events);
        self.pay(done.owed);
        self.tell_of_ends();
        self.tell_watchers();
        self.shown.retain(|_, mark| !mark.ended);
        for event in &done.entry.events {
            if let Event::AttemptStarted { turn, attempt } = event {
                self.recorded(*turn, *attempt);
            }
        }
    }

    pub(super) fn not_appended(&mut self, error: StoreError) {
        let sent_again = matches!(&self.saving, Saving::Append(in_flight) if in_flight.sent_again);
        match error {
            StoreError::Unknown(_) => self.out.push(Effect::ReadEnd),
            // Perhaps by the first of the two: then it is written, and nobody may be told that nothing was done.
            StoreError::Fenced(_) if sent_again => self.out.push(Effect::ReadEnd),
            StoreError::Fenced(_) | StoreError::Unavailable(_) | StoreError::Damaged(_) => self.give_up(error),
        }
    }

    /// The outcome of an append is known now: it is the log's last entry, or it was never written.
    pub(super) fn end_read(&mut self, end: Result<Option<LogEnd>, StoreError>) {
        let Saving::Append(waiting) = &mut self.saving else { unreachable!("only an unknown append reads the end") };
        let written = LogEnd { position: waiting.entry.position, token: waiting.entry.token };
        match end {
            Ok(end) if end == Some(written) => self.appended(),
            Ok(end) if end == self.end => {
                waiting.sent_again = true;
                self.out.push(Effect::Append { entry: waiting.entry.clone(), rows: Vec::new(), traced: Vec::new() });
            }
            // It may stand below the other owner's claim.
            Ok(_) => self.give_up(StoreError::Unknown("the log goes on under another owner".into())),
            Err(error) => self.give_up(error),
        }
    }

    /// Whose epoch is not the last any more, or who cannot know it, looks at the log again.
    pub(super) fn end_checked(&mut self, end: Result<Option<LogEnd>, StoreError>) {
        let token = |end: Option<LogEnd>| end.map(|end| end.token);
        match end {
            // What is in flight will tell.
            _ if !self.is_saved() => {}
            Ok(end) if token(end) == token(self.end) => {}
            Ok(_) => self.leave(StoreError::Fenced(None), GivenUp::Unfinished),
            Err(error) => self.leave(error, GivenUp::Unfinished),
        }
    }

    /// Everyone who waits is told to come again; the log has the truth.
    pub(super) fn give_up(&mut self, error: StoreError) {
        // By what is durable, not by the state: there a turn whose end was lost just now is over.
        // An end that is untold is the next owner's, where there is one.
        let fenced = matches!(error, StoreError::Fenced(_));
        let unfinished = !self.shown.is_empty() || (self.has_untold_in_log() && !fenced);
        self.leave(error, if unfinished { GivenUp::Unfinished } else { GivenUp::Idle });
    }

    fn leave(&mut self, error: StoreError, how: GivenUp) {
        let Staged { events, mut owed, .. } = std::mem::take(&mut self.staged);
        let mut lost = accepted(&events);
        if let Saving::Append(in_flight) = std::mem::replace(&mut self.saving, Saving::Nothing) {
            lost.extend(accepted(&in_flight.entry.events));
            owed.splice(..0, in_flight.owed);
        }
        let not_done = Refusal::from(error);
        for owed in owed {
            let (Owed::Answer(reply, _) | Owed::Refusal(reply, _) | Owed::Turn { reply, .. }) = owed;
            self.out.push(refuse(reply, not_done.clone()));
        }
        // A turn that is in the log goes on there: to send it again would make another.
        let goes_on = Refusal::Lost;
        for EndWait { turn, reply, .. } in std::mem::take(&mut self.waits) {
            let refusal = if lost.contains(&turn) { &not_done } else { &goes_on };
            self.out.push(refuse(reply, refusal.clone()));
        }
        for Watcher { reply, .. } in std::mem::take(&mut self.watchers) {
            self.out.push(refuse(reply, goes_on.clone()));
        }
        self.out.push(Effect::StopCall);
        self.out.push(Effect::GiveUp(how));
    }

    fn should_compact(&self) -> bool {
        let limits = &self.fixed.limits;
        let enough = self.tail_entries >= limits.compact_after_entries || self.tail_bytes >= limits.compact_after_bytes;
        self.end.is_some() && (enough || (self.state.deleted && self.tail_entries > 0))
    }

    fn compact(&mut self, now_ms: u64) {
        let Some(expected) = self.end else { return };
        let settled = self.state.settle();
        let snapshot = Arc::new(Entry {
            position: expected.position.next(),
            token: self.fixed.token,
            at_ms: now_ms,
            events: self.state.snapshot(),
        });
        self.saving = Saving::Compact { end: LogEnd { position: snapshot.position, token: snapshot.token } };
        let clear_but_items_below = self.state.deleted.then_some(self.state.shared_before);
        let compaction = Box::new(Compaction { expected, snapshot, settled, clear_but_items_below });
        self.out.push(Effect::Compact { compaction });
    }

    pub(super) fn compacted(&mut self) {
        let Saving::Compact { end } = std::mem::replace(&mut self.saving, Saving::Nothing) else {
            unreachable!("a compaction is acknowledged once");
        };
        self.end = Some(end);
        self.tail_entries = 0;
        self.tail_bytes = 0;
        self.hot_bytes = self.state.hot_bytes();
        self.known_keys = self.state.keys.iter().map(|key| beginning(&key.used.key)).collect();
    }

    /// What was settled has left the state, so the memory is given up whatever the reason: the log still has it.
    pub(super) fn not_compacted(&mut self, error: StoreError) {
        self.give_up(error);
    }

    /// The shard wants the memory back: granted when nothing is open and nobody waits.
    pub(super) fn close(&mut self, now_ms: u64) {
        let idle = self.state.open.is_empty()
            && self.is_saved()
            && self.staged.events.is_empty()
            && self.staged.owed.is_empty();
        if idle {
            self.closing = true;
            self.put_off_telling(now_ms);
        } else {
            self.out.push(Effect::StillBusy);
        }
    }

    pub(super) fn finish_closing(&mut self) {
        if !self.closing || !self.is_saved() || self.is_putting_off() {
            return;
        }
        if self.end.is_some() && self.tail_entries >= TAIL_LEFT_ENTRIES && !self.state.is_settled() {
            return self.compact(self.state.last_turn_ms);
        }
        for watcher in std::mem::take(&mut self.watchers) {
            self.out.push(Effect::Reply(watcher.reply, Ok(Answer::NotOpen)));
        }
        let has_row = std::mem::take(&mut self.open_row) | std::mem::take(&mut self.stale_row);
        // A row of a log that was never begun stays: whoever begins it may be writing its own. So does that of what is untold.
        if let Some(end) = self.end.filter(|_| has_row && self.state.untold.is_empty()) {
            self.removing_row = true;
            self.out.push(Effect::RemoveOpenRow { end });
        }
        if !self.removing_row {
            self.out.push(Effect::Closed);
        }
    }

    fn pay(&mut self, owed: Vec<Owed<R>>) {
        for owed in owed {
            let (reply, answer) = match owed {
                Owed::Answer(reply, answer) => (reply, Ok(answer)),
                Owed::Refusal(reply, refusal) => (reply, Err(refusal)),
                Owed::Turn { reply, turn, replayed } => (reply, self.turn_answer(turn, replayed)),
            };
            self.out.push(Effect::Reply(reply, answer));
        }
    }

    fn tell_of_ends(&mut self) {
        let (over, waits) = std::mem::take(&mut self.waits)
            .into_iter()
            .partition::<Vec<EndWait<R>>, _>(|wait| self.shown.get(&wait.turn).is_none_or(|mark| mark.ended));
        self.waits = waits;
        for EndWait { turn, replayed, reply } in over {
            let answer = self.turn_answer(turn, replayed);
            self.out.push(Effect::Reply(reply, answer));
        }
    }

    fn tell_watchers(&mut self) {
        for watcher in std::mem::take(&mut self.watchers) {
            if let Some(watcher) = self.tell(watcher) {
                self.watchers.push(watcher);
            }
        }
    }

    /// Answers the watcher if there is anything to tell; gives it back where there is not.
    pub(super) fn tell(&mut self, watcher: Watcher<R>) -> Option<Watcher<R>> {
        let durable = self.durable(watcher.turn);
        let answer = match (self.state.turn(watcher.turn), durable) {
            (Some(turn), Some(durable)) => {
                let news = turn.news(watcher.have, durable, watcher.bytes_max);
                if news.is_empty() && !durable.ended {
                    return Some(watcher);
                }
                Answer::News(news)
            }
            _ => Answer::NotOpen,
        };
        self.out.push(Effect::Reply(watcher.reply, Ok(answer)));
        None
    }

    /// How much of the turn is durable; none where it is not in memory.
    fn durable(&self, turn: u64) -> Option<Mark> {
        self.shown.get(&turn).copied().or_else(|| self.state.turns.get(&turn).map(Turn::mark))
    }

    /// The turn as far as it is durable.
    pub(super) fn turn_answer(&self, number: u64, replayed: bool) -> Result<Answer, Refusal> {
        let (Some(turn), Some(durable)) = (self.state.turn(number), self.durable(number)) else {
            return Err(Refusal::NotFound(Missing::Response));
        };
        if durable == turn.mark() {
            return Ok(Answer::Turn { turn: Arc::new(turn.clone()), replayed });
        }
        let mut shown = Turn::new(turn.accepted.clone(), turn.first_item);
        for change in turn.news(Mark::default(), durable, usize::MAX) {
            shown.apply(change);
        }
        Ok(Answer::Turn { turn: Arc::new(shown), replayed })
    }
}

/// The turns that these events accept.
fn accepted(events: &[Event]) -> Vec<u64> {
    let turn = |event: &Event| match event {
        Event::TurnAccepted(accepted) => Some(accepted.turn),
        _ => None,
    };
    events.iter().filter_map(turn).collect()
}

/// Roughly what the event weighs in the log, in bytes.
pub(super) fn size(event: &Event) -> usize {
    const OVERHEAD: usize = 64;
    OVERHEAD
        + match event {
            Event::TurnAccepted(accepted) => {
                accepted.parameters.request.len() + accepted.input.iter().map(|item| item.body.bytes()).sum::<usize>()
            }
            Event::Delta { pieces, .. } => pieces.iter().map(|piece| piece.len() + 1).sum(),
            Event::ToolCall { call, .. } => call.arguments.len(),
            Event::ItemsAdded { items, .. } => items.iter().map(|item| item.body.bytes()).sum(),
            Event::MetadataSet { metadata, .. } => metadata.iter().map(|(key, value)| key.len() + value.len()).sum(),
            Event::Created(created) => created.items.iter().map(|item| item.body.bytes()).sum(),
            Event::TurnEnded { memory, .. } => memory.as_ref().map_or(0, |memory| memory.bytes.len()),
            Event::Claimed { .. }
            | Event::AttemptStarted { .. }
            | Event::ItemDeleted { .. }
            | Event::ResponseDeleted { .. }
            | Event::Forked { .. }
            | Event::Deleted
            | Event::Snapshot(_)
            | Event::AtWork
            | Event::ToTell(_)
            | Event::Told { .. } => 0,
        }
}
