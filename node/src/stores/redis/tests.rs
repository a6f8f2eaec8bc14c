//! The store on real servers, which are killed, frozen and robbed of what they had.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use klatch_actors::Store;
use klatch_actors::membership::views::{Views, contract as views_contract};
use klatch_actors::store::{OpenRow, contract};
use klatch_protocol::{ClaimToken, ConversationId, Entry, Event, Position};

use super::redis_server::RedisServer;
use super::*;
use crate::stores::records::contract as records_contract;

mod lists;

/// Times that make a test of an outage short.
fn impatient() -> RedisOptions {
    RedisOptions {
        connect_timeout: Duration::from_secs(5),
        answer_timeout: Duration::from_secs(5),
        replica_timeout: Duration::from_millis(50),
        replica_lag_max: Duration::from_millis(400),
        ..RedisOptions::default()
    }
}

async fn opened(server: &RedisServer, options: &RedisOptions) -> Arc<RedisStore> {
    let address = Address::parse(&server.url()).unwrap();
    Arc::new(RedisStore::open(&address, options).await.unwrap())
}

/// Empty, since nobody else has its prefix.
async fn fresh(server: &RedisServer) -> Arc<RedisStore> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let prefix = format!("test-{}:", NEXT.fetch_add(1, Ordering::Relaxed));
    opened(server, &RedisOptions { prefix, ..impatient() }).await
}

fn replicated() -> RedisOptions {
    RedisOptions { durability: Some(Durability::Replica), replicas: 1, ..impatient() }
}

fn entry(seq: u64) -> Arc<Entry> {
    let events = vec![Event::Delta { turn: 0, pieces: ["text".repeat(50)].into() }];
    Arc::new(Entry { position: Position { epoch: 1, seq }, token: ClaimToken(7), at_ms: 1, events })
}

async fn written(store: &RedisStore, entries: u64) -> ConversationId {
    let conversation = ConversationId::random();
    for seq in 0..entries {
        store.append(conversation, entry(seq)).await.unwrap();
    }
    conversation
}

