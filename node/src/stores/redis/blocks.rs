//! Blocks: how the finished items and turns of a conversation are kept. Pure.
//!
//! A list is a sorted set of blocks in the order of bytes, which is the order of their rows, and no two overlap. What
//! compaction moves out of a log is a few blocks and not hundreds of members, each of which would cost Redis a search,
//! a hash and some hundred bytes.
//!
//! A block is its first ordinal (8 bytes, big-endian), its format (1 byte), its last ordinal (8 bytes), and its rows in
//! rising order, each an ordinal and a length (both varints) and as many bytes. Rows say themselves where they end, so
//! that the script joins two blocks by their bytes. A row alone, which is what builds before blocks kept, has the
//! envelope's format where a block has its own: it is refused and never misread.

use std::ops::Range;

use klatch_actors::store::StoreError;
use klatch_protocol::envelope;
use serde::de::DeserializeOwned;

/// The envelope's format 1 stands in its place where a row stands alone.
pub const FORMAT: u8 = 2;

/// First ordinal, format, last ordinal.
const HEAD: usize = 17;

/// Blocks are filled so far. Reading one row reads its block, and a block costs Redis about a hundred bytes beside what
/// it holds. With what Redis keeps before it, it fits into 8 KiB of its allocator.
pub const BLOCK_BYTES: usize = 8_000;

/// Ordinal and length of a row take about so much, in bytes.
const ROW_HEAD: usize = 4;

/// A varint of 64 bits has no more bytes.
const VARINT_MAX: usize = 10;

/// Its ordinal, and what is sealed in it.
pub type Row<'a> = (u64, &'a [u8]);

/// Which list it is, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    Items,
    Turns,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    list: List,
    member: Vec<u8>,
    /// Never empty; where in `member` each one stands.
    rows: Vec<(u64, Range<usize>)>,
}

impl List {
    fn name(self) -> &'static str {
        match self {
            Self::Items => "items",
            Self::Turns => "turns",
        }
    }

    fn damaged(self, what: &str) -> StoreError {
        StoreError::Damaged(format!("a block of {}: {what}", self.name()))
    }
}

impl Block {
    /// Of a member of the list. What its rows hold is looked at when they are asked for.
    pub fn read(list: List, member: Vec<u8>) -> Result<Self, StoreError> {
        if member.get(8) == Some(&envelope::VERSION) {
            return Err(StoreError::Damaged(format!(
                "its {} are stored one by one, as builds before this one did: this one reads blocks only",
                list.name()
            )));
        }
        let (head, mut rest) =
            member.split_first_chunk::<HEAD>().ok_or_else(|| list.damaged("its beginning is cut off"))?;
        if head[8] != FORMAT {
            return Err(list.damaged(&format!("its format {} is not the one that this build reads", head[8])));
        }
        let mut rows: Vec<(u64, Range<usize>)> = Vec::new();
        while !rest.is_empty() {
            let (ordinal, length) = read_row(&mut rest).ok_or_else(|| list.damaged("a row is cut off"))?;
            if rows.last().is_some_and(|(before, _)| *before >= ordinal) {
                return Err(list.damaged("its rows are out of order"));
            }
            let end = member.len() - rest.len();
            rows.push((ordinal, end - length..end));
        }
        let ends = rows.first().zip(rows.last()).map(|(first, last)| (first.0, last.0));
        let said = (number(&head[..8]), number(&head[9..]));
        match ends {
            Some(ends) if ends == said => Ok(Self { list, member, rows }),
            _ => Err(list.damaged(&format!("it says that it holds {} to {}, and does not", said.0, said.1))),
        }
    }

    /// Members of a list, in the order in which they came; none may reach into another.
    pub fn read_all(list: List, members: Vec<Vec<u8>>) -> Result<Vec<Self>, StoreError> {
        let blocks: Vec<Self> = members.into_iter().map(|member| Self::read(list, member)).collect::<Result<_, _>>()?;
        let apart = |pair: &[Self]| pair[0].last() < pair[1].first() || pair[1].last() < pair[0].first();
        match blocks.windows(2).all(apart) {
            true => Ok(blocks),
            false => Err(list.damaged("it reaches into another")),
        }
    }

