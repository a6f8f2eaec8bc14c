//! A reverse proxy of the tests: each request goes to a node picked at random, whatever connection it came over, so that
//! a client's requests are spread as badly as can be. Answers are streamed as they come; requests are gathered first, as
//! NGINX does, so that a node that refuses one early breaks no connection of the client.
//!
//! Started by a test or by `with-node`. It tries no second node: a client that meets a dead one is told so.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use reqwest::Client;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::random::below;

/// Of one connection, and not of what travels over it.
const HOP_BY_HOP: [HeaderName; 5] =
    [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE, header::TRAILER];

/// Above all that a node takes.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Dropped, it accepts no more connections.
pub struct Balancer {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

struct Nodes {
    urls: Vec<String>,
    http: Client,
}

impl Balancer {
    pub async fn start(urls: Vec<String>) -> anyhow::Result<Self> {
        anyhow::ensure!(!urls.is_empty(), "there is no node to send requests to");
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let http = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build()?;
        let app = Router::new().fallback(pass_on).with_state(Arc::new(Nodes { urls, http }));
        let serving = tokio::spawn(async move {
            // It ends with its listener, and that with the program.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { address, serving })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn pass_on(State(nodes): State<Arc<Nodes>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let url = format!("{}{path}", nodes.urls[below(nodes.urls.len())]);
    let mut passed = nodes.http.request(parts.method, url).headers(end_to_end(parts.headers));
    match axum::body::to_bytes(body, BODY_BYTES_MAX).await {
        Ok(body) if body.is_empty() => {}
        Ok(body) => passed = passed.body(body),
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
    match passed.send().await {
        Ok(answer) => {
            let (status, headers) = (answer.status(), end_to_end(answer.headers().clone()));
            (status, headers, Body::from_stream(answer.bytes_stream())).into_response()
        }
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error}\n")).into_response(),
    }
}

fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    headers
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use bytes::Bytes;
    use futures::StreamExt;
    use tokio::sync::mpsc;

    use super::*;

    async fn serve(app: Router) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await });
        url
    }

    #[tokio::test]
    async fn requests_of_one_connection_are_spread_over_all_nodes() {
        let named = |name: &'static str| Router::new().fallback(async move |body: String| format!("{name} {body}"));
        let nodes = vec![serve(named("a")).await, serve(named("b")).await];
        let balancer = Balancer::start(nodes).await.unwrap();
        let client = Client::builder().no_proxy().build().unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..64 {
            let answer = client.post(balancer.url()).body("there").send().await.unwrap();
            seen.insert(answer.text().await.unwrap());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["a there", "b there"]);
    }

    #[tokio::test]
    async fn a_body_is_passed_on_piece_by_piece() {
        let (pieces, streamed) = mpsc::unbounded_channel::<&'static str>();
        let streamed = Arc::new(tokio::sync::Mutex::new(streamed));
        let app = Router::new().fallback(move || async move {
            Body::from_stream(futures::stream::unfold(streamed, |streamed| async move {
                let piece = streamed.lock().await.recv().await?;
                Some((Ok::<_, Infallible>(Bytes::from_static(piece.as_bytes())), streamed))
            }))
        });
        let balancer = Balancer::start(vec![serve(app).await]).await.unwrap();
        let client = Client::builder().no_proxy().build().unwrap();
        let mut body = client.get(balancer.url()).send().await.unwrap().bytes_stream();
        for piece in ["one", "two"] {
            pieces.send(piece).unwrap();
            let got = tokio::time::timeout(Duration::from_secs(10), body.next()).await.unwrap().unwrap().unwrap();
            assert_eq!(got, piece, "it came before the next was sent");
        }
        drop(pieces);
        assert!(body.next().await.is_none());
    }

    #[tokio::test]
    async fn a_node_that_is_not_there_is_a_bad_gateway() {
        let balancer = Balancer::start(vec![format!("http://127.0.0.1:{}", crate::process::free_port().unwrap())]);
        let balancer = balancer.await.unwrap();
        let client = Client::builder().no_proxy().build().unwrap();
        assert_eq!(client.get(balancer.url()).send().await.unwrap().status(), 502);
    }
}
