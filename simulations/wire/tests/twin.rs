//! The twin of Redis is right: the production client keeps the contracts of stores over it, over simulated TCP, and the same
//! commands are answered the same by it and by a real server.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use klatch::stores::redis::{Address, Dialler, RedisOptions, RedisStore};
use klatch_actors::Store;
use klatch_actors::membership::views::{Views, contract as views_contract};
use klatch_actors::store::contract;
use klatch_wire::net::{Wire, Wires};
use klatch_wire::shared::Shared;
use klatch_wire::twin::commands;
use klatch_wire::twin::data::{Bytes, Data, Reply};
use klatch_wire::twin::script;
use klatch_wire::twin::server::{Redis, Role};
use klatch_world::dice::Dice;
use redis::Value;
use redis_server::RedisServer;

/// Of the tests of whole programs: one starter of servers for all.
#[allow(dead_code)]
#[path = "../../../tests/src/redis_server.rs"]
mod redis_server;

/// Runs what a client does, on a network with a master and its replica.
fn with_twin<Work>(work: impl FnOnce(Wire) -> Work + 'static)
where
    Work: Future<Output = ()>,
{
    let wires = Wires::default();
    let net = Wire(wires.clone());
    let shared = Arc::new(Shared::new(1, None, false).without_checks());
    let mut sim = turmoil::Builder::new()
        .rng_seed(1)
        .simulation_duration(Duration::from_secs(3_600))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(2))
        .tcp_capacity(1 << 16)
        .build();
    let lag = Duration::from_millis(3);
    for (name, role) in [("redis-0", Role::Master), ("redis-1", Role::Replica { of: "redis-0".into() })] {
        let server = Redis::new(name, role, lag, shared.clone());
        let net = net.clone();
        sim.host(name, move || server.clone().serve(net.clone()));
    }
    sim.client("client", async move {
        work(net).await;
        Ok(())
    });
    sim.run().expect("the suite ends");
}

/// Empty, since nobody else has its prefix.
async fn fresh(net: &Wire, next: &Cell<u64>, options: RedisOptions) -> RedisStore {
    next.set(next.get() + 1);
    let options = RedisOptions { prefix: format!("test-{}:", next.get()), ..options };
    let address = Address::parse("redis://redis-0:6379").expect("an address");
    let dialler = Dialler::Other(Arc::new(net.clone()));
    RedisStore::open_by(dialler, &address, &options).await.expect("the twin can be connected to")
}

#[test]
fn the_client_keeps_the_contract_of_stores_over_the_twin() {
    with_twin(async |net| {
        let next = Rc::new(Cell::new(0));
        let make = async || Arc::new(fresh(&net, &next, RedisOptions::default()).await) as Arc<dyn Store>;
        contract::suite(make).await;
    });
}

#[test]
fn the_client_keeps_the_contract_of_views_over_the_twin_with_its_replica() {
    with_twin(async |net| {
        let next = Rc::new(Cell::new(0));
        let durability = Some(klatch::stores::redis::Durability::Replica);
        let options = RedisOptions { durability, ..RedisOptions::default() };
        views_contract::suite(async || Box::new(fresh(&net, &next, options.clone()).await) as Box<dyn Views>).await;
    });
}

const SCRIPTS: [(&str, usize); 8] = [
    (include_str!("../../../node/src/stores/redis/scripts/put_record.lua"), 2),
    (include_str!("../../../node/src/stores/redis/scripts/remove_record.lua"), 2),
    (include_str!("../../../node/src/stores/redis/scripts/view_join.lua"), 3),
    (include_str!("../../../node/src/stores/redis/scripts/view_beat.lua"), 3),
    (include_str!("../../../node/src/stores/redis/scripts/view_set.lua"), 3),
    (include_str!("../../../node/src/stores/redis/scripts/view_bury.lua"), 3),
    (include_str!("../../../node/src/stores/redis/scripts/view_leave.lua"), 3),
    (include_str!("../../../node/src/stores/redis/scripts/view_read.lua"), 3),
];
const COMPACT: &str = include_str!("../../../node/src/stores/redis/scripts/compact.lua");
const BLOCKS: &str = include_str!("../../../node/src/stores/redis/scripts/blocks.lua");

/// Commands that the client sends, many of them refused.
struct Throws(Dice);

impl Throws {
    fn one(&self, of: &[&str]) -> Bytes {
        self.0.pick(of).expect("there are some").as_bytes().to_vec()
    }

