//! Which nodes there are, and which of them is dead. Pure: `now_ms` is this node's monotonic clock, and is compared
//! with no other's.
//!
//! A node is dead when its counter stood still for long enough, as this node saw it over one connection to the table,
//! while this node's own counter went on all the time: a table that is away kills nobody. To be declared dead wrongly
//! costs a node its conversations' memory and nothing else, since the fence alone decides who may write.

use std::collections::BTreeMap;

use klatch_protocol::view::{MemberStatus, Row, ViewTable};

use super::view::View;
use super::views::Beat;
use crate::peers::PeerAddress;

/// How often a node counts its row up and looks at those of the others. The time in which a death is noticed is this
/// and one of the two below.
pub const BEAT_EVERY_MS: u64 = 250;

/// A counter that stands still for so long is a dead node's: above the pauses of a loaded machine and of a failover of
/// the table.
pub const DEAD_AFTER_MS: u64 = 3_000;

/// The same where the node's port refuses connections: its host is there, and the program is not.
pub const REFUSED_AFTER_MS: u64 = 1_000;

/// In the order of a life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    Tick,
    /// Whether this row is in the table now; not so where a later life of this node is.
    Joined(bool),
    /// This node can own shards: its ports are open.
    Up,
    /// None: there is no row of this life any more.
    Beaten(Option<Beat>),
    Read(ViewTable),
    /// The node's port refuses connections; not so where anything else happened.
    Probed {
        name: String,
        incarnation: u64,
        refused: bool,
    },
    Buried(bool),
    /// Somebody has seen a newer view.
    Behind(u64),
    /// This node gives everything away.
    Leave,
    /// The table did not answer.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    Join(Row),
    Set(Row),
    Beat,
    Read,
    Probe(PeerAddress),
    Bury {
        name: String,
        incarnation: u64,
        counter: u64,
        number: u64,
    },
    /// Tell those who route by it, and keep connections to its members.
    Tell(View),
    /// This life is over: drop every conversation, and join as a later one.
    Drop,
    /// A later life of this node is there: this process must end.
    End,
}

/// What this node is in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not in the table, as far as is known.
    Outside,
    Inside,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    counter: u64,
    generation: u64,
    /// When it was first seen so.
    since_ms: u64,
    probing: bool,
}

pub struct Membership {
    name: String,
    row: Row,
    phase: Phase,
    /// The row was changed here and the table may not have it yet.
    dirty: bool,
    table: ViewTable,
    /// Since when this node's own beats went well without a pause, over one connection.
    beating: Option<(u64, u64)>,
    seen: BTreeMap<String, Seen>,
    /// One conversation with the table at a time.
    asking: bool,
    /// The newest view that anybody told of.
    newest: u64,
}

impl Membership {
    pub fn new(name: String, row: Row) -> Self {
        Self {
            name,
            row,
            phase: Phase::Outside,
            dirty: false,
            table: ViewTable::default(),
            beating: None,
            seen: BTreeMap::new(),
            asking: false,
            newest: 0,
        }
    }

    pub fn incarnation(&self) -> u64 {
        self.row.incarnation
    }

    pub fn decide(&mut self, now_ms: u64, input: Input) -> Vec<Effect> {
        match input {
            Input::Tick => self.tick(),
            Input::Joined(there) => self.joined(there),
            Input::Up => self.change(MemberStatus::Up),
            Input::Beaten(beat) => self.beaten(now_ms, beat),
            Input::Read(table) => self.read(table),
            Input::Probed { name, incarnation, refused } => self.probed(now_ms, &name, incarnation, refused),
            Input::Buried(_) => self.ask(Effect::Read),
            Input::Behind(number) => {
                self.newest = self.newest.max(number);
                if self.asking || self.newest <= self.table.number { Vec::new() } else { self.ask(Effect::Read) }
            }
            Input::Leave => self.change(MemberStatus::Leaving),
            Input::Failed => {
                self.asking = false;
                self.beating = None;
                Vec::new()
            }
        }
    }

    fn tick(&mut self) -> Vec<Effect> {
        if self.asking {
            return Vec::new();
        }
        let next = match self.phase {
            Phase::Outside => Effect::Join(self.row.clone()),
            Phase::Inside if self.dirty => Effect::Set(self.row.clone()),
            Phase::Inside => Effect::Beat,
        };
        self.ask(next)
    }

    fn ask(&mut self, effect: Effect) -> Vec<Effect> {
        self.asking = true;
        vec![effect]
    }

    fn change(&mut self, status: MemberStatus) -> Vec<Effect> {
        // Who gives everything away does not come back.
        if self.row.status == MemberStatus::Leaving {
            return Vec::new();
        }
        self.row.status = status;
        self.dirty = true;
        self.tick()
    }

