//! What connects one life of one node with all that is outside of it: open, frozen, or dead for ever.
//!
//! A process cannot be stopped by halves, so a frozen node is one that is cut from everything for a while: what it sent
//! before arrives, what it sends meanwhile waits, and so does what is sent to it. A dead node hears nothing any more,
//! and nothing of it is heard: what is left of its tasks comes to an error at its next step, and ends.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::sync::watch;

use crate::responder::PANIC;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Open,
    Frozen,
    Dead,
}

/// Nothing reaches a dead node, and what is left of it reaches nothing.
#[derive(Clone, Copy, Debug)]
pub struct Dead;

pub struct Line {
    flow: watch::Sender<Flow>,
    pub store_is_cut: AtomicBool,
    pub views_are_cut: AtomicBool,
    /// The next handler of the node that looks at its peers panics.
    pub is_to_panic: AtomicBool,
    pub has_panicked: AtomicBool,
    /// Of its wall clock, in ms, from that of the world.
    pub clock_is_off_by_ms: AtomicI64,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            flow: watch::channel(Flow::Open).0,
            store_is_cut: AtomicBool::new(false),
            views_are_cut: AtomicBool::new(false),
            is_to_panic: AtomicBool::new(false),
            has_panicked: AtomicBool::new(false),
            clock_is_off_by_ms: AtomicI64::new(0),
        }
    }
}

impl Line {
    /// Dead ones stay dead.
    pub fn set(&self, flow: Flow) {
        self.flow.send_if_modified(|now| {
            let changes = *now != Flow::Dead && *now != flow;
            if changes {
                *now = flow;
            }
            changes
        });
    }

    /// In whichever handler of the node comes to it first.
    pub fn may_panic(&self) {
        if self.is_to_panic.swap(false, Ordering::SeqCst) {
            self.has_panicked.store(true, Ordering::SeqCst);
            panic!("{PANIC}");
        }
    }

    pub fn is_dead(&self) -> bool {
        *self.flow.borrow() == Flow::Dead
    }

    /// Ends as soon as the line is open, or the node is dead.
    pub async fn pass(&self) -> Result<(), Dead> {
        let mut flow = self.flow.subscribe();
        let opened = flow.wait_for(|flow| *flow != Flow::Frozen).await.is_ok_and(|flow| *flow == Flow::Open);
        if opened { Ok(()) } else { Err(Dead) }
    }
}