    fn key(&self, kind: &str) -> Bytes {
        // Now and then of another kind.
        let kind = if self.0.permille(30) { self.one(&["log", "items", "hash", "text"]) } else { kind.into() };
        [&kind[..], &self.one(&["-a", "-b"])].concat()
    }

    fn member(&self) -> Bytes {
        self.one(&["", "a", "aa", "ab", "b", "\u{7f}", "zz"])
    }

    fn bound(&self) -> Bytes {
        match self.0.below(6) {
            0 => b"-".to_vec(),
            1 => b"+".to_vec(),
            2 => b"wrong".to_vec(),
            _ => [self.one(&["[", "("]), self.member()].concat(),
        }
    }

    fn id(&self) -> Bytes {
        match self.0.permille(300) {
            // The last of these: so the log ends mostly.
            true => b"3-5".to_vec(),
            false => format!("{}-{}", self.0.below(4), self.0.below(6)).into_bytes(),
        }
    }

    fn command(&self) -> Vec<Bytes> {
        let word = |text: &str| text.as_bytes().to_vec();
        let page = || [word("LIMIT"), word("0"), self.one(&["0", "1", "3", "-1"])];
        match self.0.below(22) {
            0 => vec![word("XADD"), self.key("log"), word("NOMKSTREAM"), self.id(), word("t"), self.token()],
            1 | 2 => vec![word("XADD"), self.key("log"), self.id(), word("t"), self.token()],
            3 => vec![word("XRANGE"), self.key("log"), word("-"), word("+")],
            4 => vec![word("XREVRANGE"), self.key("log"), word("+"), word("-"), word("COUNT"), word("1")],
            5 => vec![word("XTRIM"), self.key("log"), word("MINID"), word("="), self.id()],
            6 | 7 => vec![word("ZADD"), self.key("items"), word("0"), self.member()],
            8 => vec![word("ZREM"), self.key("items"), self.member()],
            9 | 10 => {
                let begin = vec![word("ZRANGEBYLEX"), self.key("items"), self.bound(), self.bound()];
                begin.into_iter().chain(page()).collect()
            }
            11 => {
                let begin = vec![word("ZREVRANGEBYLEX"), self.key("items"), self.bound(), self.bound()];
                begin.into_iter().chain(page()).collect()
            }
            12 => vec![word("ZREMRANGEBYLEX"), self.key("items"), self.bound(), self.bound()],
            13 => vec![word("HSET"), self.key("hash"), self.member(), self.member()],
            14 => vec![word("HGET"), self.key("hash"), self.member()],
            15 => vec![word("HDEL"), self.key("hash"), self.member()],
            16 => vec![word("HGETALL"), self.key("hash")],
            17 => vec![word("TYPE"), self.key("log")],
            18 => vec![word("EXISTS"), self.key("log")],
            19 if self.0.permille(600) => vec![word("UNLINK"), self.key("log")],
            19 => vec![word("INCR"), self.key("text")],
            20 => vec![word("HINCRBY"), self.key("hash"), word("counter"), word("1")],
            _ => vec![word("GET"), self.key("text")],
        }
    }

    fn token(&self) -> Bytes {
        self.one(&["a", "b"])
    }

    fn ordinal(&self) -> Bytes {
        self.one(&["12345678", "12345679", "1234567a", "abcdefgh"])
    }

    /// Of a list of blocks, and now and then of another format, or none at all.
    fn block(&self) -> Bytes {
        let format = if self.0.permille(50) { "\u{1}" } else { "\u{2}" };
        let rows = "row".repeat(self.0.below(8) as usize);
        [self.ordinal(), format.into(), self.ordinal(), rows.into()].concat()
    }

    fn some(&self, one: impl Fn() -> Bytes) -> Vec<Bytes> {
        let count = self.0.below(3);
        std::iter::once(count.to_string().into_bytes()).chain((0..count).map(|_| one())).collect()
    }

