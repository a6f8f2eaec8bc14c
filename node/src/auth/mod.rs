//! Who may speak: access tokens, logins, accounts, keys.
//!
//! One [`Auth`] per node, made by `main` before the listeners, shared by all requests. [`Auth::upkeep`] is a task of its
//! own: keys are read and fetched again, and ended logins removed; if it ended, the node would go on with
//! the keys that it has.
//!
//! Does not map errors to HTTP, and does not say what a caller may do: a conversation knows its owner.

pub mod accounts;
pub mod admin;
pub mod errors;
#[cfg(test)]
mod fixtures;
mod foreign;
mod generations;
mod key_files;
mod keys;
pub mod metrics;
pub mod options;
mod passwords;
pub mod routes;
pub mod secret;
mod sessions;
mod throttle;
mod tokens;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use klatch_actors::Caller;

pub use self::errors::{AuthConfigError, AuthError, Denied, Reason};
pub use self::options::AuthOptions;
pub use self::secret::Secret;

use self::accounts::{AccountRow, Accounts};
use self::foreign::Foreign;
use self::key_files::{KeyFiles, Keyring};
use self::passwords::Passwords;
use self::routes::{Jwks, TokenPair};
use self::sessions::Sessions;
use self::throttle::Throttle;
use self::tokens::{NewClaims, Rules};
use crate::stores::records::Records;

/// Key files are looked at so often: a new key works within ten seconds, for a few kilobytes read.
const KEY_FILES_EVERY: Duration = Duration::from_secs(10);
/// A record that has ended is refused anyway; it only takes room.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// A script's token cannot be revoked either, but may be made for a night's run.
const ISSUED_TTL_MAX: Duration = Duration::from_secs(30 * 86_400);

/// Unix time in ms.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

pub struct Auth {
    clock: Clock,
    rules: Rules,
    access_ttl: Duration,
    jwks_refresh: Duration,
    files: KeyFiles,
    keyring: ArcSwap<Keyring>,
    foreign: Option<Arc<Foreign>>,
    accounts: Accounts,
    sessions: Sessions,
    passwords: Passwords,
    throttle: Throttle,
}

impl Auth {
    /// Reads the keys, or makes one in the data folder. Accounts and logins are kept in `records`.
    pub fn open(
        options: &AuthOptions,
        records: Arc<dyn Records>,
        data_dir: Option<&Path>,
    ) -> Result<Self, AuthConfigError> {
        Self::open_at(options, records, data_dir, Arc::new(system_clock))
    }

    /// With a clock of the caller's own.
    pub fn open_at(
        options: &AuthOptions,
        records: Arc<dyn Records>,
        data_dir: Option<&Path>,
        clock: Clock,
    ) -> Result<Self, AuthConfigError> {
        Self::build(options, records, data_dir, clock, Passwords::default())
    }

    fn build(
        options: &AuthOptions,
        records: Arc<dyn Records>,
        data_dir: Option<&Path>,
        clock: Clock,
        passwords: Passwords,
    ) -> Result<Self, AuthConfigError> {
        options.check()?;
        let files = KeyFiles::choose(options, data_dir)?;
        let keyring = ArcSwap::from_pointee(files.read()?);
        let accounts = Accounts::new(records.clone());
        let rules = Rules {
            issuer: options.issuer.clone(),
            audience: options.audience.clone(),
            leeway_secs: options.leeway.as_secs(),
        };
        metrics::describe();
        Ok(Self {
            clock,
            rules,
            access_ttl: options.access_ttl,
            jwks_refresh: options.jwks_refresh,
            files,
            keyring,
            foreign: Foreign::new(options)?,
            sessions: Sessions::new(records, accounts.clone(), as_ms(options.refresh_ttl)),
            accounts,
            passwords,
            throttle: Throttle::default(),
        })
    }

    /// Who shows this access token. Each reason to refuse it is counted; the caller learns only that it is refused.
    pub async fn verify(&self, bearer: &str) -> Result<Caller, Denied> {
        let verified = self.verified(bearer).await;
        metrics::count(verified.as_ref().map_or_else(|reason| reason.as_str(), |_| metrics::ACCEPTED));
        verified.map_err(|reason| Denied { reason })
    }

