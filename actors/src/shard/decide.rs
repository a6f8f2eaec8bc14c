//! Which conversations of a shard are in memory, and what becomes of a message for one that is on its way in or out.
//! Pure.
//!
//! The races, and who wins them: a message that meets a closing conversation is held until it has said whether it goes,
//! then passed to it or to its successor; a message that meets a crash is held for the successor; a conversation that
//! keeps crashing is given up after a few tries, until somebody asks for it again.

use std::collections::HashMap;
use std::time::Duration;

use klatch_protocol::ConversationId;

use crate::request::{Full, Refusal, Request};

/// Crashes in a row after which nobody starts the conversation again by itself.
const CRASHES_MAX: u32 = 5;

/// Wait before the second start in a row; doubled with each further one...
const BACKOFF: Duration = Duration::from_millis(50);

/// ...up to this: a store that is away for long is asked so often for each unfinished turn.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub enum Input<R> {
    Ask(ConversationId, Held<R>),
    /// The conversation was gone when the message reached it.
    NotDelivered(ConversationId, Held<R>),
    /// The gateway needs the room.
    Passivate(ConversationId),
    WantsToClose(ConversationId),
    StillBusy(ConversationId),
    Ended(ConversationId, End),
    BackoffOver(ConversationId),
}

/// How a conversation left memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Saved, and nothing was left to do; or given up with nothing open.
    Idle,
    /// Its log could not be claimed or read, so whether a turn is open is not known.
    NotActivated,
    /// Given up with an open turn.
    Unfinished,
    Crashed,
}

#[derive(Debug, PartialEq)]
pub enum Effect<R> {
    /// `crashes` in a row before this start.
    Start {
        conversation: ConversationId,
        crashes: u32,
    },
    Pass(ConversationId, Held<R>),
    Close(ConversationId),
    Refuse(Held<R>, Refusal),
    WakeAfter(ConversationId, Duration),
    /// It is out of memory.
    Gone(ConversationId),
}

#[derive(Debug, PartialEq)]
pub struct Held<R> {
    pub request: Request,
    pub reply: Option<R>,
}

pub struct Shard<R> {
    conversations: HashMap<ConversationId, Resident<R>>,
    held_max: usize,
}

struct Resident<R> {
    place: Place<R>,
    /// In a row.
    crashes: u32,
    /// Starts in a row that came to nothing, for whatever reason.
    tries: u32,
    /// An open turn is known, or likely: it is started again until it has been looked at.
    wanted: bool,
}

enum Place<R> {
    Active,
    Closing {
        held: Vec<Held<R>>,
    },
    /// It has stopped, or will not be reached any more; its end is on the way.
    Leaving {
        held: Vec<Held<R>>,
    },
    /// It is started again in a moment.
    Waiting {
        held: Vec<Held<R>>,
    },
}

impl<R> Shard<R> {
    pub fn new(held_max: usize) -> Self {
        Self { conversations: HashMap::new(), held_max }
    }

    pub fn decide(&mut self, input: Input<R>) -> Vec<Effect<R>> {
        match input {
            Input::Ask(conversation, held) => self.ask(conversation, held),
            Input::NotDelivered(conversation, held) => self.not_delivered(conversation, held),
            // The gateway has missed that it is gone.
            Input::Passivate(conversation) if !self.conversations.contains_key(&conversation) => {
                vec![Effect::Gone(conversation)]
            }
            Input::Passivate(conversation) | Input::WantsToClose(conversation) => self.close(conversation),
            Input::StillBusy(conversation) => self.still_busy(conversation),
            Input::Ended(conversation, end) => self.ended(conversation, end),
            Input::BackoffOver(conversation) => self.restart(conversation),
        }
    }

    fn ask(&mut self, conversation: ConversationId, message: Held<R>) -> Vec<Effect<R>> {
        let held_max = self.held_max;
        let wakes = matches!(message.request, Request::Wake | Request::Settle);
        let Some(resident) = self.conversations.get_mut(&conversation) else {
            let resident = Resident { place: Place::Active, crashes: 0, tries: 0, wanted: wakes };
            self.conversations.insert(conversation, resident);
            return vec![Effect::Start { conversation, crashes: 0 }, Effect::Pass(conversation, message)];
        };
        resident.wanted |= wakes;
        match &mut resident.place {
            Place::Active => vec![Effect::Pass(conversation, message)],
            Place::Closing { held } | Place::Leaving { held } | Place::Waiting { held } => {
                if held.len() >= held_max {
                    let refusal = Refusal::Busy { what: Full::Conversation, retry_after_ms: 1_000 };
                    return vec![Effect::Refuse(message, refusal)];
                }
                held.push(message);
                Vec::new()
            }
        }
    }

