//! What waits for the batcher, and what it is committing: under one lock, so that whoever finds the batcher stuck can
//! answer for it.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use klatch_actors::store::StoreError;
use tokio::sync::oneshot;

use super::batcher::Change;

/// Writes waiting at most: some seconds' work of a slow disk; who waits behind more has given up.
pub const WAITING_MAX: usize = 8_192;
/// Their bytes at most, so that large requests cannot fill the memory. One larger than this is taken when alone.
pub const WAITING_BYTES_MAX: usize = 256 << 20;

/// Answers one write; for a record's compare-and-set, whether it was written.
pub type Ack = oneshot::Sender<Result<bool, StoreError>>;

pub struct Job {
    pub change: Change,
    pub bytes: usize,
    pub ack: Ack,
}

#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    /// For the batcher alone, so that a write wakes one thread.
    filled: Condvar,
    closed: Condvar,
}

#[derive(Default)]
struct State {
    phase: Phase,
    waiting: Vec<Job>,
    waiting_bytes: usize,
    committing: Vec<Ack>,
    since: Option<Instant>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Open,
    /// Nothing is taken until the batcher has opened the files again.
    Down(String),
    Closed,
}

impl Queue {
    pub fn push(&self, job: Job) -> Result<(), StoreError> {
        let mut state = self.lock();
        match &state.phase {
            Phase::Open => {}
            Phase::Down(why) => return Err(StoreError::Unavailable(why.clone())),
            Phase::Closed => return Err(StoreError::Unavailable("the store is closed".to_owned())),
        }
        let full = state.waiting.len() >= WAITING_MAX || state.waiting_bytes + job.bytes > WAITING_BYTES_MAX;
        if full && !state.waiting.is_empty() {
            return Err(StoreError::Unavailable("too many writes wait for the disk".to_owned()));
        }
        state.waiting_bytes += job.bytes;
        state.waiting.push(job);
        if state.waiting.len() == 1 && state.since.is_none() {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Waits for writes and takes all there are, leaving the given empty list in their place; none once it is closed
    /// and all are taken.
    pub fn take(&self, empty: Vec<Job>) -> Option<Vec<Job>> {
        let mut state = self.lock();
        loop {
            if !state.waiting.is_empty() {
                state.waiting_bytes = 0;
                return Some(mem::replace(&mut state.waiting, empty));
            }
            if state.phase == Phase::Closed {
                return None;
            }
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The batcher goes to the disk for these, and may not come back.
    pub fn begin_commit(&self, acks: Vec<Ack>) {
        let mut state = self.lock();
        state.committing = acks;
        state.since = Some(Instant::now());
    }

    /// It came back: those nobody answered meanwhile.
    pub fn end_commit(&self) -> Vec<Ack> {
        let mut state = self.lock();
        state.since = None;
        mem::take(&mut state.committing)
    }

    /// Answers for a batcher that has not come back for so long, and takes nothing more; says whether it did.
    pub fn give_up(&self, stuck_for: Duration) -> bool {
        let mut state = self.lock();
        if state.since.is_none_or(|since| since.elapsed() < stuck_for) || state.committing.is_empty() {
            return false;
        }
        let why = format!("the disk has not answered for {} s", stuck_for.as_secs());
        answer(mem::take(&mut state.committing), &StoreError::Unknown(why.clone()));
        self.down(&mut state, why);
        true
    }

    pub fn set_down(&self, why: String) {
        self.down(&mut self.lock(), why);
    }

    pub fn set_open(&self) {
        let mut state = self.lock();
        if state.phase != Phase::Closed {
            state.phase = Phase::Open;
        }
    }

    pub fn close(&self) {
        self.lock().phase = Phase::Closed;
        self.filled.notify_one();
        self.closed.notify_all();
    }

    /// Waits so long, or until it is closed; says whether it is.
    pub fn closed_within(&self, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        let mut state = self.lock();
        while state.phase != Phase::Closed {
            let Some(left) = end.checked_duration_since(Instant::now()) else { return false };
            state = self.closed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn down(&self, state: &mut State, why: String) {
        let waiting = mem::take(&mut state.waiting).into_iter().map(|job| job.ack).collect();
        state.waiting_bytes = 0;
        answer(waiting, &StoreError::Unavailable(why.clone()));
        if state.phase != Phase::Closed {
            state.phase = Phase::Down(why);
        }
    }

    /// No operation leaves the state half changed, so a panic elsewhere poisons nothing.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who no longer waits is not told.
pub fn answer(acks: Vec<Ack>, error: &StoreError) {
    for ack in acks {
        let _ = ack.send(Err(error.clone()));
    }
}

#[cfg(test)]
mod tests {
    use klatch_actors::store::OpenRow;
    use klatch_protocol::{ConversationId, Shard};

    use super::super::keys;
    use super::*;

    fn job(bytes: usize) -> (Job, oneshot::Receiver<Result<bool, StoreError>>) {
        let (ack, answer) = oneshot::channel();
        let change = Change::Row {
            key: keys::open_row(Shard(0), OpenRow { conversation: ConversationId([0; 16]), epoch: 1 }),
            add: true,
        };
        (Job { change, bytes, ack }, answer)
    }

    #[test]
    fn it_takes_no_more_writes_than_its_maximum() {
        let queue = Queue::default();
        for _ in 0..WAITING_MAX {
            assert_eq!(queue.push(job(1).0), Ok(()));
        }
        assert!(matches!(queue.push(job(1).0), Err(StoreError::Unavailable(_))));
        assert_eq!(queue.take(Vec::new()).map(|jobs| jobs.len()), Some(WAITING_MAX));
        assert_eq!(queue.push(job(1).0), Ok(()));
    }

    #[test]
    fn it_takes_no_more_bytes_than_its_maximum_but_one_large_write_alone() {
        let queue = Queue::default();
        assert_eq!(queue.push(job(WAITING_BYTES_MAX + 1).0), Ok(()));
        assert!(matches!(queue.push(job(1).0), Err(StoreError::Unavailable(_))));
        assert!(queue.take(Vec::new()).is_some());
        assert_eq!(queue.push(job(WAITING_BYTES_MAX).0), Ok(()));
        assert!(matches!(queue.push(job(1).0), Err(StoreError::Unavailable(_))));
    }

    #[test]
    fn who_waits_for_a_stuck_batcher_is_answered_for_it() {
        let queue = Queue::default();
        let ((written, mut unknown), (waiting, mut refused)) = (job(1), job(1));
        queue.begin_commit(vec![written.ack]);
        assert_eq!(queue.push(waiting), Ok(()));
        assert!(!queue.give_up(Duration::from_secs(60)), "a batcher was given up too early");
        assert!(queue.give_up(Duration::ZERO));
        assert!(matches!(unknown.try_recv(), Ok(Err(StoreError::Unknown(_)))));
        assert!(matches!(refused.try_recv(), Ok(Err(StoreError::Unavailable(_)))));
        assert!(matches!(queue.push(job(1).0), Err(StoreError::Unavailable(_))));
        assert!(queue.end_commit().is_empty(), "a write was answered twice");
        queue.set_open();
        assert_eq!(queue.push(job(1).0), Ok(()));
    }

    #[test]
    fn what_waits_when_it_closes_is_still_taken() {
        let queue = Queue::default();
        assert_eq!(queue.push(job(1).0), Ok(()));
        queue.close();
        assert!(queue.push(job(1).0).is_err());
        assert_eq!(queue.take(Vec::new()).map(|jobs| jobs.len()), Some(1));
        assert!(queue.take(Vec::new()).is_none());
        assert!(queue.closed_within(Duration::ZERO));
    }
}
