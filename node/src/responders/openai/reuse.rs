//! Whether connections are used again: against a server that is nothing but bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::super::tests::ask;
use super::*;

const CALLS: usize = 10;

/// Answers each request, and ends an answer's body only when it is let.
struct Server {
    base_url: String,
    /// Connections that the client ended.
    closed: Arc<AtomicUsize>,
    ends: Arc<Semaphore>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let base_url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let server = Self { base_url, closed: Arc::default(), ends: Arc::new(Semaphore::new(0)) };
        let (closed, ends) = (server.closed.clone(), server.ends.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (closed, ends) = (closed.clone(), ends.clone());
                tokio::spawn(async move {
                    // Whichever way.
                    let _ = serve(stream, ends).await;
                    closed.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        server
    }
}

/// Until the client goes away.
async fn serve(stream: TcpStream, ends: Arc<Semaphore>) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            match line.to_ascii_lowercase().strip_prefix("content-length:") {
                Some(value) => length = value.trim().parse().expect("a length"),
                None if line.trim().is_empty() => break,
                None => {}
            }
        }
        stream.read_exact(&mut vec![0; length]).await?;
        let events =
            "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(format!("{head}{:x}\r\n{events}\r\n", events.len()).as_bytes()).await?;
        ends.acquire().await.expect("it is never closed").forget();
        stream.write_all(b"0\r\n\r\n").await?;
    }
}

#[tokio::test]
async fn a_connection_whose_answer_ends_late_is_kept() {
    let server = Server::start().await;
    let openai = OpenAi::new(&OpenAiOptions::new("model", &server.base_url), None, None).expect("options");
    for _ in 0..CALLS {
        let said: Vec<_> = openai.respond(ask("hello")).collect().await;
        assert!(matches!(said.last(), Some(Ok(Said::End(_)))), "{said:?}");
        server.ends.add_permits(1);
    }
    // A call may begin before the connection of the one before is free; but none is closed.
    assert_eq!(server.closed.load(Ordering::SeqCst), 0, "of {CALLS} calls");
}
