//! The drain, by requests over real connections to a node of trivial parts.

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::routing::get;
use futures::StreamExt;
use klatch_actors::node::Status;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;

struct Running {
    http: SocketAddr,
    ops: SocketAddr,
    events: mpsc::Sender<Event>,
    ended: JoinHandle<u8>,
    handed_off: Arc<AtomicBool>,
    /// Lets the stream at `/stream` end.
    end_of_stream: Arc<Notify>,
}

async fn start(drain_timeout: Duration) -> Running {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = Config { http_addr: any, ops_addr: any, drain_timeout, ..Config::default() };
    let config = Config { drain_lag: Some(Duration::from_millis(300)), ..config };
    // Nobody reads along.
    let log = crate::telemetry::LogOptions { format: LogFormat::Json, ..config.log.clone() };
    let config = Config { log, ..config };
    let handed_off = Arc::new(AtomicBool::new(false));
    let end_of_stream = Arc::new(Notify::new());
    let parts = parts(handed_off.clone(), end_of_stream.clone());
    let metrics = PrometheusBuilder::new().build_recorder().handle();
    let node = Node::open(&config, 7, listen(&config).unwrap(), parts, metrics).unwrap();
    let (http, ops) = (node.http.address(), node.ops.address());
    let (events, received) = mpsc::channel(EVENTS_WAITING_MAX);
    let ended = tokio::spawn(node.until_ended(events.clone(), received));
    Running { http, ops, events, ended, handed_off, end_of_stream }
}

fn parts(handed_off: Arc<AtomicBool>, end_of_stream: Arc<Notify>) -> Parts {
    let stream = get(async move || {
        let last = async move {
            end_of_stream.notified().await;
            "last"
        };
        let pieces = futures::stream::once(async { "first" }).chain(futures::stream::once(last));
        Body::from_stream(pieces.map(Ok::<_, std::io::Error>))
    });
    Parts {
        routes: Router::new().route("/", get(async || "here")).route("/stream", stream),
        status: Arc::new(|| Box::pin(async { Some(Status { joined: true, ..Status::default() }) })),
        members: Arc::new(|| Box::pin(async { Vec::new() })),
        reload: Arc::new(|| {}),
        leave: Box::new(|| {}),
        hand_off: Box::new(move |_| {
            handed_off.store(true, Ordering::Relaxed);
            Box::pin(async {})
        }),
        flush: Box::new(|| Box::pin(async {})),
        fault: Box::pin(pending()),
        without_accounts: false,
    }
}

async fn send(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
}

/// Reads until the text has come, or the connection ends.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.contains(end) {
        match stream.read(&mut buffer).await.unwrap() {
            0 => return text,
            read => text.push_str(std::str::from_utf8(&buffer[..read]).unwrap()),
        }
    }
    text
}

async fn ready(ops: SocketAddr) -> String {
    let mut stream = TcpStream::connect(ops).await.unwrap();
    send(&mut stream, "/readyz").await;
    read_until(&mut stream, "}").await
}

