//! The world: a store, owners, clients, and what may still go wrong; and what each step does to
//! them. Which steps can come next is in `possible.rs`.
//!
//! One [`Action`] is one step that nothing else can come between. Where it makes no difference whether something comes
//! between two steps, they are one: that keeps the number of states small.

use crate::Protocol;
use crate::bounds::Bounds;
use crate::client::Client;
use crate::owner::{GoesOn, InFlight, Memory, Owner, Phase, Sending, Serving, goes_on, is_own};
use crate::store::{Entry, Event, Key, Place, Request, Store, Token};
use crate::variants::{Durability, Variant};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub store: Store,
    /// By their tokens, which is also by age. One that crashed or gave up is gone.
    pub owners: Vec<Owner>,
    pub clients: Vec<Client>,
    /// Whose responder was called for which turn. Sorted, each once.
    pub calls: Vec<(Token, Key)>,
    /// The last that was given out.
    pub token: Token,
    pub left: Left,
}

/// What may still go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Left {
    pub steals: u8,
    pub failovers: u8,
    pub breaks: u8,
    pub crashes: u8,
}

/// In the order of a life; the faults come last.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A new owner reads the log's end and sends its claim, since nobody is alive.
    Activate,
    /// The owner reads the log's end and sends another claim: the one before was not written.
    ClaimAgain {
        owner: Token,
    },
    /// The owner reads the log behind its claim, shows what it found, and serves.
    Serve {
        owner: Token,
    },
    Submit {
        owner: Token,
        key: Key,
    },
    /// The owner sends the next entry of the open turn.
    Write {
        owner: Token,
    },
    /// A request reaches the primary, which writes or refuses it.
    Arrive(Request),
    /// The owner hears that its entry is durable.
    Acknowledge {
        owner: Token,
    },
    /// The owner reads the log's end, since it does not know whether its entry was written.
    ReadEnd {
        owner: Token,
    },
    SendAgain {
        owner: Token,
    },
    /// The owner is not the newest and does not know it, has nothing to do, and makes room.
    Passivate {
        owner: Token,
    },
    /// As `Activate`, though an owner is alive: the new one does not know it, or cannot reach it.
    Steal,
    /// The replica becomes the primary; it has so many entries.
    Failover {
        kept: usize,
    },
    /// The owner's connection to the primary is lost while an answer is due, and made again.
    Break {
        owner: Token,
    },
    Crash {
        owner: Token,
    },
}

impl World {
    pub fn new(bounds: &Bounds) -> Self {
        let Bounds { steals, failovers, breaks, crashes, .. } = *bounds;
        Self {
            store: Store::new(),
            owners: Vec::new(),
            clients: (0..bounds.clients).map(|_| Client::new(bounds.submits)).collect(),
            calls: Vec::new(),
            token: 0,
            left: Left { steals, failovers, breaks, crashes },
        }
    }

    pub fn happen(&mut self, protocol: &Protocol, action: Action) {
        match action {
            Action::Activate => self.activate(protocol),
            Action::ClaimAgain { owner } => self.claim(protocol, owner),
            Action::Serve { owner } => self.serve(protocol, owner),
            Action::Submit { owner, key } => self.submit(protocol, owner, key),
            Action::Write { owner } => self.write(protocol, owner),
            Action::Arrive(request) => self.arrive(protocol, &request),
            Action::Acknowledge { owner } => self.acknowledge(protocol, owner),
            Action::ReadEnd { owner } => self.read_end(protocol, owner),
            Action::SendAgain { owner } => self.send(protocol, owner),
            Action::Passivate { owner } => self.give_up(owner),
            Action::Steal => {
                self.left.steals -= 1;
                self.activate(protocol);
            }
            Action::Failover { kept } => {
                self.left.failovers -= 1;
                self.owners.iter_mut().for_each(Owner::disconnected);
                self.store.fail_over(kept);
            }
            Action::Break { owner } => {
                self.left.breaks -= 1;
                self.store.forsake(owner);
                self.change(owner, Owner::disconnected);
            }
            Action::Crash { owner } => {
                self.left.crashes -= 1;
                self.give_up(owner);
            }
        }
        self.store.forget_idle_requests(protocol.variant);
    }

    fn owner(&self, token: Token) -> Option<&Owner> {
        self.owners.iter().find(|owner| owner.token == token)
    }

