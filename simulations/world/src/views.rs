//! The table of nodes as one life of one node reaches it: late, sometimes not, and sometimes without saying what it did.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::BoxFuture;
use klatch_actors::membership::views::memory::MemoryViews;
use klatch_actors::membership::views::{Beat, Viewed, Views, ViewsError};
use klatch_protocol::view::{Row, ViewTable};
use tokio::time::sleep;

use crate::dice::Dice;
use crate::line::Line;
use crate::shared::Shared;

pub struct SimulatedViews {
    pub shared: Arc<Shared>,
    pub dice: Dice,
    pub table: Arc<MemoryViews>,
    pub line: Arc<Line>,
}

impl SimulatedViews {
    fn ask<T: Send + 'static>(
        &self,
        operation: impl FnOnce(Arc<MemoryViews>) -> BoxFuture<'static, Result<T, ViewsError>> + Send + 'static,
    ) -> Viewed<'_, T> {
        Box::pin(async move {
            self.line.pass().await;
            let (faults, dice) = (self.shared.faults().views, &self.dice);
            let (there, back) = (dice.up_to(faults.latency), dice.up_to(faults.latency));
            let is_cut = || self.line.views_are_cut.load(Ordering::SeqCst);
            sleep(there).await;
            if is_cut() || dice.permille(faults.refused) {
                self.shared.count("table refusals");
                return Err(ViewsError("simulated".into()));
            }
            let answer = operation(self.table.clone()).await;
            sleep(back).await;
            self.line.pass().await;
            if is_cut() || dice.permille(faults.lost) {
                return Err(ViewsError("the answer is lost (simulated)".into()));
            }
            answer
        })
    }
}

impl Views for SimulatedViews {
    fn join(&self, name: String, row: Row) -> Viewed<'_, bool> {
        self.ask(move |table| Box::pin(async move { table.join(name, row).await }))
    }

    fn beat(&self, name: String, incarnation: u64) -> Viewed<'_, Option<Beat>> {
        self.ask(move |table| Box::pin(async move { table.beat(name, incarnation).await }))
    }

    fn set(&self, name: String, row: Row) -> Viewed<'_, bool> {
        self.ask(move |table| Box::pin(async move { table.set(name, row).await }))
    }

    fn bury(&self, name: String, incarnation: u64, counter: u64, number: u64) -> Viewed<'_, bool> {
        self.ask(move |table| Box::pin(async move { table.bury(name, incarnation, counter, number).await }))
    }

    fn leave(&self, name: String, incarnation: u64) -> Viewed<'_, ()> {
        self.ask(move |table| Box::pin(async move { table.leave(name, incarnation).await }))
    }

    fn read(&self) -> Viewed<'_, ViewTable> {
        self.ask(move |table| Box::pin(async move { table.read().await }))
    }
}
