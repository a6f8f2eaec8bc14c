//! Chance, from the system's random source: these tests are not replayed from a seed, since processes are not either.

/// Evenly, from 0 to below the end; 0 where there is nothing to choose from.
pub fn below(end: usize) -> usize {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the system has a random source");
    // Of 64 bits the remainder is even enough.
    (u64::from_le_bytes(bytes) % end.max(1) as u64) as usize
}
