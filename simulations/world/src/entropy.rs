//! The system's randomness, from the seed: ids, claim tokens, the order of every `HashMap` and of tokio's choices.
//!
//! The C library's `getrandom` is replaced in whatever is linked with this crate: that is the one door by which the
//! standard library, the crate `getrandom` and so everything else asks for it. Only simulations are linked with it.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::dice::mixed;

static STREAM: AtomicU64 = AtomicU64::new(0);

/// From now on randomness follows this seed. What was drawn before is not undone, so worlds live on a fresh thread.
pub fn seeded(seed: u64) {
    STREAM.store(mixed(seed ^ 0x5EED), Ordering::SeqCst);
}

/// # Safety
/// As the C library's: `buffer` is valid for writes of `length` bytes.
// Unsafe, since it is called from C with a pointer; the one place of it, and the reason why seeds replay.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    for place in 0..length {
        let drawn = mixed(STREAM.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed)) as u8;
        // SAFETY: the caller promises room for `length` bytes, and `place` is below it.
        unsafe { buffer.add(place).write(drawn) };
    }
    length as isize
}
