//! From a master to its replica: all that is there, then all that is written. The replica acknowledges what it has, some time
//! later, and whoever writes can wait for that. One that loses its master begins anew with all that is there.

use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use klatch::net::Net;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::commands;
use super::data::{Bytes, Data, Reply};
use super::resp::{self, Commands};
use super::server::{PORT, Redis, Role, Server, number};
use crate::net::Wire;
use crate::planted::Planted;

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

impl Redis {
    /// For as long as it is a replica, it holds what its master holds.
    pub(super) async fn copy(self: Rc<Self>, net: Wire) {
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
        self.histories.set(self.histories.get() + 1);
        self.shared.count("replicas synchronised", 1);
    }
}

impl Server {
    /// Until so many replicas have what was seen, or the time is over; says how many have.
    pub(super) async fn wait(&self, seen: u64, command: &[Bytes]) -> Reply {
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
    pub(super) async fn feed<R: AsyncRead + Unpin>(
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
