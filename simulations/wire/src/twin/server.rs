//! One server: its connections, what it writes to its replica, and what it copies while it is a replica itself.
//!
//! What a [`Redis`] holds outlives the host that serves it; whoever steers the world gives it its role.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use klatch::net::{Listener, Net};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;

use super::data::{Bytes, Data, Reply};
use super::resp::{self, Commands};
use super::{commands, script};
use crate::journal;
use crate::net::Wire;
use crate::planted::Planted;
use crate::shared::Shared;

pub const PORT: u16 = 6_379;
/// Answers are not gathered beyond it.
const GATHERED_MAX: usize = 64 << 10;
/// Between two attempts of a replica to reach its master.
const AGAIN_AFTER: Duration = Duration::from_millis(300);
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// A replica that acknowledges early is so far behind. Planted.
const EARLY_COMMANDS: u64 = 50;
const EARLY: Duration = Duration::from_millis(300);
/// A replica hears of its master at least so often...
const PING_EVERY: Duration = Duration::from_millis(500);
/// ...or connects anew.
const SILENT_MAX: Duration = Duration::from_secs(4);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    Master,
    Replica { of: String },
}

/// What lives longer than a server's process.
pub struct Redis {
    pub name: String,
    pub role: watch::Sender<Role>,
    pub lag: Duration,
    shared: Arc<Shared>,
    data: RefCell<Data>,
    starts: Cell<u64>,
    /// Commands written in all of this history; the last of them are kept, for the replica.
    offset: watch::Sender<u64>,
    recent: RefCell<Vec<Vec<Bytes>>>,
}

/// One process.
pub struct Server {
    redis: Rc<Redis>,
    run_id: String,
    scripts: RefCell<BTreeMap<String, String>>,
    /// What replicas have, by their connection.
    acknowledged: watch::Sender<BTreeMap<u64, u64>>,
    connections: Cell<u64>,
}

impl Redis {
    pub fn new(name: &str, role: Role, lag: Duration, shared: Arc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            name: name.to_owned(),
            role: watch::channel(role).0,
            lag,
            shared,
            data: RefCell::default(),
            starts: Cell::default(),
            offset: watch::channel(0).0,
            recent: RefCell::default(),
        })
    }

    /// Serves until its host crashes.
    pub async fn serve(self: Rc<Self>, net: Wire) -> turmoil::Result {
        self.starts.set(self.starts.get() + 1);
        let run_id = format!("{}-{}", self.name, self.starts.get());
        self.shared.trace(format_args!("redis {run_id}"));
        let (scripts, acknowledged) = (RefCell::default(), watch::channel(BTreeMap::new()).0);
        let server =
            Rc::new(Server { redis: self.clone(), run_id, scripts, acknowledged, connections: Cell::default() });
        let listener = net.listen(([0, 0, 0, 0], PORT).into()).await?;
        tokio::task::spawn_local(self.clone().copy(net));
        loop {
            let (stream, _) = listener.accept().await?;
            let (server, number) = (server.clone(), server.connections.get() + 1);
            server.connections.set(number);
            tokio::task::spawn_local(async move {
                let (read, write) = tokio::io::split(stream);
                // A connection that breaks off costs itself.
                let _ = server.connection(number, read, write).await;
            });
        }
    }

    fn is_master(&self) -> bool {
        *self.role.borrow() == Role::Master
    }

    /// Numbers and keeps what was written.
    fn written(&self, commands: Vec<Vec<Bytes>>) {
        self.offset.send_modify(|offset| *offset += commands.len() as u64);
        self.recent.borrow_mut().extend(commands);
    }

    /// For as long as it is a replica, it holds what its master holds.
    async fn copy(self: Rc<Self>, net: Wire) {
        let mut role = self.role.subscribe();
        loop {
            let now = role.borrow_and_update().clone();
            if let Role::Replica { of } = now {
                tokio::select! {
                    // Whatever broke it off, it begins anew.
                    _ = self.copy_from(&net, &of) => tokio::time::sleep(AGAIN_AFTER).await,
                    _ = role.changed() => {}
                }
            } else if role.changed().await.is_err() {
                return;
            }
        }
    }

    async fn copy_from(&self, net: &Wire, master: &str) -> io::Result<()> {
        let dialled = timeout(CONNECT_MAX, net.dial(&format!("{master}:{PORT}"))).await;
        let (read, mut write) = tokio::io::split(dialled.map_err(|_| io::ErrorKind::TimedOut)??);
        let mut commands = Commands::new(read);
        let mut out = Vec::new();
        resp::command(&mut out, &[b"SYNC".to_vec()]);
        write.write_all(&out).await?;
        let (mut whole, mut loading) = (Data::default(), None);
        loop {
            let next = timeout(SILENT_MAX, commands.next()).await.map_err(|_| io::ErrorKind::TimedOut)??;
            let Some(command) = next else { return Ok(()) };
            match (commands::name_of(&command).as_str(), &mut loading) {
                ("PING", _) => continue,
                // Comes first: so many commands make all that is there, as of this offset.
                ("FULL", _) => loading = Some((number(&command, 1), number(&command, 2))),
                (_, Some((count, _))) => {
                    commands::run(&mut whole, &command);
                    *count -= 1;
                }
                (_, None) => {
                    if self.is_early() {
                        let early = *self.offset.borrow() + EARLY_COMMANDS;
                        self.acknowledge(early, &mut write).await?;
                    }
                    if !commands.has_next() {
                        let lag = if self.is_early() { EARLY } else { self.shared.dice.up_to(self.lag) };
                        tokio::time::sleep(lag).await;
                    }
                    let mut data = self.data.borrow_mut();
                    commands::run(&mut data, &command);
                    (data.written, data.added) = Default::default();
                    drop(data);
                    self.written(vec![command]);
                }
            }
            if let Some((0, offset)) = loading {
                self.take(std::mem::take(&mut whole), offset);
                loading = None;
            }
            if loading.is_none() {
                let offset = *self.offset.borrow();
                self.acknowledge(offset, &mut write).await?;
            }
        }
    }

    fn is_early(&self) -> bool {
        self.shared.planted == Some(Planted::EarlyAcknowledgement)
    }

    async fn acknowledge(&self, offset: u64, write: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let mut out = Vec::new();
        resp::command(&mut out, &[b"ACK".to_vec(), offset.to_string().into_bytes()]);
        write.write_all(&out).await
    }

    /// All that it had is replaced.
    fn take(&self, mut whole: Data, offset: u64) {
        whole.written.clear();
        whole.added.clear();
        *self.data.borrow_mut() = whole;
        self.recent.borrow_mut().clear();
        self.offset.send_replace(offset);
        self.shared.count("replicas synchronised", 1);
    }
}

