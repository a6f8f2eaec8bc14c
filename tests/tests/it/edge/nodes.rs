//! What stands behind NGINX in these tests: servers that write down what reaches them, or that break off.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::Response;
use futures::StreamExt;
use futures::stream;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub uri: String,
    pub headers: HeaderMap,
}

/// Answers everything with 200, and with its number in `x-node`. `/v1/hold` is answered when it is let go; the answer to
/// `/v1/pieces` is what is sent to it.
pub struct Recorder {
    pub url: String,
    seen: Arc<Mutex<Vec<Recorded>>>,
    pub held: watch::Receiver<usize>,
    hold: watch::Sender<bool>,
    pub pieces: mpsc::UnboundedSender<&'static str>,
    serving: JoinHandle<()>,
}

impl Recorder {
    pub async fn start(number: usize) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let seen: Arc<Mutex<Vec<Recorded>>> = Arc::default();
        let (hold, let_go) = watch::channel(false);
        let (holding, held) = watch::channel(0);
        let (pieces, streamed) = mpsc::unbounded_channel();
        let (seeing, streamed) = (seen.clone(), Arc::new(tokio::sync::Mutex::new(streamed)));
        let app = Router::new().fallback(move |request: Request| {
            let (seen, holding, mut let_go, streamed) =
                (seeing.clone(), holding.clone(), let_go.clone(), streamed.clone());
            async move {
                let (parts, body) = request.into_parts();
                let _ = body.into_data_stream().count().await;
                let uri = parts.uri.to_string();
                let recorded = Recorded { uri: uri.clone(), headers: parts.headers };
                seen.lock().expect("nobody panics").push(recorded);
                let body = match uri.as_str() {
                    "/v1/hold" => {
                        holding.send_modify(|held| *held += 1);
                        let _ = let_go.wait_for(|go| *go).await;
                        Body::from("held\n")
                    }
                    "/v1/pieces" => Body::from_stream(stream::unfold(streamed, |streamed| async move {
                        let piece: &'static str = streamed.lock().await.recv().await?;
                        Some((Ok::<_, Infallible>(Bytes::from_static(piece.as_bytes())), streamed))
                    })),
                    _ => Body::from("there\n"),
                };
                Response::builder().header("x-node", number).body(body).expect("a response")
            }
        });
        let serving = tokio::spawn(async move {
            // It ends with the test.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { url, seen, held, hold, pieces, serving })
    }

    pub fn let_go(&self) {
        self.hold.send_replace(true);
    }

    /// What came since the last time.
    pub fn take(&self) -> Vec<Recorded> {
        std::mem::take(&mut self.seen.lock().expect("nobody panics"))
    }

    /// The one that came since the last time.
    pub fn one(&self) -> Recorded {
        let mut seen = self.take();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Reads each request to the end of its head, and breaks the connection: a node that dies in the middle. The heads are what it
/// sends.
pub async fn breaking() -> anyhow::Result<(String, mpsc::UnboundedReceiver<String>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let (heads, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut read = Vec::new();
            while !read.windows(4).any(|end| end == b"\r\n\r\n") {
                if connection.read_buf(&mut read).await.is_ok_and(|bytes| bytes > 0) {
                    continue;
                }
                break;
            }
            if heads.send(String::from_utf8_lossy(&read).to_lowercase()).is_err() {
                return;
            }
        }
    });
    Ok((url, received))
}
