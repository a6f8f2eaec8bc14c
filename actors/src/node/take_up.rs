//! Open turns that lost their owner: looked for in the shards of this node, and woken here. A task that the node starts,
//! for as long as it lives; it holds nothing that the next views would not bring again.
//!
//! Beside that all shards are read again and again, slowly: a write whose outcome nobody learned may be done when its
//! conversation has been given up and looked at, and a row may be left behind.
//!
//! Does not know who had an open turn: any node may have served it, since an owner that cannot be reached is passed over,
//! and a turn stays where it is when its shard moves. So with each node that is gone all shards are read again, those
//! that were this node's before behind those that it just got.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use klatch_protocol::ids::SHARDS;
use klatch_protocol::{ConversationId, Shard};
use tokio::sync::Semaphore;

use super::{Handle, ROWS_AT_ONCE};
use crate::membership::view::View;
use crate::peers::PeerId;
use crate::request::Request;
use crate::store::{OpenRow, Store, StoreError};

/// Unfinished turns that could not be looked for are looked for again so much later.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// All shards of a node are read once in so long: for one that owns a third of them, six reads a second.
const SWEPT_IN: Duration = Duration::from_secs(60);

/// Which shards are still to be read, as of the newest view.
#[derive(Default)]
struct ToRead {
    view: u64,
    members: BTreeSet<PeerId>,
    /// Names of those that were lost, and are not back.
    lost: BTreeSet<Arc<str>>,
    mine: BTreeSet<Shard>,
    /// Not read since they are this node's.
    gained: BTreeSet<Shard>,
    /// Read before somebody was gone.
    again: BTreeSet<Shard>,
    /// Read last for no reason.
    swept: Option<Shard>,
}

impl ToRead {
    fn view(&mut self, me: &PeerId, view: &View) {
        let mine: BTreeSet<Shard> =
            (0..SHARDS).map(Shard).filter(|shard| view.owner(*shard).as_ref() == Some(me)).collect();
        let members: BTreeSet<PeerId> = view.ids().collect();
        // In a view that was missed a node may have come, served, and gone.
        let missed = view.number() != self.view + 1;
        // Who was only frozen may have taken turns until it noticed that it had been declared dead. It comes back as
        // another life when it has dropped them.
        let is_back = members.iter().filter(|member| self.lost.remove(&member.name)).count() > 0;
        if missed || is_back || !self.members.is_subset(&members) {
            self.again.extend(&mine);
        }
        self.lost.extend(self.members.difference(&members).map(|member| member.name.clone()));
        self.gained.extend(mine.difference(&self.mine));
        self.gained.retain(|shard| mine.contains(shard));
        self.again.retain(|shard| mine.contains(shard) && !self.gained.contains(shard));
        (self.view, self.members, self.mine) = (view.number(), members, mine);
    }

    fn next(&mut self) -> Option<Shard> {
        self.gained.pop_first().or_else(|| self.again.pop_first())
    }

    /// One after the other, for as long as there is nothing else to be read.
    fn sweep(&mut self) -> Option<Shard> {
        let next = self.mine.range(self.swept.map_or(Shard(0), |swept| Shard(swept.0 + 1))..).next();
        self.swept = next.or_else(|| self.mine.first()).copied();
        self.swept
    }

    /// How long to wait for the next of them.
    fn sweep_after(&self) -> Duration {
        SWEPT_IN / self.mine.len().max(1) as u32
    }

    /// It could not be read.
    fn put_back(&mut self, shard: Shard) {
        self.gained.insert(shard);
    }
}

/// Activates every conversation that may have an unfinished turn, so many at a time. A new view counts from the next
/// shard on.
pub async fn take_up(handle: Handle, store: Arc<dyn Store>) {
    let room = Arc::new(Semaphore::new(handle.surroundings.limits.recoveries_at_once));
    let mut view = handle.surroundings.view.clone();
    let (mut to_read, mut is_new) = (ToRead::default(), true);
    loop {
        if is_new {
            to_read.view(&handle.surroundings.me(), &view.borrow_and_update());
        }
        let waited = match to_read.next() {
            None => match tokio::time::timeout(to_read.sweep_after(), view.changed()).await {
                Ok(changed) => changed.map(|()| true),
                Err(_) => {
                    if let Some(shard) = to_read.sweep() {
                        sweep(&handle, &*store, shard).await;
                    }
                    view.has_changed()
                }
            },
            Some(shard) => match take_up_shard(&handle, &*store, shard, &room).await {
                Ok(()) => view.has_changed(),
                Err(error) => {
                    tracing::warn!(shard.id = shard.0, %error, "unfinished turns of a shard could not be read");
                    to_read.put_back(shard);
                    // Again after a while, or with the next view.
                    let changed = tokio::time::timeout(AGAIN_AFTER, view.changed()).await;
                    changed.map_or(Ok(false), |changed| changed.map(|()| true))
                }
            },
        };
        // Nobody tells of views any more: the node has ended.
        let Ok(changed) = waited else { return };
        is_new = changed;
    }
}

async fn take_up_shard(
    handle: &Handle,
    store: &dyn Store,
    shard: Shard,
    room: &Arc<Semaphore>,
) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let rows = store.open(shard, after, ROWS_AT_ONCE).await?;
        let mut before = after.map(|row: OpenRow| row.conversation);
        after = rows.last().copied();
        for OpenRow { conversation, .. } in &rows {
            // Several owners may have left a row each.
            if before.replace(*conversation) != Some(*conversation) {
                wake(handle, *conversation, room).await;
            }
        }
        if rows.len() < ROWS_AT_ONCE {
            return Ok(());
        }
    }
}

