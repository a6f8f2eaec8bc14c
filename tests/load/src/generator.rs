//! The load: a closed loop of connections, each with its next request ready as bytes, so that it is far cheaper than what it
//! measures. Every answer is read to its end and checked; the first wrong one ends the run.
//!
//! HTTP/1.1 with keep-alive over plain TCP. It repeats nothing, and knows no answer without a length.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use futures::future::try_join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const HEADERS_MAX: usize = 64;
/// Above what any answer here weighs.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Of a wrong answer that is shown.
const SHOWN_BYTES_MAX: usize = 600;

/// A request, and what must stand in its answer.
pub struct Exchange {
    request: Vec<u8>,
    /// The text of the answer, as it stands in JSON without spaces.
    expected: Vec<u8>,
}

impl Exchange {
    pub fn new(token: &str, model: &str, conversation: &str, input: &str, key: Option<&str>, reply: &str) -> Self {
        let body = json!({"model": model, "input": input, "conversation": conversation}).to_string();
        let key = key.map(|key| format!("idempotency-key: {key}\r\n")).unwrap_or_default();
        let request = format!(
            "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\n{key}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        Self { request: request.into_bytes(), expected: format!("\"text\":{}", json!(reply)).into_bytes() }
    }
}

/// Connections that are open; what it costs to open them belongs to no turn.
pub struct Load {
    connections: Vec<Connection>,
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Load {
    pub async fn connect(address: SocketAddr, connections: usize) -> anyhow::Result<Self> {
        let connect = |_| async move {
            let stream = TcpStream::connect(address).await.with_context(|| format!("{address} takes no connection"))?;
            stream.set_nodelay(true)?;
            anyhow::Ok(Connection { stream, buffer: Vec::with_capacity(ANSWER_BYTES_MAX) })
        };
        Ok(Self { connections: try_join_all((0..connections).map(connect)).await? })
    }

    /// All exchanges, those of each connection one after another.
    pub async fn run(self, exchanges: Vec<Vec<Exchange>>) -> anyhow::Result<()> {
        ensure!(self.connections.len() == exchanges.len(), "there are as many connections as rows of exchanges");
        let rows = self.connections.into_iter().zip(exchanges).map(|(connection, row)| {
            // A task of its own each: only those that have something to do are looked at.
            tokio::spawn(connection.run(row))
        });
        for done in try_join_all(rows).await? {
            done?;
        }
        Ok(())
    }
}

impl Connection {
    async fn run(mut self, exchanges: Vec<Exchange>) -> anyhow::Result<()> {
        for exchange in &exchanges {
            self.stream.write_all(&exchange.request).await?;
            self.answer(&exchange.expected).await?;
        }
        Ok(())
    }

    async fn answer(&mut self, expected: &[u8]) -> anyhow::Result<()> {
        self.buffer.clear();
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(read > 0, "the server closed the connection instead of an answer: {}", shown(&self.buffer));
            ensure!(self.buffer.len() < ANSWER_BYTES_MAX, "an answer is too long: {}", shown(&self.buffer));
            if let Some(answer) = whole(&self.buffer)? {
                return check(&answer, expected);
            }
        }
    }
}

struct Answer<'a> {
    status: u16,
    body: &'a [u8],
}

/// The answer, once all of it is there.
fn whole(bytes: &[u8]) -> anyhow::Result<Option<Answer<'_>>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(body_at) = head.parse(bytes)? else { return Ok(None) };
    let length = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.with_context(|| format!("an answer has no length: {}", shown(bytes)))?.value;
    let length: usize = std::str::from_utf8(length)?.parse()?;
    let (status, body) = (head.code.context("an answer has a status")?, &bytes[body_at..]);
    if body.len() > length {
        bail!("more comes than was asked for: {}", shown(bytes));
    }
    Ok((body.len() == length).then_some(Answer { status, body }))
}

fn check(answer: &Answer, expected: &[u8]) -> anyhow::Result<()> {
    let has = |part: &[u8]| find(answer.body, part);
    if answer.status != 200 || !has(b"\"status\":\"completed\"") || !has(expected) {
        bail!("wanted {}, and got {}: {}", shown(expected), answer.status, shown(answer.body));
    }
    Ok(())
}

fn find(text: &[u8], part: &[u8]) -> bool {
    // Bodies are UTF-8, whose search is a fast one.
    let (text, part) = (std::str::from_utf8(text), std::str::from_utf8(part));
    matches!((text, part), (Ok(text), Ok(part)) if text.contains(part))
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES_MAX)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 36\r\n\r\n{\"status\":\"completed\",\"text\":\"a b\"}\n";

    fn checked(bytes: &[u8]) -> anyhow::Result<()> {
        check(&whole(bytes)?.context("it is whole")?, b"\"text\":\"a b\"")
    }

    #[test]
    fn an_answer_is_whole_with_its_last_byte() {
        for end in 0..GOOD.len() {
            assert!(whole(&GOOD[..end]).unwrap().is_none(), "at {end}");
        }
        checked(GOOD).unwrap();
        assert!(whole(&[GOOD, b"x"].concat()).is_err());
    }

    #[test]
    fn a_wrong_status_or_text_is_noticed() {
        let text = String::from_utf8(GOOD.to_vec()).unwrap();
        for (right, wrong) in [("200", "503"), ("completed", "failed!!!"), ("a b", "a c")] {
            assert!(checked(text.replacen(right, wrong, 1).as_bytes()).is_err(), "{wrong}");
        }
    }
}
