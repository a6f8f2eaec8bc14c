//! What connects one life of one node with all that is outside of it: open, frozen, or dead for ever.
//!
//! A process cannot be stopped by halves, so a frozen node is one that is cut from everything for a while: what it sent
//! before arrives, what it sends meanwhile waits, and so does what is sent to it. A dead node hears nothing any more,
//! and nothing of it is heard, whatever of its tasks is still there.

use std::sync::atomic::AtomicBool;

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Open,
    Frozen,
    Dead,
}

pub struct Line {
    flow: watch::Sender<Flow>,
    pub store_is_cut: AtomicBool,
    pub views_are_cut: AtomicBool,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            flow: watch::channel(Flow::Open).0,
            store_is_cut: AtomicBool::new(false),
            views_are_cut: AtomicBool::new(false),
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

    pub fn is_dead(&self) -> bool {
        *self.flow.borrow() == Flow::Dead
    }

    /// Ends as soon as the line is open; never, where the node is dead.
    pub async fn pass(&self) {
        let mut flow = self.flow.subscribe();
        let opened = flow.wait_for(|flow| *flow != Flow::Frozen).await.is_ok_and(|flow| *flow == Flow::Open);
        if !opened {
            std::future::pending::<()>().await;
        }
    }
}
