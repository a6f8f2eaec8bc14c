//! How the nodes of a world reach one another: through a switchboard that delays, loses and doubles what is said, and by
//! which any two can be cut apart, in one direction or both.
//!
//! Keeps the promises of the boundary: what was not sent is told apart from what was not answered, and a peer that is
//! lost ends what waits for it. Only what may be repeated is doubled: the connection beneath repeats nothing by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use klatch_actors::gateway::forward::ToPeer;
use klatch_actors::peers::{PeerAddress, PeerError, PeerId, Peers, Serve};
use klatch_protocol::envelope;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::dice::Dice;
use crate::line::{Dead, Line};
use crate::planted;
use crate::shared::{Shared, lock};

/// A peer that is cut off is noticed after this.
const NOTICED_AFTER: Duration = Duration::from_secs(3);

pub struct Board {
    dice: Dice,
    seats: Mutex<BTreeMap<PeerId, Seat>>,
    /// Who does not reach whom, by names, and since when.
    cut: watch::Sender<BTreeMap<(String, String), Instant>>,
}

#[derive(Clone)]
struct Seat {
    serve: Arc<dyn Serve>,
    line: Arc<Line>,
    /// Ends with the seat.
    here: Arc<watch::Sender<()>>,
}

pub struct SimulatedPeers {
    pub shared: Arc<Shared>,
    pub board: Arc<Board>,
    pub line: Arc<Line>,
    pub me: Arc<Mutex<PeerId>>,
}

impl Board {
    pub fn new(dice: Dice) -> Self {
        Self { dice, seats: Mutex::default(), cut: watch::Sender::default() }
    }

    pub fn connect(&self, id: PeerId, line: Arc<Line>, serve: Arc<dyn Serve>) {
        lock(&self.seats).insert(id, Seat { serve, line, here: Arc::new(watch::channel(()).0) });
    }

    /// The node is gone: its port refuses, and what waits for it ends.
    pub fn disconnect(&self, name: &str) {
        lock(&self.seats).retain(|id, _| *id.name != *name);
    }

    /// From now on `one` does not reach `other`.
    pub fn cut(&self, one: &str, other: &str) {
        self.cut.send_modify(|cut| {
            cut.entry((one.into(), other.into())).or_insert_with(Instant::now);
        });
    }

    pub fn mend(&self, one: &str, other: &str) {
        self.cut.send_modify(|cut| {
            cut.remove(&(one.into(), other.into()));
        });
    }

    fn is_cut(&self, one: &str, other: &str) -> bool {
        self.cut.borrow().contains_key(&(one.to_owned(), other.to_owned()))
    }

    /// What is sent while the two are cut apart is sent again, until they are not: a connection loses nothing by itself.
    async fn passes(&self, one: &str, other: &str) {
        let way = (one.to_owned(), other.to_owned());
        // The sender is `self`, which lives.
        let _ = self.cut.subscribe().wait_for(|cut| !cut.contains_key(&way)).await;
    }

    /// Whether a connection between the two would be given up by now.
    fn is_noticed(&self, one: &str, other: &str) -> bool {
        let cut = self.cut.borrow();
        let ways = [(one.to_owned(), other.to_owned()), (other.to_owned(), one.to_owned())];
        ways.iter().filter_map(|way| cut.get(way)).any(|since| since.elapsed() >= NOTICED_AFTER)
    }

    /// Ends when the two have been cut apart for long enough.
    async fn noticed(&self, one: &str, other: &str) {
        let mut cut = self.cut.subscribe();
        while !self.is_noticed(one, other) {
            // With a cut there is something to wait for; without one a change has to come first.
            let is_cut = self.is_cut(one, other) || self.is_cut(other, one);
            let again = if is_cut { NOTICED_AFTER } else { Duration::from_secs(86_400) };
            // A time that is over and a change are looked at alike.
            let _ = tokio::time::timeout(again, cut.changed()).await;
        }
    }

    fn seat(&self, id: &PeerId) -> Option<Seat> {
        lock(&self.seats).get(id).cloned()
    }
}

/// Whether the connection beneath may be imagined to have said it twice.
fn is_repeatable(request: &[u8]) -> bool {
    match envelope::open::<ToPeer>(request) {
        Ok(ToPeer::Ask(forwarded)) => forwarded.request.is_repeatable(),
        Ok(ToPeer::Load | ToPeer::Spent(_)) | Err(_) => true,
    }
}

