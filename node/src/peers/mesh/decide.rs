//! Who is dialled, and which connections are kept: pure. Of two nodes the one with the smaller id dials.
//!
//! Lists what may race: a peer that dials anew while its old connection is not yet known to be dead (the old one is
//! closed first, and the new one admitted when it is); a view that is behind (a peer that is not kept gets time).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klatch_actors::peers::{PeerAddress, PeerId};

const BACKOFF_FIRST_MS: u64 = 100;
/// A node that comes back is found within so long.
const BACKOFF_MAX_MS: u64 = 5_000;

#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    Keep(Vec<PeerAddress>),
    /// A connection whose other end has proved who it is.
    Proven {
        ticket: u64,
        peer: PeerId,
    },
    Ready {
        ticket: u64,
    },
    Closed {
        ticket: u64,
    },
    DialFailed(PeerId),
    DialDue(PeerId),
    /// It had time to become ready.
    ReadyDue {
        ticket: u64,
    },
    /// Its link has heard nothing for long.
    Silent {
        ticket: u64,
    },
    /// It had time to be kept.
    KeptDue {
        ticket: u64,
    },
}

#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    Dial(PeerAddress),
    /// After so many failures in a row.
    DialAfter {
        peer: PeerId,
        failures: u32,
    },
    StopDialling(PeerId),
    Admit {
        ticket: u64,
    },
    Close {
        ticket: u64,
    },
}

struct Connection {
    peer: PeerId,
    admitted: bool,
    ready: bool,
    closing: bool,
    was_kept: bool,
}

pub struct Mesh {
    me: PeerId,
    kept: BTreeMap<Arc<str>, PeerAddress>,
    /// Failures in a row of those that this node dials or will dial again.
    dialling: BTreeMap<PeerId, u32>,
    connections: BTreeMap<u64, Connection>,
}

/// Of the wait, half is random: `random` is 0 to `u32::MAX`.
pub fn backoff(failures: u32, random: u32) -> Duration {
    let whole = (BACKOFF_FIRST_MS << failures.min(10)).min(BACKOFF_MAX_MS);
    let half = whole / 2;
    Duration::from_millis(half + half * u64::from(random) / u64::from(u32::MAX))
}

pub fn dials(me: &PeerId, peer: &PeerId) -> bool {
    me < peer
}

impl Mesh {
    pub fn new(me: PeerId) -> Self {
        Self { me, kept: BTreeMap::new(), dialling: BTreeMap::new(), connections: BTreeMap::new() }
    }