fn number(command: &[Bytes], at: usize) -> u64 {
    let text = command.get(at).and_then(|text| std::str::from_utf8(text).ok());
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

impl Server {
    async fn connection(
        &self,
        number: u64,
        read: impl AsyncRead + Unpin,
        mut write: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let (mut commands, mut out) = (Commands::new(read), Vec::new());
        // What was written when this connection's last command was done.
        let mut seen = 0;
        let mut held: Option<Reply> = None;
        while let Some(command) = commands.next().await? {
            let name = commands::name_of(&command);
            let reply = match name.as_str() {
                "SYNC" => return self.feed(number, commands, write).await,
                "WAIT" => {
                    write.write_all(&out).await?;
                    out.clear();
                    self.wait(seen, &command).await
                }
                _ => self.execute(&name, &command),
            };
            seen = *self.redis.offset.borrow();
            let reply = match self.is_planted(Planted::WrongAnswer, number) && name == "XRANGE" {
                true => match held.replace(reply) {
                    Some(earlier) => earlier,
                    None => held.clone().expect("it was just held"),
                },
                false => reply,
            };
            resp::write(&mut out, &reply);
            if !commands.has_next() || out.len() > GATHERED_MAX {
                write.write_all(&out).await?;
                out.clear();
            }
        }
        Ok(())
    }

    /// On connections that followed upon others.
    fn is_planted(&self, fault: Planted, connection: u64) -> bool {
        self.redis.shared.planted == Some(fault) && (self.redis.starts.get() > 1 || connection > 12)
    }

    fn execute(&self, name: &str, command: &[Bytes]) -> Reply {
        let redis = &self.redis;
        let text = |at: usize| command.get(at).map(|text| String::from_utf8_lossy(text).into_owned());
        let is_write = commands::writes(name) || name == "EVALSHA";
        if is_write && !redis.is_master() {
            redis.shared.count("writes to a replica refused", 1);
            return Reply::error("READONLY You can't write against a read only replica.");
        }
        match name {
            "PING" => Reply::Status("PONG".to_owned()),
            "CLIENT" | "SELECT" => Reply::ok(),
            "ROLE" => self.role(),
            "INFO" => Reply::Bulk(self.info().into_bytes()),
            "SCRIPT" if text(1).is_some_and(|word| word.eq_ignore_ascii_case("LOAD")) => {
                let source = text(2).unwrap_or_default();
                let sha = ::redis::Script::new(&source).get_hash().to_owned();
                self.scripts.borrow_mut().insert(sha.clone(), source);
                Reply::Bulk(sha.into_bytes())
            }
            "SCRIPT" if text(1).is_some_and(|word| word.eq_ignore_ascii_case("FLUSH")) => {
                self.scripts.borrow_mut().clear();
                Reply::ok()
            }
            "EVALSHA" => {
                let Some(source) = text(1).and_then(|sha| self.scripts.borrow().get(&sha).cloned()) else {
                    return Reply::error("NOSCRIPT No matching script. Please use EVAL.");
                };
                let keys = number(command, 2) as usize;
                let Some((keys, arguments)) = command.get(3..).and_then(|rest| rest.split_at_checked(keys)) else {
                    return Reply::error("ERR Number of keys can't be greater than number of args");
                };
                let reply = script::run(&mut redis.data.borrow_mut(), &source, keys, arguments);
                self.note();
                reply
            }
            _ => {
                let reply = commands::run(&mut redis.data.borrow_mut(), command);
                if matches!(&reply, Reply::Error(said) if said.contains("equal or smaller")) {
                    redis.shared.count("writes fenced", 1);
                }
                self.note();
                reply
            }
        }
    }

    /// What was written is looked at, and goes to the replica.
    fn note(&self) {
        let redis = &self.redis;
        let (written, added) = {
            let mut data = redis.data.borrow_mut();
            (std::mem::take(&mut data.written), std::mem::take(&mut data.added))
        };
        for added in &added {
            journal::check(&redis.shared, added);
        }
        if !written.is_empty() {
            redis.written(written);
        }
    }

    fn role(&self) -> Reply {
        let bulk = |text: &str| Reply::Bulk(text.as_bytes().to_vec());
        let offset = Reply::Int(*self.redis.offset.borrow() as i64);
        match &*self.redis.role.borrow() {
            Role::Master => Reply::Array(vec![bulk("master"), offset, Reply::Array(Vec::new())]),
            Role::Replica { of } => {
                let port = Reply::Int(i64::from(PORT));
                Reply::Array(vec![bulk("slave"), bulk(of), port, bulk("connected"), offset])
            }
        }
    }

    fn info(&self) -> String {
        let replicas = self.acknowledged.borrow().len();
        format!(
            "redis_version:7.0.15\r\nrun_id:{}\r\naof_enabled:1\r\nmaxmemory_policy:noeviction\r\nconnected_slaves:{replicas}\r\n",
            self.run_id
        )
    }

    /// Until so many replicas have what was seen, or the time is over; says how many have.
    async fn wait(&self, seen: u64, command: &[Bytes]) -> Reply {
        let (wanted, millis) = (number(command, 1) as usize, number(command, 2));
        let (mut acknowledged, mut role) = (self.acknowledged.subscribe(), self.redis.role.subscribe());
        let have = |acknowledged: &BTreeMap<u64, u64>| acknowledged.values().filter(|offset| **offset >= seen).count();
        let enough = async { drop(acknowledged.wait_for(|acknowledged| have(acknowledged) >= wanted).await) };
        tokio::select! {
            biased;
            _ = role.wait_for(|role| *role != Role::Master) => {
                let said = "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)";
                return Reply::error(said);
            }
            () = enough => {}
            () = tokio::time::sleep(Duration::from_millis(millis)) => self.redis.shared.count("short waits", 1),
        }
        Reply::Int(have(&self.acknowledged.borrow()) as i64)
    }

    /// All that is there, and then all that is written, to a replica; until either end is gone, or this is no master.
    async fn feed<R: AsyncRead + Unpin>(
        &self,
        number_of_connection: u64,
        mut answers: Commands<R>,
        mut write: impl AsyncWrite + Unpin,
    ) -> io::Result<()> {
        let redis = &self.redis;
        let whole = redis.data.borrow().as_commands();
        let (mut offsets, mut role) = (redis.offset.subscribe(), redis.role.subscribe());
        let mut fed = *offsets.borrow_and_update();
        let mut out = Vec::new();
        let words = ["FULL".to_owned(), whole.len().to_string(), fed.to_string()];
        resp::command(&mut out, &words.map(String::into_bytes));
        whole.iter().for_each(|command| resp::command(&mut out, command));
        let feeding = async {
            loop {
                write.write_all(&out).await?;
                out.clear();
                match timeout(PING_EVERY, offsets.changed()).await {
                    Ok(_) => {
                        let now = *offsets.borrow_and_update();
                        let recent = redis.recent.borrow();
                        let new = (now - fed) as usize;
                        recent[recent.len() - new..].iter().for_each(|command| resp::command(&mut out, command));
                        fed = now;
                    }
                    Err(_) => resp::command(&mut out, &[b"PING".to_vec()]),
                }
            }
        };
        let hearing = async {
            while let Some(command) = answers.next().await? {
                let offset = number(&command, 1);
                self.acknowledged.send_modify(|acknowledged| {
                    acknowledged.insert(number_of_connection, offset);
                });
            }
            io::Result::Ok(())
        };
        let ended: io::Result<()> = tokio::select! {
            ended = feeding => ended,
            ended = hearing => ended,
            _ = role.wait_for(|role| *role != Role::Master) => Ok(()),
        };
        self.acknowledged.send_modify(|acknowledged| {
            acknowledged.remove(&number_of_connection);
        });
        ended
    }
}
