//! What the twin keeps: strings, hashes, sorted sets in the order of bytes, and streams with given ids.

use std::collections::{BTreeMap, BTreeSet};

pub type Bytes = Vec<u8>;
pub type StreamId = (u64, u64);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    Text(Bytes),
    Hash(BTreeMap<Bytes, Bytes>),
    /// All scores are 0.
    Sorted(BTreeSet<Bytes>),
    Stream(Stream),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    pub entries: BTreeMap<StreamId, Vec<Bytes>>,
    /// Of an entry that may be trimmed away.
    pub last: StreamId,
}

#[derive(Clone, Debug, Default)]
pub struct Data {
    pub keys: BTreeMap<Bytes, Kept>,
    /// What was written since it was last taken, for the replicas and for who looks on.
    pub written: Vec<Vec<Bytes>>,
    /// Entries that were added to streams since they were last taken, each with the one before it.
    pub added: Vec<Added>,
}

#[derive(Clone, Debug)]
pub struct Added {
    pub key: Bytes,
    pub before: Option<(StreamId, Vec<Bytes>)>,
    pub id: StreamId,
    pub fields: Vec<Bytes>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Status(String),
    Error(String),
    Int(i64),
    Bulk(Bytes),
    Nil,
    Array(Vec<Reply>),
}

impl Reply {
    pub fn ok() -> Self {
        Self::Status("OK".to_owned())
    }

    pub fn error(said: &str) -> Self {
        Self::Error(said.to_owned())
    }
}

impl Kept {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "string",
            Self::Hash(_) => "hash",
            Self::Sorted(_) => "zset",
            Self::Stream(_) => "stream",
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Text(_) | Self::Stream(_) => false,
            Self::Hash(fields) => fields.is_empty(),
            Self::Sorted(members) => members.is_empty(),
        }
    }
}

const WRONG_TYPE: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";

/// One of the kinds, by key: there, or none, or another kind.
macro_rules! of_kind {
    ($name:ident, $name_mut:ident, $kind:ident, $inner:ty) => {
        pub fn $name(&self, key: &[u8]) -> Result<Option<&$inner>, Reply> {
            match self.keys.get(key) {
                Some(Kept::$kind(inner)) => Ok(Some(inner)),
                Some(_) => Err(Reply::error(WRONG_TYPE)),
                None => Ok(None),
            }
        }

        /// Made where it is not there.
        pub fn $name_mut(&mut self, key: &[u8]) -> Result<&mut $inner, Reply> {
            match self.keys.entry(key.to_vec()).or_insert_with(|| Kept::$kind(Default::default())) {
                Kept::$kind(inner) => Ok(inner),
                _ => Err(Reply::error(WRONG_TYPE)),
            }
        }
    };
}

impl Data {
    of_kind!(text, text_mut, Text, Bytes);
    of_kind!(hash, hash_mut, Hash, BTreeMap<Bytes, Bytes>);
    of_kind!(sorted, sorted_mut, Sorted, BTreeSet<Bytes>);
    of_kind!(stream, stream_mut, Stream, Stream);

    /// What has become empty is not there any more.
    pub fn sweep(&mut self, key: &[u8]) {
        if self.keys.get(key).is_some_and(Kept::is_empty) {
            self.keys.remove(key);
        }
    }

    /// All of it, as commands that make it.
    pub fn as_commands(&self) -> Vec<Vec<Bytes>> {
        let mut commands = Vec::new();
        for (key, kept) in &self.keys {
            let begin = |name: &str| vec![name.as_bytes().to_vec(), key.clone()];
            match kept {
                Kept::Text(text) => commands.push([begin("SET"), vec![text.clone()]].concat()),
                Kept::Hash(fields) => {
                    let pairs = fields.iter().flat_map(|(field, value)| [field.clone(), value.clone()]);
                    commands.push(begin("HSET").into_iter().chain(pairs).collect());
                }
                Kept::Sorted(members) => {
                    let pairs = members.iter().flat_map(|member| [b"0".to_vec(), member.clone()]);
                    commands.push(begin("ZADD").into_iter().chain(pairs).collect());
                }
                Kept::Stream(stream) => commands.extend(stream.entries.iter().map(|((first, second), fields)| {
                    let id = format!("{first}-{second}").into_bytes();
                    begin("XADD").into_iter().chain([id]).chain(fields.iter().cloned()).collect()
                })),
            }
        }
        commands
    }
}
