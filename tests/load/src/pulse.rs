//! A model server that keeps time: each token of its answer is due at a moment that was fixed when it was asked, and the
//! token's text is that moment. So whoever reads it knows how late it is. It reads nothing of what it is asked.
//!
//! Raw HTTP over TCP, since what it costs itself is taken from what is measured on the same machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// Thousands of streams begin within seconds, and on a busy machine nobody accepts them for a while.
const BACKLOG: u32 = 16_384;
const REQUEST_BYTES_MAX: usize = 1 << 20;
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
const END: &[u8] = b"data: {\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
    data: [DONE]\n\n";

/// Accepts no more connections once it is dropped.
pub struct Pulse {
    address: SocketAddr,
    begun: Instant,
    serving: JoinHandle<()>,
}

impl Pulse {
    pub async fn start(tokens: u32, period: Duration) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let listener = socket.listen(BACKLOG)?;
        let (address, begun) = (listener.local_addr()?, Instant::now());
        let serving = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                // A reader that goes away ends its own answer and nothing else.
                tokio::spawn(async move { answer(connection, tokens, period, begun).await.ok() });
            }
        });
        Ok(Self { address, begun, serving })
    }

    /// What a client of OpenAI is given as its base URL.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// How long after it was due a token came, in ms.
    pub fn lag_ms(&self, came: Instant, token: &str) -> anyhow::Result<f64> {
        let due_us: f64 = token.trim().parse().with_context(|| format!("{token:?} is no moment"))?;
        Ok(came.duration_since(self.begun).as_secs_f64() * 1e3 - due_us / 1e3)
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(mut connection: TcpStream, tokens: u32, period: Duration, begun: Instant) -> anyhow::Result<()> {
    connection.set_nodelay(true)?;
    read_request(&mut connection).await?;
    connection.write_all(HEAD).await?;
    let asked = Instant::now();
    for token in 0..tokens {
        let due = asked + period * token;
        tokio::time::sleep_until(due.into()).await;
        let due_us = due.duration_since(begun).as_micros();
        let chunk = format!(
            "data: {{\"object\":\"chat.completion.chunk\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{due_us} \"}},\
             \"finish_reason\":null}}]}}\n\n"
        );
        connection.write_all(chunk.as_bytes()).await?;
    }
    connection.write_all(END).await?;
    Ok(connection.shutdown().await?)
}

/// Head and body, and nothing of either is looked at but how long they are.
async fn read_request(connection: &mut TcpStream) -> anyhow::Result<()> {
    let mut request = Vec::new();
    loop {
        if connection.read_buf(&mut request).await? == 0 || request.len() > REQUEST_BYTES_MAX {
            bail!("that is no request");
        }
        let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).unwrap_or("0");
        if request.len() - end - 4 >= length.trim().parse::<usize>()? {
            return Ok(());
        }
    }
}
