//! What can happen next in a [`World`]: progress, which comes by itself, and faults, as long as some are left.

use crate::Protocol;
use crate::owner::{Memory, Owner, Phase, Sending};
use crate::world::{Action, Left, World};

impl World {
    /// Everything that happens by itself, if one waits for long enough.
    pub fn progress(&self, protocol: &Protocol, actions: &mut Vec<Action>) {
        let orphaned = self.is_wanted() && !self.has_live_owner();
        if orphaned && self.has_room(protocol) {
            actions.push(Action::Activate);
        }
        for owner in &self.owners {
            match next_of(protocol, owner) {
                Some(next) => actions.push(next),
                None if orphaned && !self.has_room(protocol) => actions.push(Action::Passivate { owner: owner.token }),
                None => {}
            }
            actions.extend(self.submits(owner));
        }
        actions.extend(self.store.requests.iter().copied().map(Action::Arrive));
    }

    fn submits(&self, owner: &Owner) -> impl Iterator<Item = Action> {
        let free = owner.serving().is_some_and(|serving| serving.in_flight.is_none());
        let owner = owner.token;
        let clients = (0..).zip(&self.clients).filter(move |(_, client)| free && client.submits_left > 0);
        clients.map(move |(key, _)| Action::Submit { owner, key })
    }

    pub fn faults(&self, protocol: &Protocol, actions: &mut Vec<Action>) {
        let Left { steals, failovers, breaks, crashes } = self.left;
        if steals > 0 && self.has_room(protocol) && self.has_live_owner() {
            actions.push(Action::Steal);
        }
        if failovers > 0 {
            actions.extend((self.store.replicated..=self.store.log.len()).map(|kept| Action::Failover { kept }));
        }
        for owner in &self.owners {
            if breaks > 0 && matches!(owner.sending(), Some(Sending::Sent | Sending::Written { .. })) {
                actions.push(Action::Break { owner: owner.token });
            }
            if crashes > 0 {
                actions.push(Action::Crash { owner: owner.token });
            }
        }
    }

    pub fn is_at_rest(&self, protocol: &Protocol) -> bool {
        let mut actions = Vec::new();
        self.progress(protocol, &mut actions);
        actions.is_empty()
    }

    fn has_room(&self, protocol: &Protocol) -> bool {
        self.owners.len() < protocol.bounds.owners
    }

    /// Somebody has a reason to activate the conversation: an open turn, or a client.
    fn is_wanted(&self) -> bool {
        self.clients.iter().any(|client| client.submits_left > 0) || Memory::replay(&self.store.log).open().is_some()
    }

    /// Somebody is about to own the log, or owns it; one that was fenced and does not know it yet does not count.
    fn has_live_owner(&self) -> bool {
        self.owners.iter().any(|owner| match &owner.phase {
            Phase::Looking | Phase::Claiming { .. } | Phase::Claimed { .. } => true,
            Phase::Serving(serving) => serving.in_flight.is_some() || serving.end == self.store.end(),
        })
    }
}

fn next_of(protocol: &Protocol, owner: &Owner) -> Option<Action> {
    let token = owner.token;
    match owner.sending() {
        // Its request is on the way, which is what happens next.
        Some(Sending::Sent) => return None,
        Some(Sending::Written { .. }) => return Some(Action::Acknowledge { owner: token }),
        Some(Sending::Unknown) => return Some(Action::ReadEnd { owner: token }),
        Some(Sending::NotWritten) => return Some(Action::SendAgain { owner: token }),
        None => {}
    }
    match &owner.phase {
        Phase::Looking | Phase::Claiming { .. } => Some(Action::ClaimAgain { owner: token }),
        Phase::Claimed { .. } => Some(Action::Serve { owner: token }),
        Phase::Serving(_) => owner.next(protocol.bounds.pieces).map(|_| Action::Write { owner: token }),
    }
}
