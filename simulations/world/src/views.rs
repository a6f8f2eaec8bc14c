//! The table of nodes as one life of one node reaches it: late, sometimes not, and sometimes without saying what it did.

use std::sync::atomic::Ordering;

use klatch_actors::membership::views::{Beat, Still, Viewed, Views, ViewsError};
use klatch_protocol::view::{Row, ViewTable};
use tokio::time::sleep;

use crate::line::Dead;
use crate::redis::{Held, Write, Written};
use crate::store::SimulatedStore;

pub struct SimulatedViews {
    /// The same server, over the same connection.
    pub store: SimulatedStore,
}

/// As one server sees it; it cannot fail by itself.
type Asked<'a, T> = futures::future::BoxFuture<'a, Result<T, ViewsError>>;

fn failed(why: impl ToString) -> ViewsError {
    ViewsError(why.to_string())
}

impl SimulatedViews {
    /// There and back, in the term in which it was sent.
    fn ask<T: Send + 'static>(
        &self,
        asked: impl FnOnce(SimulatedStore, u64) -> Asked<'static, T> + Send + 'static,
    ) -> Viewed<'_, T> {
        Box::pin(async move {
            let SimulatedStore { shared, dice, redis, line, .. } = &self.store;
            line.pass().await.map_err(|Dead| failed("this node is dead (simulated)"))?;
            let faults = shared.faults().views;
            let (there, back) = (dice.up_to(faults.latency), dice.up_to(faults.latency));
            let is_cut = || line.views_are_cut.load(Ordering::SeqCst);
            let term = redis.progress().borrow().term;
            sleep(there).await;
            if is_cut() || dice.permille(faults.refused) {
                shared.count("table refusals");
                return Err(failed("simulated"));
            }
            self.store.is_there(term).map_err(failed)?;
            // In a task of its own: who asked may give up, and it is done all the same.
            let answer = tokio::spawn(asked(self.store.clone(), term)).await.map_err(failed)?;
            sleep(back).await;
            line.pass().await.map_err(|Dead| failed("this node is dead (simulated)"))?;
            if is_cut() || dice.permille(faults.lost) {
                return Err(failed("the answer is lost (simulated)"));
            }
            answer
        })
    }

    fn write(&self, write: Write) -> Viewed<'_, Written> {
        self.ask(move |store, term| Box::pin(async move { store.arrived(term, write).await.map_err(failed) }))
    }

    fn whether(&self, write: Write) -> Viewed<'_, bool> {
        Box::pin(async move { Ok(matches!(self.write(write).await?, Written::Whether(true))) })
    }
}

impl Views for SimulatedViews {
    fn join(&self, name: String, row: Row) -> Viewed<'_, bool> {
        self.whether(Write::Join(name, row))
    }

    /// Waits for no replica, since a heartbeat is no loss.
    fn beat(&self, name: String, incarnation: u64) -> Viewed<'_, Option<Beat>> {
        self.ask(move |store, term| {
            Box::pin(async move {
                let (written, _) = store.redis.write(Write::Beat(name, incarnation));
                match written.map_err(failed)? {
                    Written::Beat(beat) => Ok(beat.map(|beat| Beat { generation: term, ..beat })),
                    Written::Done | Written::Whether(_) => Err(failed("a beat is answered otherwise")),
                }
            })
        })
    }

    fn set(&self, name: String, row: Row) -> Viewed<'_, bool> {
        self.whether(Write::Set(name, row))
    }

    fn bury(&self, still: Vec<Still>, number: u64) -> Viewed<'_, bool> {
        self.whether(Write::Bury(still, number))
    }

    fn leave(&self, name: String, incarnation: u64) -> Viewed<'_, ()> {
        Box::pin(async move { self.write(Write::Leave(name, incarnation)).await.map(drop) })
    }

    fn read(&self) -> Viewed<'_, ViewTable> {
        self.ask(|store, term| {
            Box::pin(async move {
                let (Held { views, .. }, upto) = store.redis.read();
                let table = views.read().await?;
                store.kept(term, upto).await.map_err(failed)?;
                Ok(store.redis.shown(table))
            })
        })
    }
}
