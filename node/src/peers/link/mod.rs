//! Carries out what a link decides: says frames to the peer, runs what it asks, wakes who waits.
//!
//! Made when a connection is handed over, before its session is ready, so that nothing said early is lost; it ends with
//! the session. Effects are carried out under the lock, since pieces must leave in their order; none of them waits.

pub mod decide;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use klatch_actors::peers::{PeerError, PeerId, Serve};
use klatch_protocol::envelope;
use klatch_protocol::frame::{Frame, Said};
use tokio::sync::oneshot;

use super::carrier::Say;
use decide::{Effect, Event, LATE, LOST};

type Answer = Result<Vec<u8>, PeerError>;
/// Closes the session; called once.
type Close = Box<dyn Fn() + Send + Sync>;

pub struct Link {
    /// Both ends know it, and nobody else.
    pub id: u64,
    pub me: u64,
    pub peer: PeerId,
    serve: Arc<dyn Serve>,
    close: Close,
    opened: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    link: decide::Link,
    /// To the peer; none until the session is ready.
    say: Option<Say>,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    next_ask: u64,
}

impl Link {
    pub fn new(id: u64, me: u64, peer: PeerId, serve: Arc<dyn Serve>, close: Close) -> Self {
        Self { id, me, peer, serve, close, opened: Instant::now(), state: Mutex::default() }
    }

    pub fn ready(self: &Arc<Self>, say: Say) {
        let mut state = self.state();
        state.say = Some(say);
        self.on(&mut state, Event::Ready);
    }

    /// The frame is this link's; frames that are for another life are refused here.
    pub fn heard(self: &Arc<Self>, frame: Frame) {
        if frame.from != self.peer.incarnation || frame.to != self.me {
            return tracing::warn!(peer = %self.peer, "a frame for another life was refused");
        }
        self.on(&mut self.state(), Event::Heard(frame.said));
    }

    pub fn tick(self: &Arc<Self>) {
        self.on(&mut self.state(), Event::Tick);
    }

    pub fn lost(self: &Arc<Self>) {
        let mut state = self.state();
        state.say = None;
        self.on(&mut state, Event::Lost);
    }

    pub fn alive(&self) -> bool {
        self.state().link.alive()
    }

    /// It is sent when this is called, not when it is first polled.
    pub fn ask(self: Arc<Self>, request: Vec<u8>, deadline: Duration) -> BoxFuture<'static, Answer> {
        let deadline_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
        let (wake, answer) = oneshot::channel();
        let ask = {
            let mut state = self.state();
            state.next_ask += 1;
            let ask = state.next_ask;
            if state.say.is_none() {
                return Box::pin(async { Err(decide::NOT_ALIVE) });
            }
            state.waiting.insert(ask, wake);
            self.on(&mut state, Event::Ask { ask, request, deadline_ms });
            ask
        };
        Box::pin(async move {
            match tokio::time::timeout(deadline, answer).await {
                Ok(answer) => answer.unwrap_or(Err(LOST)),
                Err(_) => {
                    let mut state = self.state();
                    state.waiting.remove(&ask);
                    self.on(&mut state, Event::GaveUp(ask));
                    Err(LATE)
                }
            }
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn on(self: &Arc<Self>, state: &mut State, event: Event) {
        let now_ms = self.opened.elapsed().as_millis() as u64;
        for effect in state.link.decide(now_ms, event) {
            self.carry_out(state, effect);
        }
    }

    fn carry_out(self: &Arc<Self>, state: &mut State, effect: Effect) {
        match effect {
            Effect::Say(said) => self.say(state, said),
            Effect::Serve { ask, request } => self.serve(ask, request),
            Effect::End { ask, result } => {
                // Who dropped the future wants no answer.
                let _ = state.waiting.remove(&ask).map(|wake| wake.send(result));
            }
            Effect::Close => {
                tracing::warn!(peer = %self.peer, "the peer was silent for long: its connection is closed");
                (self.close)();
            }
        }
    }

    fn say(&self, state: &State, said: Said) {
        if let Some(say) = &state.say {
            let frame = Frame { link: self.id, from: self.me, to: self.peer.incarnation, said };
            say(envelope::seal(&frame));
        }
    }

    fn serve(self: &Arc<Self>, ask: u64, request: Vec<u8>) {
        let link = self.clone();
        // Owed from within the task: here the lock is held, which its drop takes.
        tokio::spawn(async move {
            let mut owed = Owed { link: link.clone(), ask, answer: None };
            owed.answer = Some(link.serve.serve(link.peer.clone(), request).await);
        });
    }
}

/// The answer that the peer waits for: dropped without one, as by a panic, it says so.
struct Owed {
    link: Arc<Link>,
    ask: u64,
    answer: Option<Vec<u8>>,
}

impl Drop for Owed {
    fn drop(&mut self) {
        let answered = Event::Answered { ask: self.ask, answer: self.answer.take() };
        self.link.on(&mut self.link.state(), answered);
    }
}
