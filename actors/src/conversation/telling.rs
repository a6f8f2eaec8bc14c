//! Webhooks are told of the ends of turns: which ends they want, whom to tell next, and when again. Pure.
//!
//! An end that is to be told stands in the same entry as the end itself, and an event says when it was. Between the two the
//! conversation counts as open for those who look for lost owners; in memory it need not be. Without webhooks nothing of
//! this is ever written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use klatch_protocol::{Event, Outcome, Untold, WebhookId};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::decide::{Effect, Row, Serving};
use crate::store::StoreError;
use crate::webhooks::{End, NotTold, Patience, Webhook};

/// Ends that one conversation keeps for its webhooks. About a day of busy talk with a receiver that is dead; over it the
/// oldest is given up, since a snapshot holds them all.
pub const UNTOLD_MAX: usize = 256;

/// Ends for a webhook that is not configured here are kept for so long: in a change of configurations another node may
/// know it, or the next start of this one.
const UNKNOWN_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Why an end was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// As many attempts failed as there may be.
    Attempts,
    /// The conversation has too many that are untold.
    Full,
    /// No such webhook is configured any more.
    Unknown,
}

/// What an activation knows of the telling, beside the state.
#[derive(Default)]
pub(super) struct Telling {
    /// All nodes read a log that holds ends to be told.
    pub all_read: bool,
    /// Ends that are untold in the log, with who is to be told.
    durable: BTreeSet<(u64, WebhookId)>,
    hooks: BTreeMap<WebhookId, Hook>,
    /// It is being written down when to go on, so that the memory can be given back.
    putting_off: bool,
}

struct Hook {
    /// In a row.
    failures: u32,
    step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Free,
    Asked { turn: u64 },
    Waiting { until_ms: u64 },
}

impl Telling {
    /// Of a state that was read from the log.
    pub(super) fn of<'a>(untold: impl IntoIterator<Item = &'a Untold>) -> Self {
        Self { durable: untold.into_iter().flat_map(each).collect(), ..Self::default() }
    }
}

/// Whom the end is to be told to.
fn each(untold: &Untold) -> impl Iterator<Item = (u64, WebhookId)> {
    untold.to.iter().map(|webhook| (untold.turn, *webhook))
}

impl<R> Serving<R> {
    /// Stages, with the end of the turn, who is to be told of it; and the row by which it is found if its owner is lost.
    pub(super) fn stage_untold(&mut self, now_ms: u64, turn: u64, outcome: &Outcome) {
        if self.fixed.webhooks.is_empty() || !self.telling.all_read {
            return;
        }
        let Some(created) = &self.state.created else { return };
        let ended = outcome.into();
        let wanting = self.fixed.webhooks.iter().filter(|webhook| webhook.wants(&created.tenant, ended));
        let to: Vec<WebhookId> = wanting.map(|webhook| webhook.id).collect();
        if to.is_empty() {
            return;
        }
        while let Some(oldest) = self.state.untold.front().filter(|_| self.state.untold.len() >= UNTOLD_MAX) {
            let (turn, to) = (oldest.turn, oldest.to.clone());
            to.into_iter().for_each(|webhook| self.give_up_telling(now_ms, webhook, turn, Why::Full, None));
        }
        let at_ms = *self.staged.at_ms.get_or_insert(now_ms);
        self.stage(now_ms, Event::ToTell(Untold { turn, ended, at_ms, to }));
        if !self.open_row {
            self.open_row = true;
            let epoch = self.next_position().epoch;
            self.staged.rows.push(Row::Open { epoch });
        }
    }

    /// These events are durable: what they hold may be told, and what was told is over.
    pub(super) fn ends_saved(&mut self, events: &[Event]) {
        for event in events {
            match event {
                Event::ToTell(untold) => self.telling.durable.extend(each(untold)),
                Event::Told { turn, to } => {
                    self.telling.durable.remove(&(*turn, *to));
                }
                _ => {}
            }
        }
    }

    /// Whether the log holds ends that nobody has told.
    pub(super) fn has_untold_in_log(&self) -> bool {
        !self.telling.durable.is_empty()
    }

    /// Tells each webhook that is free the oldest end that it has not heard of.
    pub(super) fn tell_ends(&mut self, now_ms: u64) {
        if self.state.untold.is_empty() || self.closing {
            return;
        }
        let ids: BTreeSet<WebhookId> = self.state.untold.iter().flat_map(|untold| untold.to.clone()).collect();
        for id in ids {
            match self.webhook(id).cloned() {
                Some(webhook) => self.tell_next(now_ms, &webhook),
                None => self.drop_unknown(now_ms, id),
            }
        }
    }

