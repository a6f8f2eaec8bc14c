//! On the way into memory: the log is looked at where others may own it, then claimed and read; what is asked meanwhile waits.
//! Pure. Knows nothing of what a conversation does once it serves.

use super::decide::{Conversation, Effect, Found, GivenUp, Input, Look, Phase, Serving, Waiting, full, refuse};
use crate::peers::PeerId;
use crate::request::{Answer, Full, Refusal, Request};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum ActivatingStep {
    /// The log is being read, and was not yet when all but the first so many of those who wait asked.
    Looking {
        covers: usize,
    },
    Claiming,
    /// Left alone for as long as its owner is at work.
    Elsewhere(PeerId),
    /// Nothing is open, and nobody wants anything that needs a claim: it is about to leave.
    Settled,
    /// There was no log when it was looked at, and nobody has made one: it is about to leave.
    Absent,
}

impl<R> Conversation<R> {
    pub(super) fn activating(
        &mut self,
        now_ms: u64,
        step: ActivatingStep,
        waiting: Vec<Waiting<R>>,
        input: Input<R>,
    ) -> (Phase<R>, Vec<Effect<R>>) {
        match input {
            Input::Asked { request, reply, admitted, traced } => {
                self.wait(now_ms, step, waiting, Waiting { request, reply, admitted, traced })
            }
            Input::Looked(Look::Absent) => self.absent(now_ms, step, waiting),
            Input::Looked(Look::Free { open, end }) => {
                if open || waiting.iter().any(|waiting| !waiting.request.needs_no_claim()) {
                    return (Phase::Activating { step: ActivatingStep::Claiming, waiting }, vec![Effect::Claim(end)]);
                }
                let mut out: Vec<_> = waiting.into_iter().filter_map(nothing_open).collect();
                out.push(Effect::AskToClose);
                (Phase::Activating { step: ActivatingStep::Settled, waiting: Vec::new() }, out)
            }
            Input::Looked(Look::Elsewhere(owner)) => {
                let replies = waiting.into_iter().filter_map(|waiting| waiting.reply);
                let out = replies.map(|reply| refuse(reply, Refusal::Elsewhere { owner: owner.clone() })).collect();
                (Phase::Activating { step: ActivatingStep::Elsewhere(owner), waiting: Vec::new() }, out)
            }
            Input::Activated(found) => self.serve(now_ms, waiting, found),
            Input::NotActivated(error) => {
                let replies = waiting.into_iter().filter_map(|waiting| waiting.reply);
                let mut out: Vec<_> = replies.map(|reply| refuse(reply, Refusal::from(error.clone()))).collect();
                out.push(Effect::GiveUp(GivenUp::NotActivated));
                (Phase::Fenced, out)
            }
            Input::Close => match step {
                ActivatingStep::Looking { .. } | ActivatingStep::Claiming => {
                    (Phase::Activating { step, waiting }, vec![Effect::StillBusy])
                }
                ActivatingStep::Elsewhere(_) | ActivatingStep::Settled | ActivatingStep::Absent => {
                    (Phase::Fenced, vec![Effect::Closed])
                }
            },
            Input::HistoryLoaded { .. }
            | Input::Said { .. }
            | Input::AnsweredAtOnce { .. }
            | Input::BatchDue
            | Input::OpenRowRemoved
            | Input::SignDue
            | Input::QueueDue
            | Input::Appended
            | Input::NotAppended(_)
            | Input::EndRead(_)
            | Input::EndChecked(_)
            | Input::Compacted
            | Input::NotCompacted(_)
            | Input::Told { .. }
            | Input::TellingDue(_)
            | Input::PutOff(_) => unreachable!("nothing was begun before the activation"),
        }
    }

    /// There was no log when it was looked at. Whoever asked later may know better, since another node may have made it
    /// meanwhile: for them it is looked at once more. Who makes it needs no look, since the store refuses a second first entry.
    fn absent(&self, now_ms: u64, step: ActivatingStep, waiting: Vec<Waiting<R>>) -> (Phase<R>, Vec<Effect<R>>) {
        let covers = if let ActivatingStep::Looking { covers } = step { covers } else { 0 };
        if waiting.is_empty() {
            return (Phase::Activating { step: ActivatingStep::Absent, waiting }, vec![Effect::AskToClose]);
        }
        if waiting.iter().skip(covers).any(|waiting| !waiting.request.makes_it()) {
            let step = ActivatingStep::Looking { covers: waiting.len() };
            return (Phase::Activating { step, waiting }, vec![Effect::Look]);
        }
        self.serve(now_ms, waiting, Found::Absent)
    }

    /// A request that comes before the activation.
    fn wait(
        &self,
        now_ms: u64,
        step: ActivatingStep,
        mut waiting: Vec<Waiting<R>>,
        asked: Waiting<R>,
    ) -> (Phase<R>, Vec<Effect<R>>) {
        let mut out = Vec::new();
        let step = match step {
            ActivatingStep::Elsewhere(owner) => {
                out.extend(asked.reply.map(|reply| refuse(reply, Refusal::Elsewhere { owner: owner.clone() })));
                ActivatingStep::Elsewhere(owner)
            }
            ActivatingStep::Settled if asked.request.needs_no_claim() => {
                out.extend(nothing_open(asked));
                ActivatingStep::Settled
            }
            ActivatingStep::Settled => {
                waiting.push(asked);
                out.push(Effect::Claim(None));
                ActivatingStep::Claiming
            }
            ActivatingStep::Absent if asked.request.makes_it() => {
                return self.serve(now_ms, vec![asked], Found::Absent);
            }
            ActivatingStep::Absent => {
                waiting.push(asked);
                out.push(Effect::Look);
                ActivatingStep::Looking { covers: 1 }
            }
            step if waiting.len() >= self.fixed.limits.waiting_per_conversation => {
                out.extend(asked.reply.map(|reply| refuse(reply, full(Full::Conversation))));
                step
            }
            step => {
                waiting.push(asked);
                step
            }
        };
        (Phase::Activating { step, waiting }, out)
    }

    fn serve(&self, now_ms: u64, waiting: Vec<Waiting<R>>, found: Found) -> (Phase<R>, Vec<Effect<R>>) {
        let mut serving = Box::new(Serving::new(self.fixed.clone(), found));
        serving.telling.all_read = self.all_read;
        serving.begin(now_ms, waiting)
    }
}

/// The answer to who asked for nothing but what is open, where nothing is.
fn nothing_open<R>(asked: Waiting<R>) -> Option<Effect<R>> {
    let answer = match asked.request {
        Request::Watch { .. } => Answer::NotOpen,
        _ => Answer::Done,
    };
    asked.reply.map(|reply| Effect::Reply(reply, Ok(answer)))
}
