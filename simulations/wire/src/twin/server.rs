//! One server: its connections, and what it does with their commands.
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
    pub(super) shared: Arc<Shared>,
    pub(super) data: RefCell<Data>,
    starts: Cell<u64>,
    /// Commands written in all of this history; the last of them are kept, for the replica.
    pub(super) offset: watch::Sender<u64>,
    pub(super) recent: RefCell<Vec<Vec<Bytes>>>,
    /// How often all that it had was replaced by what another had.
    pub(super) histories: Cell<u64>,
}

/// One process.
pub struct Server {
    pub(super) redis: Rc<Redis>,
    run_id: String,
    scripts: RefCell<BTreeMap<String, String>>,
    /// What replicas have, by their connection.
    pub(super) acknowledged: watch::Sender<BTreeMap<u64, u64>>,
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
            histories: Cell::default(),
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
    pub(super) fn written(&self, commands: Vec<Vec<Bytes>>) {
        self.offset.send_modify(|offset| *offset += commands.len() as u64);
        self.recent.borrow_mut().extend(commands);
    }
}

/// A sentinel that makes a master a replica ends the connections of its clients: they cannot see it become a master again.
async fn demoted(role: &mut watch::Receiver<Role>) {
    while role.changed().await.is_ok() {
        if *role.borrow_and_update() != Role::Master {
            return;
        }
    }
}

pub(super) fn number(command: &[Bytes], at: usize) -> u64 {
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
        let mut role = self.redis.role.subscribe();
        role.mark_unchanged();
        loop {
            let next = tokio::select! {
                biased;
                () = demoted(&mut role) => return Ok(()),
                next = commands.next() => next?,
            };
            let Some(command) = next else { return Ok(()) };
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
        let Redis { name, histories, .. } = &*self.redis;
        format!(
            "redis_version:7.0.15\r\nrun_id:{}\r\naof_enabled:1\r\nmaxmemory_policy:noeviction\r\nconnected_slaves:{replicas}\r\n\
             master_replid:{name}-{}\r\n",
            self.run_id,
            histories.get()
        )
    }
}
