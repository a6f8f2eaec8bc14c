//! What stands here for ractor_cluster: sessions that carry opaque frames over connections which the node's own handshake
//! has proven. Each end says its name, and from then on each message is a length and a frame.
//!
//! Of ractor_cluster nothing is run: not its sessions, its cookie, its actors of remote ones, its process groups; the tests
//! with real processes run those.

use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use klatch::peers::Handed;
use klatch::peers::carrier::{Carrier, Carriers, Frames, Say, Session, Sessions, Stage};
use klatch::peers::preamble::ClusterKey;
use klatch_actors::peers::PeerId;
use klatch_world::shared::lock;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use crate::planted::FormerLives;
use crate::shared::Shared;

const FRAME_BYTES_MAX: usize = 256 << 10;

/// `former`: what is said is kept, and said again on the next connection of the same two nodes. Planted.
pub struct ThinCarriers {
    pub shared: Arc<Shared>,
    pub former: Option<Arc<FormerLives>>,
}

struct Thin {
    shared: Arc<Shared>,
    me: PeerId,
    frames: Frames,
    sessions: Sessions,
    former: Option<Arc<FormerLives>>,
    alive: watch::Sender<()>,
}

#[derive(Clone)]
struct ThinSession {
    name: Arc<Mutex<Option<String>>>,
    said: mpsc::UnboundedSender<Vec<u8>>,
    stop: Arc<watch::Sender<bool>>,
}

impl Carriers for ThinCarriers {
    fn start<'a>(
        &'a self,
        me: &'a PeerId,
        _: &'a ClusterKey,
        frames: Frames,
        sessions: Sessions,
    ) -> BoxFuture<'a, anyhow::Result<Box<dyn Carrier>>> {
        let (shared, former) = (self.shared.clone(), self.former.clone());
        let thin = Thin { shared, me: me.clone(), frames, sessions, former, alive: watch::channel(()).0 };
        Box::pin(async { Ok(Box::new(thin) as Box<dyn Carrier>) })
    }
}

impl Carrier for Thin {
    fn open(&self, ticket: u64, stream: Handed, _: bool) -> bool {
        let (stop, mut stopped) = watch::channel(false);
        let (said, mut to_say) = mpsc::unbounded_channel::<Vec<u8>>();
        let session = ThinSession { name: Arc::default(), said, stop: Arc::new(stop) };
        let (sessions, frames, former) = (self.sessions.clone(), self.frames.clone(), self.former.clone());
        let (me, mut alive) = (self.me.clone(), self.alive.subscribe());
        let shared = self.shared.clone();
        // The first thing that is said.
        let _ = session.said.send(me.to_string().into_bytes());
        tokio::spawn(async move {
            let (mut read, mut write) = stream.into_halves();
            let tell = |stage| sessions.tell(ticket, stage, Box::new(session.clone()));
            tell(Stage::Opened);
            let writing = async {
                while let Some(message) = to_say.recv().await {
                    let length = (message.len() as u32).to_be_bytes();
                    if write.write_all(&length).await.is_err() || write.write_all(&message).await.is_err() {
                        return;
                    }
                }
            };
            let reading = async {
                let name = message(&mut read).await.and_then(|name| String::from_utf8(name).ok());
                let Some(name) = name else { return };
                *lock(&session.name) = Some(name.clone());
                tell(Stage::Authenticated);
                tell(Stage::Ready);
                shared.count("sessions between nodes", 1);
                while let Some(frame) = message(&mut read).await {
                    shared.count("frames between nodes", 1);
                    if let Some(former) = &former {
                        former.heard(&me, &name, &frame).iter().for_each(|old| frames.arrived(old));
                    }
                    frames.arrived(&frame);
                }
            };
            tokio::select! {
                () = writing => {}
                () = reading => {}
                _ = stopped.wait_for(|stop| *stop) => {}
                _ = alive.changed() => {}
            }
            tell(Stage::Ended);
        });
        true
    }

    fn ended(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

impl Session for ThinSession {
    fn stop(&self) {
        self.stop.send_replace(true);
    }

    fn name(&self) -> Option<String> {
        lock(&self.name).clone()
    }

    fn say(&self, _: &PeerId) -> Option<Say> {
        let said = self.said.clone();
        Some(Box::new(move |frame| {
            // A session that has ended says so by itself.
            let _ = said.send(frame);
        }))
    }
}

/// None at the end of the connection.
async fn message(read: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    let length = read.read_u32().await.ok()? as usize;
    if length > FRAME_BYTES_MAX {
        return None;
    }
    let mut message = vec![0; length];
    read.read_exact(&mut message).await.ok()?;
    Some(message)
}
