//! Decides whether what clients saw of one conversation can have been: every acknowledged turn there once, in one order
//! for all, which respects time.
//!
//! Pure. Times are of one monotonic clock, that of the test. Nothing is searched: every reader sees the whole order, so
//! each rule is about two things that somebody saw, and all of them together are as strict as a search (the tests
//! compare them with one).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What happened to one conversation.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub turns: Vec<Turn>,
    pub reads: Vec<Read>,
}

/// One turn, as the client that sent it knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// What was said: of this turn alone.
    pub text: String,
    pub invoked: u64,
    pub outcome: Outcome,
    /// What each stream had shown of the reply when it ended or broke off.
    pub shown: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The client was told that it is done.
    Acknowledged { at: u64, reply: String },
    /// The client was told that nothing came of it.
    Refused,
    /// The client was told nothing: it may be there once, or not.
    Unknown,
}

/// All turns of the conversation, as one reader saw them at some time between two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub reader: String,
    pub invoked: u64,
    pub answered: u64,
    pub turns: Vec<Stored>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    pub text: String,
    pub reply: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// It was acknowledged, and a later read does not have it.
    Lost {
        text: String,
        reader: String,
    },
    /// Nobody read after it was acknowledged, so nothing is known of it.
    Unread {
        text: String,
    },
    Doubled {
        text: String,
        reader: String,
    },
    /// Nobody sent it, or it was refused.
    Invented {
        text: String,
    },
    /// It was read before it was sent.
    TooEarly {
        text: String,
        reader: String,
    },
    /// The first was acknowledged before the second was sent, and stands behind it.
    Reordered {
        first: String,
        second: String,
    },
    /// The two saw different turns at this place.
    Disagree {
        one: String,
        other: String,
        place: usize,
    },
    /// A read was over before another began that saw less.
    WentBack {
        earlier: String,
        later: String,
    },
    /// What is stored is not what a client was told.
    Contradicted {
        text: String,
        told: String,
        stored: String,
    },
    /// Part of a reply was shown, its turn was not refused, and it is not there.
    Vanished {
        text: String,
    },
}

/// All that is wrong with the history; nothing where it can have been.
pub fn check(history: &History) -> Vec<Violation> {
    let whole = history.reads.iter().max_by_key(|read| read.turns.len());
    let order: &[Stored] = whole.map_or(&[], |read| &read.turns);
    let sent: BTreeMap<&str, &Turn> = history.turns.iter().map(|turn| (turn.text.as_str(), turn)).collect();
    let mut found = BTreeSet::new();
    for read in &history.reads {
        found.extend(doubled(read));
        found.extend(whole.and_then(|whole| disagree(read, whole)));
        found.extend(too_early(read, &sent));
    }
    found.extend(history.turns.iter().flat_map(|turn| missing(turn, &history.reads)));
    found.extend(order.iter().flat_map(|stored| stored_is_told(stored, &sent)));
    found.extend(vanished(history, order));
    found.extend(reordered(order, &sent));
    found.extend(went_back(&history.reads));
    found.into_iter().collect()
}

fn doubled(read: &Read) -> Vec<Violation> {
    let mut seen = BTreeSet::new();
    let again = read.turns.iter().filter(|stored| !seen.insert(stored.text.as_str()));
    again.map(|stored| Violation::Doubled { text: stored.text.clone(), reader: read.reader.clone() }).collect()
}

/// Turns are only ever added at the end, so every read is a beginning of the longest.
fn disagree(read: &Read, whole: &Read) -> Option<Violation> {
    let place = read.turns.iter().zip(&whole.turns).position(|(one, other)| one != other)?;
    Some(Violation::Disagree { one: read.reader.clone(), other: whole.reader.clone(), place })
}

fn too_early(read: &Read, sent: &BTreeMap<&str, &Turn>) -> Vec<Violation> {
    let early = |stored: &&Stored| sent.get(stored.text.as_str()).is_some_and(|turn| turn.invoked > read.answered);
    let early = read.turns.iter().filter(early);
    early.map(|stored| Violation::TooEarly { text: stored.text.clone(), reader: read.reader.clone() }).collect()
}

fn missing(turn: &Turn, reads: &[Read]) -> Vec<Violation> {
    let Outcome::Acknowledged { at, .. } = turn.outcome else { return Vec::new() };
    let mut later = reads.iter().filter(|read| read.invoked > at).peekable();
    if later.peek().is_none() {
        return vec![Violation::Unread { text: turn.text.clone() }];
    }
    let without = later.filter(|read| read.turns.iter().all(|stored| stored.text != turn.text));
    without.map(|read| Violation::Lost { text: turn.text.clone(), reader: read.reader.clone() }).collect()
}