    pub fn first(&self) -> u64 {
        self.rows[0].0
    }

    pub fn last(&self) -> u64 {
        self.rows[self.rows.len() - 1].0
    }

    /// Rising.
    pub fn rows(&self) -> impl DoubleEndedIterator<Item = Row<'_>> {
        self.rows.iter().map(|(ordinal, place)| (*ordinal, &self.member[place.clone()]))
    }

    pub fn row(&self, ordinal: u64) -> Option<&[u8]> {
        let place = self.rows.binary_search_by_key(&ordinal, |(ordinal, _)| *ordinal).ok()?;
        Some(&self.member[self.rows[place].1.clone()])
    }

    /// What is sealed in a row, which must say the same ordinal.
    pub fn open<T: DeserializeOwned>(
        &self,
        ordinal: u64,
        sealed: &[u8],
        says: impl Fn(&T) -> u64,
    ) -> Result<T, StoreError> {
        let opened = envelope::open(sealed).map_err(|error| self.list.damaged(&format!("row {ordinal}: {error}")))?;
        match says(&opened) {
            said if said == ordinal => Ok(opened),
            said => Err(self.list.damaged(&format!("row {ordinal} says that it is {said}"))),
        }
    }
}

/// Blocks of about [`BLOCK_BYTES`] with these rows, which rise. None is much smaller than the others, and a row that is
/// as large as a block stands alone.
pub fn pack<'a>(rows: impl IntoIterator<Item = Row<'a>>) -> Vec<Vec<u8>> {
    let (mut blocks, mut run) = (Vec::new(), Vec::<Row>::new());
    for row in rows {
        if row.1.len() < BLOCK_BYTES {
            run.push(row);
        } else {
            pack_run(&std::mem::take(&mut run), &mut blocks);
            blocks.push(block(&[row]));
        }
    }
    pack_run(&run, &mut blocks);
    blocks
}

/// Each row goes to that of the even shares in which its middle lies.
fn pack_run(rows: &[Row], blocks: &mut Vec<Vec<u8>>) {
    let size = |row: &Row| row.1.len() + ROW_HEAD;
    let total: usize = rows.iter().map(size).sum();
    let shares = total.div_ceil(BLOCK_BYTES);
    let (mut begin, mut share, mut bytes) = (0, 0, 0);
    for (place, row) in rows.iter().enumerate() {
        let its_share = (bytes + size(row) / 2) * shares / total;
        if its_share > share && place > begin {
            blocks.push(block(&rows[begin..place]));
            begin = place;
        }
        share = its_share;
        bytes += size(row);
    }
    if begin < rows.len() {
        blocks.push(block(&rows[begin..]));
    }
}

fn block(rows: &[Row]) -> Vec<u8> {
    let bytes: usize = rows.iter().map(|row| row.1.len() + 2 * VARINT_MAX).sum();
    let mut member = Vec::with_capacity(HEAD + bytes);
    let (first, last) = (rows[0].0, rows[rows.len() - 1].0);
    member.extend_from_slice(&first.to_be_bytes());
    member.push(FORMAT);
    member.extend_from_slice(&last.to_be_bytes());
    for (ordinal, row) in rows {
        write_varint(&mut member, *ordinal);
        write_varint(&mut member, row.len() as u64);
        member.extend_from_slice(row);
    }
    member
}

/// Ordinal and length; `rest` goes on behind the row.
fn read_row(rest: &mut &[u8]) -> Option<(u64, usize)> {
    let ordinal = read_varint(rest)?;
    let length = usize::try_from(read_varint(rest)?).ok()?;
    *rest = rest.get(length..)?;
    Some((ordinal, length))
}

/// Seven bits a byte, the low ones first; the highest bit says that more follow.
fn write_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn read_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for place in 0..VARINT_MAX {
        let byte;
        (byte, *rest) = rest.split_first().map(|(byte, rest)| (u64::from(*byte), rest))?;
        number |= (byte & 0x7f).checked_shl(7 * place as u32)?;
        if byte < 0x80 {
            // The tenth byte has one bit.
            return (place + 1 < VARINT_MAX || byte <= 1).then_some(number);
        }
    }
    None
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests;
