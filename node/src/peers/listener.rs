//! Takes connections of other nodes: each is proven in a task of its own, so that none stalls another. Started by
//! [`super::ClusterPeers`]; ends with it.
//!
//! Over a limit a connection is closed at once. Proven ones need no limit here: each peer has one.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::handshake::Handshake;
use super::mesh::Message;
use super::metrics;
use crate::net::{Listener, Stream};

/// Each holds a socket and some 50 KB for ten seconds at most.
const HANDSHAKES_MAX: usize = 256;
/// Peers behind one address come back all at once after it was cut off.
const HANDSHAKES_PER_ADDRESS_MAX: usize = 100;
/// Without file descriptors every accept fails at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Handshakes in progress, by address.
#[derive(Default)]
struct Places(Mutex<HashMap<IpAddr, usize>>);

struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, own) = (taken.values().sum::<usize>(), taken.get(&address).copied().unwrap_or_default());
        if all >= HANDSHAKES_MAX || own >= HANDSHAKES_PER_ADDRESS_MAX {
            return None;
        }
        taken.insert(address, own + 1);
        Some(Place { places: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.address) {
            Some(own) if *own > 1 => *own -= 1,
            Some(_) | None => drop(taken.remove(&self.address)),
        }
    }
}

pub(super) async fn listen(listener: impl Listener, handshake: Arc<Handshake>, mesh: UnboundedSender<Message>) {
    let places = Arc::new(Places::default());
    while !mesh.is_closed() {
        match listener.accept().await {
            Ok((stream, from)) => match places.take(from.ip()) {
                Some(place) => drop(tokio::spawn(accept(stream, from, place, handshake.clone(), mesh.clone()))),
                None => tracing::warn!(peer.address = %from, "too many connections are not proven yet: one was closed"),
            },
            Err(error) => {
                tracing::warn!(%error, "a connection of another node cannot be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(
    stream: impl Stream,
    from: SocketAddr,
    place: Place,
    handshake: Arc<Handshake>,
    mesh: UnboundedSender<Message>,
) {
    match handshake.accept(stream).await {
        Ok((proven, stream)) => {
            let _ = mesh.send(Message::Proven { proven, stream, dialled: false });
        }
        Err(error) => {
            metrics::refused();
            tracing::warn!(peer.address = %from, error = format!("{error:#}"), "a connection was refused");
        }
    }
    drop(place);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_takes_its_share_of_places_and_gives_them_back() {
        let places = Arc::new(Places::default());
        let address = IpAddr::from([127, 0, 0, 1]);
        let mut taken: Vec<_> = (0..HANDSHAKES_PER_ADDRESS_MAX).map(|_| places.take(address).unwrap()).collect();
        assert!(places.take(address).is_none());
        assert!(places.take(IpAddr::from([127, 0, 0, 2])).is_some());
        taken.pop();
        assert!(places.take(address).is_some());
        drop(taken);
        assert!(places.0.lock().unwrap().is_empty());
    }
}