/// Until it can be read again.
async fn end_of(store: &RedisStore, conversation: ConversationId) -> Option<Position> {
    loop {
        match store.log_end(conversation).await {
            Ok(end) => return end.map(|end| end.position),
            Err(StoreError::Unavailable(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_contract() {
    let server = RedisServer::start().await.unwrap();
    contract::suite(async || fresh(&server).await as Arc<dyn Store>).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_contract_of_records() {
    let server = RedisServer::start().await.unwrap();
    records_contract::suite(&*fresh(&server).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_the_contract_of_views() {
    let server = RedisServer::start().await.unwrap();
    let make = async || {
        let store = Arc::into_inner(fresh(&server).await).expect("nobody else has it");
        Box::new(store) as Box<dyn Views>
    };
    views_contract::suite(make).await;
}

/// `KLATCH_TWIN_OPS` operations, with most of the effort in the script: the suite's model is its twin.
#[tokio::test(flavor = "multi_thread")]
async fn the_script_does_what_its_twin_does() {
    let operations = std::env::var("KLATCH_TWIN_OPS").ok().and_then(|count| count.parse().ok()).unwrap_or(5_000);
    let seed = u64::from(getrandom::u32().unwrap());
    let server = RedisServer::start().await.unwrap();
    contract::random_operations(&*fresh(&server).await, seed, operations).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_that_the_server_forgot_is_loaded_again() {
    let server = RedisServer::start().await.unwrap();
    let store = fresh(&server).await;
    let lane = store.lane("").unwrap();
    lane.submit(::redis::cmd("SCRIPT").arg("FLUSH").take(), job::Kind::Plain, true).await.unwrap();
    use crate::stores::records::Records;
    assert_eq!(store.put("key".into(), None, vec![1]).await, Ok(true));
    lane.submit(::redis::cmd("SCRIPT").arg("FLUSH").take(), job::Kind::Plain, true).await.unwrap();
    let items = store.items(ConversationId::random(), 0, 9, klatch_actors::store::Order::Ascending, 9).await;
    assert_eq!(items, Ok(vec![]), "a script that reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_nothing_acknowledged_and_comes_back_by_itself() {
    const WRITERS: usize = 16;
    const ROUNDS: usize = 3;
    let mut server = RedisServer::start().await.unwrap();
    let store = fresh(&server).await;
    let killed = Arc::new(AtomicUsize::new(0));
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| tokio::spawn(write_on(store.clone(), killed.clone(), acknowledged.clone(), ROUNDS)))
        .collect();
    for _ in 0..ROUNDS {
        let from = acknowledged.load(Ordering::Relaxed);
        while acknowledged.load(Ordering::Relaxed) < from + 2_000 {
            tokio::task::yield_now().await;
        }
        server.kill().await.unwrap();
        killed.fetch_add(1, Ordering::Relaxed);
        server.restart().await.unwrap();
    }
    for writer in writers {
        let (conversation, last) = writer.await.unwrap();
        let log = store.log(conversation).await.unwrap();
        let seqs: Vec<u64> = log.entries.iter().map(|entry| entry.position.seq).collect();
        assert_eq!(seqs, (0..=last).collect::<Vec<_>>(), "acknowledged up to {last}");
    }
}

/// Appends as an owner does, until some entries after the last kill are acknowledged.
async fn write_on(
    store: Arc<RedisStore>,
    killed: Arc<AtomicUsize>,
    acknowledged: Arc<AtomicUsize>,
    rounds: usize,
) -> (ConversationId, u64) {
    let conversation = ConversationId::random();
    let (mut seq, mut left) = (0, 50);
    while left > 0 {
        let over = killed.load(Ordering::Relaxed) == rounds;
        let done = match store.append(conversation, entry(seq)).await {
            Ok(()) => true,
            Err(StoreError::Unavailable(_)) => false,
            Err(StoreError::Unknown(_)) => end_of(&store, conversation).await == Some(Position { epoch: 1, seq }),
            Err(error) => panic!("entry {seq}: {error}"),
        };
        if done {
            seq += 1;
            left -= usize::from(over);
            acknowledged.fetch_add(1, Ordering::Relaxed);
        } else {
            tokio::task::yield_now().await;
        }
    }
    (conversation, seq - 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_went_back_takes_no_more_entries_of_its_owner() {
    let mut server = RedisServer::start().await.unwrap();
    let store = fresh(&server).await;
    let (shorter, gone) = (written(&store, 3).await, written(&store, 1).await);
    server.kill().await.unwrap();
    // What was on the disk at that moment, and later is all that is left.
    let (from, to) = (server.folder().join("appendonlydir"), server.folder().join("older"));
    copy(&from, &to);
    server.restart().await.unwrap();
    end_of(&store, shorter).await;
    for seq in 3..6 {
        store.append(shorter, entry(seq)).await.unwrap();
    }
    server.kill().await.unwrap();
    std::fs::remove_dir_all(&from).unwrap();
    std::fs::rename(&to, &from).unwrap();
    server.restart().await.unwrap();
    assert_eq!(end_of(&store, shorter).await, Some(Position { epoch: 1, seq: 2 }));
    let refused = store.append(shorter, entry(6)).await;
    assert!(matches!(&refused, Err(StoreError::Damaged(why)) if why.contains("went back")), "{refused:?}");
    assert_eq!(end_of(&store, shorter).await, Some(Position { epoch: 1, seq: 2 }), "it was written all the same");
    store.append(gone, entry(1)).await.unwrap();
    server.kill().await.unwrap();
    server.forget().unwrap();
    server.restart().await.unwrap();
    assert_eq!(end_of(&store, gone).await, None);
    let refused = store.append(gone, entry(2)).await;
    assert_eq!(refused, Err(StoreError::Fenced(None)));
    // Another owner may go on from what is there.
    let claim = Entry { position: Position { epoch: 1, seq: 0 }, token: ClaimToken(8), ..Entry::clone(&entry(0)) };
    store.append(gone, Arc::new(claim)).await.unwrap();
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_replica_has_not_got_is_not_acknowledged() {
    let server = RedisServer::start().await.unwrap();
    let replica = server.start_replica().await.unwrap();
    let store = opened(&server, &replicated()).await;
    let conversation = ConversationId::random();
    // The replica is a copy only some time after it is ready.
    until_replicated(&store).await;
    store.append(conversation, entry(0)).await.unwrap();
    replica.freeze().await.unwrap();
    let stuck = store.append(conversation, entry(1)).await;
    assert!(matches!(stuck, Err(StoreError::Unknown(_))), "{stuck:?}");
    for what in [store.log_end(conversation).await.map(drop), store.log(conversation).await.map(drop)] {
        assert!(matches!(what, Err(StoreError::Unavailable(_))), "what a replica lacks was read: {what:?}");
    }
    // A new connection knows no better.
    let other = opened(&server, &replicated()).await;
    let read = other.log_end(conversation).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    let patient = RedisOptions { replica_lag_max: Duration::from_secs(60), ..replicated() };
    let patient = opened(&server, &patient).await;
    let other = ConversationId::random();
    let pending = {
        let patient = patient.clone();
        tokio::spawn(async move { patient.append(other, entry(0)).await })
    };
    // The master has it.
    let key = patient.keys.log(other);
    while read::end(patient.plain_read(&key, read::end_command(&patient.keys, other)).await.unwrap()) == Ok(None) {
        tokio::task::yield_now().await;
    }
    assert!(!pending.is_finished(), "it was acknowledged without its replica");
    replica.thaw().await.unwrap();
    assert_eq!(pending.await.unwrap(), Ok(()), "a later wait did not acknowledge what was pending");
    assert_eq!(end_of(&store, conversation).await, Some(Position { epoch: 1, seq: 1 }));
    store.append(conversation, entry(2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_takes_nothing_and_says_so() {
    let server = RedisServer::start().await.unwrap();
    let store = fresh(&server).await;
    let conversation = written(&store, 2).await;
    let limit = async |bytes: &str| {
        let set = ::redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(bytes).take();
        store.lane("").unwrap().submit(set, job::Kind::Plain, true).await.unwrap();
    };
    limit("1").await;
    let refused = store.append(conversation, entry(2)).await;
    assert!(matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains("OOM")), "{refused:?}");
    assert_eq!(end_of(&store, conversation).await, Some(Position { epoch: 1, seq: 1 }));
    limit("0").await;
    store.append(conversation, entry(2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_becomes_a_replica_is_left() {
    let server = RedisServer::start().await.unwrap();
    let other = RedisServer::start().await.unwrap();
    let store = fresh(&server).await;
    let conversation = written(&store, 1).await;
    let lane = store.lane("").unwrap();
    let mut demote = ::redis::cmd("REPLICAOF");
    demote.arg("127.0.0.1").arg(other.port);
    lane.submit(demote, job::Kind::Plain, true).await.unwrap();
    let refused = store.append(conversation, entry(1)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    let refused = store.append(conversation, entry(1)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert!(!lane.is_up(), "it stays with a replica");
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_lead_to_the_new_master_and_nothing_acknowledged_is_lost() {
    let mut master = RedisServer::start().await.unwrap();
    let replica = master.start_replica().await.unwrap();
    until_replicated(&*opened(&master, &replicated()).await).await;
    let sentinel = RedisServer::start_sentinel("chat", &master).await.unwrap();
    let address = Address::parse(&format!("redis+sentinel://127.0.0.1:{}/chat", sentinel.port)).unwrap();
    let options = RedisOptions { replica_lag_max: Duration::from_secs(10), ..impatient() };
    let store = RedisStore::open(&address, &options).await.unwrap();
    let conversation = written(&store, 100).await;
    master.kill().await.unwrap();
    // It comes back as the replica of its successor, without which nothing would be acknowledged.
    until_master(&replica).await;
    master.restart().await.unwrap();
    let end = loop {
        if let Ok(end) = store.log_end(conversation).await {
            break end.map(|end| end.position);
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(end, Some(Position { epoch: 1, seq: 99 }));
    match store.append(conversation, entry(100)).await {
        Ok(()) => {}
        // The new replica was not there yet: it is written, and acknowledged once it can be read.
        Err(StoreError::Unknown(_)) => {
            assert_eq!(end_of(&store, conversation).await, Some(Position { epoch: 1, seq: 100 }));
        }
        Err(error) => panic!("{error}"),
    }
    assert_eq!(store.log(conversation).await.unwrap().entries.len(), 101);
}

async fn until_master(server: &RedisServer) {
    let target = connect::Target::of(&Address::parse(&server.url()).unwrap(), Dialler::Client).unwrap();
    while target.connect(&Manner::new(&impatient())).await.is_err() {
        tokio::task::yield_now().await;
    }
}

/// Rows can be written again, so they show when the replicas of all slots are there.
async fn until_replicated(store: &RedisStore) {
    for shard in (0..64).map(klatch_protocol::Shard) {
        while store.open_add(shard, OpenRow { conversation: ConversationId([0; 16]), epoch: 1 }).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_keeps_the_contract_as_one_server_does() {
    let servers = RedisServer::start_cluster().await.unwrap();
    let address = Address::parse(&format!("redis+cluster://127.0.0.1:{}", servers[0].port)).unwrap();
    let next = AtomicUsize::new(0);
    let fresh = async || {
        let prefix = format!("test-{}:", next.fetch_add(1, Ordering::Relaxed));
        let patient = Duration::from_secs(5);
        let options = RedisOptions { prefix, replica_lag_max: patient, ..impatient() };
        Arc::new(RedisStore::open(&address, &options).await.unwrap())
    };
    until_replicated(&*fresh().await).await;
    contract::suite(async || fresh().await as Arc<dyn Store>).await;
    records_contract::suite(&*fresh().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_names_what_makes_the_promises_void() {
    let volatile = RedisServer::start_with(&["--appendonly", "no", "--maxmemory-policy", "allkeys-lru"]).await.unwrap();
    let address = Address::parse(&volatile.url()).unwrap();
    let said = check(&address, &replicated()).await.to_string();
    for problem in ["allkeys-lru", "appendonly yes", "redis.replicas: 1 replicas"] {
        assert!(said.contains(problem), "{said}");
    }
    let good = RedisServer::start().await.unwrap();
    assert_eq!(check(&Address::parse(&good.url()).unwrap(), &impatient()).await.to_string(), "");
    let nobody = Address::parse("redis://ann:secret@127.0.0.1:1").unwrap();
    let said = check(&nobody, &impatient()).await.to_string();
    assert!(said.contains("cannot be reached at 127.0.0.1:1") && !said.contains("secret"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_changes_in_its_file_is_taken_over_without_a_restart() {
    let server = RedisServer::start_with(&["--requirepass", "first"]).await.unwrap();
    let address = Address::parse(&server.url()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    std::fs::write(&path, "first\n").unwrap();
    let options = RedisOptions { password_file: Some(path.clone()), ..impatient() };
    let store = RedisStore::open(&address, &options).await.unwrap();
    let conversation = ConversationId([1; 16]);
    assert!(store.log(conversation).await.unwrap().entries.is_empty());
    // As an operator does: the server first, then the file; the connections that are open are cut.
    std::fs::write(&path, "second").unwrap();
    let port = server.port.to_string();
    for command in
        [&["config", "set", "requirepass", "second"][..], &["-a", "second", "client", "kill", "type", "normal"]]
    {
        let said = std::process::Command::new("redis-cli")
            .args(["-p", &port, "-a", "first", "--no-auth-warning"])
            .args(command)
            .output();
        assert!(said.unwrap().status.success());
    }
    let again = async {
        while store.log(conversation).await.is_err() {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.expect("the store logs in again");
    std::fs::remove_file(&path).unwrap();
    let Err(error) = RedisStore::open(&address, &options).await else { panic!("it was opened without a password") };
    let said = format!("{:#}", anyhow::Error::from(error));
    assert!(said.contains("redis.password_file: ") && said.contains("password cannot be read"), "{said}");
}

/// Prints how many appends a second there are; for a look with `--nocapture`, and bounded for the rest.
#[tokio::test(flavor = "multi_thread")]
async fn appends_of_many_share_their_batches() {
    let server = RedisServer::start().await.unwrap();
    let store = fresh(&server).await;
    for writers in [1_u64, 64] {
        let each = 6_400 / writers;
        let begun = Instant::now();
        let all = (0..writers).map(|_| {
            let store = store.clone();
            tokio::spawn(async move { written(&store, each).await })
        });
        futures::future::join_all(all.collect::<Vec<_>>()).await;
        println!("{writers} writers: {:.0} appends/s", (each * writers) as f64 / begun.elapsed().as_secs_f64());
    }
}

/// Stops everything in this process meanwhile, as a node that is frozen is stopped.
fn asked(server: &RedisServer, arguments: &[&str]) -> String {
    let port = server.port.to_string();
    let output = std::process::Command::new("redis-cli").args(["-p", &port]).args(arguments).output().unwrap();
    assert!(output.status.success(), "redis-cli {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn until_it_says(server: &RedisServer, arguments: &[&str], part: &str) {
    let begun = Instant::now();
    while !asked(server, arguments).contains(part) {
        assert!(begun.elapsed() < Duration::from_secs(30), "{arguments:?} never says {part}");
    }
}

/// Sentinels end the connections of a master that becomes a replica. Whoever says REPLICAOF by hand does not.
#[tokio::test]
async fn an_entry_that_a_master_lost_while_it_was_a_replica_is_never_acknowledged() {
    const REPLICATION: [&str; 2] = ["INFO", "replication"];
    let first = RedisServer::start().await.unwrap();
    let second = first.start_replica().await.unwrap();
    until_it_says(&second, &REPLICATION, "master_link_status:up");
    let options = RedisOptions { replica_lag_max: Duration::from_secs(60), ..replicated() };
    let store = opened(&first, &options).await;
    let conversation = written(&store, 3).await;
    let log = store.keys.log(conversation);

    asked(&second, &["REPLICAOF", "NO", "ONE"]);
    let late = tokio::spawn({
        let store = store.clone();
        async move { store.append(conversation, entry(3)).await }
    });
    while asked(&first, &["XLEN", &log]).trim() != "4" {
        tokio::task::yield_now().await;
    }
    // From here on the store does nothing, and its connection stands.
    until_it_says(&first, &["INFO", "clients"], "blocked_clients:0");
    asked(&first, &["REPLICAOF", "127.0.0.1", &second.port.to_string()]);
    until_it_says(&first, &REPLICATION, "master_link_status:up");
    asked(&first, &["REPLICAOF", "NO", "ONE"]);
    asked(&second, &["REPLICAOF", "127.0.0.1", &first.port.to_string()]);
    until_it_says(&second, &REPLICATION, "master_link_status:up");
    // What others write takes the offset above that of the lost entry.
    asked(&first, &["SET", "other", &"x".repeat(100_000)]);
    assert_eq!(asked(&first, &["WAIT", "1", "30000"]).trim(), "1");
    assert_eq!(asked(&first, &["XLEN", &log]).trim(), "3", "the entry is lost");

    let told = tokio::time::timeout(Duration::from_secs(30), late).await.expect("it is told something").unwrap();
    assert!(matches!(told, Err(StoreError::Unknown(_))), "{told:?}");
    assert_eq!(end_of(&store, conversation).await.map(|end| end.seq), Some(2));
}
