//! How a run is written: one line for each step, entry and client.

use std::fmt::{Display, Formatter, Result};

use crate::client::Client;
use crate::store::{Entry, Event, Place, Position, Request};
use crate::world::Action;

impl Display for Position {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        write!(out, "{}-{}", self.epoch, self.seq)
    }
}

impl Display for Place {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        write!(out, "{} of owner {}", self.position, self.token)
    }
}

impl Display for Entry {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        write!(out, "{}: ", self.place)?;
        match self.event {
            Event::Claimed => write!(out, "claimed"),
            Event::TurnAccepted { key, attempt: true } => write!(out, "turn {key} accepted, attempt started"),
            Event::TurnAccepted { key, attempt: false } => write!(out, "turn {key} accepted"),
            Event::AttemptStarted { key } => write!(out, "turn {key}: attempt started"),
            Event::Text { key } => write!(out, "turn {key}: text"),
            Event::TurnEnded { key } => write!(out, "turn {key} ended"),
        }
    }
}

impl Display for Action {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        match self {
            Self::Activate => write!(out, "a new owner reads the log's end and sends its claim"),
            Self::ClaimAgain { owner } => write!(out, "owner {owner} reads the log's end and sends another claim"),
            Self::Serve { owner } => write!(out, "owner {owner} reads the log and serves"),
            Self::Submit { owner, key } => write!(out, "client {key} submits its turn to owner {owner}"),
            Self::Write { owner } => write!(out, "owner {owner} sends the next entry of the open turn"),
            Self::Arrive(Request { entry, awaited: true }) => write!(out, "arrives: {entry}"),
            Self::Arrive(Request { entry, awaited: false }) => write!(out, "arrives, and nobody waits for it: {entry}"),
            Self::Acknowledge { owner } => write!(out, "owner {owner} hears that its entry is durable"),
            Self::ReadEnd { owner } => write!(out, "owner {owner} reads the log's end to know whether it was written"),
            Self::SendAgain { owner } => write!(out, "owner {owner} sends its entry again"),
            Self::Passivate { owner } => write!(out, "owner {owner} passivates"),
            Self::Steal => {
                write!(out, "STEAL: as if nobody were alive, a new owner reads the log's end and sends its claim")
            }
            Self::Failover { kept } => write!(out, "FAILOVER: the replica becomes the primary, with {kept} entries"),
            Self::Break { owner } => write!(out, "BREAK: owner {owner} loses its connection before the answer"),
            Self::Crash { owner } => write!(out, "CRASH of owner {owner}"),
        }
    }
}

impl Display for Client {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        match self.accepted.as_slice() {
            [] => write!(out, "not that its turn is accepted")?,
            places => {
                write!(out, "its turn is accepted")?;
                places.iter().try_for_each(|place| write!(out, " at {place}"))?;
            }
        }
        write!(out, "; pieces by owners {:?}", self.shown)?;
        write!(out, "{}", if self.ended { "; the end" } else { "" })?;
        write!(out, "{}", if self.contradicted { "; two texts that contradict one another" } else { "" })
    }
}
