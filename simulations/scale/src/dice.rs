//! Numbers from a seed (splitmix64): the same ones for ever.

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(mixed(seed))
    }

    pub fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        mixed(self.0)
    }

    /// One of `0..end`; `end` is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.throw()) * end as u128) >> 64) as usize
    }

    /// In `0.0..1.0`.
    pub fn share(&mut self) -> f64 {
        (self.throw() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Time to the next event of a Poisson process, in µs.
    pub fn gap_us(&mut self, per_second: f64) -> u64 {
        (-(1.0 - self.share()).ln() * 1e6 / per_second) as u64
    }

    pub fn bytes(&mut self) -> [u8; 16] {
        (u128::from(self.throw()) << 64 | u128::from(self.throw())).to_be_bytes()
    }
}

/// The finisher of splitmix64.
pub fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
