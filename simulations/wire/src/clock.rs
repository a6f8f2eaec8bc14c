//! The system's clocks, as the world's time: what asks the standard library for an instant or a date sees simulated time, as
//! tokio's timers do, and so a seed replays to the letter.
//!
//! The C library's `clock_gettime` is replaced in whatever is linked with this crate; where no world lives it asks the
//! kernel.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::ClockId;

/// When all worlds begin, in seconds: since 1970, and since the machine was started.
const EPOCH_SECS: u64 = 1_700_000_000;
const STARTED_SECS: u64 = 1_000_000;

const REALTIME: i32 = 0;
const REALTIME_COARSE: i32 = 5;

/// Nanoseconds since the world began, and one; 0 while there is none.
static ELAPSED: AtomicU64 = AtomicU64::new(0);

/// From now on the world is so old.
pub fn set(elapsed: Duration) {
    ELAPSED.store(elapsed.as_nanos() as u64 + 1, Ordering::SeqCst);
}

/// As in C, on all that this is built for: 64 bits each.
#[repr(C)]
pub struct TimeSpec {
    secs: i64,
    nanos: i64,
}

/// # Safety
/// As the C library's: `time` is valid for writes.
// Unsafe, since it is called from C with a pointer; the one place of it here.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: i32, time: *mut TimeSpec) -> i32 {
    let is_wall = matches!(clock, REALTIME | REALTIME_COARSE);
    let now = match ELAPSED.load(Ordering::SeqCst).checked_sub(1) {
        Some(elapsed) => {
            let begun = if is_wall { EPOCH_SECS } else { STARTED_SECS };
            let elapsed = Duration::from_nanos(elapsed) + Duration::from_secs(begun);
            TimeSpec { secs: elapsed.as_secs() as i64, nanos: i64::from(elapsed.subsec_nanos()) }
        }
        None => {
            let now = rustix::time::clock_gettime(if is_wall { ClockId::Realtime } else { ClockId::Monotonic });
            TimeSpec { secs: now.tv_sec, nanos: now.tv_nsec }
        }
    };
    // SAFETY: the caller promises room for one.
    unsafe { time.write(now) };
    0
}