    /// Which script, its keys and its arguments.
    fn script(&self) -> (&'static str, Vec<Bytes>, Vec<Bytes>) {
        if self.0.permille(200) {
            let (key, high) = (self.key("list"), self.one(&["+", "(1234567a", "(12345679"]));
            return (BLOCKS, vec![key], vec![self.ordinal(), high, self.one(&["1", "2"])]);
        }
        if self.0.permille(500) {
            let keys = [self.key("log"), self.key("list"), b"clients".to_vec(), self.key("list")];
            // From 3-5 the log goes on by compactions only.
            let ids = [["2-5", "3-0"], ["3-5", "4-0"], ["3-5", "4-0"], ["4-0", "5-0"], ["5-0", "6-0"], ["4-0", "3-0"]];
            let [expected, next] = self.0.pick(&ids).expect("there are some").map(|id| id.as_bytes().to_vec());
            let mut arguments = vec![expected, self.token(), next, self.token(), b"snapshot".to_vec()];
            arguments.extend([self.one(&["", "", "12345679"]), self.one(&["20", "40", "60"])]);
            let clients = self.0.below(3);
            arguments.push(clients.to_string().into_bytes());
            arguments.extend((0..clients).flat_map(|_| [self.member(), self.ordinal()]));
            for _ in 0..2 {
                arguments.push(self.one(&["above", "replace"]));
                arguments.extend(self.some(|| self.ordinal()));
                arguments.extend(self.some(|| self.block()));
            }
            return (COMPACT, keys.into(), arguments);
        }
        let (source, keys) = *self.0.pick(&SCRIPTS).expect("there are some");
        let names: &[&str] = if keys == 2 { &["values", "names"] } else { &["number", "rows", "counters"] };
        let incarnation = self.one(&["0000000000000001", "0000000000000002"]);
        let arguments = vec![self.member(), incarnation, self.one(&["1", "2"]), self.one(&["1", "2"])];
        (source, names.iter().map(|name| name.as_bytes().to_vec()).collect(), arguments)
    }
}

/// Both servers' answers in one form. Of an error the code counts, and the words where the client reads them.
fn of_twin(reply: &Reply) -> String {
    match reply {
        Reply::Status(said) => format!("+{said}"),
        Reply::Error(said) => of_error(said),
        Reply::Int(number) => format!(":{number}"),
        Reply::Nil => "nil".to_owned(),
        Reply::Bulk(bytes) => format!("{bytes:?}"),
        Reply::Array(replies) => format!("[{}]", replies.iter().map(of_twin).collect::<Vec<_>>().join(", ")),
    }
}

fn of_real(value: &Value) -> String {
    match value {
        Value::Okay => "+OK".to_owned(),
        Value::SimpleString(said) => format!("+{said}"),
        Value::ServerError(error) => of_error(&format!("{} {}", error.code(), error.details().unwrap_or_default())),
        Value::Int(number) => format!(":{number}"),
        Value::Nil => "nil".to_owned(),
        Value::BulkString(bytes) => format!("{bytes:?}"),
        Value::Array(values) => format!("[{}]", values.iter().map(of_real).collect::<Vec<_>>().join(", ")),
        other => panic!("{other:?}"),
    }
}

fn of_error(said: &str) -> String {
    let words = ["equal or smaller", "must be greater than 0-0", "WRONGTYPE"];
    words.into_iter().find(|words| said.contains(words)).unwrap_or("error").to_owned()
}

#[tokio::test]
async fn the_same_commands_and_scripts_are_answered_the_same_by_a_real_server() {
    let server = RedisServer::start_with(&[]).await.expect("redis-server is installed");
    let client = redis::Client::open(server.url()).expect("an address");
    let mut real = client.get_multiplexed_async_connection().await.expect("it can be connected to");
    let (throws, mut twin) = (Throws(Dice::new(7)), Data::default());
    let mut compacted = 0;
    for n in 0..20_000 {
        let (asked, answer) = if throws.0.permille(250) {
            let (source, keys, arguments) = throws.script();
            let mut call = redis::cmd("EVAL");
            call.arg(source).arg(keys.len()).arg(&keys).arg(&arguments);
            let answer = script::run(&mut twin, source, &keys, &arguments);
            compacted += usize::from(source == COMPACT && answer == Reply::Bulk(b"ok".to_vec()));
            (call, answer)
        } else {
            let command = throws.command();
            let mut call = redis::Cmd::new();
            for word in &command {
                call.arg(word);
            }
            (call, commands::run(&mut twin, &command))
        };
        let expected = real.send_packed_command(&asked).await.expect("it answers");
        let shown = String::from_utf8_lossy(&asked.get_packed_command()).into_owned();
        let (expected, answer) = (of_real(&expected), of_twin(&answer));
        // The order of a hash is nobody's business.
        let sorted = |text: &str| {
            let mut parts: Vec<String> =
                text.split(", ").map(|part| part.trim_matches(['[', ']']).to_owned()).collect();
            parts.sort();
            parts
        };
        let is_hash = shown.contains("HGETALL");
        let same = if is_hash { sorted(&expected) == sorted(&answer) } else { expected == answer };
        assert!(same, "command {n}, {shown:?}: the server says {expected}, and the twin {answer}");
    }
    assert!(compacted > 50, "only {compacted} compactions were not refused");
}
