//! What is durable, told entry by entry at the moment at which it becomes so, and never trimmed: the truth against which
//! everything else is checked. Checks what holds for every single entry.

use std::collections::{BTreeMap, BTreeSet};

use klatch_actors::store::Compaction;
use klatch_protocol::event::Accepted;
use klatch_protocol::{ClaimToken, ConversationId, Entry, Event, Position, State, Turn, Untold};

use crate::responder::whole_reply;

#[derive(Default)]
pub struct Journal {
    conversations: BTreeMap<ConversationId, Story>,
    /// Calls of responders: conversation, turn, attempt.
    calls: BTreeSet<(ConversationId, u64, u32)>,
}

/// All that ever became durable of one conversation.
#[derive(Default)]
pub struct Story {
    pub end: Option<(Position, ClaimToken)>,
    /// Of all events, with nothing settled.
    pub whole: State,
    /// As its owner holds it: settled where the log was compacted.
    hot: State,
    keys: BTreeSet<[u8; 16]>,
    /// Of the turns: no client says the same thing twice.
    texts: BTreeSet<String>,
    pub turns: BTreeMap<u64, Accepted>,
    /// Ends that webhooks are to be told of, told ones included, in their order.
    pub to_tell: Vec<Untold>,
    ended: BTreeSet<u64>,
}

/// What became of telling the journal.
pub struct Noted {
    pub checked: Result<(), String>,
    pub counts: Vec<&'static str>,
}

impl Journal {
    pub fn stories(&self) -> impl Iterator<Item = (ConversationId, &Story)> {
        self.conversations.iter().map(|(id, story)| (*id, story))
    }

    pub fn story(&self, conversation: ConversationId) -> Option<&Story> {
        self.conversations.get(&conversation)
    }

    /// Unfinished turns of conversations that are alive.
    pub fn open_turns(&self) -> Vec<(ConversationId, u64)> {
        let open = |(id, story): (&ConversationId, &Story)| {
            let id = *id;
            story.whole.open.iter().map(move |turn| (id, turn.accepted.turn)).collect::<Vec<_>>()
        };
        self.conversations.iter().flat_map(open).collect()
    }

    pub fn appended(&mut self, conversation: ConversationId, entry: &Entry) -> Noted {
        let story = self.conversations.entry(conversation).or_default();
        let mut counts = Vec::new();
        let checked = story
            .append(entry, &mut counts)
            .map_err(|why| format!("{conversation} at {}-{}: {why}", entry.position.epoch, entry.position.seq));
        Noted { checked, counts }
    }

    /// The owner's memory is what the log adds up to.
    pub fn compacted(&mut self, conversation: ConversationId, compaction: &Compaction) -> Result<(), String> {
        let story = self.conversations.entry(conversation).or_default();
        let wrong = |what: &str| Err(format!("{conversation} was compacted to other {what} than its log has"));
        if story.hot.settle() != compaction.settled {
            return wrong("lists");
        }
        if compaction.snapshot.events != story.hot.snapshot() {
            return wrong("state");
        }
        story.end = Some((compaction.snapshot.position, compaction.snapshot.token));
        Ok(())
    }

    /// A responder is called: that attempt must be on record, and be made for the first time.
    pub fn called(
        &mut self,
        conversation: ConversationId,
        turn: u64,
        attempt: u32,
        partial: &str,
    ) -> Result<(), String> {
        let call = format!("the responder was called for {conversation}, turn {turn}, attempt {attempt}");
        let known = self.conversations.get(&conversation).and_then(|story| story.whole.turn(turn));
        let Some(known) = known else {
            let is_deleted = self.conversations.get(&conversation).is_some_and(|story| story.whole.deleted);
            return if is_deleted { Ok(()) } else { Err(format!("{call}, and there is no such turn")) };
        };
        if !known.attempts.iter().any(|on_record| on_record.n == attempt) {
            return Err(format!("{call}, and that is not on record"));
        }
        if !known.text().starts_with(partial) {
            return Err(format!("{call}, behind a text that is not on record"));
        }
        if !self.calls.insert((conversation, turn, attempt)) {
            return Err(format!("{call}, for the second time"));
        }
        Ok(())
    }
}

impl Story {
    fn append(&mut self, entry: &Entry, counts: &mut Vec<&'static str>) -> Result<(), String> {
        self.check_place(entry)?;
        self.end = Some((entry.position, entry.token));
        for event in &entry.events {
            self.check_event(event, counts)?;
            self.whole.apply(event, entry.at_ms);
            self.hot.apply(event, entry.at_ms);
            if let Event::Delta { turn, .. } = event {
                self.check_text(*turn)?;
            }
        }
        if self.hot.open.len() != self.whole.open.len() {
            return Err("compaction changed which turns are open".into());
        }
        Ok(())
    }

