//! For `klatch serve --check`: what about this Redis would make promises void. One sentence per problem.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ::redis::aio::MultiplexedConnection;
use ::redis::{RedisError, Value, cmd};

use super::address::Address;
use super::connect::{self, ConnectError, Dialler, Manner, Target};
use super::options::RedisOptions;
use crate::config::check::Findings;

/// `XADD … NOMKSTREAM` and `XTRIM … MINID` came with it.
const VERSION_MIN: (u32, u32) = (6, 2);

/// How far a node's clock may be from Redis'. Tokens are good for minutes and forgive half of one; lives of a node are told apart by
/// when they began.
const CLOCK_OFF_MAX: Duration = Duration::from_secs(5);

pub async fn check(address: &Address, options: &RedisOptions) -> Findings {
    let manner = Manner::new(options);
    let mut found = Findings::default();
    match Target::of(address, Dialler::Client) {
        Some(target) => match target.connect(&manner).await {
            Ok(mut connected) => of_server(&mut connected.writer, options.replicas(address), &mut found).await,
            Err(error) => found.error(unreachable(&address.to_string(), &error)),
        },
        None => of_cluster(address, options, manner, &mut found).await,
    }
    found
}

fn unreachable(address: &str, error: &ConnectError) -> String {
    format!("store: Redis cannot be reached at {address}: {error}")
}

/// The first seed that answers speaks for all. One that does not is missed only when all others are gone too.
async fn of_cluster(address: &Address, options: &RedisOptions, manner: Manner, found: &mut Findings) {
    let Address::Cluster { seeds, settings } = address else { return };
    let mut silent = Vec::new();
    for seed in seeds {
        let info = super::address::at(settings, seed.clone());
        let seed = format!("{}:{}", seed.0, seed.1);
        match connect::log_in_to(&Dialler::Client, info, &manner, manner.answer).await {
            Ok(mut connection) => {
                let info = cmd("CLUSTER").arg("INFO").query_async::<String>(&mut connection).await;
                if !info.is_ok_and(|info| info.contains("cluster_state:ok")) {
                    found.error(format!("store: {seed} is no Redis Cluster that serves all slots"));
                }
                let is_master = connect::must_be_master(&mut connection).await.is_ok();
                let replicas = options.replicas(address).filter(|_| is_master);
                of_server(&mut connection, replicas, found).await;
                return silent.into_iter().for_each(|said| found.warn(said));
            }
            Err(error) => silent.push(unreachable(&seed, &error.into())),
        }
    }
    silent.into_iter().for_each(|said| found.error(said));
}

async fn of_server(connection: &mut MultiplexedConnection, replicas: Option<usize>, found: &mut Findings) {
    match Facts::read(connection).await {
        Ok(facts) => facts.judge(replicas, found),
        Err(error) => found.error(format!("store: Redis does not say what it is: {error}")),
    }
}

#[derive(Debug, Default)]
struct Facts {
    version: String,
    /// None where it is not told: some services forbid CONFIG.
    eviction: Option<String>,
    append_only: bool,
    /// When it saves all it has; None where that is not told.
    saves: Option<String>,
    replicas: usize,
    clock: Clock,
}

