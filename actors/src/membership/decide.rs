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

#[cfg(test)]
mod tests {
    use super::*;

    /// Node `a` among others: each line is what happens, an arrow, and what follows. `at MS` sets the clock.
    fn check(script: &str) {
        let row = Row { incarnation: 1, address: "a:1".into(), status: MemberStatus::Joining, format: 1 };
        let mut membership = Membership::new("a".into(), row);
        let mut now_ms = 0;
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (input, expected) = line.split_once("->").unwrap_or((line, ""));
            let words: Vec<&str> = input.split_whitespace().collect();
            if words[0] == "at" {
                now_ms = words[1].parse().expect("ms");
                continue;
            }
            let said: Vec<String> = membership.decide(now_ms, parse(&words)).iter().map(show).collect();
            assert_eq!(said.join(", "), expected.trim(), "after {:?} of:{script}", input.trim());
        }
    }

    fn parse(words: &[&str]) -> Input {
        let number = |place: usize| words[place].parse::<u64>().expect("a number");
        match words[0] {
            "tick" => Input::Tick,
            "joined" => Input::Joined(true),
            "refused" => Input::Joined(false),
            "up" => Input::Up,
            "leave" => Input::Leave,
            "behind" => Input::Behind(number(1)),
            "failed" => Input::Failed,
            "buried" => Input::Buried(true),
            "forgotten" => Input::Beaten(None),
            // beaten NUMBER GENERATION name=counter …
            "beaten" => {
                let counter = |pair: &&str| {
                    let (name, counter) = pair.split_once('=').expect("a name and a counter");
                    (name.to_owned(), counter.parse().expect("a counter"))
                };
                let counters = words[3..].iter().map(counter).collect();
                Input::Beaten(Some(Beat { number: number(1), generation: number(2), counters }))
            }
            // read NUMBER name.incarnation=status …
            "read" => Input::Read(ViewTable {
                number: number(1),
                rows: words[2..].iter().map(|row| parse_row(row)).collect(),
            }),
            "knocked" => Input::Probed { name: words[1].into(), incarnation: 1, refused: words[2] == "refused" },
            other => panic!("there is no input {other:?}"),
        }
    }

    fn parse_row(word: &str) -> (String, Row) {
        let (who, status) = word.split_once('=').expect("a row has a status");
        let (name, incarnation) = who.split_once('.').expect("a row has an incarnation");
        let status = match status {
            "joining" => MemberStatus::Joining,
            "up" => MemberStatus::Up,
            _ => MemberStatus::Leaving,
        };
        let incarnation = incarnation.parse().expect("a number");
        (name.to_owned(), Row { incarnation, address: format!("{name}:1"), status, format: 1 })
    }

    fn show(effect: &Effect) -> String {
        let row = |row: &Row| format!("{} {:?}", row.incarnation, row.status).to_lowercase();
        match effect {
            Effect::Join(mine) => format!("join {}", row(mine)),
            Effect::Set(mine) => format!("set {}", row(mine)),
            Effect::Beat => "beat".into(),
            Effect::Read => "read".into(),
            Effect::Probe(peer) => format!("knock {}", peer.id),
            Effect::Bury { name, incarnation, counter, number } => {
                format!("bury {name}.{incarnation} at {counter} in {number}")
            }
            Effect::Tell(view) => {
                format!(
                    "tell {} {}",
                    view.number,
                    view.members.keys().map(|name| &**name).collect::<Vec<_>>().join("+")
                )
            }
            Effect::Drop => "drop".into(),
            Effect::End => "end".into(),
        }
    }

    #[test]
    fn a_node_joins_is_up_and_leaves() {
        check(
            "tick                              -> join 1 joining
             up                                ->
             joined                            -> read
             read 1 a.1=joining                -> tell 1 a
             tick                              -> set 1 up
             joined                            -> read
             read 2 a.1=up                     -> tell 2 a
             tick                              -> beat
             beaten 2 1 a=1                    ->
             leave                             -> set 1 leaving
             joined                            -> read
             read 3 a.1=leaving                -> tell 3 a
             up                                ->",
        );
    }

    const TOGETHER: &str = "tick -> join 1 joining
             joined                            -> read
             read 1 a.1=joining b.1=up         -> tell 1 a+b
             up                                -> set 1 up
             joined                            -> read
             read 2 a.1=up b.1=up              -> tell 2 a+b\n";

    #[test]
    fn who_stands_still_for_three_seconds_is_buried() {
        check(&format!(
            "{TOGETHER}
             at 0
             tick                              -> beat
             beaten 2 1 a=1 b=7                ->
             at 2900
             tick                              -> beat
             beaten 2 1 a=2 b=7                -> knock b.1
             knocked b silent                  ->
             at 3000
             tick                              -> beat
             beaten 2 1 a=3 b=7                -> bury b.1 at 7 in 2
             buried                            -> read
             read 3 a.1=up                     -> tell 3 a",
        ));
    }

    #[test]
    fn one_second_is_enough_where_the_port_refuses() {
        check(&format!(
            "{TOGETHER}
             at 0
             tick                              -> beat
             beaten 2 1 a=1 b=7                ->
             at 1000
             tick                              -> beat
             beaten 2 1 a=2 b=7                -> knock b.1
             tick                              -> beat
             beaten 2 1 a=3 b=7                ->
             knocked b refused                 -> bury b.1 at 7 in 2",
        ));
    }

    #[test]
    fn who_went_on_meanwhile_is_not_accused() {
        check(&format!(
            "{TOGETHER}
             at 0
             tick                              -> beat
             beaten 2 1 a=1 b=7                ->
             at 1000
             tick                              -> beat
             beaten 2 1 a=2 b=7                -> knock b.1
             tick                              -> beat
             beaten 2 1 a=3 b=8                ->
             knocked b refused                 ->",
        ));
    }

    #[test]
    fn a_table_that_was_away_kills_nobody() {
        check(&format!(
            "{TOGETHER}
             at 0
             tick                              -> beat
             beaten 2 1 a=1 b=7                ->
             tick                              -> beat
             failed                            ->
             at 9000
             tick                              -> beat
             beaten 2 1 a=2 b=7                ->
             at 11900
             tick                              -> beat
             beaten 2 1 a=3 b=7                -> knock b.1
             at 12000
             tick                              -> beat
             beaten 2 1 a=4 b=7                -> bury b.1 at 7 in 2",
        ));
    }

    #[test]
    fn counters_behind_another_connection_are_not_compared() {
        check(&format!(
            "{TOGETHER}
             at 0
             tick                              -> beat
             beaten 2 1 a=1 b=7                ->
             at 3000
             tick                              -> beat
             beaten 2 2 a=2 b=7                ->
             at 5900
             tick                              -> beat
             beaten 2 2 a=3 b=7                -> knock b.1",
        ));
    }

    #[test]
    fn who_finds_itself_dead_drops_everything_and_joins_as_a_later_life() {
        check(&format!(
            "{TOGETHER}
             tick                              -> beat
             forgotten                         -> tell 2 , drop, join 2 up
             joined                            -> read
             read 4 a.2=up b.1=up              -> tell 4 a+b",
        ));
    }

    #[test]
    fn an_older_process_of_the_same_name_ends() {
        check("tick -> join 1 joining\nrefused -> end");
        check(&format!("{TOGETHER} behind 3 -> read\nread 3 a.2=up b.1=up -> end"));
    }

    #[test]
    fn a_newer_view_is_read_as_soon_as_anybody_tells_of_it() {
        check(&format!(
            "{TOGETHER}
             behind 2                          ->
             behind 5                          -> read
             behind 6                          ->
             read 5 a.1=up b.1=up c.1=up       -> tell 5 a+b+c",
        ));
    }
}
