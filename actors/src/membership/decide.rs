//! Which nodes there are, and which of them is dead. Pure: `now_ms` is this node's monotonic clock, and is compared
//! with no other's.
//!
//! A node is dead when its counter stood still for long enough, as this node saw it over one connection to the table,
//! while this node's own counter went on all the time: a table that is away kills nobody. To be declared dead wrongly
//! costs a node its conversations' memory and nothing else, since the fence alone decides who may write.
//!
//! All that stand still are buried in one view, since each view is a beat away from the next: a zone that is lost would
//! otherwise queue for its graves. It is no less sure than one by one: each is buried by its own counter, and none if
//! anything in the table changed since. What one by one had in addition is time: whoever is wrong about everybody, behind
//! some fault that we did not think of, is wrong about one in each beat. So at most half of the table goes in one view.

use std::collections::BTreeMap;

use klatch_protocol::view::{MemberStatus, Row, ViewTable};

use super::view::{View, address};
use super::views::{Beat, Still};
use crate::peers::PeerAddress;

/// How often a node counts its row up and looks at those of the others. The time in which a death is noticed is this
/// and one of the two below.
pub const BEAT_EVERY_MS: u64 = 250;

/// A counter that stands still for so long is a dead node's: above the pauses of a loaded machine and of a failover of
/// the table.
pub const DEAD_AFTER_MS: u64 = 3_000;

/// The same where the node's port refuses connections: its host is there, and the program is not.
pub const REFUSED_AFTER_MS: u64 = 1_000;

/// At so many doors a node knocks at once: a connection each, and a refusal takes one way there and back.
pub const KNOCKS_AT_ONCE: usize = 64;

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
        still: Vec<Still>,
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
    port: Port,
}

/// What the port of a node says while its counter stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Unasked,
    Asked,
    Refuses,
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

    /// It joins again with the next beat: a table that contradicts itself is not asked as fast as it answers.
    fn over(&mut self) -> Vec<Effect> {
        self.phase = Phase::Outside;
        self.beating = None;
        self.seen.clear();
        self.row.incarnation += 1;
        self.table = ViewTable { number: self.table.number, rows: BTreeMap::new() };
        let nobody = View::new(&self.table);
        vec![Effect::Tell(nobody), Effect::Drop]
    }

    fn beaten(&mut self, now_ms: u64, beat: Option<Beat>) -> Vec<Effect> {
        self.asking = false;
        let Some(beat) = beat else { return self.over() };
        if self.beating.is_none_or(|(_, generation)| generation != beat.generation) {
            self.beating = Some((now_ms, beat.generation));
        }
        self.look(now_ms, &beat);
        self.newest = self.newest.max(beat.number);
        if beat.number != self.table.number {
            return self.ask(Effect::Read);
        }
        if self.dirty {
            return self.tick();
        }
        self.accuse(now_ms)
    }

    /// Notes which counters went on.
    fn look(&mut self, now_ms: u64, beat: &Beat) {
        self.seen.retain(|name, _| beat.counters.contains_key(name));
        for (name, counter) in &beat.counters {
            let now = Seen { counter: *counter, generation: beat.generation, since_ms: now_ms, port: Port::Unasked };
            let seen = self.seen.entry(name.clone()).or_insert(now);
            if seen.counter != *counter || seen.generation != beat.generation {
                *seen = now;
            }
        }
    }

    /// Buries who stood still for too long; asks at the doors of those that stood still for a while.
    fn accuse(&mut self, now_ms: u64) -> Vec<Effect> {
        let buried = self.bury(now_ms);
        if buried.is_empty() { self.knock(now_ms) } else { buried }
    }

    fn bury(&mut self, now_ms: u64) -> Vec<Effect> {
        let still = self.still(now_ms);
        if still.is_empty() { Vec::new() } else { self.ask(Effect::Bury { still, number: self.table.number }) }
    }

    /// Those that are dead now, by name; at most half of the table, and always one.
    fn still(&self, now_ms: u64) -> Vec<Still> {
        let dead = self.table.rows.iter().filter_map(|(name, row)| {
            let seen = self.seen.get(name)?;
            let after_ms = if seen.port == Port::Refuses { REFUSED_AFTER_MS } else { DEAD_AFTER_MS };
            let is_dead = *name != self.name && self.stood_still(now_ms, seen, after_ms);
            is_dead.then(|| Still { name: name.clone(), incarnation: row.incarnation, counter: seen.counter })
        });
        dead.take((self.table.rows.len() / 2).max(1)).collect()
    }

    /// While this node's own beats went well all the time.
    fn stood_still(&self, now_ms: u64, seen: &Seen, for_ms: u64) -> bool {
        let well = self.beating.is_some_and(|(since_ms, _)| now_ms.saturating_sub(since_ms) >= for_ms);
        well && now_ms.saturating_sub(seen.since_ms) >= for_ms
    }

    fn knock(&mut self, now_ms: u64) -> Vec<Effect> {
        let asked = self.seen.values().filter(|seen| seen.port == Port::Asked).count();
        let doors = self.table.rows.iter().filter(|(name, _)| {
            let seen = self.seen.get(*name).filter(|seen| seen.port == Port::Unasked);
            **name != self.name && seen.is_some_and(|seen| self.stood_still(now_ms, seen, REFUSED_AFTER_MS))
        });
        let doors: Vec<_> =
            doors.take(KNOCKS_AT_ONCE.saturating_sub(asked)).map(|(name, row)| address(name, row)).collect();
        for peer in &doors {
            if let Some(seen) = self.seen.get_mut(&*peer.id.name) {
                seen.port = Port::Asked;
            }
        }
        doors.into_iter().map(Effect::Probe).collect()
    }

    /// When nobody has still to answer, those that refuse are buried together; who refuses while others hang, with the
    /// next beat.
    fn probed(&mut self, now_ms: u64, name: &str, incarnation: u64, refused: bool) -> Vec<Effect> {
        let same = self.table.rows.get(name).is_some_and(|row| row.incarnation == incarnation);
        // Otherwise it went on meanwhile.
        let Some(seen) = self.seen.get_mut(name).filter(|seen| seen.port == Port::Asked) else { return Vec::new() };
        seen.port = if refused && same { Port::Refuses } else { Port::Unasked };
        let waits = self.seen.values().any(|seen| seen.port == Port::Asked);
        if self.asking || waits { Vec::new() } else { self.bury(now_ms) }
    }

    fn read(&mut self, table: ViewTable) -> Vec<Effect> {
        self.asking = false;
        // A table that went back in a failover is taken as it is: its numbers only order what one table says.
        let changed = table != self.table;
        // A later life of a name has a counter of its own.
        self.seen.retain(|name, _| {
            let incarnation = |table: &ViewTable| table.rows.get(name).map(|row| row.incarnation);
            incarnation(&self.table).is_none_or(|before| incarnation(&table) == Some(before))
        });
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

#[cfg(test)]
mod tests;
