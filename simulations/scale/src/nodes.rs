//! Nodes as a StatefulSet names them, and the view of all of them.

use klatch_actors::membership::view::{self, FULLEST_PERCENT, View};
use klatch_protocol::ids::SHARDS;
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

/// Which of `names` owns each of the runtime's shards.
pub fn owners(names: &[String]) -> Vec<usize> {
    placed(names, u32::from(SHARDS), FULLEST_PERCENT)
}

/// The same for so many shards and another bound, by the runtime's own rule.
pub fn placed(names: &[String], shards: u32, fullest_percent: u32) -> Vec<usize> {
    let mut places: Vec<usize> = (0..names.len()).collect();
    places.sort_by_key(|place| &names[*place]);
    let sorted: Vec<&str> = places.iter().map(|place| names[*place].as_str()).collect();
    view::placed(&sorted, shards, fullest_percent).into_iter().map(|place| places[place]).collect()
}

pub fn names(nodes: usize) -> Vec<String> {
    (0..nodes).map(name).collect()
}

/// Of one of several clusters side by side.
pub fn cell_names(cell: usize, nodes: usize) -> Vec<String> {
    (0..nodes).map(|node| format!("cell-{cell}-{node}")).collect()
}