    async fn verified(&self, bearer: &str) -> Result<Caller, Reason> {
        let now_ms = (self.clock)();
        let now_secs = now_ms / 1_000;
        let digest = tokens::digest(bearer)?;
        let own = self.keyring.load_full();
        let foreign = self.foreign.as_ref();
        let recalled = own.verifying.recall(&digest, now_secs);
        if let Some(caller) = recalled.or_else(|| foreign?.recall(&digest, now_secs)) {
            return Ok(caller);
        }
        let token = tokens::parse(bearer)?;
        // Without an id a token may be of either issuer, and must not choose.
        let ambiguous = token.kid.is_none() && foreign.is_some() && !own.verifying.is_empty();
        match own.verifying.find(token.kid.as_deref()) {
            _ if ambiguous => Err(Reason::UnknownKey),
            Some(key) => {
                let verified = tokens::check(&token, key, &self.rules, now_secs)?;
                own.verifying.remember(digest, verified.clone());
                Ok(verified.caller)
            }
            None => foreign.ok_or(Reason::UnknownKey)?.verify(&token, digest, now_ms).await,
        }
    }

    /// A pair of tokens for a name and a password.
    pub async fn login(&self, name: &str, password: &Secret, peer: IpAddr) -> Result<TokenPair, AuthError> {
        let pair = self.logged_in(name, password, peer).await;
        match &pair {
            Ok(_) => metrics::count(metrics::LOGIN),
            Err(AuthError::WrongCredentials) => metrics::count(metrics::LOGIN_WRONG),
            Err(AuthError::TooManyAttempts { .. }) => metrics::count(metrics::LOGIN_THROTTLED),
            Err(AuthError::Busy { .. }) => metrics::count(metrics::LOGIN_BUSY),
            Err(_) => {}
        }
        pair
    }

    async fn logged_in(&self, name: &str, password: &Secret, peer: IpAddr) -> Result<TokenPair, AuthError> {
        let now_ms = (self.clock)();
        // A name that no account can have counts for the address only, under one short name.
        let counted = if accounts::check_name("username", name).is_ok() { name } else { "" };
        let wait = |retry_after| AuthError::TooManyAttempts { retry_after };
        self.throttle.attempt(counted, peer, now_ms).map_err(wait)?;
        let pair = self.credentials(name, password, now_ms).await;
        match &pair {
            Ok(_) => self.throttle.succeeded(counted, peer, now_ms),
            Err(AuthError::WrongCredentials) => {}
            // The password was not looked at, or was right.
            Err(_) => self.throttle.withdrawn(counted, peer),
        }
        pair
    }

    async fn credentials(&self, name: &str, password: &Secret, now_ms: u64) -> Result<TokenPair, AuthError> {
        let account = self.accounts.get(name).await?;
        let stored = account.as_ref().map(|account| account.password.as_str());
        let right = self.passwords.verify(password, stored).await?;
        let account = account.filter(|_| right).ok_or(AuthError::WrongCredentials)?;
        let access = self.access_token(name, &account.tenant, self.access_ttl, now_ms)?;
        let refresh = self.sessions.begin(name, &account, now_ms).await?;
        Ok(self.pair(access, refresh))
    }

    /// The next pair of tokens of a login.
    pub async fn refresh(&self, token: &Secret) -> Result<TokenPair, AuthError> {
        let now_ms = (self.clock)();
        let refreshed = self.sessions.refresh(token, now_ms).await;
        match &refreshed {
            Ok(_) => metrics::count(metrics::REFRESH),
            Err(AuthError::RefreshRefused) => metrics::count(metrics::REFRESH_REFUSED),
            Err(_) => {}
        }
        let refreshed = refreshed?;
        let access = self.access_token(&refreshed.name, &refreshed.account.tenant, self.access_ttl, now_ms)?;
        Ok(self.pair(access, refreshed.token))
    }

    /// Ends the login that the refresh token is of; there may be none.
    pub async fn logout(&self, token: &Secret) -> Result<(), AuthError> {
        self.sessions.end(token).await?;
        metrics::count(metrics::LOGOUT);
        Ok(())
    }

    /// An access token for a script, of whatever subject.
    pub fn issue(&self, subject: &str, tenant: &str, ttl: Duration) -> Result<Secret, AuthError> {
        for (param, name) in [("sub", subject), ("tenant", tenant)] {
            if !tokens::is_name(name) {
                return Err(AuthError::Invalid { param, problem: "must have from 1 to 255 bytes and be printable" });
            }
        }
        if ttl < Duration::from_secs(1) || ttl > ISSUED_TTL_MAX {
            return Err(AuthError::Invalid { param: "ttl", problem: "must be from 1s to 30d" });
        }
        self.access_token(subject, tenant, ttl, (self.clock)())
    }

