//! The view as this node routes by it, and placement: a pure function of the view, worked out once for all shards when it
//! is first asked for. Nobody coordinates: two nodes with the same view agree. Nothing rests on it for safety, which is
//! the fence's: two nodes that disagree, as two versions of this code may, pass requests to and fro and harm nothing.
//!
//! It is rendezvous hashing with bounded loads: in order, each shard goes to the node that ranks highest for it among
//! those with room, and nobody has room for more than [`FULLEST_PERCENT`] of the mean, rounded up. Hashing alone is as good
//! as chance: at 100 nodes the fullest had twice the mean. More shards would spread better too, and each that is used is a
//! supervisor of about 9.5 KB and a set to read. A bound costs that a change of members also moves shards between nodes
//! that stay, and more of them where it steps down by one shard. So it is wide: at ten nodes nobody reaches it, and what
//! moves is what must; at a hundred the fullest has 1.27 times the mean, and a tenth to a third more moves than must.
//! Narrower bounds gain a tenth and move twice as much (`simulations/scale`). It is worked out in 1 ms for 100 nodes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use klatch_protocol::Shard;
use klatch_protocol::ids::SHARDS;
use klatch_protocol::view::{MemberStatus, Row, ViewTable};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::peers::{PeerAddress, PeerId};

/// Of the mean number of shards, so much at most is one node's. All nodes of a cluster must have the same.
pub const FULLEST_PERCENT: u32 = 125;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    number: u64,
    format: u8,
    members: BTreeMap<Arc<str>, Member>,
    placement: Placement,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub incarnation: u64,
    pub status: MemberStatus,
    pub address: String,
}

/// Each shard's owner, shared by all clones of a view. Empty where nobody can own anything.
#[derive(Clone, Default)]
struct Placement(Arc<OnceLock<Vec<PeerId>>>);

/// It follows from the members.
impl PartialEq for Placement {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Placement {}

/// As long as all shards, and said by the members.
impl fmt::Debug for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Placement")
    }
}

impl View {
    pub fn new(table: &ViewTable) -> Self {
        let member = |(name, row): (&String, &Row)| {
            let Row { incarnation, status, address, .. } = row.clone();
            (Arc::from(name.as_str()), Member { incarnation, status, address })
        };
        let format = table.rows.values().map(|row| row.format).min().unwrap_or_default();
        let members = table.rows.iter().map(member).collect();
        Self { number: table.number, format, members, placement: Placement::default() }
    }

    /// Rises with every change.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The newest envelope format that all members read; 0 where there are none.
    pub fn format(&self) -> u8 {
        self.format
    }

    /// By name.
    pub fn members(&self) -> &BTreeMap<Arc<str>, Member> {
        &self.members
    }

    /// Who should own the shard. While no node is up, one that gives everything away: there is nobody to give it to. None
    /// where there is none either.
    pub fn owner(&self, shard: Shard) -> Option<PeerId> {
        self.placement.0.get_or_init(|| self.owners()).get(usize::from(shard.0)).cloned()
    }

