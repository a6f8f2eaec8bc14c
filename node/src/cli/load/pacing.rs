//! When turns are due, and which conversation a turn goes to. Pure arithmetic first, then the one thread that keeps an
//! open loop's time: a tokio timer is a millisecond coarse, which would show in every latency.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Until(Duration),
    Turns(u64),
}

/// How soon a pacer notices that it should stop.
const NAP_MAX: Duration = Duration::from_millis(50);

/// How many arrivals are due so long after the start; the first at once.
pub fn due_by(elapsed: Duration, rate: f64) -> u64 {
    (elapsed.as_secs_f64() * rate + 1e-6) as u64 + 1
}

/// When the arrival of this number is due.
pub fn due_at(number: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(number as f64 / rate)
}

pub fn arrivals(limit: Limit, rate: f64) -> u64 {
    match limit {
        Limit::Turns(turns) => turns,
        Limit::Until(duration) => (duration.as_secs_f64() * rate).ceil() as u64,
    }
}

/// Clients of a closed loop share no conversation as long as there are enough; they go round those that are their own.
pub fn conversation_of_client(client: u64, clients: u64, turn: u64, conversations: u64) -> u64 {
    if conversations <= clients {
        return client % conversations;
    }
    let own = (conversations - client).div_ceil(clients);
    client + clients * (turn % own)
}

/// Hands out turns to clients.
pub struct Pace {
    start: Instant,
    limit: Limit,
    open: Option<OpenLoop>,
    handed_out: AtomicU64,
}

struct OpenLoop {
    rate: f64,
    due: Semaphore,
    released: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    /// Within this phase, from 0.
    pub number: u64,
    /// What latency counts from.
    pub due: Instant,
}

impl Pace {
    pub fn new(limit: Limit, rate: Option<f64>) -> Self {
        let open = rate.map(|rate| OpenLoop { rate, due: Semaphore::new(0), released: AtomicU64::new(0) });
        Self { start: Instant::now(), limit, open, handed_out: AtomicU64::new(0) }
    }

    /// None: this client is finished.
    pub async fn next(&self, stopped: &AtomicBool) -> Option<Ticket> {
        if let Some(open) = &self.open {
            open.due.acquire().await.ok()?.forget();
        }
        let over = match self.limit {
            Limit::Until(duration) => self.start.elapsed() >= duration,
            Limit::Turns(_) => false,
        };
        if over || stopped.load(Ordering::Relaxed) {
            return None;
        }
        let last = match (&self.open, self.limit) {
            (Some(open), limit) => arrivals(limit, open.rate),
            (None, Limit::Turns(turns)) => turns,
            (None, Limit::Until(_)) => u64::MAX,
        };
        let handed_out =
            self.handed_out.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < last).then_some(n + 1));
        let number = handed_out.ok()?;
        let due = self.open.as_ref().map_or_else(Instant::now, |open| self.start + due_at(number, open.rate));
        Some(Ticket { number, due })
    }

    /// Blocks its thread until all arrivals of an open loop were released; then every client may see that it is over.
    pub fn keep_time(&self, clients: u32, stopped: &AtomicBool) {
        let Some(open) = &self.open else { return };
        let (all, mut released) = (arrivals(self.limit, open.rate), 0);
        while released < all && !stopped.load(Ordering::Relaxed) {
            let due = due_by(self.start.elapsed(), open.rate).min(all);
            open.due.add_permits((due - released) as usize);
            open.released.store(due, Ordering::Relaxed);
            released = due;
            let next = self.start + due_at(released, open.rate);
            std::thread::sleep(next.saturating_duration_since(Instant::now()).min(NAP_MAX));
        }
        open.due.add_permits(clients as usize);
    }

    /// Arrivals that were due and that no client was free for before the end.
    pub fn not_started(&self) -> u64 {
        let released = self.open.as_ref().map_or(0, |open| open.released.load(Ordering::Relaxed));
        released.saturating_sub(self.handed_out.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_due_evenly_from_the_first_moment() {
        assert_eq!(due_by(Duration::ZERO, 10.0), 1);
        assert_eq!(due_by(Duration::from_millis(99), 10.0), 1);
        for number in 0..10_000 {
            assert_eq!(due_by(due_at(number, 333.0), 333.0), number + 1);
        }
        assert_eq!(arrivals(Limit::Until(Duration::from_secs(2)), 10.0), 20);
        assert_eq!(arrivals(Limit::Until(Duration::from_millis(1)), 0.5), 1);
    }

    #[test]
    fn clients_go_round_conversations_of_their_own_and_miss_none() {
        for (clients, conversations) in [(3, 3), (3, 10), (4, 5), (1, 7)] {
            let mut owners = vec![None; conversations as usize];
            for (client, turn) in (0..clients).flat_map(|client| (0..conversations).map(move |turn| (client, turn))) {
                let at = conversation_of_client(client, clients, turn, conversations) as usize;
                assert_eq!(*owners[at].get_or_insert(client), client);
            }
            assert!(owners.iter().all(Option::is_some), "{clients} {conversations}");
        }
        assert_eq!(conversation_of_client(5, 8, 1, 2), 1, "too few are shared");
    }

    #[tokio::test]
    async fn a_closed_loop_hands_out_so_many_turns_and_stops_when_told() {
        let (pace, stopped) = (Pace::new(Limit::Turns(2), None), AtomicBool::new(false));
        assert_eq!(pace.next(&stopped).await.unwrap().number, 0);
        assert_eq!(pace.next(&stopped).await.unwrap().number, 1);
        assert!(pace.next(&stopped).await.is_none());
        let pace = Pace::new(Limit::Until(Duration::from_secs(60)), None);
        stopped.store(true, Ordering::Relaxed);
        assert!(pace.next(&stopped).await.is_none());
        assert!(Pace::new(Limit::Until(Duration::ZERO), None).next(&AtomicBool::new(false)).await.is_none());
    }

    #[tokio::test]
    async fn an_open_loop_counts_from_when_a_turn_was_due_however_late_it_starts() {
        let (pace, stopped) = (Pace::new(Limit::Turns(3), Some(1e6)), AtomicBool::new(false));
        pace.keep_time(1, &stopped);
        assert_eq!(pace.not_started(), 3);
        for number in 0..3 {
            let ticket = pace.next(&stopped).await.unwrap();
            assert_eq!((ticket.number, ticket.due), (number, pace.start + due_at(number, 1e6)));
        }
        assert!(pace.next(&stopped).await.is_none(), "and the client is let go");
        assert_eq!(pace.not_started(), 0);
    }
}
