//! The scripts, each where several keys must change together. None is on the way of a turn.

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, RedisError, cmd};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    Compact,
    Blocks,
    PutRecord,
    RemoveRecord,
    ViewJoin,
    ViewBeat,
    ViewSet,
    ViewBury,
    ViewLeave,
    ViewRead,
}

const ALL: [Script; 10] = [
    Script::Compact,
    Script::Blocks,
    Script::PutRecord,
    Script::RemoveRecord,
    Script::ViewJoin,
    Script::ViewBeat,
    Script::ViewSet,
    Script::ViewBury,
    Script::ViewLeave,
    Script::ViewRead,
];

impl Script {
    pub fn source(self) -> &'static str {
        match self {
            Self::Compact => include_str!("scripts/compact.lua"),
            Self::Blocks => include_str!("scripts/blocks.lua"),
            Self::PutRecord => include_str!("scripts/put_record.lua"),
            Self::RemoveRecord => include_str!("scripts/remove_record.lua"),
            Self::ViewJoin => include_str!("scripts/view_join.lua"),
            Self::ViewBeat => include_str!("scripts/view_beat.lua"),
            Self::ViewSet => include_str!("scripts/view_set.lua"),
            Self::ViewBury => include_str!("scripts/view_bury.lua"),
            Self::ViewLeave => include_str!("scripts/view_leave.lua"),
            Self::ViewRead => include_str!("scripts/view_read.lua"),
        }
    }

    /// The call, without the arguments that follow the keys.
    pub fn call(self, keys: &[String]) -> Cmd {
        let mut call = cmd("EVALSHA");
        call.arg(self.sha()).arg(keys.len()).arg(keys);
        call
    }

    fn sha(self) -> &'static str {
        use std::sync::OnceLock;
        static SHAS: OnceLock<[String; ALL.len()]> = OnceLock::new();
        let sha = |script: Script| ::redis::Script::new(script.source()).get_hash().to_owned();
        &SHAS.get_or_init(|| ALL.map(sha))[self as usize]
    }
}

/// So that a call by its hash is understood.
pub async fn load(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    let mut pipeline = ::redis::pipe();
    for script in ALL {
        pipeline.cmd("SCRIPT").arg("LOAD").arg(script.source()).ignore();
    }
    pipeline.query_async(connection).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_script_has_its_place() {
        for (place, script) in ALL.into_iter().enumerate() {
            assert_eq!(script as usize, place, "{script:?}");
            assert_eq!(script.sha().len(), 40);
        }
    }
}