/// A shard with more rows than are read at once is far from swept: what it lacks are owners, and they were woken.
async fn sweep(handle: &Handle, store: &dyn Store, shard: Shard) {
    match store.open(shard, None, ROWS_AT_ONCE).await {
        Ok(rows) => rows.iter().for_each(|row| handle.settle(row.conversation)),
        // It comes round again.
        Err(error) => tracing::debug!(shard.id = shard.0, %error, "a shard was not swept"),
    }
}

async fn wake(handle: &Handle, conversation: ConversationId, room: &Arc<Semaphore>) {
    let Ok(permit) = room.clone().acquire_owned().await else { return };
    let handle = handle.clone();
    tokio::spawn(async move {
        if let Err(refusal) = handle.ask(conversation, Request::Wake).await {
            tracing::warn!(conversation.id = %conversation, %refusal, "an unfinished turn waits for its next message");
        }
        drop(permit);
    });
}

#[cfg(test)]
mod tests {
    use klatch_protocol::view::{MemberStatus, Row, ViewTable};

    use super::*;

    fn me() -> PeerId {
        PeerId { name: "a".into(), incarnation: 1 }
    }

    fn view(number: u64, names: &[&str]) -> View {
        let row = Row { incarnation: 1, address: String::new(), status: MemberStatus::Up, format: 1 };
        let rows = names.iter().map(|name| ((*name).to_owned(), row.clone())).collect();
        View::new(&ViewTable { number, rows })
    }

    fn owned(names: &[&str]) -> BTreeSet<Shard> {
        let view = view(1, names);
        (0..SHARDS).map(Shard).filter(|shard| view.owner(*shard) == Some(me())).collect()
    }

    /// Each of `views`, with all that is to be read in it read.
    fn after(views: &[View]) -> ToRead {
        let mut to_read = ToRead::default();
        for view in views {
            to_read.view(&me(), view);
            while to_read.next().is_some() {}
        }
        to_read
    }

    fn rest(to_read: &mut ToRead) -> Vec<Shard> {
        std::iter::from_fn(|| to_read.next()).collect()
    }

    #[test]
    fn when_somebody_is_gone_what_was_gained_comes_first_and_all_else_again() {
        let mut to_read = after(&[view(1, &["a", "b", "c"])]);
        to_read.view(&me(), &view(2, &["a", "b"]));
        let (before, now) = (owned(&["a", "b", "c"]), owned(&["a", "b"]));
        let expected: Vec<Shard> = now.difference(&before).chain(&before).copied().collect();
        assert_eq!(rest(&mut to_read), expected);
    }

    #[test]
    fn who_comes_makes_nothing_to_be_read_again() {
        let mut to_read = after(&[view(1, &["a", "b"])]);
        to_read.view(&me(), &view(2, &["a", "b", "c"]));
        assert_eq!(rest(&mut to_read), []);
    }

    #[test]
    fn who_comes_back_may_have_taken_turns_after_it_was_given_up() {
        let mut to_read = after(&[view(1, &["a", "b"]), view(2, &["a"])]);
        to_read.view(&me(), &view(3, &["a", "b"]));
        assert_eq!(rest(&mut to_read), owned(&["a", "b"]).into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_view_that_was_missed_may_have_had_somebody_who_is_gone() {
        let mut to_read = after(&[view(1, &["a", "b"])]);
        to_read.view(&me(), &view(4, &["a", "b"]));
        assert_eq!(rest(&mut to_read), owned(&["a", "b"]).into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn what_went_and_came_back_is_read_again() {
        let mut to_read = after(&[view(1, &["a"]), view(2, &["a", "b"])]);
        to_read.view(&me(), &view(3, &["a", "b", "c"]));
        to_read.view(&me(), &view(4, &["a", "b"]));
        assert_eq!(rest(&mut to_read).len(), owned(&["a", "b"]).len());
    }

    #[test]
    fn a_shard_that_is_being_read_while_somebody_goes_is_read_again() {
        let mut to_read = after(&[]);
        to_read.view(&me(), &view(1, &["a", "b", "c"]));
        let reading = to_read.next().expect("it has shards");
        to_read.view(&me(), &view(2, &["a", "b"]));
        let rest = rest(&mut to_read);
        assert_eq!(rest.last(), Some(&reading), "behind those that were never read");
        assert_eq!(rest.len(), owned(&["a", "b"]).len());
    }

    #[test]
    fn a_shard_that_could_not_be_read_is_not_forgotten() {
        let mut to_read = after(&[]);
        to_read.view(&me(), &view(1, &["a", "b"]));
        let shard = to_read.next().expect("it has shards");
        to_read.put_back(shard);
        assert_eq!(rest(&mut to_read).len(), owned(&["a", "b"]).len());
    }

    #[test]
    fn all_shards_are_swept_in_turn() {
        let mut to_read = after(&[view(1, &["a", "b"])]);
        let mine = owned(&["a", "b"]);
        let twice: Vec<Shard> = (0..2 * mine.len()).filter_map(|_| to_read.sweep()).collect();
        assert_eq!(twice, mine.iter().chain(&mine).copied().collect::<Vec<_>>());
        assert_eq!(ToRead::default().sweep(), None);
    }

    #[test]
    fn another_life_of_this_node_begins_anew() {
        let mut to_read = after(&[view(1, &["a", "b"])]);
        to_read.view(&me(), &view(1, &[]));
        assert_eq!(rest(&mut to_read), []);
        to_read.view(&me(), &view(2, &["a", "b"]));
        assert_eq!(rest(&mut to_read).len(), owned(&["a", "b"]).len());
    }
}
