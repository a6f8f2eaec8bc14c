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
    /// Of the tests: seconds
    Small,
    /// Three owners and two failovers: minutes
    Large,
}

impl Bound {
    pub fn bounds(self) -> Bounds {
        let small =
            Bounds { owners: 2, clients: 1, submits: 2, pieces: 1, steals: 1, failovers: 1, breaks: 1, crashes: 0 };
        match self {
            Self::Small => small,
            Self::Large => Bounds { owners: 3, steals: 2, crashes: 1, ..small },
        }
    }
}