    /// Of a join, and of a change of the row.
    fn joined(&mut self, there: bool) -> Vec<Effect> {
        self.asking = false;
        match (self.phase, there) {
            (Phase::Outside, false) => vec![Effect::End],
            (Phase::Outside, true) => {
                self.phase = Phase::Inside;
                // The row joined as it is now.
                self.dirty = false;
                self.ask(Effect::Read)
            }
            (Phase::Inside, true) => {
                self.dirty = false;
                self.ask(Effect::Read)
            }
            (Phase::Inside, false) => self.over(),
        }
    }

    fn over(&mut self) -> Vec<Effect> {
        self.phase = Phase::Outside;
        self.beating = None;
        self.seen.clear();
        self.row.incarnation += 1;
        self.table = ViewTable { number: self.table.number, rows: BTreeMap::new() };
        let nobody = View::new(&self.table);
        let mut effects = vec![Effect::Tell(nobody), Effect::Drop];
        effects.extend(self.tick());
        effects
    }

    fn beaten(&mut self, now_ms: u64, beat: Option<Beat>) -> Vec<Effect> {
        self.asking = false;
        let Some(beat) = beat else { return self.over() };
        let since_ms = match self.beating {
            Some((since_ms, generation)) if generation == beat.generation => since_ms,
            Some(_) | None => now_ms,
        };
        self.beating = Some((since_ms, beat.generation));
        self.look(now_ms, &beat);
        self.newest = self.newest.max(beat.number);
        if beat.number != self.table.number {
            return self.ask(Effect::Read);
        }
        if self.dirty {
            return self.tick();
        }
        self.accuse(now_ms, since_ms)
    }

    /// Notes which counters went on.
    fn look(&mut self, now_ms: u64, beat: &Beat) {
        self.seen.retain(|name, _| beat.counters.contains_key(name));
        for (name, counter) in &beat.counters {
            let now = Seen { counter: *counter, generation: beat.generation, since_ms: now_ms, probing: false };
            let seen = self.seen.entry(name.clone()).or_insert(now);
            if seen.counter != *counter || seen.generation != beat.generation {
                *seen = now;
            }
        }
    }

    /// Buries who stood still for too long; asks at the door of who stood still for a while.
    fn accuse(&mut self, now_ms: u64, beating_since_ms: u64) -> Vec<Effect> {
        let well_for_ms = now_ms.saturating_sub(beating_since_ms);
        for (name, row) in self.table.rows.iter().filter(|(name, _)| **name != self.name) {
            let Some(seen) = self.seen.get_mut(name) else { continue };
            let still_ms = now_ms.saturating_sub(seen.since_ms);
            if still_ms >= DEAD_AFTER_MS && well_for_ms >= DEAD_AFTER_MS {
                let (name, counter) = (name.clone(), seen.counter);
                let bury = Effect::Bury { name, incarnation: row.incarnation, counter, number: self.table.number };
                return self.ask(bury);
            }
            if still_ms >= REFUSED_AFTER_MS && well_for_ms >= REFUSED_AFTER_MS && !seen.probing {
                seen.probing = true;
                return vec![Effect::Probe(super::view::address(name, row))];
            }
        }
        Vec::new()
    }

    fn probed(&mut self, now_ms: u64, name: &str, incarnation: u64, refused: bool) -> Vec<Effect> {
        let Some(seen) = self.seen.get_mut(name) else { return Vec::new() };
        seen.probing = false;
        let same = self.table.rows.get(name).is_some_and(|row| row.incarnation == incarnation);
        let still = now_ms.saturating_sub(seen.since_ms) >= REFUSED_AFTER_MS;
        if !refused || !same || !still || self.beating.is_none() || self.asking {
            return Vec::new();
        }
        let counter = seen.counter;
        self.ask(Effect::Bury { name: name.into(), incarnation, counter, number: self.table.number })
    }

    fn read(&mut self, table: ViewTable) -> Vec<Effect> {
        self.asking = false;
        // A table that went back in a failover is taken as it is: its numbers only order what one table says.
        let changed = table != self.table;
        self.newest = table.number;
        self.table = table;
        match self.table.rows.get(&self.name) {
            Some(mine) if mine.incarnation > self.row.incarnation => vec![Effect::End],
            Some(mine) if mine.incarnation == self.row.incarnation => {
                self.dirty |= mine.status != self.row.status;
                if changed { vec![Effect::Tell(View::new(&self.table))] } else { Vec::new() }
            }
            Some(_) | None if self.phase == Phase::Inside => self.over(),
            Some(_) | None => Vec::new(),
        }
    }
}