/// This host's clock against that of Redis.
#[derive(Debug, Default, PartialEq)]
enum Clock {
    #[default]
    Agrees,
    Ahead(Duration),
    Behind(Duration),
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
                None => setting(connection, "maxmemory-policy").await,
            },
            append_only: number("aof_enabled") == 1,
            saves: setting(connection, "save").await,
            replicas: number("connected_slaves"),
            clock: Clock::read(connection).await?,
        })
    }

    fn judge(&self, replicas: Option<usize>, found: &mut Findings) {
        if version(&self.version).is_none_or(|version| version < VERSION_MIN) {
            found.error(format!("store: Redis is version {:?}: 6.2 or newer is needed", self.version));
        }
        if let Some(policy) = self.eviction.as_deref().filter(|policy| *policy != "noeviction") {
            found.error(format!(
                "store: Redis has maxmemory-policy {policy}, which throws conversations away when its memory is full: \
                 set noeviction"
            ));
        }
        self.judge_persistence(found);
        if let Some(wanted) = replicas.filter(|wanted| *wanted > self.replicas) {
            found.error(format!(
                "redis.replicas: {wanted} replicas are waited for, and {} are connected: nothing would be acknowledged",
                self.replicas
            ));
        }
        let (by, way) = match self.clock {
            Clock::Agrees => return,
            Clock::Ahead(by) => (by, "ahead of"),
            Clock::Behind(by) => (by, "behind"),
        };
        found.error(format!(
            "store: this host's clock is {:.1} s {way} that of Redis: let something such as NTP set both, since tokens \
             are good for minutes and a node that starts must be younger than its life before",
            by.as_secs_f64()
        ));
    }

    fn judge_persistence(&self, found: &mut Findings) {
        match self.saves.as_deref() {
            _ if self.append_only => {}
            Some("") => found.error(
                "store: Redis is not persistent, and forgets everything when it is restarted: set appendonly yes"
                    .to_owned(),
            ),
            Some(saves) => found.error(format!(
                "store: Redis writes all it has now and then only (save {saves}), and when it is restarted forgets what was \
                 acknowledged since: set appendonly yes"
            )),
            None => found.error(
                "store: Redis has appendonly off, and does not say whether it saves at all: set appendonly yes".to_owned(),
            ),
        }
    }
}

impl Clock {
    /// What is within the time that asking took is no difference.
    async fn read(connection: &mut MultiplexedConnection) -> Result<Self, RedisError> {
        let (before, asked) = (SystemTime::now(), Instant::now());
        let (secs, micros): (u64, u64) = cmd("TIME").query_async(connection).await?;
        let theirs = Duration::from_secs(secs) + Duration::from_micros(micros);
        Ok(Self::of(before.duration_since(UNIX_EPOCH).unwrap_or_default(), asked.elapsed(), theirs))
    }

    fn of(before: Duration, took: Duration, theirs: Duration) -> Self {
        let (ahead, behind) = (before.saturating_sub(theirs), theirs.saturating_sub(before + took));
        match () {
            () if ahead > CLOCK_OFF_MAX => Self::Ahead(ahead),
            () if behind > CLOCK_OFF_MAX => Self::Behind(behind),
            () => Self::Agrees,
        }
    }
}

async fn setting(connection: &mut MultiplexedConnection, name: &str) -> Option<String> {
    let said: Result<Vec<Value>, _> = cmd("CONFIG").arg("GET").arg(name).query_async(connection).await;
    match said.ok()?.pop()? {
        Value::BulkString(value) => String::from_utf8(value).ok(),
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
        Facts {
            version: "7.0.15".into(),
            eviction: Some("noeviction".into()),
            append_only: true,
            replicas: 2,
            ..Facts::default()
        }
    }

    fn said(facts: &Facts, replicas: Option<usize>) -> String {
        let mut found = Findings::default();
        facts.judge(replicas, &mut found);
        found.to_string()
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
        for (saves, part) in [(None, "does not say"), (Some(""), "is not persistent"), (Some("60 1"), "(save 60 1)")] {
            let said = said(&Facts { append_only: false, saves: saves.map(str::to_owned), ..good() }, None);
            assert!(said.contains(part) && said.contains("set appendonly yes"), "{said}");
        }
        assert!(said(&good(), Some(3)).starts_with("error: redis.replicas: 3"));
        let behind = said(&Facts { clock: Clock::Behind(Duration::from_secs(7)), ..good() }, None);
        assert!(behind.contains("7.0 s behind that of Redis"), "{behind}");
    }

    #[test]
    fn a_clock_is_off_by_more_than_asking_took() {
        let ms = Duration::from_millis;
        assert_eq!(Clock::of(ms(10_000), ms(3_000), ms(18_000)), Clock::Agrees);
        assert_eq!(Clock::of(ms(10_000), ms(3_000), ms(18_001)), Clock::Behind(ms(5_001)));
        assert_eq!(Clock::of(ms(10_000), ms(3_000), ms(5_000)), Clock::Agrees);
        assert_eq!(Clock::of(ms(10_000), ms(3_000), ms(4_999)), Clock::Ahead(ms(5_001)));
    }
}
