//! How far it is, on stderr: a moving line on a terminal, else one line every few seconds, as logs want it.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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

impl Progress {
    pub fn start() -> Self {
        Self { spinner: std::io::stderr().is_terminal().then(ProgressBar::new_spinner) }
    }

    pub fn say(&self, text: &str) {
        match &self.spinner {
            Some(spinner) => spinner.set_message(text.to_owned()),
            None => eprintln!("klatch load: {text}"),
        }
    }

    /// Tells until it is aborted.
    pub fn follow(&self, counters: Arc<Counters>, plan: &Plan) -> JoinHandle<()> {
        let (spinner, started, aim) = (self.spinner.clone(), Instant::now(), aim(plan));
        let every = if spinner.is_some() { ON_TERMINAL_EVERY } else { ELSEWHERE_EVERY };
        tokio::spawn(async move {
            let mut last = 0;
            loop {
                tokio::time::sleep(every).await;
                let completed = counters.completed.load(Ordering::Relaxed);
                let failed = counters.failed.load(Ordering::Relaxed);
                let rate = (completed - last) as f64 / every.as_secs_f64();
                last = completed;
                let at = started.elapsed().as_secs();
                let text = format!("{at} s of {aim}: {completed} turns, {rate:.0} per second, {failed} failed");
                match &spinner {
                    Some(spinner) => {
                        spinner.set_message(text);
                        spinner.tick();
                    }
                    None => eprintln!("klatch load: {text}"),
                }
            }
        })
    }

    pub fn end(&self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}

fn aim(plan: &Plan) -> String {
    match plan.limit {
        Limit::Until(duration) => format!("{} s", (plan.warmup + duration).as_secs()),
        Limit::Turns(turns) => format!("{turns} turns"),
    }
}
