//! placeholder

pub mod bounds;
pub mod client;
mod display;
pub mod owner;
pub mod properties;
pub mod search;
pub mod store;
pub mod variants;
pub mod world;

use stateright::{Model, Property};

use crate::bounds::Bounds;
use crate::variants::Variant;
use crate::world::{Action, World};

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

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
