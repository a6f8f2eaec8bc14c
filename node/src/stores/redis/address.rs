//! The addresses that name a Redis: one server, a master that sentinels know, or a cluster.

use std::fmt;
use std::time::Duration;

use ::redis::io::tcp::TcpSettings;
use ::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use socket2::TcpKeepalive;

/// The forms, for messages.
pub const FORMS: &str = "redis://[user:password@]host:port/db, rediss://… (TLS), \
    redis+sentinel://[password@]host:port,…/master-name, redis+cluster://[user:password@]host:port,…";

const REDIS_PORT: u16 = 6_379;
const SENTINEL_PORT: u16 = 26_379;

/// A peer that acknowledges nothing for so long is gone: without it a black-holed connection lives for minutes.
const USER_TIMEOUT: Duration = Duration::from_secs(5);
/// Probes of an idle connection, so that its end is noticed before the next turn needs it.
const KEEPALIVE: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub enum Address {
    Single(ConnectionInfo),
    /// `settings` is what the master is connected with; its host and port are asked for at each connection.
    Sentinel {
        sentinels: Vec<(String, u16)>,
        master: String,
        settings: ConnectionInfo,
    },
    /// `settings` is what every node is connected with.
    Cluster {
        seeds: Vec<(String, u16)>,
        settings: ConnectionInfo,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not the address of a Redis ({0}): {FORMS}")]
pub struct AddressError(&'static str);

/// Whether the address is meant to be a Redis at all.
pub fn is_redis(address: &str) -> bool {
    ["redis://", "rediss://", "redis+sentinel://", "redis+cluster://"].iter().any(|form| address.starts_with(form))
}

impl Address {
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once("://").ok_or(AddressError("no scheme"))?;
        match scheme {
            "redis" | "rediss" => {
                let info = text.into_connection_info().map_err(|_| AddressError("it cannot be read"))?;
                Ok(Self::Single(tuned(info)))
            }
            "redis+sentinel" => {
                let (authority, master) = rest.split_once('/').ok_or(AddressError("no name of a master"))?;
                let master = master.trim_end_matches('/');
                if master.is_empty() || master.contains('/') {
                    return Err(AddressError("no name of a master"));
                }
                let (settings, sentinels) = several(authority, SENTINEL_PORT)?;
                Ok(Self::Sentinel { sentinels, master: master.to_owned(), settings })
            }
            "redis+cluster" => {
                let (settings, seeds) = several(rest.trim_end_matches('/'), REDIS_PORT)?;
                Ok(Self::Cluster { seeds, settings })
            }
            _ => Err(AddressError("an unknown scheme")),
        }
    }

    pub fn has_password(&self) -> bool {
        let settings = match self {
            Self::Single(settings) | Self::Sentinel { settings, .. } | Self::Cluster { settings, .. } => settings,
        };
        settings.redis_settings().password().is_some()
    }

    /// Whether another server may take over from the one that is written to.
    pub fn fails_over(&self) -> bool {
        !matches!(self, Self::Single(_))
    }
}

/// `[user:password@]host:port,host:port`; a secret without a colon is a password.
fn several(authority: &str, port: u16) -> Result<(ConnectionInfo, Vec<(String, u16)>), AddressError> {
    let (secret, hosts) = match authority.rsplit_once('@') {
        Some((secret, hosts)) if secret.contains(':') => (format!("{secret}@"), hosts),
        Some((password, hosts)) => (format!(":{password}@"), hosts),
        None => (String::new(), authority),
    };
    let settings = format!("redis://{secret}localhost");
    let settings = settings.into_connection_info().map_err(|_| AddressError("user or password cannot be read"))?;
    let hosts: Result<Vec<_>, _> = hosts.split(',').map(|host| host_and_port(host, port)).collect();
    Ok((tuned(settings), hosts?))
}

fn host_and_port(text: &str, default: u16) -> Result<(String, u16), AddressError> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().map_err(|_| AddressError("a port is no number"))?),
        None => (text, default),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || host.contains('/') {
        return Err(AddressError("a host is missing"));
    }
    Ok((host.to_owned(), port))
}

/// The same settings, another server.
pub fn at(settings: &ConnectionInfo, (host, port): (String, u16)) -> ConnectionInfo {
    settings.clone().set_addr(ConnectionAddr::Tcp(host, port))
}

fn tuned(info: ConnectionInfo) -> ConnectionInfo {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE);
    let settings = TcpSettings::default().set_nodelay(true).set_user_timeout(USER_TIMEOUT).set_keepalive(keepalive);
    info.set_tcp_settings(settings)
}

/// Without user and password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |hosts: &[(String, u16)]| {
            hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect::<Vec<_>>().join(",")
        };
        match self {
            Self::Single(info) => write!(f, "{}", info.addr()),
            Self::Sentinel { sentinels, master, .. } => write!(f, "{master} of the sentinels {}", list(sentinels)),
            Self::Cluster { seeds, .. } => write!(f, "the cluster of {}", list(seeds)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Address::parse(text).map_or_else(|error| error.to_string(), |address| address.to_string())
    }

    #[test]
    fn each_form_is_read_and_shown_without_its_password() {
        assert_eq!(shown("redis://127.0.0.1:6390/2"), "127.0.0.1:6390");
        assert_eq!(shown("redis://ann:secret@db:1"), "db:1");
        assert_eq!(shown("rediss://:secret@db:1"), "db:1");
        assert_eq!(shown("redis+sentinel://secret@a:1,b/chat"), "chat of the sentinels a:1,b:26379");
        assert_eq!(shown("redis+cluster://ann:secret@a:1,[::1]:2"), "the cluster of a:1,::1:2");
    }

    #[test]
    fn what_is_no_address_is_told_the_forms() {
        for text in ["redis://", "redis+sentinel://a:1", "redis+sentinel://a:1/", "redis+cluster://a:x", "redis+x://a"]
        {
            assert!(shown(text).contains("redis+sentinel://["), "{text}: {}", shown(text));
        }
    }

    #[test]
    fn a_password_of_sentinels_address_reaches_the_master() {
        let Ok(Address::Sentinel { settings, .. }) = Address::parse("redis+sentinel://p%40ss@a:1/chat") else {
            panic!("it was refused")
        };
        assert_eq!(settings.redis_settings().password(), Some("p@ss"));
    }
}
