//! How much happens in a run: within it, everything in every order.

use clap::ValueEnum;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// In memory at the same time. A node that crashed or gave up makes room for another.
    pub owners: usize,
    pub clients: u8,
    /// How often each client submits its turn.
    pub submits: u8,
    /// Of text, in a whole answer.
    pub pieces: usize,
    /// Activations beside an owner that is alive. One where nobody is alive costs nothing: progress must not end with it.
    pub steals: u8,
    pub failovers: u8,
    /// Connections of one owner that are lost, the primary staying what it is.
    pub breaks: u8,
    pub crashes: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bound {
    /// That of the tests: seconds
    Small,
    /// One search for each thing that there may be more of: minutes
    Large,
}

const SMALL: Bounds =
    Bounds { owners: 2, clients: 1, submits: 2, pieces: 1, steals: 1, failovers: 1, breaks: 1, crashes: 0 };

/// More of everything at once would be billions of states.
const LARGE: [Bounds; 5] = [
    Bounds { crashes: 1, ..SMALL },
    Bounds { crashes: 1, failovers: 2, submits: 1, ..SMALL },
    Bounds { crashes: 1, pieces: 2, submits: 1, ..SMALL },
    Bounds { clients: 2, submits: 1, ..SMALL },
    Bounds { owners: 3, steals: 2, submits: 1, ..SMALL },
];

impl Bound {
    pub fn small() -> Bounds {
        SMALL
    }

    pub fn searches(self) -> Vec<Bounds> {
        match self {
            Self::Small => vec![SMALL],
            Self::Large => LARGE.to_vec(),
        }
    }
}