    fn change(&mut self, token: Token, change: impl FnOnce(&mut Owner)) {
        if let Some(owner) = self.owners.iter_mut().find(|owner| owner.token == token) {
            change(owner);
        }
    }

    /// All memory goes; the log has the truth.
    fn give_up(&mut self, token: Token) {
        self.store.forsake(token);
        self.owners.retain(|owner| owner.token != token);
    }

    /// An answer that comes when the replica has so many entries has come.
    fn confirmed(&mut self, protocol: &Protocol, length: usize) {
        if protocol.variant.durability() == Durability::Replica {
            self.store.replicated = self.store.replicated.max(length);
        }
    }

    fn activate(&mut self, protocol: &Protocol) {
        self.token += 1;
        self.owners.push(Owner { token: self.token, phase: Phase::Looking, verified: false });
        self.claim(protocol, self.token);
    }

    fn claim(&mut self, protocol: &Protocol, token: Token) {
        if protocol.variant != Variant::ClaimNotReplicated {
            self.confirmed(protocol, self.store.log.len());
        }
        let early = (protocol.variant == Variant::ReadBeforeClaim).then(|| Memory::replay(&self.store.log));
        let claim = Place { position: self.store.end().position.claim(), token };
        self.change(token, |owner| owner.phase = Phase::Claiming { claim, sending: Sending::Sent, early });
        self.store.send(Entry { place: claim, event: Event::Claimed });
    }

    fn claimed(&mut self, token: Token) {
        self.change(token, |owner| {
            let Phase::Claiming { claim, early, .. } = &mut owner.phase else { return };
            let end = *claim;
            owner.phase = match early.take() {
                Some(memory) => Phase::Serving(Serving { end, memory, in_flight: None }),
                None => Phase::Claimed { claim: end },
            };
        });
        self.show(token);
    }

    fn serve(&mut self, protocol: &Protocol, token: Token) {
        if !crate::properties::gapless(&self.store.log) {
            return self.give_up(token);
        }
        if protocol.variant != Variant::ClaimNotReplicated {
            self.confirmed(protocol, self.store.log.len());
        }
        let memory = Memory::replay(&self.store.log);
        self.change(token, |owner| {
            let Phase::Claimed { claim } = owner.phase else { return };
            owner.phase = Phase::Serving(Serving { end: claim, memory, in_flight: None });
        });
        self.show(token);
    }

    fn submit(&mut self, protocol: &Protocol, token: Token, key: Key) {
        self.clients[usize::from(key)].submits_left -= 1;
        let Some(serving) = self.owner(token).and_then(Owner::serving) else { return };
        match serving.memory.turn(key) {
            Some(turn) if protocol.variant != Variant::NoIdempotencyCheck => {
                let accepted = turn.accepted;
                self.clients[usize::from(key)].tell_accepted(accepted);
            }
            Some(_) | None => {
                let attempt = serving.memory.open().is_none();
                self.append(protocol, token, Event::TurnAccepted { key, attempt });
            }
        }
    }

    fn write(&mut self, protocol: &Protocol, token: Token) {
        if let Some(event) = self.owner(token).and_then(|owner| owner.next(protocol.bounds.pieces)) {
            self.append(protocol, token, event);
        }
    }

    fn append(&mut self, protocol: &Protocol, token: Token, event: Event) {
        self.change(token, |owner| {
            let Phase::Serving(serving) = &mut owner.phase else { return };
            let entry = Entry { place: Place { position: serving.end.position.next(), token }, event };
            serving.in_flight = Some(InFlight { entry, sent_again: false, sending: Sending::Sent });
        });
        if protocol.variant == Variant::AcknowledgedBeforeDurable {
            self.tell(token);
        }
        self.send(protocol, token);
    }

    /// On a connection over which nothing of this log went yet, the log must end with the owner's last entry.
    fn send(&mut self, protocol: &Protocol, token: Token) {
        let Some(owner) = self.owner(token) else { return };
        let Phase::Serving(Serving { end, in_flight: Some(append), .. }) = &owner.phase else { return };
        let looks = !owner.verified && protocol.variant != Variant::NoLookOnNewConnection;
        let found = if looks { goes_on(protocol.variant, self.store.end(), *end) } else { GoesOn::Yes };
        match found {
            GoesOn::Yes => {
                let entry = append.entry;
                self.change(token, |owner| owner.set_sending(Sending::Sent));
                self.store.send(entry);
            }
            GoesOn::Fenced if append.sent_again => self.change(token, |owner| owner.set_sending(Sending::Unknown)),
            GoesOn::Fenced | GoesOn::WentBack => self.give_up(token),
        }
    }

