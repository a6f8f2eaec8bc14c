//! Nodes that ask one another over real sockets: killed, frozen, restarted, and among hostile connections. Each node
//! is a process, since ractor's registries are.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use klatch_protocol::envelope;
use klatch_protocol::frame::Hello;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

const SECRET: &str = "the secret of all nodes, long enough";
/// A busy machine takes its time; what is late by so much does not come.
const WAIT_MAX: Duration = Duration::from_secs(60);

struct Peer {
    id: String,
    address: String,
    child: Child,
    orders: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    async fn start(name: &str, incarnation: u64, secret: &str, tls: Option<&[PathBuf; 3]>) -> Self {
        Self::start_at(name, incarnation, secret, tls, "0").await
    }

    async fn start_at(name: &str, life: u64, secret: &str, tls: Option<&[PathBuf; 3]>, port: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_peer"));
        command.arg(name).arg(life.to_string()).arg(secret).args(tls.into_iter().flatten()).env("PEER_PORT", port);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("the peer starts");
        let (orders, said) =
            (child.stdin.take().expect("its stdin is a pipe"), child.stdout.take().expect("its stdout is a pipe"));
        let said = BufReader::new(said).lines();
        let mut peer = Self { id: format!("{name}.{life}"), address: String::new(), child, orders, said };
        peer.address = peer.hear("listening ").await;
        peer
    }

    async fn order(&mut self, line: &str) {
        self.orders.write_all(format!("{line}\n").as_bytes()).await.expect("the peer takes orders");
    }

    /// The rest of the next line that begins so.
    async fn hear(&mut self, begin: &str) -> String {
        let heard = async {
            loop {
                let line = self.said.next_line().await.expect("the peer speaks").expect("the peer goes on");
                if let Some(rest) = line.strip_prefix(begin) {
                    return rest.to_owned();
                }
            }
        };
        let heard = tokio::time::timeout(WAIT_MAX, heard).await;
        heard.unwrap_or_else(|_| panic!("{} never said {begin:?}", self.id))
    }

    async fn keep(&mut self, others: &[&Peer]) {
        let others: Vec<String> = others.iter().map(|other| format!("{}@{}", other.id, other.address)).collect();
        self.order(&format!("keep {}", others.join(" "))).await;
    }

    async fn reach(&mut self, other: &str) {
        self.order(&format!("reach {other}")).await;
        self.hear(&format!("reached {other}")).await;
    }

    async fn ask(&mut self, number: u32, other: &str, bytes: &str) -> String {
        self.order(&format!("ask {number} {other} {bytes} 30000")).await;
        self.hear(&format!("asked {number} ")).await
    }

    async fn signal(&self, signal: &str) {
        let id = self.child.id().expect("the peer runs").to_string();
        assert!(Command::new("kill").args([signal, &id]).status().await.expect("kill runs").success());
    }
}

async fn pair(tls: [Option<&[PathBuf; 3]>; 2]) -> (Peer, Peer) {
    let mut a = Peer::start("klatch-a", 1, SECRET, tls[0]).await;
    let mut b = Peer::start("klatch-b", 1, SECRET, tls[1]).await;
    a.keep(&[&b]).await;
    b.keep(&[&a]).await;
    a.reach(&b.id).await;
    b.reach(&a.id).await;
    (a, b)
}

/// A CA and a certificate for each name.
fn certificates(folder: &TempDir, names: &[&str]) -> Vec<[PathBuf; 3]> {
    let ca_key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = params.self_signed(&ca_key).expect("a certificate").pem();
    let issuer = Issuer::new(params, ca_key);
    let write = |name: String, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("the file is written");
        path
    };
    let ca = write(format!("{}-ca.pem", names[0]), ca_pem);
    let signed = |name: &&str| {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![(*name).to_owned()]).expect("parameters");
        let cert = params.signed_by(&key, &issuer).expect("a certificate").pem();
        [write(format!("{name}.pem"), cert), write(format!("{name}.key"), key.serialize_pem()), ca.clone()]
    };
    names.iter().map(signed).collect()
}

#[tokio::test]
async fn three_nodes_ask_one_another_short_and_long() {
    let mut nodes = Vec::new();
    for name in ["klatch-a", "klatch-b", "klatch-c"] {
        nodes.push(Peer::start(name, 1, SECRET, None).await);
    }
    let all: Vec<String> = nodes.iter().map(|node| format!("{}@{}", node.id, node.address)).collect();
    let ids: Vec<String> = nodes.iter().map(|node| node.id.clone()).collect();
    for node in &mut nodes {
        node.order(&format!("keep {}", all.join(" "))).await;
    }
    for (n, node) in nodes.iter_mut().enumerate() {
        for id in ids.iter().filter(|id| **id != ids[n]) {
            node.reach(id).await;
            assert_eq!(node.ask(1, id, "200").await, "answered");
            assert_eq!(node.ask(2, id, "1048576").await, "answered");
            assert_eq!(node.ask(3, id, "4194304").await, "answered");
            assert!(node.ask(4, id, "4194305").await.starts_with("not-sent"));
        }
    }
}

