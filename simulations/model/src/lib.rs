//! Claim, append and failover as a small model, checked by stateright: every order in which things can happen, within
//! bounds. The simulated worlds (`simulations/world`) run the real code through many orders; this runs few steps through
//! all of them. It shares no code with what it models, since it would share its mistakes.
//!
//! # What is modelled
//! One conversation: its log in a store of a primary and a replica; up to three owners that look, claim, read, append,
//! are fenced, lose connections and crash; a client that submits its turn under a key and repeats it without a reason,
//! and is shown whatever an owner may show. The state is [`world::World`], a step is [`world::Action`].
//!
//! | here | in the product |
//! |---|---|
//! | `Activate`, `Steal`, `ClaimAgain` | `claim` in `actors/src/conversation/tasks.rs`: the end, then the claim behind it |
//! | `Serve` | `read` there: the log behind the claim, and that it has no hole |
//! | `Submit` | `plan.rs`: a known key is the same turn again |
//! | `Write` | `running.rs`: the attempt on record, then the call; text; the end |
//! | `Acknowledge`, `ReadEnd`, `SendAgain` | `appended`, `not_appended`, `end_read` in `saving.rs` |
//! | `Arrive` | `XADD` with an id, which is the fence |
//! | `owner::goes_on`, `verified` | the look on each new connection: `node/src/stores/redis/batcher.rs`, `replies.rs` |
//! | `Store::replicated` | what a `WAIT` has said: `batcher.rs`; a read is behind one too (`store.rs` there) |
//! | `Break`, `Failover` | the batcher replaces its connection: what was sent is unknown |
//! | a crash, giving up | `give_up` in `saving.rs`: the memory goes, the next activation has another token |
//!
//! An owner is one activation and is called by its token: the same node after a crash is another owner. `Steal` stands
//! for all that lets a second owner claim beside one that is alive: views that differ, a pause, a partition. What decides
//! when that happens (views, the look for a healthy turn, timeouts) is left out: the promises must hold whenever it does.
//!
//! # How the number of states is kept small, without losing any run
//! - *When the replica gets an entry* is not a step. It shows in two places only: an answer that waits for it says that
//!   the replica has so much, and a failover keeps some number of entries between that and all.
//! - *A read that is confirmed later* is as good as one that is confirmed at once: what happens in between cannot tell.
//! - *Owners that are away* are all alike, so they are not in the state at all.
//! - *A request* that nobody waits for and that will be refused is forgotten.
//! - *A connection* is lost only while an answer is due: else nothing changes but that the end is looked at once more.
//!
//! # What is left out, and why
//! - *Compaction*: it is one script behind the same fence and token, and what it moves is for the contract suite of the
//!   stores. *Making a log*, which needs that there is none, and *reads past the actors*, which see what a failover may
//!   keep or take as a confirmed read does here.
//! - *A primary that lives on after its failover.* It has no replica, so what is sent to it is never acknowledged, as
//!   what is lost on the way is not. A read there may be old (until its replica is missed), and whoever believes
//!   it still has to write to be an owner.
//! - *A replica that is promoted without what it has confirmed*, or a primary that restarts with less: the store broke
//!   its word. What then still holds is what holds in durability `primary` (a test says which): the log stays in order,
//!   with one writer for each epoch.
//! - *A failed read* of an activation gives the activation up. That is a crash here.
//! - *Staging*: here an owner that has an append in flight takes no request; there it stages it, owing the answer to the
//!   next entry. Nobody is told sooner by that.
//!
//! # What must hold
//! See [`properties`]. That every accepted turn ends is said as a property of states, since stateright's `eventually`
//! may miss a run that joins another: where nothing more can happen but a fault, no turn is open. That is enough because
//! no run goes in a circle, which a test shows.
//!
//! # How to run it, and to read what it says
//! ```text
//! cargo run --release -p klatch-model                               # seconds
//! cargo run --release -p klatch-model -- --bound large              # minutes
//! cargo run --release -p klatch-model -- --variant read-before-claim
//! cargo run --release -p klatch-model -- --owners 3 --failovers 2 --explore 127.0.0.1:3000
//! ```
//! [`variants`] leave one thing out each; each must break a property, else the model is too weak to trust. What breaks
//! one is printed as a run: one line for each step, in the order in which they happened, faults in capitals; then the log of
//! the primary as it was left, and what the client was told. Read it from the end: which entry is wrong or missing, who
//! wrote it, and what that owner knew when it did. Then ask which step the product would have refused: either the model
//! lacks a rule, or the product does.
//!
//! States are told apart by a hash of 64 bits, so of ten million one pair is taken for the same with a chance of about
//! three in a million.

pub mod bounds;
pub mod client;
mod display;
pub mod owner;
mod possible;
pub mod properties;
pub mod search;
pub mod store;
pub mod variants;
pub mod world;

use stateright::{Model, Property};

use crate::bounds::Bounds;
use crate::variants::Variant;
use crate::world::{Action, World};

/// What is checked, and how far.
#[derive(Clone, Copy, Debug)]
pub struct Protocol {
    pub variant: Variant,
    pub bounds: Bounds,
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(&self.bounds)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        world.progress(self, actions);
        world.faults(self, actions);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        next.happen(self, action);
        Some(next)
    }

    fn format_action(&self, action: &Action) -> String {
        action.to_string()
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
