//! Looks through the database's journals before they are opened, for damage that the database itself takes for a
//! write torn by a crash: it would drop that batch and all behind it, acknowledged ones too, without a word.
//!
//! A torn write is the last there is. So whatever is unreadable with a whole batch anywhere behind it is damage. What
//! cannot be told from a torn write is damage of the very last batch. Reads fjall's journal format 3 and changes
//! nothing; a batch is `Start (tag 1, count u32, seqno u64), Item…, End (tag 3, xxh3 of the items u64, "FJL\x03")`.

use std::fs;
use std::io;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const TRAILER: &[u8] = b"FJL\x03";
/// Bytes behind an item's tag: value type, compression, keyspace u64, lengths of key u16, value u32, stored value u32.
const ITEM_HEAD: usize = 20;

/// Names the journal with damage in it, and the place.
pub fn damage(database: &Path) -> io::Result<Option<String>> {
    if !database.exists() {
        return Ok(None);
    }
    for file in fs::read_dir(database)? {
        let path = file?.path();
        if path.extension().is_some_and(|ending| ending == "jnl")
            && let Some(place) = damaged_place(&fs::read(&path)?)
        {
            return Ok(Some(format!("{} has unreadable bytes at {place}, and whole batches behind", path.display())));
        }
    }
    Ok(None)
}

/// Where the first unreadable batch begins, if a readable one follows anywhere.
fn damaged_place(journal: &[u8]) -> Option<usize> {
    let mut place = 0;
    while let Some(length) = batch(&journal[place..]) {
        place += length;
    }
    let behind = &journal[place..];
    let mut trailers = behind.windows(TRAILER.len()).enumerate().filter(|(_, bytes)| *bytes == TRAILER);
    trailers.any(|(at, _)| batch(&behind[at + TRAILER.len()..]).is_some()).then_some(place)
}

/// The length of the whole batch that stands here, if one does.
fn batch(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    if take::<1>(&mut rest)? != [START] {
        return None;
    }
    let count = u32::from_le_bytes(take(&mut rest)?);
    take::<8>(&mut rest)?;
    let items = rest;
    for _ in 0..count {
        skip_item(&mut rest)?;
    }
    let items = &items[..items.len() - rest.len()];
    let ends = take::<1>(&mut rest)? == [END]
        && u64::from_le_bytes(take(&mut rest)?) == xxh3_64(items)
        && rest.starts_with(TRAILER);
    ends.then_some(bytes.len() - rest.len() + TRAILER.len())
}

fn skip_item(rest: &mut &[u8]) -> Option<()> {
    match take::<1>(rest)? {
        [ITEM] => {
            let head = take::<ITEM_HEAD>(rest)?;
            let key = u16::from_le_bytes([head[10], head[11]]);
            let stored = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
            *rest = rest.get(usize::from(key) + stored as usize..)?;
            Some(())
        }
        [CLEAR] => take::<8>(rest).map(drop),
        _ => None,
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}
