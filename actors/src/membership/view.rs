//! The view as this node routes by it, and placement: a pure function of (view, shard). Nobody coordinates: two nodes
//! with the same view agree.

use std::collections::BTreeMap;
use std::sync::Arc;

use klatch_protocol::Shard;
use klatch_protocol::view::{MemberStatus, Row, ViewTable};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::peers::{PeerAddress, PeerId};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Rises with every change.
    pub number: u64,
    /// The newest envelope format that all members read; 0 where there are none.
    pub format: u8,
    /// By name.
    pub members: BTreeMap<Arc<str>, Member>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub incarnation: u64,
    pub status: MemberStatus,
    pub address: String,
}

impl View {
    pub fn new(table: &ViewTable) -> Self {
        let member = |(name, row): (&String, &Row)| {
            let Row { incarnation, status, address, .. } = row.clone();
            (Arc::from(name.as_str()), Member { incarnation, status, address })
        };
        let format = table.rows.values().map(|row| row.format).min().unwrap_or_default();
        Self { number: table.number, format, members: table.rows.iter().map(member).collect() }
    }

    /// Who should own the shard: by rendezvous hashing, so that a change of members moves only what it must. While no
    /// node is up, one that gives everything away: there is nobody to give it to. None where there is none either.
    pub fn owner(&self, shard: Shard) -> Option<PeerId> {
        self.owner_of(shard, MemberStatus::Up).or_else(|| self.owner_of(shard, MemberStatus::Leaving))
    }

    fn owner_of(&self, shard: Shard, status: MemberStatus) -> Option<PeerId> {
        let able = self.members.iter().filter(|(_, member)| member.status == status);
        let (name, member) =
            able.max_by_key(|(name, _)| (xxh3_64_with_seed(name.as_bytes(), u64::from(shard.0)), *name))?;
        Some(PeerId { name: name.clone(), incarnation: member.incarnation })
    }

    /// Whether this life of the node is in the view, whatever it does.
    pub fn has(&self, node: &PeerId) -> bool {
        self.members.get(&node.name).is_some_and(|member| member.incarnation == node.incarnation)
    }

    pub fn status(&self, node: &PeerId) -> Option<MemberStatus> {
        self.members.get(&node.name).filter(|member| member.incarnation == node.incarnation).map(|member| member.status)
    }

    pub fn ids(&self) -> impl Iterator<Item = PeerId> {
        let id = |(name, member): (&Arc<str>, &Member)| PeerId { name: name.clone(), incarnation: member.incarnation };
        self.members.iter().map(id)
    }

    /// All members but this one.
    pub fn peers(&self, me: &str) -> Vec<PeerAddress> {
        let others = self.members.iter().filter(|(name, _)| &***name != me);
        others
            .map(|(name, member)| PeerAddress {
                id: PeerId { name: name.clone(), incarnation: member.incarnation },
                address: member.address.clone(),
            })
            .collect()
    }
}

/// Where the node of this row is reached.
pub fn address(name: &str, row: &Row) -> PeerAddress {
    PeerAddress { id: PeerId { name: name.into(), incarnation: row.incarnation }, address: row.address.clone() }
}

#[cfg(test)]
mod tests {
    use klatch_protocol::ids::SHARDS;

    use super::*;

    fn view(names: &[&str]) -> View {
        let up = Row { incarnation: 1, address: String::new(), status: MemberStatus::Up, format: 1 };
        let rows = names.iter().map(|name| (String::from(*name), up.clone())).collect();
        View::new(&ViewTable { number: 1, rows })
    }

    #[test]
    fn a_node_that_leaves_moves_only_its_own_shards() {
        let (three, two) = (view(&["a", "b", "c"]), view(&["a", "b"]));
        for shard in (0..SHARDS).map(Shard) {
            if three.owner(shard).is_some_and(|owner| &*owner.name != "c") {
                assert_eq!(three.owner(shard), two.owner(shard));
            }
        }
    }

    #[test]
    fn nothing_newer_is_written_than_what_all_members_read() {
        let row = |format| Row { incarnation: 1, address: String::new(), status: MemberStatus::Up, format };
        let rows = [("a".to_owned(), row(2)), ("b".to_owned(), row(1))].into();
        assert_eq!(View::new(&ViewTable { number: 1, rows }).format, 1);
        assert_eq!(View::default().format, 0);
    }

    #[test]
    fn shards_are_spread_evenly() {
        let view = view(&["klatch-0", "klatch-1", "klatch-2"]);
        for name in view.members.keys() {
            let owned = (0..SHARDS).filter(|shard| view.owner(Shard(*shard)).is_some_and(|owner| owner.name == *name));
            let owned = owned.count();
            assert!((280..=400).contains(&owned), "{name} owns {owned} of {SHARDS}");
        }
    }

    #[test]
    fn who_leaves_or_is_not_there_yet_owns_nothing_while_anybody_is_up() {
        let owned_by_a = |view: &View| {
            (0..SHARDS).filter(|shard| view.owner(Shard(*shard)).is_some_and(|owner| &*owner.name == "a")).count()
        };
        for status in [MemberStatus::Joining, MemberStatus::Leaving] {
            let mut view = view(&["a", "b"]);
            view.members.get_mut("a").expect("it is there").status = status;
            assert_eq!(owned_by_a(&view), 0);
        }
        let mut alone = view(&["a"]);
        alone.members.get_mut("a").expect("it is there").status = MemberStatus::Leaving;
        assert_eq!(owned_by_a(&alone), usize::from(SHARDS), "there is nobody to give it to");
        alone.members.get_mut("a").expect("it is there").status = MemberStatus::Joining;
        assert_eq!(owned_by_a(&alone), 0);
    }
}
