//! How far it is, on stderr: a moving line on a terminal, else one line every few seconds, as logs want it; stdout is for the
//! result alone.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use tokio::task::JoinHandle;

use super::drive::Counters;
use super::pacing::Limit;
use super::plan::Plan;

const ON_TERMINAL_EVERY: Duration = Duration::from_millis(200);
const ELSEWHERE_EVERY: Duration = Duration::from_secs(5);

pub struct Progress {
    /// None: stderr is no terminal.
    spinner: Option<ProgressBar>,
}

/// Of something with a known number; shared with what does it.
pub type Done = Arc<AtomicU64>;

/// Tells how far it is, until it is dropped.
pub struct Told(JoinHandle<()>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Progress {
    pub fn start() -> Self {
        Self { spinner: std::io::stderr().is_terminal().then(ProgressBar::new_spinner) }
    }

    /// Something before or after the turns, of which so many are to be done.
    pub fn of(&self, what: &str, all: u64) -> (Done, Told) {
        let (done, what) = (Done::default(), what.to_owned());
        let counted = done.clone();
        tell(self.spinner.as_ref(), &format!("{what}: {all}"));
        let told = self.follow(move |_| format!("{what}: {} of {all}", counted.load(Ordering::Relaxed)));
        (done, told)
    }

    pub fn turns(&self, counters: Arc<Counters>, plan: &Plan) -> Told {
        let (limit, warmup, mut last) = (plan.limit, plan.warmup, (Duration::ZERO, 0));
        self.follow(move |at| {
            let completed = counters.completed.load(Ordering::Relaxed);
            let failed = counters.failed.load(Ordering::Relaxed);
            let rate = (completed - last.1) as f64 / (at - last.0).as_secs_f64();
            last = (at, completed);
            format!("{}, {rate:.0} per second, {failed} failed", so_far(limit, warmup, at, completed))
        })
    }

    fn follow(&self, mut text: impl FnMut(Duration) -> String + Send + 'static) -> Told {
        let (spinner, started) = (self.spinner.clone(), Instant::now());
        let every = if spinner.is_some() { ON_TERMINAL_EVERY } else { ELSEWHERE_EVERY };
        Told(tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                tell(spinner.as_ref(), &text(started.elapsed()));
            }
        }))
    }

    /// Leaves nothing on a terminal.
    pub fn end(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

fn tell(spinner: Option<&ProgressBar>, text: &str) {
    match spinner {
        Some(spinner) => {
            spinner.set_message(text.to_owned());
            spinner.tick();
        }
        None => eprintln!("klatch load: {text}"),
    }
}

fn so_far(limit: Limit, warmup: Duration, at: Duration, completed: u64) -> String {
    let seconds = at.as_secs();
    match limit {
        Limit::Until(duration) => format!("{seconds} of {} s: {completed} turns", (warmup + duration).as_secs()),
        Limit::Turns(turns) if warmup.is_zero() => format!("{completed} of {turns} turns in {seconds} s"),
        Limit::Turns(turns) => format!("{completed} turns in {seconds} s, {turns} to be measured"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_told_beside_what_is_to_be_done() {
        let at = Duration::from_millis(3_900);
        let so_far = |limit, warmup| super::so_far(limit, Duration::from_secs(warmup), at, 40);
        assert_eq!(so_far(Limit::Until(Duration::from_secs(10)), 2), "3 of 12 s: 40 turns");
        assert_eq!(so_far(Limit::Turns(100), 0), "40 of 100 turns in 3 s");
        assert_eq!(so_far(Limit::Turns(100), 2), "40 turns in 3 s, 100 to be measured");
    }
}