#[tokio::test]
async fn a_killed_peer_ends_its_asks_and_is_met_again_in_its_next_life() {
    let (mut a, mut b) = pair([None, None]).await;
    a.order(&format!("ask 1 {} !200 30000", b.id)).await;
    assert_eq!(a.ask(2, &b.id, "5").await, "answered");
    b.child.kill().await.unwrap();
    assert_eq!(a.hear("asked 1 ").await, "no-answer the connection to the peer was lost");
    assert!(a.ask(3, &b.id, "5").await.starts_with("not-sent"));
    let port = b.address.rsplit_once(':').unwrap().1.to_owned();
    let mut again = Peer::start_at("klatch-b", 2, SECRET, None, &port).await;
    a.keep(&[&again]).await;
    again.keep(&[&a]).await;
    a.reach(&again.id).await;
    assert_eq!(a.ask(4, &again.id, "5").await, "answered");
    assert!(a.ask(5, &b.id, "5").await.starts_with("not-sent"), "the life before is gone");
}

#[tokio::test]
async fn a_frozen_peer_is_suspected_and_works_again_when_it_thaws() {
    let (mut a, b) = pair([None, None]).await;
    b.signal("-STOP").await;
    assert_eq!(a.ask(1, &b.id, "5").await, "no-answer the peer does not answer any more");
    assert!(a.ask(2, &b.id, "5").await.starts_with("not-sent"));
    b.signal("-CONT").await;
    a.reach(&b.id).await;
    assert_eq!(a.ask(3, &b.id, "5").await, "answered");
}

#[tokio::test]
async fn what_exceeds_the_budget_is_not_sent() {
    let (mut a, b) = pair([None, None]).await;
    for number in [1, 2] {
        a.order(&format!("ask {number} {} !4194304 30000", b.id)).await;
    }
    assert_eq!(a.ask(3, &b.id, "1").await, "not-sent it would exceed the peer's byte budget");
}

#[tokio::test]
async fn with_certificates_a_node_is_who_its_certificate_says() {
    let folder = tempfile::tempdir().unwrap();
    let [ours, theirs]: [_; 2] =
        [["klatch-a", "klatch-b", "klatch-x"].as_slice(), &["klatch-c"]].map(|names| certificates(&folder, names));
    let (mut a, b) = pair([Some(&ours[0]), Some(&ours[1])]).await;
    assert_eq!(a.ask(1, &b.id, "1048576").await, "answered");
    let mut wrong_name = Peer::start("klatch-0", 1, SECRET, Some(&ours[2])).await;
    let mut wrong_ca = Peer::start("klatch-1", 1, SECRET, Some(&theirs[0])).await;
    let mut wrong_secret = Peer::start("klatch-2", 1, "another secret of all nodes, long enough", Some(&ours[2])).await;
    for stranger in [&mut wrong_name, &mut wrong_ca, &mut wrong_secret] {
        stranger.keep(&[&a]).await;
    }
    // It dials again and again meanwhile.
    for number in 2..200 {
        assert_eq!(a.ask(number, &b.id, "200").await, "answered");
    }
    for stranger in [&mut wrong_name, &mut wrong_ca, &mut wrong_secret] {
        let a = a.id.clone();
        assert!(stranger.ask(1, &a, "5").await.starts_with("not-sent"));
    }
}

fn hello() -> Vec<u8> {
    let hello = envelope::seal(&Hello {
        name: "klatch-0".into(),
        incarnation: 1,
        host: "127.0.0.1".into(),
        to_name: "klatch-a".into(),
        to_incarnation: 1,
        nonce: [7; 32],
    });
    [&(hello.len() as u16).to_be_bytes(), hello.as_slice()].concat()
}

#[tokio::test]
async fn fifty_hostile_connections_stall_nobody() {
    let (mut a, mut b) = pair([None, None]).await;
    let first_words: [Vec<u8>; 5] = [
        Vec::new(),
        vec![0x16, 3, 1, 2, 0, 1],
        vec![0xff; 4096],
        hello()[..20].to_vec(),
        [hello(), vec![9; 32], vec![0xaa; 4096]].concat(),
    ];
    let mut hostile = Vec::new();
    for n in 0..50 {
        let mut stream = TcpStream::connect(&a.address).await.unwrap();
        // One that is refused at once may be gone already.
        let _ = stream.write_all(&first_words[n % first_words.len()]).await;
        hostile.push(stream);
    }
    for number in 1..200 {
        assert_eq!(a.ask(number, &b.id, "200").await, "answered");
    }
    // A node that comes now is met: the others hold nothing up.
    let mut c = Peer::start("klatch-c", 1, SECRET, None).await;
    c.keep(&[&a, &b]).await;
    a.keep(&[&b, &c]).await;
    b.keep(&[&a, &c]).await;
    a.reach(&c.id).await;
    c.reach(&b.id).await;
    for mut stream in hostile {
        let ended = async { while !matches!(stream.read(&mut [0; 256]).await, Ok(0) | Err(_)) {} };
        tokio::time::timeout(WAIT_MAX, ended).await.expect("a connection that is not proven is closed");
    }
    assert_eq!(b.ask(500, &a.id, "1048576").await, "answered");
}
