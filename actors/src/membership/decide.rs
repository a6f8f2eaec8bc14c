//! The view: which nodes there are, numbered; and placement, a pure function of (view, shard). Nobody coordinates: two
//! nodes with the same view agree.

use std::collections::BTreeMap;

use klatch_protocol::Shard;
use xxhash_rust::xxh3::xxh3_64_with_seed;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Rises with every change.
    pub number: u64,
    /// By name.
    pub members: BTreeMap<String, Member>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Of this life of the node: a restart is another member of the same name.
    pub incarnation: u64,
    pub status: Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Joining,
    Up,
    Leaving,
}

impl View {
    /// Who should own the shard: by rendezvous hashing, so that a change of members moves only what it must. None where
    /// no node is up.
    pub fn owner(&self, shard: Shard) -> Option<&str> {
        let up = self.members.iter().filter(|(_, member)| member.status == Status::Up).map(|(name, _)| name);
        up.max_by_key(|name| (xxh3_64_with_seed(name.as_bytes(), u64::from(shard.0)), *name)).map(String::as_str)
    }

    /// The view after this node has got another status.
    pub fn with(&self, name: &str, member: Member) -> View {
        let mut members = self.members.clone();
        if members.insert(name.to_owned(), member.clone()) == Some(member) {
            return self.clone();
        }
        View { number: self.number + 1, members }
    }
}

#[cfg(test)]
mod tests {
    use klatch_protocol::ids::SHARDS;

    use super::*;

    fn view(names: &[&str]) -> View {
        let up = Member { incarnation: 1, status: Status::Up };
        names.iter().fold(View::default(), |view, name| view.with(name, up.clone()))
    }

    #[test]
    fn a_node_that_leaves_moves_only_its_own_shards() {
        let (three, two) = (view(&["a", "b", "c"]), view(&["a", "b"]));
        for shard in (0..SHARDS).map(Shard) {
            if three.owner(shard) != Some("c") {
                assert_eq!(three.owner(shard), two.owner(shard));
            }
        }
    }

    #[test]
    fn shards_are_spread_evenly() {
        let view = view(&["klatch-0", "klatch-1", "klatch-2"]);
        for name in view.members.keys() {
            let owned = (0..SHARDS).filter(|shard| view.owner(Shard(*shard)) == Some(name)).count();
            assert!((280..=400).contains(&owned), "{name} owns {owned} of {SHARDS}");
        }
    }

    #[test]
    fn who_leaves_or_is_not_there_yet_owns_nothing() {
        let view = view(&["a"]);
        for status in [Status::Joining, Status::Leaving] {
            assert_eq!(view.with("a", Member { incarnation: 1, status }).owner(Shard(0)), None);
        }
    }

    #[test]
    fn a_change_that_changes_nothing_makes_no_view() {
        let one = view(&["a"]);
        assert_eq!(one.with("a", one.members["a"].clone()).number, one.number);
    }
}
