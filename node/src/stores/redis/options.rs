//! `[redis]`: what an acknowledgement promises, and how long is waited for it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::address::Address;
use crate::config::ConfigRefused;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisOptions {
    /// What an acknowledgement promises. `primary`: it is in Redis, and with `appendfsync always` on its disk.
    /// `replica`: it is on `replicas` replicas too, so that no single failure loses it. By default `primary` with one
    /// server; with sentinels and clusters `replica`, which they require.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub durability: Option<Durability>,
    /// Replicas that an acknowledgement waits for in durability `replica`. Make it all that can be promoted: one that
    /// is promoted without having been waited for may lack what was acknowledged.
    pub replicas: usize,
    /// Connections that write, from 1 to 4, of this node to each server. One does some 50,000 appends in a second; more
    /// help where many large entries are written.
    pub connections: usize,
    /// Begins the names of all keys, so that several clusters of nodes can share a Redis.
    pub prefix: String,
    /// A file with the password; line ends at its end do not count. Read at each connection, so that it changes without
    /// a restart. The user's name, if there is one, stays in the address: `redis://user@host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// A connection must be there within this.
    #[serde(with = "crate::durations")]
    pub connect_timeout: Duration,
    /// An answer must come within this, else the connection is replaced and the outcome is unknown.
    #[serde(with = "crate::durations")]
    pub answer_timeout: Duration,
    /// How long one batch waits for its replicas. What they miss then waits on, behind the next batches.
    #[serde(with = "crate::durations")]
    pub replica_timeout: Duration,
    /// What replicas have not got for so long is answered as unknown.
    #[serde(with = "crate::durations")]
    pub replica_lag_max: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    Primary,
    Replica,
}

const CONNECTIONS_MAX: usize = 4;

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            durability: None,
            replicas: 1,
            connections: 1,
            prefix: "klatch:".to_owned(),
            password_file: None,
            connect_timeout: Duration::from_secs(2),
            answer_timeout: Duration::from_secs(3),
            replica_timeout: Duration::from_millis(500),
            replica_lag_max: Duration::from_secs(10),
        }
    }
}

impl RedisOptions {
    pub fn durability(&self, address: &Address) -> Durability {
        let default = if address.fails_over() { Durability::Replica } else { Durability::Primary };
        self.durability.unwrap_or(default)
    }

    /// Replicas that are waited for; none in durability `primary`.
    pub fn replicas(&self, address: &Address) -> Option<usize> {
        (self.durability(address) == Durability::Replica).then_some(self.replicas)
    }

    /// One sentence for the log at start.
    pub fn promise(&self, address: &Address) -> String {
        match self.replicas(address) {
            None => "an acknowledged write is in Redis; it survives what Redis' own persistence survives, and no \
                     failover"
                .to_owned(),
            Some(replicas) => format!(
                "an acknowledged write is in Redis and on {replicas} of its replicas; no single failure loses it if \
                 these are all that can be promoted"
            ),
        }
    }

    pub fn refuse_contradictions(&self, address: Option<&Address>) -> Result<(), ConfigRefused> {
        let refused = |key: &str, said: &str| Err(ConfigRefused::new(format!("redis.{key}"), said));
        if address.is_some_and(Address::fails_over) && self.durability == Some(Durability::Primary) {
            let said = "is `primary`, which loses acknowledged writes when another server takes over: with sentinels \
                        and clusters only `replica` works";
            return refused("durability", said);
        }
        if self.password_file.is_some() && address.is_some_and(Address::has_password) {
            return refused("password_file", "is set beside a password in the address: one of the two is right");
        }
        if self.replicas == 0 {
            return refused("replicas", "is 0: 1 or more can be waited for; durability = \"primary\" waits for none");
        }
        if !(1..=CONNECTIONS_MAX).contains(&self.connections) {
            return refused("connections", "is not from 1 to 4");
        }
        if self.prefix.contains(['{', '}']) {
            return refused("prefix", "has a brace, which names the slot of a key: letters, digits and `:` would do");
        }
        let times = [
            ("connect_timeout", self.connect_timeout),
            ("answer_timeout", self.answer_timeout),
            ("replica_timeout", self.replica_timeout),
        ];
        if let Some((key, _)) = times.iter().find(|(_, value)| value.is_zero()) {
            return refused(key, "is 0: 1s or more would work");
        }
        if self.replica_lag_max < self.replica_timeout {
            return refused("replica_lag_max", "is shorter than replica_timeout: several times that would work");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(options: RedisOptions, address: &str) -> Option<String> {
        let address = Address::parse(address).unwrap();
        options.refuse_contradictions(Some(&address)).err().map(|refused| refused.key)
    }

    #[test]
    fn contradictions_are_refused_by_name() {
        let good = RedisOptions::default;
        let primary = || RedisOptions { durability: Some(Durability::Primary), ..good() };
        assert_eq!(key(primary(), "redis://a"), None);
        assert_eq!(key(good(), "redis+sentinel://a/m"), None);
        assert_eq!(key(primary(), "redis+sentinel://a/m").as_deref(), Some("redis.durability"));
        assert_eq!(key(primary(), "redis+cluster://a").as_deref(), Some("redis.durability"));
        assert_eq!(key(RedisOptions { replicas: 0, ..good() }, "redis://a").as_deref(), Some("redis.replicas"));
        for connections in [0, 5] {
            let options = RedisOptions { connections, ..good() };
            assert_eq!(key(options, "redis://a").as_deref(), Some("redis.connections"));
        }
        let from_file = || RedisOptions { password_file: Some("password".into()), ..good() };
        for address in ["redis://a", "rediss://ann@a", "redis+sentinel://a/m", "redis+cluster://a"] {
            assert_eq!(key(from_file(), address), None, "{address}");
        }
        for address in ["redis://ann:b@a", "redis://:b@a", "redis+sentinel://b@a/m", "redis+cluster://ann:b@a"] {
            assert_eq!(key(from_file(), address).as_deref(), Some("redis.password_file"), "{address}");
        }
        let options = RedisOptions { prefix: "{a}".into(), ..good() };
        assert_eq!(key(options, "redis://a").as_deref(), Some("redis.prefix"));
    }

    #[test]
    fn who_can_fail_over_waits_for_replicas_by_itself() {
        let options = RedisOptions::default();
        let replicas = |address: &str| options.replicas(&Address::parse(address).unwrap());
        assert_eq!(replicas("redis://a"), None);
        assert_eq!(replicas("redis+sentinel://a/m"), Some(1));
        assert_eq!(replicas("redis+cluster://a"), Some(1));
    }
}