    fn access_token(&self, sub: &str, tenant: &str, ttl: Duration, now_ms: u64) -> Result<Secret, AuthError> {
        let keyring = self.keyring.load();
        let key = keyring.signing.as_ref().ok_or(AuthError::NoSigningKey)?;
        let iat = now_ms / 1_000;
        let jti = accounts::random_text()?;
        let Rules { issuer: iss, audience: aud, .. } = &self.rules;
        let claims = NewClaims { iss, aud, sub, tenant, iat, exp: iat + ttl.as_secs(), jti: &jti };
        tokens::sign(&claims, key).map(Secret::new)
    }

    fn pair(&self, access_token: Secret, refresh_token: Secret) -> TokenPair {
        let expires_in = self.access_ttl.as_secs();
        TokenPair { access_token, refresh_token, token_type: "Bearer".to_owned(), expires_in }
    }

    /// The public keys of this cluster, for who verifies its tokens.
    pub fn jwks(&self) -> Jwks {
        let mut keys: Vec<_> = self.keyring.load().verifying.public().cloned().collect();
        keys.sort_by(|a, b| a.common.key_id.cmp(&b.common.key_id));
        Jwks { keys }
    }

    pub async fn add_account(&self, name: &str, tenant: &str, password: &Secret) -> Result<(), AuthError> {
        accounts::check_name("username", name)?;
        accounts::check_name("tenant", tenant)?;
        let hash = self.passwords.hash(password).await?;
        self.accounts.add(name, tenant, hash, (self.clock)()).await
    }

    /// Ends its logins too; an access token lives on to its end, `access_ttl` at most.
    pub async fn remove_account(&self, name: &str) -> Result<(), AuthError> {
        self.accounts.remove(name).await
    }

    /// Ends its logins too.
    pub async fn set_password(&self, name: &str, password: &Secret) -> Result<(), AuthError> {
        let hash = self.passwords.hash(password).await?;
        self.accounts.set_password(name, hash).await
    }

    /// A page of accounts by name, behind `after`.
    pub async fn list_accounts(&self, after: Option<&str>) -> Result<Vec<AccountRow>, AuthError> {
        self.accounts.list(after).await
    }

    /// Reads the key files again; says whether they had changed. What cannot be read changes nothing.
    pub fn reload(&self) -> Result<bool, AuthConfigError> {
        let read = self.files.read()?;
        let changed = read.content != self.keyring.load().content;
        if changed {
            tracing::info!("the signing keys have changed");
            self.keyring.store(Arc::new(read));
        }
        Ok(changed)
    }

    /// Reads keys again, fetches the other issuer's, and removes ended logins, until dropped.
    pub async fn upkeep(self: Arc<Self>) {
        let foreign = async {
            match self.foreign.clone() {
                Some(foreign) => foreign.keep_fresh(self.jwks_refresh).await,
                None => std::future::pending().await,
            }
        };
        tokio::join!(self.clone().watch_key_files(), foreign, self.sweep_regularly());
    }

    async fn watch_key_files(self: Arc<Self>) {
        let mut ticks = every(KEY_FILES_EVERY);
        let mut failing = false;
        loop {
            ticks.tick().await;
            let auth = self.clone();
            // Files may be on a network.
            let Ok(reloaded) = tokio::task::spawn_blocking(move || auth.reload()).await else { continue };
            // Logged when it begins, not every ten seconds.
            if let (Err(error), false) = (&reloaded, failing) {
                let error = error as &(dyn std::error::Error + 'static);
                tracing::error!(error, "the key files cannot be read; the keys stay as they are");
            }
            failing = reloaded.is_err();
        }
    }

    async fn sweep_regularly(&self) {
        let mut ticks = every(SWEEP_EVERY);
        loop {
            ticks.tick().await;
            if let Err(error) = self.sessions.sweep((self.clock)()).await {
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::warn!(error, "ended logins could not be removed; they are tried again later");
            }
        }
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn system_clock() -> u64 {
    as_ms(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

#[cfg(test)]
mod tests;