    pub fn decide(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Keep(peers) => self.keep(peers),
            Event::Proven { ticket, peer } => self.proven(ticket, peer),
            Event::Ready { ticket } => {
                if let Some(connection) = self.connections.get_mut(&ticket) {
                    connection.ready = true;
                }
                Vec::new()
            }
            Event::Closed { ticket } => self.closed(ticket),
            Event::DialFailed(peer) => self.dial_again(&peer),
            Event::DialDue(peer) => match self.kept_address(&peer) {
                Some(address) if self.dialling.contains_key(&peer) => vec![Effect::Dial(address)],
                Some(_) | None => Vec::new(),
            },
            Event::ReadyDue { ticket } => {
                let late = self.connections.get(&ticket).is_some_and(|connection| !connection.ready);
                if late { self.close(ticket) } else { Vec::new() }
            }
            Event::Silent { ticket } => self.close(ticket),
            Event::KeptDue { ticket } => {
                let peer = self.connections.get(&ticket).map(|connection| connection.peer.clone());
                let adrift = peer.is_some_and(|peer| self.kept_address(&peer).is_none());
                if adrift { self.close(ticket) } else { Vec::new() }
            }
        }
    }

    fn keep(&mut self, peers: Vec<PeerAddress>) -> Vec<Effect> {
        self.kept.clear();
        for peer in peers.into_iter().filter(|peer| peer.id.name != self.me.name) {
            let newest = self.kept.get(&peer.id.name).is_none_or(|other| other.id < peer.id);
            if newest {
                self.kept.insert(peer.id.name.clone(), peer);
            }
        }
        let mut effects = Vec::new();
        for ticket in self.connections.keys().copied().collect::<Vec<_>>() {
            let peer = self.connections[&ticket].peer.clone();
            let kept = self.kept_address(&peer).is_some();
            let connection = self.connections.get_mut(&ticket).expect("its ticket was just read");
            let was_kept = connection.was_kept;
            connection.was_kept |= kept;
            if !kept && (was_kept || self.outlived(&peer)) {
                effects.extend(self.close(ticket));
            }
        }
        for peer in self.dialling.keys().cloned().collect::<Vec<_>>() {
            if self.kept_address(&peer).is_none() {
                self.dialling.remove(&peer);
                effects.push(Effect::StopDialling(peer));
            }
        }
        let wanted: Vec<PeerAddress> = self.kept.values().cloned().collect();
        for address in wanted {
            if dials(&self.me, &address.id) && !self.connected(&address.id) && !self.dialling.contains_key(&address.id)
            {
                self.dialling.insert(address.id.clone(), 0);
                effects.push(Effect::Dial(address));
            }
        }
        effects
    }

    fn proven(&mut self, ticket: u64, peer: PeerId) -> Vec<Effect> {
        self.dialling.remove(&peer);
        let (kept, outlived) = (self.kept_address(&peer).is_some(), self.outlived(&peer));
        let older: Vec<u64> = self.of_peer(&peer);
        let admitted = older.is_empty() && !outlived;
        let connection = Connection { peer, admitted, ready: false, closing: false, was_kept: kept };
        self.connections.insert(ticket, connection);
        let mut effects: Vec<Effect> = older.into_iter().flat_map(|older| self.close(older)).collect();
        if outlived {
            effects.extend(self.close(ticket));
        } else if admitted {
            effects.push(Effect::Admit { ticket });
        }
        effects
    }

    fn closed(&mut self, ticket: u64) -> Vec<Effect> {
        let Some(gone) = self.connections.remove(&ticket) else { return Vec::new() };
        match self.of_peer(&gone.peer).as_slice() {
            [] if dials(&self.me, &gone.peer) && self.kept_address(&gone.peer).is_some() => {
                let failures = u32::from(!gone.ready);
                self.dialling.insert(gone.peer.clone(), failures);
                vec![Effect::DialAfter { peer: gone.peer, failures }]
            }
            [next] => match self.connections.get_mut(next) {
                Some(waiting) if !waiting.admitted && !waiting.closing => {
                    waiting.admitted = true;
                    vec![Effect::Admit { ticket: *next }]
                }
                Some(_) | None => Vec::new(),
            },
            _ => Vec::new(),
        }
    }

    fn dial_again(&mut self, peer: &PeerId) -> Vec<Effect> {
        let Some(failures) = self.dialling.get_mut(peer) else { return Vec::new() };
        *failures += 1;
        vec![Effect::DialAfter { peer: peer.clone(), failures: *failures }]
    }

    fn close(&mut self, ticket: u64) -> Vec<Effect> {
        match self.connections.get_mut(&ticket) {
            Some(connection) if !connection.closing => {
                connection.closing = true;
                vec![Effect::Close { ticket }]
            }
            Some(_) | None => Vec::new(),
        }
    }

    fn of_peer(&self, peer: &PeerId) -> Vec<u64> {
        let of_peer = self.connections.iter().filter(|(_, connection)| connection.peer == *peer);
        of_peer.map(|(ticket, _)| *ticket).collect()
    }

    fn connected(&self, peer: &PeerId) -> bool {
        !self.of_peer(peer).is_empty()
    }

    fn kept_address(&self, peer: &PeerId) -> Option<PeerAddress> {
        self.kept.get(&peer.name).filter(|kept| kept.id == *peer).cloned()
    }

    /// A later life of the same node is kept.
    fn outlived(&self, peer: &PeerId) -> bool {
        self.kept.get(&peer.name).is_some_and(|kept| kept.id.incarnation > peer.incarnation)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
