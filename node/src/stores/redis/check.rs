//! For `klatch serve --check`: what about this Redis would make promises void. One sentence per problem.

use ::redis::aio::MultiplexedConnection;
use ::redis::{RedisError, Value, cmd};

use super::address::Address;
use super::connect::{self, ConnectError, Manner, Target};
use super::options::RedisOptions;

/// `XADD … NOMKSTREAM` and `XTRIM … MINID` came with it.
const VERSION_MIN: (u32, u32) = (6, 2);

pub async fn problems(address: &Address, options: &RedisOptions) -> Vec<String> {
    let manner = Manner::new(options);
    match Target::of(address) {
        Some(target) => match target.connect(&manner).await {
            Ok(mut connected) => of_server(&mut connected.writer, options.replicas(address)).await,
            Err(error) => vec![unreachable(address, &error)],
        },
        None => of_cluster(address, options, manner).await,
    }
}

fn unreachable(address: &Address, error: &ConnectError) -> String {
    format!("store: Redis cannot be reached at {address}: {error}")
}

/// The first seed that answers speaks for all.
async fn of_cluster(address: &Address, options: &RedisOptions, manner: Manner) -> Vec<String> {
    let Address::Cluster { seeds, settings } = address else { return Vec::new() };
    let mut problems = Vec::new();
    for seed in seeds {
        let info = super::address::at(settings, seed.clone());
        match connect::log_in_to(info, &manner, manner.answer).await {
            Ok(mut connection) => {
                let info = cmd("CLUSTER").arg("INFO").query_async::<String>(&mut connection).await;
                if !info.is_ok_and(|info| info.contains("cluster_state:ok")) {
                    problems.push(format!("store: {}:{} is no Redis Cluster that serves all slots", seed.0, seed.1));
                }
                let is_master = connect::must_be_master(&mut connection).await.is_ok();
                let replicas = options.replicas(address).filter(|_| is_master);
                problems.extend(of_server(&mut connection, replicas).await);
                return problems;
            }
            Err(error) => problems.push(unreachable(address, &error.into())),
        }
    }
    problems
}

async fn of_server(connection: &mut MultiplexedConnection, replicas: Option<usize>) -> Vec<String> {
    match Facts::read(connection).await {
        Ok(facts) => facts.problems(replicas),
        Err(error) => vec![format!("store: Redis does not say what it is: {error}")],
    }
}

#[derive(Debug, Default)]
struct Facts {
    version: String,
    /// None where it is not told: some services forbid CONFIG.
    eviction: Option<String>,
    append_only: bool,
    replicas: usize,
}

impl Facts {
    async fn read(connection: &mut MultiplexedConnection) -> Result<Self, RedisError> {
        let info: String = cmd("INFO").query_async(connection).await?;
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let number = |name: &str| field(name).and_then(|value| value.trim().parse().ok()).unwrap_or(0);
        Ok(Self {
            version: field("redis_version").unwrap_or_default().trim().to_owned(),
            eviction: match field("maxmemory_policy") {
                Some(policy) => Some(policy.trim().to_owned()),
                None => eviction(connection).await,
            },
            append_only: number("aof_enabled") == 1,
            replicas: number("connected_slaves"),
        })
    }

    fn problems(&self, replicas: Option<usize>) -> Vec<String> {
        let mut problems = Vec::new();
        if version(&self.version).is_none_or(|version| version < VERSION_MIN) {
            problems.push(format!("store: Redis is version {:?}: 6.2 or newer is needed", self.version));
        }
        if let Some(policy) = self.eviction.as_deref().filter(|policy| *policy != "noeviction") {
            problems.push(format!(
                "store: Redis has maxmemory-policy {policy}, which throws conversations away when its memory is full: \
                 set noeviction"
            ));
        }
        if !self.append_only {
            problems.push(
                "store: Redis is not persistent, and forgets everything when it is restarted: set appendonly yes"
                    .to_owned(),
            );
        }
        if let Some(wanted) = replicas.filter(|wanted| *wanted > self.replicas) {
            problems.push(format!(
                "redis.replicas: {wanted} replicas are waited for, and {} are connected: nothing would be acknowledged",
                self.replicas
            ));
        }
        problems
    }
}

async fn eviction(connection: &mut MultiplexedConnection) -> Option<String> {
    let said: Result<Vec<Value>, _> = cmd("CONFIG").arg("GET").arg("maxmemory-policy").query_async(connection).await;
    match said.ok()?.pop()? {
        Value::BulkString(policy) => String::from_utf8(policy).ok(),
        _ => None,
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Facts {
        Facts { version: "7.0.15".into(), eviction: Some("noeviction".into()), append_only: true, replicas: 2 }
    }

    fn said(facts: &Facts, replicas: Option<usize>) -> String {
        facts.problems(replicas).join("\n")
    }

    #[test]
    fn each_problem_is_told_with_what_would_be_right() {
        assert_eq!(said(&good(), Some(2)), "");
        for (version, old) in [("6.2.0", false), ("10.0.1", false), ("6.0.16", true), ("5.0", true), ("", true)] {
            let facts = Facts { version: version.into(), ..good() };
            assert_eq!(said(&facts, None).contains("6.2 or newer"), old, "{version}");
        }
        assert!(said(&Facts { eviction: Some("allkeys-lru".into()), ..good() }, None).contains("set noeviction"));
        assert_eq!(said(&Facts { eviction: None, ..good() }, None), "");
        assert!(said(&Facts { append_only: false, ..good() }, None).contains("appendonly yes"));
        assert!(said(&good(), Some(3)).starts_with("redis.replicas: 3"));
    }
}