async fn ask(
    shared: Arc<Shared>,
    board: Arc<Board>,
    (me, line): (PeerId, Arc<Line>),
    to: PeerId,
    request: Vec<u8>,
) -> Result<Vec<u8>, PeerError> {
    let dead = |Dead| PeerError::NotSent("this node is dead");
    line.pass().await.map_err(dead)?;
    let request = planted::passed_on(shared.planted, request);
    if planted::is_forgotten(shared.planted, &request) {
        return std::future::pending().await;
    }
    let (faults, dice) = (shared.faults().peers, board.dice.clone());
    if board.is_noticed(&me.name, &to.name) {
        return Err(PeerError::NotSent("it is cut off"));
    }
    let Some(Seat { serve, line: its_line, here }) = board.seat(&to) else {
        return Err(PeerError::NotSent("it is gone"));
    };
    let mut lost = here.subscribe();
    drop(here);
    shared.count("forwards");
    let late = if dice.permille(faults.late) { dice.secs(0, 3) } else { Duration::ZERO };
    let (there, back) = (dice.up_to(faults.latency) + late, dice.up_to(faults.latency));
    let (is_doubled, is_lost) = (dice.permille(faults.doubled) && is_repeatable(&request), dice.permille(faults.lost));
    let again = dice.up_to(Duration::from_secs(2));
    let answered = async {
        let (from, to_name, away) = (me.clone(), to.name.clone(), board.clone());
        // In a task of its own: who asked may give up, and it is served all the same.
        let served = tokio::spawn(async move {
            sleep(there).await;
            away.passes(&from.name, &to_name).await;
            if its_line.pass().await.is_err() {
                return None;
            }
            if is_doubled {
                let (serve, from, request) = (serve.clone(), from.clone(), request.clone());
                tokio::spawn(async move {
                    sleep(again).await;
                    // Its answer is nobody's.
                    drop(serve.serve(from, request).await);
                });
            }
            let answer = serve.serve(from.clone(), request).await;
            let is_alive = its_line.pass().await.is_ok();
            away.passes(&to_name, &from.name).await;
            is_alive.then_some(answer)
        });
        let Some(answer) = served.await.map_err(|_| PeerError::NoAnswer("it failed"))? else {
            // Until it is noticed that nothing comes.
            return std::future::pending().await;
        };
        sleep(back).await;
        if is_lost {
            shared.count("answers of peers lost");
            return Err(PeerError::NoAnswer("simulated"));
        }
        Ok(answer)
    };
    let gone = async { while lost.changed().await.is_ok() {} };
    let answer = tokio::select! {
        biased;
        () = gone => Err(PeerError::NoAnswer("it was lost")),
        () = board.noticed(&me.name, &to.name) => Err(PeerError::NoAnswer("it was cut off")),
        answer = answered => answer,
    };
    line.pass().await.map_err(dead)?;
    answer
}

impl Peers for SimulatedPeers {
    fn keep(&self, _: Vec<PeerAddress>) {}

    fn reborn(&self, incarnation: u64) {
        let mut me = lock(&self.me);
        let mut seats = lock(&self.board.seats);
        let seat = seats.remove(&me);
        me.incarnation = incarnation;
        if let Some(Seat { serve, line, .. }) = seat {
            seats.insert(me.clone(), Seat { serve, line, here: Arc::new(watch::channel(()).0) });
        }
    }

    fn refuses(&self, peer: &PeerAddress) -> BoxFuture<'static, bool> {
        let me = lock(&self.me).name.clone();
        let is_cut = self.board.is_cut(&me, &peer.id.name) || self.board.is_cut(&peer.id.name, &me);
        let refuses = !is_cut && !lock(&self.board.seats).keys().any(|id| id.name == peer.id.name);
        Box::pin(std::future::ready(refuses))
    }

    fn reaches(&self, peer: &PeerId) -> bool {
        self.line.may_panic();
        let me = lock(&self.me).name.clone();
        !self.board.is_noticed(&me, &peer.name) && self.board.seat(peer).is_some()
    }

    fn ask(&self, to: PeerId, request: Vec<u8>, deadline: Duration) -> BoxFuture<'static, Result<Vec<u8>, PeerError>> {
        let me = (lock(&self.me).clone(), self.line.clone());
        let asked = ask(self.shared.clone(), self.board.clone(), me, to, request);
        Box::pin(async move {
            let answer = tokio::time::timeout(deadline, asked).await;
            answer.unwrap_or(Err(PeerError::NoAnswer("it took too long")))
        })
    }
}