    /// Gapless, epochs rise, and each is one owner's.
    fn check_place(&self, entry: &Entry) -> Result<(), String> {
        let is_claim = matches!(entry.events.first(), Some(Event::Claimed { .. }));
        let Some((end, token)) = self.end else {
            return if entry.position == Position::default().claim() { Ok(()) } else { Err("a log began late".into()) };
        };
        if entry.position == end.next() {
            return if token == entry.token { Ok(()) } else { Err("two owners wrote in one epoch".into()) };
        }
        match (entry.position == end.claim(), is_claim) {
            (true, true) => Ok(()),
            (true, false) => Err("an epoch began without a claim".into()),
            (false, _) => Err(format!("the log had ended at {}-{}", end.epoch, end.seq)),
        }
    }

    fn check_event(&mut self, event: &Event, counts: &mut Vec<&'static str>) -> Result<(), String> {
        let may_follow = |event: &Event| {
            matches!(event, Event::Claimed { .. } | Event::Deleted | Event::AtWork | Event::Told { .. })
        };
        if self.whole.deleted && !may_follow(event) {
            return Err("something was added to a deleted conversation".into());
        }
        match event {
            Event::Claimed { .. } if self.whole.created_at_ms > 0 => {
                counts.push("claims");
                if self.whole.open.front().is_some_and(|turn| !turn.text().is_empty()) {
                    counts.push("takeovers in mid-answer");
                }
                Ok(())
            }
            Event::TurnAccepted(accepted) => self.check_accepted(accepted),
            Event::AttemptStarted { turn, attempt } => {
                let Some(open) = self.open(*turn) else { return Err(format!("an attempt at turn {turn}: not open")) };
                let made = open.attempts.len() as u32;
                if attempt.n == made + 1 { Ok(()) } else { Err(format!("attempt {} after {made}", attempt.n)) }
            }
            Event::Delta { turn, .. } | Event::ToolCall { turn, .. } => {
                let is_called = self.open(*turn).is_some_and(|open| !open.attempts.is_empty());
                if is_called { Ok(()) } else { Err(format!("text of turn {turn}, which nobody was asked for")) }
            }
            Event::TurnEnded { turn, .. } if self.open(*turn).is_none() => Err(format!("turn {turn} ended twice")),
            Event::TurnEnded { turn, .. } => {
                self.ended.insert(*turn);
                Ok(())
            }
            Event::ToTell(untold) => {
                self.to_tell.push(untold.clone());
                let is_open = self.open(untold.turn).is_some();
                if is_open { Ok(()) } else { Err(format!("{untold:?} is to be told, and was not open")) }
            }
            Event::Told { turn, .. } if !self.to_tell.iter().any(|untold| untold.turn == *turn) => {
                Err(format!("turn {turn} was told to a webhook that nobody was to tell"))
            }
            _ => Ok(()),
        }
    }

    fn check_accepted(&mut self, accepted: &Accepted) -> Result<(), String> {
        if accepted.turn != self.turns.len() as u64 {
            return Err(format!("turn {} is the {}th", accepted.turn, self.turns.len()));
        }
        self.turns.insert(accepted.turn, accepted.clone());
        if !self.texts.insert(accepted.input.iter().map(|item| item.body.text()).collect()) {
            return Err("what was sent once was accepted twice".into());
        }
        let keys = accepted.key.into_iter().chain(accepted.attempt);
        let mut is_new = keys.map(|key| self.keys.insert(key));
        if is_new.all(|is_new| is_new) { Ok(()) } else { Err("two turns were accepted under one key".into()) }
    }

    /// What is said is the responder's reply from its beginning, whoever asked it how often.
    fn check_text(&self, turn: u64) -> Result<(), String> {
        let (Some(open), Some(accepted)) = (self.open(turn), self.turns.get(&turn)) else { return Ok(()) };
        let asked = accepted.input.iter().map(|item| item.body.text()).collect::<String>();
        let (whole, text) = (whole_reply(&asked), open.text());
        if whole.starts_with(&text) { Ok(()) } else { Err(format!("turn {turn} says {text:?}, instead of {whole:?}")) }
    }

    /// Whether webhooks are, or were, to be told of each end.
    pub fn tells_all(&self) -> bool {
        self.ended.len() == self.to_tell.len()
    }

    fn open(&self, turn: u64) -> Option<&Turn> {
        self.whole.open.iter().find(|open| open.accepted.turn == turn)
    }
}