    fn owners(&self) -> Vec<PeerId> {
        let with = |status| -> Vec<PeerId> {
            let able = self.members.iter().filter(|(_, member)| member.status == status);
            able.map(|(name, member)| PeerId { name: name.clone(), incarnation: member.incarnation }).collect()
        };
        let able = Some(with(MemberStatus::Up)).filter(|up| !up.is_empty());
        let able = able.unwrap_or_else(|| with(MemberStatus::Leaving));
        let names: Vec<&str> = able.iter().map(|id| &*id.name).collect();
        placed(&names, u32::from(SHARDS), FULLEST_PERCENT).into_iter().map(|place| able[place].clone()).collect()
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

/// Of each of so many shards, which of the nodes it goes to, as a place in `names`. They are in the order of the alphabet;
/// of equal ranks the later name counts. Nothing where there are no nodes.
pub fn placed(names: &[&str], shards: u32, fullest_percent: u32) -> Vec<usize> {
    if names.is_empty() {
        return Vec::new();
    }
    let hundredths = u64::from(shards) * u64::from(fullest_percent);
    let room = hundredths.div_ceil(100 * names.len() as u64);
    let mut owned = vec![0; names.len()];
    let place = |shard: u32| {
        let able = (0..names.len()).filter(|place| owned[*place] < room);
        let ranked = able.max_by_key(|place| (xxh3_64_with_seed(names[*place].as_bytes(), u64::from(shard)), *place));
        let place = ranked.expect("all together have room for all shards");
        owned[place] += 1;
        place
    };
    (0..shards).map(place).collect()
}

/// Where the node of this row is reached.
pub fn address(name: &str, row: &Row) -> PeerAddress {
    PeerAddress { id: PeerId { name: name.into(), incarnation: row.incarnation }, address: row.address.clone() }
}

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::xxh3_64;

    use super::*;

    fn view(names: &[impl AsRef<str>]) -> View {
        of_members(names.iter().map(|name| (name.as_ref(), MemberStatus::Up)))
    }

    fn of_members<'a>(members: impl IntoIterator<Item = (&'a str, MemberStatus)>) -> View {
        let row = |status| Row { incarnation: 1, address: String::new(), status, format: 1 };
        let rows = members.into_iter().map(|(name, status)| (name.to_owned(), row(status))).collect();
        View::new(&ViewTable { number: 1, rows })
    }

    fn stateful_set(nodes: usize) -> Vec<String> {
        (0..nodes).map(|node| format!("klatch-{node}")).collect()
    }

    fn owners(view: &View) -> Vec<String> {
        let owner = |shard| view.owner(Shard(shard)).expect("a node is up").name.to_string();
        (0..SHARDS).map(owner).collect()
    }

    fn owned(view: &View, name: &str) -> usize {
        owners(view).iter().filter(|owner| *owner == name).count()
    }

    #[test]
    fn of_few_nodes_one_that_leaves_moves_only_its_own_shards() {
        for nodes in 2..=10 {
            let (all, rest) = (stateful_set(nodes), stateful_set(nodes - 1));
            let gone = &all[nodes - 1];
            for (before, after) in owners(&view(&all)).iter().zip(owners(&view(&rest))) {
                assert!(before == gone || *before == after, "of {nodes} nodes a shard went from {before} to {after}");
            }
        }
    }

    #[test]
    fn nothing_newer_is_written_than_what_all_members_read() {
        let row = |format| Row { incarnation: 1, address: String::new(), status: MemberStatus::Up, format };
        let rows = [("a".to_owned(), row(2)), ("b".to_owned(), row(1))].into();
        assert_eq!(View::new(&ViewTable { number: 1, rows }).format(), 1);
        assert_eq!(View::default().format(), 0);
    }

    #[test]
    fn nobody_has_more_than_the_bound() {
        for nodes in [1, 2, 3, 7, 10, 50, 100, 300, 1_000, 1_024, 2_000] {
            let view = view(&stateful_set(nodes));
            let mut counts = BTreeMap::<String, usize>::new();
            owners(&view).into_iter().for_each(|owner| *counts.entry(owner).or_default() += 1);
            let bound = (usize::from(SHARDS) * FULLEST_PERCENT as usize).div_ceil(100 * nodes);
            let (fullest, most) = counts.iter().max_by_key(|(_, count)| **count).expect("a node is up");
            assert!(*most <= bound, "of {nodes} nodes {fullest} owns {most}, above {bound}");
        }
    }

    #[test]
    fn a_full_node_passes_its_shards_to_the_next_in_rank() {
        let names = ["a", "b", "c", "d"];
        let unbounded = placed(&names, 64, 400);
        let exact = placed(&names, 64, 100);
        for (place, name) in names.iter().enumerate() {
            assert_eq!(exact.iter().filter(|owner| **owner == place).count(), 16, "{name} is not exactly full");
        }
        let first_to_move = exact.iter().zip(&unbounded).position(|(exact, free)| exact != free).expect("one moves");
        let before = exact[..first_to_move].iter().filter(|owner| **owner == unbounded[first_to_move]);
        assert_eq!(before.count(), 16, "a shard went past a node with room");
    }

    /// Nodes of two versions that place differently pass requests to and fro: a change is an event for operators.
    #[test]
    fn placement_stays_as_it_is() {
        let golden = |nodes| xxh3_64(owners(&view(&stateful_set(nodes))).join(" ").as_bytes());
        assert_eq!([3, 100].map(golden), [17_934_750_356_275_761_316, 7_553_006_059_142_587_942]);
    }

    #[test]
    fn who_leaves_or_is_not_there_yet_owns_nothing_while_anybody_is_up() {
        for status in [MemberStatus::Joining, MemberStatus::Leaving] {
            assert_eq!(owned(&of_members([("a", status), ("b", MemberStatus::Up)]), "a"), 0);
        }
        let alone = of_members([("a", MemberStatus::Leaving)]);
        assert_eq!(owned(&alone, "a"), usize::from(SHARDS), "there is nobody to give it to");
        assert_eq!(of_members([("a", MemberStatus::Joining)]).owner(Shard(0)), None);
    }
}