    fn not_delivered(&mut self, conversation: ConversationId, message: Held<R>) -> Vec<Effect<R>> {
        if let Some(resident) = self.conversations.get_mut(&conversation)
            && matches!(resident.place, Place::Active)
        {
            resident.place = Place::Leaving { held: Vec::new() };
        }
        self.ask(conversation, message)
    }

    fn close(&mut self, conversation: ConversationId) -> Vec<Effect<R>> {
        match self.conversations.get_mut(&conversation) {
            Some(resident) if matches!(resident.place, Place::Active) => {
                resident.place = Place::Closing { held: Vec::new() };
                vec![Effect::Close(conversation)]
            }
            Some(_) | None => Vec::new(),
        }
    }

    fn still_busy(&mut self, conversation: ConversationId) -> Vec<Effect<R>> {
        let Some(resident) = self.conversations.get_mut(&conversation) else { return Vec::new() };
        (resident.crashes, resident.tries) = (0, 0);
        match std::mem::replace(&mut resident.place, Place::Active) {
            Place::Closing { held } => held.into_iter().map(|held| Effect::Pass(conversation, held)).collect(),
            place => {
                resident.place = place;
                Vec::new()
            }
        }
    }

    fn ended(&mut self, conversation: ConversationId, end: End) -> Vec<Effect<R>> {
        let Some(mut resident) = self.conversations.remove(&conversation) else { return Vec::new() };
        let held = resident.place.take_held();
        let again = match end {
            End::Idle => false,
            End::NotActivated => resident.wanted,
            End::Unfinished | End::Crashed => true,
        };
        if !again {
            return self.succeed(conversation, held);
        }
        let crashes = if end == End::Crashed { resident.crashes + 1 } else { resident.crashes };
        if crashes >= CRASHES_MAX {
            let refusal = || Refusal::Unavailable("the conversation keeps crashing".into());
            let refused = held.into_iter().map(|held| Effect::Refuse(held, refusal()));
            return refused.chain([Effect::Gone(conversation)]).collect();
        }
        let tries = resident.tries + 1;
        self.conversations
            .insert(conversation, Resident { place: Place::Waiting { held }, crashes, tries, wanted: true });
        if tries == 1 {
            return self.restart(conversation);
        }
        let after = BACKOFF.saturating_mul(1 << (tries - 2).min(16)).min(BACKOFF_MAX);
        vec![Effect::WakeAfter(conversation, after)]
    }

    /// What waited for it to go is for its successor, if there is any.
    fn succeed(&mut self, conversation: ConversationId, held: Vec<Held<R>>) -> Vec<Effect<R>> {
        let mut asks = held.into_iter();
        let Some(first) = asks.next() else { return vec![Effect::Gone(conversation)] };
        let mut effects = self.ask(conversation, first);
        effects.extend(asks.map(|held| Effect::Pass(conversation, held)));
        effects
    }

    /// There may be an unfinished turn: it goes on without waiting for the next message.
    fn restart(&mut self, conversation: ConversationId) -> Vec<Effect<R>> {
        let Some(resident) = self.conversations.get_mut(&conversation) else { return Vec::new() };
        if !matches!(resident.place, Place::Waiting { .. }) {
            return Vec::new();
        }
        let held = resident.place.take_held();
        resident.place = Place::Active;
        let crashes = resident.crashes;
        let wake = Held { request: Request::Wake, reply: None };
        let passed = std::iter::once(wake).chain(held).map(|held| Effect::Pass(conversation, held));
        std::iter::once(Effect::Start { conversation, crashes }).chain(passed).collect()
    }
}

