//! Nodes as a StatefulSet names them, and the view of all of them.

use klatch_actors::membership::view::View;
use klatch_protocol::Shard;
use klatch_protocol::view::{MemberStatus, Row, ViewTable};

pub fn name(node: usize) -> String {
    format!("klatch-{node}")
}

pub fn row(name: &str) -> Row {
    Row { incarnation: 1, address: format!("{name}:7946"), status: MemberStatus::Up, format: 1 }
}

pub fn view(names: impl IntoIterator<Item = String>) -> View {
    let rows = names.into_iter().map(|name| (name.clone(), row(&name))).collect();
    View::new(&ViewTable { number: 1, rows })
}

/// Which of `names` owns each shard, as the nodes would say.
pub fn owners(names: &[String], shards: impl Iterator<Item = u16>) -> Vec<usize> {
    let view = view(names.iter().cloned());
    let places: std::collections::BTreeMap<&str, usize> =
        names.iter().enumerate().map(|(place, name)| (name.as_str(), place)).collect();
    let owner = |shard| view.owner(Shard(shard)).expect("all nodes are up");
    shards.map(|shard| places[&*owner(shard).name]).collect()
}

pub fn names(nodes: usize) -> Vec<String> {
    (0..nodes).map(name).collect()
}

/// Of one of several clusters side by side.
pub fn cell_names(cell: usize, nodes: usize) -> Vec<String> {
    (0..nodes).map(|node| format!("cell-{cell}-{node}")).collect()
}