    fn tell_next(&mut self, now_ms: u64, webhook: &Webhook) {
        let Some(next) =
            self.next_for(webhook.id).filter(|next| self.telling.durable.contains(&(next.turn, webhook.id)))
        else {
            return;
        };
        let (untold, age) = (next.clone(), Duration::from_millis(now_ms.saturating_sub(next.at_ms)));
        let begun = || Hook { failures: webhook.patience.failures_by(age), step: Step::Free };
        let hook = self.telling.hooks.entry(webhook.id).or_insert_with(begun);
        if hook.step == Step::Free {
            hook.step = Step::Asked { turn: untold.turn };
            let end = Box::new(End { conversation: self.fixed.conversation, untold });
            self.out.push(Effect::Tell { webhook: webhook.id, end });
        }
    }

    fn drop_unknown(&mut self, now_ms: u64, id: WebhookId) {
        let kept_ms = UNKNOWN_KEPT.as_millis() as u64;
        while let Some(next) = self.next_for(id).filter(|next| next.at_ms.saturating_add(kept_ms) <= now_ms) {
            self.give_up_telling(now_ms, id, next.turn, Why::Unknown, None);
        }
    }

    /// The webhook was told of the turn's end, or could not be.
    pub(super) fn told(&mut self, now_ms: u64, id: WebhookId, turn: u64, told: Result<(), NotTold>) {
        let asked = |hook: &&mut Hook| hook.step == Step::Asked { turn };
        // One that was given up meanwhile is not waited for.
        let Some(hook) = self.telling.hooks.get_mut(&id).filter(asked) else { return };
        let error = match told {
            Ok(()) => {
                (hook.failures, hook.step) = (0, Step::Free);
                return self.stage(now_ms, Event::Told { turn, to: id });
            }
            Err(error) => error,
        };
        hook.failures += 1;
        let failures = hook.failures;
        let Some(patience) = self.webhook(id).map(|webhook| webhook.patience) else { return };
        if failures >= patience.attempts {
            return self.give_up_telling(now_ms, id, turn, Why::Attempts, Some(error));
        }
        let after = self.with_jitter(patience, turn, failures);
        let until_ms = now_ms.saturating_add(after.as_millis() as u64);
        self.set_step_of(id, Step::Waiting { until_ms });
        self.out.push(Effect::WakeToTell { webhook: id, after });
        self.out.push(Effect::NotTold { webhook: id, turn, failures, error });
    }

    /// It is time to try again.
    pub(super) fn telling_due(&mut self, id: WebhookId) {
        let waiting = |hook: &Hook| matches!(hook.step, Step::Waiting { .. });
        if self.telling.hooks.get(&id).is_some_and(waiting) {
            self.set_step_of(id, Step::Free);
        }
    }

    /// Before it leaves memory: when somebody is to look here again. Nothing where all is told.
    pub(super) fn put_off_telling(&mut self, now_ms: u64) {
        let kept_ms = UNKNOWN_KEPT.as_millis() as u64;
        let when = |untold: &Untold, id: &WebhookId| match self.telling.hooks.get(id).map(|hook| hook.step) {
            _ if self.webhook(*id).is_none() => untold.at_ms.saturating_add(kept_ms),
            Some(Step::Waiting { until_ms }) => until_ms,
            // A call that is under way ends with the memory, and may be lost.
            Some(Step::Free | Step::Asked { .. }) | None => now_ms,
        };
        let all = self.state.untold.iter().flat_map(|untold| untold.to.iter().map(move |id| when(untold, id)));
        if let Some(at_ms) = all.min() {
            self.telling.putting_off = true;
            self.out.push(Effect::PutOff { at_ms });
        }
    }

    pub(super) fn is_putting_off(&self) -> bool {
        self.telling.putting_off
    }

    pub(super) fn put_off(&mut self, written: Result<(), StoreError>) {
        self.telling.putting_off = false;
        if written.is_err() {
            // Nobody would come back for what is untold: it stays until that can be written.
            self.closing = false;
            self.out.push(Effect::StillBusy);
        }
    }

    fn give_up_telling(&mut self, now_ms: u64, id: WebhookId, turn: u64, why: Why, error: Option<NotTold>) {
        // The next end of this webhook has its own age.
        self.telling.hooks.remove(&id);
        self.stage(now_ms, Event::Told { turn, to: id });
        self.out.push(Effect::GaveUpTelling { webhook: id, turn, why, error });
    }

    /// Half of the wait or more, by chance that is the same wherever it is decided.
    fn with_jitter(&self, patience: Patience, turn: u64, failures: u32) -> Duration {
        let wait_ms = patience.wait(failures).as_millis() as u64;
        let chance = xxh3_64_with_seed(&self.fixed.conversation.0, turn ^ (u64::from(failures) << 48));
        Duration::from_millis(wait_ms / 2 + chance % (wait_ms / 2 + 1))
    }

    fn next_for(&self, id: WebhookId) -> Option<&Untold> {
        self.state.untold.iter().find(|untold| untold.to.contains(&id))
    }

    fn webhook(&self, id: WebhookId) -> Option<&Webhook> {
        self.fixed.webhooks.iter().find(|webhook| webhook.id == id)
    }

    fn set_step_of(&mut self, id: WebhookId, step: Step) {
        if let Some(hook) = self.telling.hooks.get_mut(&id) {
            hook.step = step;
        }
    }
}
