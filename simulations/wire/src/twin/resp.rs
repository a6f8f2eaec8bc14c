//! RESP 2, as far as a server needs it: commands come as arrays of texts, replies go.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::data::{Bytes, Reply};

const READ_BYTES: usize = 16 << 10;

/// Reads commands from a connection.
pub struct Commands<R> {
    read: R,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Commands<R> {
    pub fn new(read: R) -> Self {
        Self { read, buffer: Vec::new() }
    }

    /// None at the end of the connection.
    pub async fn next(&mut self) -> io::Result<Option<Vec<Bytes>>> {
        loop {
            if let Some((command, length)) = parsed(&self.buffer)? {
                self.buffer.drain(..length);
                return Ok(Some(command));
            }
            self.buffer.reserve(READ_BYTES);
            if self.read.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Whether another whole command is here already.
    pub fn has_next(&self) -> bool {
        matches!(parsed(&self.buffer), Ok(Some(_)))
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// A line that begins so, its number, and where it ends.
fn number(bytes: &[u8], at: usize, begin: u8) -> io::Result<Option<(usize, usize)>> {
    let Some(end) = bytes.get(at..).and_then(|rest| rest.windows(2).position(|two| two == b"\r\n")) else {
        return Ok(None);
    };
    let line = &bytes[at..at + end];
    if line.first() != Some(&begin) {
        return Err(wrong("no RESP"));
    }
    let number = std::str::from_utf8(&line[1..]).ok().and_then(|text| text.parse().ok());
    Ok(Some((number.ok_or_else(|| wrong("no number"))?, at + end + 2)))
}

fn parsed(bytes: &[u8]) -> io::Result<Option<(Vec<Bytes>, usize)>> {
    let Some((count, mut at)) = number(bytes, 0, b'*')? else { return Ok(None) };
    let mut command = Vec::new();
    for _ in 0..count {
        let Some((length, begin)) = number(bytes, at, b'$')? else { return Ok(None) };
        let Some(text) = bytes.get(begin..begin + length) else { return Ok(None) };
        if bytes.len() < begin + length + 2 {
            return Ok(None);
        }
        command.push(text.to_vec());
        at = begin + length + 2;
    }
    Ok(Some((command, at)))
}

pub fn write(out: &mut Vec<u8>, reply: &Reply) {
    match reply {
        Reply::Status(said) => out.extend_from_slice(format!("+{said}\r\n").as_bytes()),
        Reply::Error(said) => out.extend_from_slice(format!("-{said}\r\n").as_bytes()),
        Reply::Int(number) => out.extend_from_slice(format!(":{number}\r\n").as_bytes()),
        Reply::Nil => out.extend_from_slice(b"$-1\r\n"),
        Reply::Bulk(bytes) => {
            out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
            out.extend_from_slice(bytes);
            out.extend_from_slice(b"\r\n");
        }
        Reply::Array(replies) => {
            out.extend_from_slice(format!("*{}\r\n", replies.len()).as_bytes());
            replies.iter().for_each(|reply| write(out, reply));
        }
    }
}

pub fn command(out: &mut Vec<u8>, words: &[Bytes]) {
    write(out, &Reply::Array(words.iter().cloned().map(Reply::Bulk).collect()));
}