impl<R> Place<R> {
    fn take_held(&mut self) -> Vec<Held<R>> {
        match self {
            Place::Active => Vec::new(),
            Place::Closing { held } | Place::Leaving { held } | Place::Waiting { held } => std::mem::take(held),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const C: ConversationId = ConversationId([1; 16]);

    /// Drives the shard through lines of `input -> effects`; a message is a number, answered by nobody here.
    fn check(script: &str) {
        let mut shard = Shard::new(2);
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (input, expected) = line.split_once("->").expect("a line has an arrow");
            let said: Vec<String> = shard.decide(parse(input.trim())).iter().map(show).collect();
            assert_eq!(said.join(", "), expected.trim(), "after {input:?} of:{script}");
        }
    }

    fn parse(input: &str) -> Input<u32> {
        let held = |n: &str| Held {
            request: Request::Undelivered { turn: 0 },
            reply: Some(n.parse().expect("a message is a number")),
        };
        match input.split_once(' ').unwrap_or((input, "")) {
            ("ask", n) => Input::Ask(C, held(n)),
            ("bounced", n) => Input::NotDelivered(C, held(n)),
            ("passivate", _) => Input::Passivate(C),
            ("busy", _) => Input::StillBusy(C),
            ("ended", "") => Input::Ended(C, End::Idle),
            ("ended", "unfinished") => Input::Ended(C, End::Unfinished),
            ("ended", "not-activated") => Input::Ended(C, End::NotActivated),
            ("crashed", _) => Input::Ended(C, End::Crashed),
            ("backoff", _) => Input::BackoffOver(C),
            (other, _) => panic!("there is no input {other:?}"),
        }
    }

    fn show(effect: &Effect<u32>) -> String {
        let name = |held: &Held<u32>| held.reply.map_or("wake".to_owned(), |n| n.to_string());
        match effect {
            Effect::Start { crashes: 0, .. } => "start".into(),
            Effect::Start { crashes, .. } => format!("start after {crashes}"),
            Effect::Pass(_, held) => format!("pass {}", name(held)),
            Effect::Close(_) => "close".into(),
            Effect::Refuse(held, _) => format!("refuse {}", name(held)),
            Effect::WakeAfter(_, after) => format!("wake after {} ms", after.as_millis()),
            Effect::Gone(_) => "gone".into(),
        }
    }

    #[test]
    fn a_message_for_a_closing_conversation_reaches_it_or_its_successor() {
        check(
            "ask 1      -> start, pass 1
             passivate  -> close
             ask 2      ->
             busy       -> pass 2
             passivate  -> close
             ask 3      ->
             ask 4      ->
             ended      -> start, pass 3, pass 4
             passivate  -> close
             ended      -> gone",
        );
    }

    #[test]
    fn a_crash_is_followed_by_a_start_at_once_and_then_by_pauses_that_grow() {
        check(
            "ask 1      -> start, pass 1
             crashed    -> start after 1, pass wake
             bounced 2  ->
             crashed    -> wake after 50 ms
             ask 3      ->
             backoff    -> start after 2, pass wake, pass 2, pass 3
             crashed    -> wake after 100 ms
             backoff    -> start after 3, pass wake
             crashed    -> wake after 200 ms
             ask 4      ->
             backoff    -> start after 4, pass wake, pass 4
             crashed    -> gone
             ask 5      -> start, pass 5",
        );
    }

    #[test]
    fn one_with_an_open_turn_is_started_again_for_as_long_as_the_store_is_away() {
        check(
            "ask 1               -> start, pass 1
             ended unfinished    -> start, pass wake
             ended not-activated -> wake after 50 ms
             backoff             -> start, pass wake
             ended not-activated -> wake after 100 ms
             backoff             -> start, pass wake
             ended not-activated -> wake after 200 ms
             backoff             -> start, pass wake
             ended not-activated -> wake after 400 ms
             backoff             -> start, pass wake
             ended not-activated -> wake after 800 ms
             backoff             -> start, pass wake
             ended not-activated -> wake after 1600 ms
             backoff             -> start, pass wake
             ended not-activated -> wake after 3200 ms
             backoff             -> start, pass wake
             ended not-activated -> wake after 5000 ms
             backoff             -> start, pass wake
             passivate           -> close
             ended               -> gone",
        );
    }

    #[test]
    fn one_that_nobody_needs_is_not_started_again_while_the_store_is_away() {
        check(
            "ask 1               -> start, pass 1
             ended not-activated -> gone",
        );
    }

    #[test]
    fn whoever_wants_one_gone_that_is_not_there_is_told_so() {
        check("passivate -> gone");
    }

    #[test]
    fn what_is_held_has_a_limit() {
        check(
            "ask 1      -> start, pass 1
             passivate  -> close
             ask 2      ->
             ask 3      ->
             ask 4      -> refuse 4",
        );
    }
}