fn stored_is_told(stored: &Stored, sent: &BTreeMap<&str, &Turn>) -> Vec<Violation> {
    let invented = Violation::Invented { text: stored.text.clone() };
    let Some(turn) = sent.get(stored.text.as_str()) else { return vec![invented] };
    let contradicted = |told: &String| Violation::Contradicted {
        text: stored.text.clone(),
        told: told.clone(),
        stored: stored.reply.clone(),
    };
    let shown = turn.shown.iter().filter(|shown| !stored.reply.starts_with(shown.as_str())).map(contradicted);
    let outcome = match &turn.outcome {
        Outcome::Acknowledged { reply, .. } => (*reply != stored.reply).then(|| contradicted(reply)),
        Outcome::Refused => Some(invented),
        Outcome::Unknown => None,
    };
    shown.chain(outcome).collect()
}

fn vanished(history: &History, order: &[Stored]) -> Vec<Violation> {
    let there: BTreeSet<&str> = order.iter().map(|stored| stored.text.as_str()).collect();
    let gone = history.turns.iter().filter(|turn| {
        let was_shown = turn.shown.iter().any(|shown| !shown.is_empty());
        turn.outcome == Outcome::Unknown && was_shown && !there.contains(turn.text.as_str())
    });
    gone.map(|turn| Violation::Vanished { text: turn.text.clone() }).collect()
}

/// A turn was over before one that stands in front of it was sent: found by the one sent last among those in front.
fn reordered(order: &[Stored], sent: &BTreeMap<&str, &Turn>) -> Vec<Violation> {
    let mut last: Option<&Turn> = None;
    let mut found = Vec::new();
    for turn in order.iter().filter_map(|stored| sent.get(stored.text.as_str()).copied()) {
        if let (Some(front), Outcome::Acknowledged { at, .. }) = (last, &turn.outcome)
            && *at < front.invoked
        {
            found.push(Violation::Reordered { first: turn.text.clone(), second: front.text.clone() });
        }
        if last.is_none_or(|last| last.invoked < turn.invoked) {
            last = Some(turn);
        }
    }
    found
}

/// Of all reads that were over before one began, the one that saw most.
fn went_back(reads: &[Read]) -> Vec<Violation> {
    let mut by_end: Vec<&Read> = reads.iter().collect();
    by_end.sort_by_key(|read| read.answered);
    let mut by_begin: Vec<&Read> = reads.iter().collect();
    by_begin.sort_by_key(|read| read.invoked);
    let (mut over, mut most): (usize, Option<&Read>) = (0, None);
    let mut found = Vec::new();
    for later in by_begin {
        while over < by_end.len() && by_end[over].answered < later.invoked {
            if most.is_none_or(|most| most.turns.len() < by_end[over].turns.len()) {
                most = Some(by_end[over]);
            }
            over += 1;
        }
        if let Some(earlier) = most.filter(|most| most.turns.len() > later.turns.len()) {
            found.push(Violation::WentBack { earlier: earlier.reader.clone(), later: later.reader.clone() });
        }
    }
    found
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { text, reader } => write!(f, "{text:?} was acknowledged, and {reader} does not see it"),
            Self::Unread { text } => write!(f, "{text:?} was acknowledged, and nobody read afterwards"),
            Self::Doubled { text, reader } => write!(f, "{reader} sees {text:?} twice"),
            Self::Invented { text } => write!(f, "{text:?} is there, and was refused or never sent"),
            Self::TooEarly { text, reader } => write!(f, "{reader} saw {text:?} before it was sent"),
            Self::Reordered { first, second } => {
                write!(f, "{first:?} was done before {second:?} was sent, and stands behind it")
            }
            Self::Disagree { one, other, place } => write!(f, "{one} and {other} see different turns at {place}"),
            Self::WentBack { earlier, later } => write!(f, "{later} saw less than {earlier} had seen before"),
            Self::Contradicted { text, told, stored } => {
                write!(f, "of {text:?} a client was told {told:?}, and stored is {stored:?}")
            }
            Self::Vanished { text } => write!(f, "part of the reply to {text:?} was shown, and it is not there"),
        }
    }
}

#[cfg(test)]
mod tests;
