//! The protocol as it is, and the protocol with one thing left out, each of which must be found wanting.

use clap::ValueEnum;

use crate::properties;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Variant {
    /// The protocol as it is, in a store that acknowledges what the replica has.
    Correct,
    /// The same in a store that acknowledges what the primary has (`redis.durability = "primary"`).
    Primary,
    /// The store takes an entry at any position.
    NoFence,
    /// A claim, and the log read behind it, count when the primary has them.
    ClaimNotReplicated,
    /// What was asked for is told, and the responder called, when the entry is sent.
    AcknowledgedBeforeDurable,
    /// The log is read, then the claim is written.
    ReadBeforeClaim,
    /// After a new connection the next entry is sent without a look at the log's end. Shows in a store that may go
    /// back, so in durability `primary`.
    NoLookOnNewConnection,
    /// A turn is accepted whether its key is known or not.
    NoIdempotencyCheck,
    /// An owner knows its entries by their position alone.
    EpochWithoutToken,
}

/// When an entry is acknowledged, and a read answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Replica,
    Primary,
}

impl Variant {
    pub fn durability(self) -> Durability {
        match self {
            Self::Primary | Self::NoLookOnNewConnection => Durability::Primary,
            Self::Correct
            | Self::NoFence
            | Self::ClaimNotReplicated
            | Self::AcknowledgedBeforeDurable
            | Self::ReadBeforeClaim
            | Self::NoIdempotencyCheck
            | Self::EpochWithoutToken => Durability::Replica,
        }
    }

    /// The property that gets a counterexample; none for the protocol as it is.
    pub fn breaks(self) -> Option<&'static str> {
        match self {
            Self::Correct => None,
            Self::Primary | Self::ClaimNotReplicated | Self::AcknowledgedBeforeDurable => {
                Some(properties::ACKNOWLEDGED_STAYS)
            }
            Self::NoFence | Self::NoLookOnNewConnection => Some(properties::GAPLESS),
            Self::ReadBeforeClaim | Self::NoIdempotencyCheck => Some(properties::ONE_TURN_PER_KEY),
            Self::EpochWithoutToken => Some(properties::ONE_WRITER),
        }
    }
}