    fn arrive(&mut self, protocol: &Protocol, request: &Request) {
        let written = self.store.arrive(protocol.variant, request);
        let (token, length) = (request.entry.place.token, self.store.log.len());
        let Some(owner) = self.owner(token).filter(|_| request.awaited) else { return };
        match &owner.phase {
            _ if written => self.change(token, |owner| {
                owner.verified = true;
                owner.set_sending(Sending::Written { length });
            }),
            Phase::Looking | Phase::Claiming { .. } | Phase::Claimed { .. } => {
                self.change(token, |owner| owner.phase = Phase::Looking);
            }
            // Perhaps by the first of the two, and then it is written.
            Phase::Serving(Serving { in_flight: Some(append), .. }) if append.sent_again => {
                self.change(token, |owner| owner.set_sending(Sending::Unknown));
            }
            Phase::Serving(_) => self.give_up(token),
        }
    }

    fn acknowledge(&mut self, protocol: &Protocol, token: Token) {
        let Some(owner) = self.owner(token) else { return };
        let Some(Sending::Written { length }) = owner.sending() else { return };
        if owner.serving().is_some() || protocol.variant != Variant::ClaimNotReplicated {
            self.confirmed(protocol, length);
        }
        self.appended(protocol, token);
    }

    fn appended(&mut self, protocol: &Protocol, token: Token) {
        if self.owner(token).and_then(Owner::serving).is_none() {
            return self.claimed(token);
        }
        if protocol.variant != Variant::AcknowledgedBeforeDurable {
            self.tell(token);
        }
        self.change(token, |owner| {
            let Phase::Serving(serving) = &mut owner.phase else { return };
            let Some(InFlight { entry, .. }) = serving.in_flight.take() else { return };
            serving.end = entry.place;
            serving.memory.apply(&entry);
        });
    }

    fn read_end(&mut self, protocol: &Protocol, token: Token) {
        self.confirmed(protocol, self.store.log.len());
        let (variant, end) = (protocol.variant, self.store.end());
        let Some(owner) = self.owner(token) else { return };
        match &owner.phase {
            Phase::Claiming { claim, .. } if is_own(variant, end, *claim) => self.claimed(token),
            Phase::Claiming { .. } => self.change(token, |owner| owner.phase = Phase::Looking),
            Phase::Serving(Serving { end: own, in_flight: Some(append), .. }) => {
                if is_own(variant, end, append.entry.place) {
                    self.appended(protocol, token);
                } else if is_own(variant, end, *own) {
                    self.change(token, |owner| {
                        let Phase::Serving(Serving { in_flight: Some(append), .. }) = &mut owner.phase else { return };
                        append.sent_again = true;
                        append.sending = Sending::NotWritten;
                    });
                } else {
                    self.give_up(token);
                }
            }
            Phase::Looking | Phase::Claimed { .. } | Phase::Serving(_) => {}
        }
    }

    /// Whoever waits for the entry in flight hears of it.
    fn tell(&mut self, token: Token) {
        let Some(Serving { memory, in_flight: Some(append), .. }) = self.owner(token).and_then(Owner::serving) else {
            return;
        };
        let (entry, mut memory) = (append.entry, memory.clone());
        memory.apply(&entry);
        match entry.event {
            Event::Claimed => {}
            Event::TurnAccepted { key, attempt } => {
                self.clients[usize::from(key)].tell_accepted(entry.place);
                if attempt {
                    self.call(token, key);
                }
            }
            Event::AttemptStarted { key } => self.call(token, key),
            Event::Text { key } | Event::TurnEnded { key } => {
                if let Some(turn) = memory.turn(key) {
                    self.clients[usize::from(key)].show(&turn.text, turn.ended);
                }
            }
        }
    }

    /// Watchers ask a new owner for what they do not have yet.
    fn show(&mut self, token: Token) {
        let Some(serving) = self.owners.iter().find(|owner| owner.token == token).and_then(Owner::serving) else {
            return;
        };
        for turn in &serving.memory.turns {
            self.clients[usize::from(turn.key)].show(&turn.text, turn.ended);
        }
    }

    fn call(&mut self, token: Token, key: Key) {
        if let Err(at) = self.calls.binary_search(&(token, key)) {
            self.calls.insert(at, (token, key));
        }
    }
}
