//! How long to wait before the next attempt. Pure: `now` is passed in, and nothing is random, since a client at a
//! terminal is alone; many clients are kept apart by the server's own `retry-after-ms`.

use std::time::Duration;

use tokio::time::Instant;

/// Without any progress for so long, a person wants to know.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub struct Backoff {
    trouble_since: Option<Instant>,
    attempts: u32,
}

impl Backoff {
    /// `asked` is what the server asked for. None once waiting would pass the limit.
    pub fn next(&mut self, now: Instant, asked: Option<Duration>) -> Option<Duration> {
        let since = *self.trouble_since.get_or_insert(now);
        let own = FIRST_WAIT.saturating_mul(2u32.saturating_pow(self.attempts)).min(LONGEST_WAIT);
        self.attempts = self.attempts.saturating_add(1);
        let wait = asked.map_or(own, |asked| asked.max(Duration::from_millis(1)));
        (now + wait <= since + GIVE_UP_AFTER).then_some(wait)
    }

    /// Something came: the next trouble is a new one.
    pub fn progressed(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn waits_double_up_to_five_seconds_and_end_within_a_minute() {
        let (mut backoff, start) = (Backoff::default(), Instant::now());
        let (mut now, mut waits) = (start, vec![]);
        while let Some(wait) = backoff.next(now, None) {
            now += wait;
            waits.push(wait.as_millis());
        }
        assert_eq!(waits[..7], [100, 200, 400, 800, 1600, 3200, 5000]);
        assert!(now <= start + GIVE_UP_AFTER && now > start + GIVE_UP_AFTER - LONGEST_WAIT);
    }

    #[test]
    fn the_servers_wish_goes_before_our_own_wait() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(Instant::now(), Some(ms(1234))), Some(ms(1234)));
        assert_eq!(backoff.next(Instant::now(), Some(ms(0))), Some(ms(1)), "but never spins");
    }

    #[test]
    fn a_wish_past_the_limit_is_not_granted() {
        assert_eq!(Backoff::default().next(Instant::now(), Some(ms(60_001))), None);
    }

    #[test]
    fn progress_starts_the_minute_anew() {
        let (mut backoff, now) = (Backoff::default(), Instant::now());
        backoff.next(now, None);
        assert_eq!(backoff.next(now + GIVE_UP_AFTER, None), None);
        backoff.progressed();
        assert_eq!(backoff.next(now + GIVE_UP_AFTER, None), Some(ms(100)));
    }
}
