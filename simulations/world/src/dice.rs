//! Numbers from a seed (splitmix64): the same ones for ever, which a crate's generator does not promise. Each part of the
//! world has dice of its own, so that a part that is left out changes little in the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

#[derive(Clone)]
pub struct Dice(Arc<AtomicU64>);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(mixed(seed.wrapping_add(GAMMA)))))
    }

    /// For one part of the world of this seed.
    pub fn of(seed: u64, part: &str) -> Self {
        Self::new(part.bytes().fold(seed, |hash, byte| mixed(hash ^ u64::from(byte)).wrapping_add(GAMMA)))
    }

    pub fn throw(&self) -> u64 {
        mixed(self.0.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA))
    }

    /// One of `0..end`; 0 where that is empty.
    pub fn below(&self, end: u64) -> u64 {
        self.throw() % end.max(1)
    }

    /// One of `from..=to`.
    pub fn between(&self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    pub fn permille(&self, of_thousand: u64) -> bool {
        self.below(1_000) < of_thousand
    }

    /// Up to this, in steps of a microsecond; short ones are more likely.
    pub fn up_to(&self, most: Duration) -> Duration {
        let most = most.as_micros() as u64;
        Duration::from_micros(self.below(self.below(most + 1) + 1))
    }

    pub fn secs(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.between(from * 1_000, to * 1_000))
    }

    /// None where there is nothing to choose from.
    pub fn pick<'a, T>(&self, from: &'a [T]) -> Option<&'a T> {
        from.get(self.below(from.len() as u64) as usize)
    }

    pub fn bytes(&self) -> [u8; 16] {
        let (high, low) = (self.throw(), self.throw());
        (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
    }
}

/// The finisher of splitmix64.
pub fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
