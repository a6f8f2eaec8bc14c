//! Faults that are planted on purpose, at the boundaries: whether they are found says whether the checks see anything.

use std::collections::BTreeMap;
use std::sync::Mutex;

use klatch_actors::peers::PeerId;
use klatch_protocol::envelope;
use klatch_protocol::frame::{Frame, Said};
use klatch_world::shared::lock;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Redis answers a read on a connection that is not the first with what was asked before.
    WrongAnswer,
    /// A stream that is resumed begins one event late.
    ResumedLate,
    /// What a peer answered on a former connection is taken for what it says on this one.
    FormerLife,
    /// Replicas acknowledge what they have not got.
    EarlyAcknowledgement,
}

const NAMES: [(&str, Planted); 4] = [
    ("wrong-answer", Planted::WrongAnswer),
    ("resumed-late", Planted::ResumedLate),
    ("former-life", Planted::FormerLife),
    ("early-acknowledgement", Planted::EarlyAcknowledgement),
];

pub fn named(name: &str) -> Option<Planted> {
    NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, planted)| planted)
}

/// What was last heard over each way between two nodes, to be heard again over the next connection as if it were of it.
#[derive(Default)]
pub struct FormerLives(Mutex<BTreeMap<(String, String), Way>>);

#[derive(Default)]
struct Way {
    link: u64,
    answers: Vec<Said>,
    former: Vec<Said>,
}

impl FormerLives {
    /// Notes the frame, and gives those to be heard before it.
    pub fn heard(&self, me: &PeerId, from: &str, frame: &[u8]) -> Vec<Vec<u8>> {
        let Ok(frame) = envelope::open::<Frame>(frame) else { return Vec::new() };
        let name = from.split('.').next().unwrap_or_default().to_owned();
        let mut ways = lock(&self.0);
        let way = ways.entry((me.name.to_string(), name)).or_default();
        if way.link != frame.link {
            way.former = std::mem::take(&mut way.answers);
            way.link = frame.link;
        }
        if !matches!(frame.said, Said::Answer { .. }) {
            return Vec::new();
        }
        way.answers.push(frame.said.clone());
        let old = std::mem::take(&mut way.former).into_iter();
        old.map(|said| envelope::seal(&Frame { said, ..frame.clone() })).collect()
    }
}