#[tokio::test]
async fn a_stopping_node_serves_on_until_balancers_have_noticed_and_finishes_its_streams() {
    let node = start(Duration::from_secs(60)).await;
    assert!(ready(node.ops).await.starts_with("HTTP/1.1 200"));
    let mut idle = TcpStream::connect(node.http).await.unwrap();
    send(&mut idle, "/").await;
    let answer = read_until(&mut idle, "here").await;
    assert!(!answer.contains("connection: close"), "{answer}");
    let mut stream = TcpStream::connect(node.http).await.unwrap();
    send(&mut stream, "/stream").await;
    read_until(&mut stream, "first").await;

    node.events.send(Event::Signal).await.unwrap();
    while !ready(node.ops).await.starts_with("HTTP/1.1 503") {}
    send(&mut idle, "/").await;
    let answer = read_until(&mut idle, "here").await;
    assert!(answer.contains("connection: close"), "{answer}");
    let mut new = TcpStream::connect(node.http).await.unwrap();
    send(&mut new, "/").await;
    assert!(read_until(&mut new, "here").await.contains("200 OK"));

    while TcpStream::connect(node.http).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!node.handed_off.load(Ordering::Relaxed), "a stream is open");
    node.end_of_stream.notify_one();
    assert!(read_until(&mut stream, "last").await.contains("last"));
    assert_eq!(node.ended.await.unwrap(), 0);
    assert!(node.handed_off.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_stream_that_outlasts_the_time_is_cut_and_the_end_is_clean() {
    let node = start(Duration::from_millis(100)).await;
    let mut stream = TcpStream::connect(node.http).await.unwrap();
    send(&mut stream, "/stream").await;
    read_until(&mut stream, "first").await;
    node.events.send(Event::Signal).await.unwrap();
    assert_eq!(node.ended.await.unwrap(), 0);
    assert!(!read_until(&mut stream, "last").await.contains("last"));
}

#[tokio::test]
async fn a_second_signal_does_not_wait() {
    let node = start(Duration::from_secs(60)).await;
    let mut stream = TcpStream::connect(node.http).await.unwrap();
    send(&mut stream, "/stream").await;
    read_until(&mut stream, "first").await;
    node.events.send(Event::Signal).await.unwrap();
    node.events.send(Event::Signal).await.unwrap();
    assert_eq!(node.ended.await.unwrap(), 1);
}

#[tokio::test]
async fn connections_over_the_maximum_wait_for_a_place() {
    let routes = Router::new().route("/", get(async || "here")).route("/never", get(pending::<String>));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = Port::open("http", listener, routes, 1).unwrap();
    let mut first = TcpStream::connect(port.address()).await.unwrap();
    send(&mut first, "/never").await;
    let mut second = TcpStream::connect(port.address()).await.unwrap();
    send(&mut second, "/").await;
    let early = tokio::time::timeout(Duration::from_millis(100), read_until(&mut second, "here")).await;
    assert!(early.is_err(), "{early:?}");
    drop(first);
    assert!(read_until(&mut second, "here").await.contains("200 OK"));
}

#[test]
fn a_later_start_has_a_higher_incarnation_that_json_can_hold() {
    let first = incarnation();
    std::thread::sleep(Duration::from_millis(2));
    let second = incarnation();
    assert!(first < second && second < 1 << 53);
}

#[tokio::test]
async fn a_node_is_assembled_and_put_away_again() {
    let folder = tempfile::tempdir().unwrap();
    for store in ["memory", "file"] {
        let config = Config { store: format!("{store}:{}/{store}", folder.path().display()), ..Config::default() };
        let parts = assemble::assemble(&config, 7, None).await.unwrap();
        assert!(parts.without_accounts);
        assert_eq!((parts.status)().await.map(|status| status.open_turns), Some(0));
        let found = crate::config::check::check(&config, Vec::new()).await.to_string();
        assert!(found.contains("a node is running"), "{found}");
        (parts.reload)();
        (parts.hand_off)(Duration::from_secs(5)).await;
        assert_eq!((parts.status)().await, None);
        (parts.flush)().await;
        let late = tokio::time::timeout(Duration::from_millis(50), parts.fault).await;
        assert!(late.is_err(), "a node that was told to stop has no fault");
    }
}

#[tokio::test]
async fn clients_that_come_all_at_once_find_a_place() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    // Ports at the start, and the one that nodes open again in another life.
    for listener in [reserve("http_addr", any).unwrap(), net::Net::listen(&net::System, any).await.unwrap()] {
        let address = listener.local_addr().unwrap();
        let all = futures::future::try_join_all((0..400).map(|_| TcpStream::connect(address)));
        // Whoever finds none is not told so, and waits.
        let connected = tokio::time::timeout(Duration::from_secs(10), all).await.expect("nobody waits").unwrap();
        assert_eq!(connected.len(), 400);
    }
}

/// The value of a directive in the shipped files of NGINX.
fn shipped(file: &str, directive: &str) -> Vec<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../nginx/klatch").join(file);
    let text = std::fs::read_to_string(path).unwrap();
    let value = |line: &str| line.trim().strip_prefix(directive)?.trim().strip_suffix(';').map(str::to_owned);
    text.lines().filter_map(value).collect()
}

#[test]
fn nginx_as_it_is_shipped_and_a_node_by_default_agree() {
    let seconds = |value: &String| Duration::from_secs(value.strip_suffix('s').unwrap().parse().unwrap());
    let keeps = seconds(&shipped("proxy.conf", "keepalive_timeout")[0]);
    assert!(keeps < listener::IDLE_TIMEOUT, "requests would meet connections that the node just closed");
    let behind = Config { http_addr: SocketAddr::from(([0, 0, 0, 0], 8080)), ..Config::default() };
    assert!(keeps < behind.drain_lag(), "a node that stops would close idle connections that NGINX still uses");
    let limits = behind.limits;
    assert!(limits.keep_alive < seconds(&shipped("proxy.conf", "proxy_read_timeout")[0]), "quiet streams would be cut");
    let turns = shipped("site.conf", "proxy_read_timeout");
    assert_eq!(turns.len(), 2, "of responses and of chat completions");
    assert!(turns.iter().all(|turn| limits.wait_max < seconds(turn)), "long turns would be cut");
    assert_eq!(shipped("limits.conf", "client_max_body_size"), [format!("{}m", limits.body_bytes >> 20)]);
}
