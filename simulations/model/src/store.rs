//! The store: the log as the primary has it, how much of it the replica has, and requests that are on their way.
//!
//! Stands for one stream in Redis and what `node/src/stores/redis` adds to it: ids as the fence, one `WAIT` behind what
//! was sent. A log begins with `1-0`, written by somebody who is gone; that making one needs that there is none is left
//! to the contract suite of the stores.

use crate::variants::Variant;

/// Of an activation, never used twice. 0 is who made the log.
pub type Token = u8;
/// A client's idempotency key; each client has one turn.
pub type Key = u8;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    pub epoch: u8,
    pub seq: u8,
}

impl Position {
    pub fn next(self) -> Self {
        Self { seq: self.seq + 1, ..self }
    }

    pub fn claim(self) -> Self {
        Self { epoch: self.epoch + 1, seq: 0 }
    }

    /// Whether an entry here may stand behind one at `before`.
    pub fn follows(self, before: Self) -> bool {
        self == before.next() || (self.epoch > before.epoch && self.seq == 0)
    }
}

/// Where an entry stands and who wrote it: its identity, and the end of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub position: Position,
    pub token: Token,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Event {
    Claimed,
    /// `attempt`: the record that its responder is about to be called is in the same entry, since nothing else is open.
    TurnAccepted {
        key: Key,
        attempt: bool,
    },
    AttemptStarted {
        key: Key,
    },
    Text {
        key: Key,
    },
    TurnEnded {
        key: Key,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entry {
    pub place: Place,
    pub event: Event,
}

/// An entry between its owner and the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request {
    pub entry: Entry,
    /// Its owner still has the connection over which it went; else the answer reaches nobody.
    pub awaited: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    pub log: Vec<Entry>,
    /// Entries that the replica has at least, from the first on: those of which somebody was told so. When exactly it got
    /// which others shows only in what a failover keeps.
    pub replicated: usize,
    /// Sorted: they may arrive in any order, so the same requests are the same state.
    pub requests: Vec<Request>,
    /// A failover has lost an entry.
    pub lost: bool,
}

impl Store {
    pub fn new() -> Self {
        let first = Entry { place: Place { position: Position { epoch: 1, seq: 0 }, token: 0 }, event: Event::Claimed };
        Self { log: vec![first], replicated: 1, requests: Vec::new(), lost: false }
    }

    pub fn end(&self) -> Place {
        self.log[self.log.len() - 1].place
    }

    pub fn has(&self, entry: &Entry) -> bool {
        self.log.contains(entry)
    }

    pub fn send(&mut self, entry: Entry) {
        self.requests.push(Request { entry, awaited: true });
        self.requests.sort_unstable();
    }

    /// The owner's connection is gone; what went over it may still arrive.
    pub fn forsake(&mut self, owner: Token) {
        let own = self.requests.iter_mut().filter(|request| request.entry.place.token == owner);
        own.for_each(|request| request.awaited = false);
        self.requests.sort_unstable();
    }

    pub fn refuses(&self, variant: Variant, position: Position) -> bool {
        variant != Variant::NoFence && position <= self.end().position
    }

    /// The request arrives. Whether it was written.
    pub fn arrive(&mut self, variant: Variant, request: &Request) -> bool {
        if let Ok(at) = self.requests.binary_search(request) {
            self.requests.remove(at);
        }
        if self.refuses(variant, request.entry.place.position) {
            return false;
        }
        self.log.push(request.entry);
        true
    }

    /// Without requests that will be refused and whose answer reaches nobody: whether they arrive makes no difference.
    pub fn forget_idle_requests(&mut self, variant: Variant) {
        let mut requests = std::mem::take(&mut self.requests);
        requests.retain(|request| request.awaited || !self.refuses(variant, request.entry.place.position));
        self.requests = requests;
    }

    /// The replica becomes the primary, with what it has, and gets a replica that is its copy. Connections to the old
    /// primary are gone, and all that was on its way to it.
    pub fn fail_over(&mut self, kept: usize) {
        self.lost |= self.log.len() > kept;
        self.log.truncate(kept);
        self.replicated = kept;
        self.requests.clear();
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}
