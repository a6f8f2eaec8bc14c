//! The life of a caller: account, login, token, refresh, rotation of keys, logout.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::fixtures::*;
use super::*;
use crate::stores::memory_records::MemoryRecords;

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const START_MS: u64 = 1_800_000_000_000;

/// A node with a clock of its own, cheap passwords, and a folder with one key.
pub struct Node {
    pub auth: Arc<Auth>,
    now_ms: Arc<AtomicU64>,
    folder: tempfile::TempDir,
}

impl Node {
    pub fn start() -> Self {
        Self::start_with(|_, _| {})
    }

    fn start_with(change: impl FnOnce(&mut AuthOptions, &Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now_ms = Arc::new(AtomicU64::new(START_MS));
        let clock = now_ms.clone();
        let mut options = AuthOptions::default();
        change(&mut options, folder.path());
        let auth = Auth::build(
            &options,
            Arc::new(MemoryRecords::default()),
            Some(folder.path()),
            Arc::new(move || clock.load(Ordering::SeqCst)),
            Passwords::with(8, 1, 2),
        );
        Self { auth: Arc::new(auth.unwrap()), now_ms, folder }
    }

    fn with_files(files: &[(&str, &str)]) -> Self {
        Self::start_with(|options, folder| {
            for (name, text) in files {
                fs::write(folder.join(name), text).unwrap();
                options.signing_keys.push(folder.join(name));
            }
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn pass(&self, time: Duration) {
        self.now_ms.fetch_add(as_ms(time), Ordering::SeqCst);
    }

    async fn with_ada() -> Self {
        let node = Self::start();
        node.auth.add_account("ada", "acme", &Secret::new("correct horse")).await.unwrap();
        node
    }

    pub async fn login(&self, name: &str, password: &str) -> Result<TokenPair, AuthError> {
        self.auth.login(name, &Secret::new(password), HOME).await
    }

    async fn said(&self, token: &Secret) -> Result<(), Reason> {
        self.auth.verify(token.reveal()).await.map(|_| ()).map_err(|denied| denied.reason)
    }
}

#[tokio::test]
async fn who_logs_in_is_known_by_his_token_until_it_ends() {
    let node = Node::with_ada().await;
    let pair = node.login("ada", "correct horse").await.unwrap();
    assert_eq!((pair.token_type.as_str(), pair.expires_in), ("Bearer", 900));
    let caller = node.auth.verify(pair.access_token.reveal()).await.unwrap();
    assert_eq!((&*caller.tenant, &*caller.subject), ("acme", "ada"));
    node.pass(Duration::from_secs(929));
    assert_eq!(node.said(&pair.access_token).await, Ok(()));
    node.pass(Duration::from_secs(1));
    assert_eq!(node.said(&pair.access_token).await, Err(Reason::Expired));
}

#[tokio::test]
async fn a_refreshed_login_goes_on_and_a_logged_out_one_does_not() {
    let node = Node::with_ada().await;
    let first = node.login("ada", "correct horse").await.unwrap();
    node.pass(Duration::from_secs(3_600));
    let second = node.auth.refresh(&first.refresh_token).await.unwrap();
    assert_eq!(node.said(&second.access_token).await, Ok(()));
    node.auth.logout(&second.refresh_token).await.unwrap();
    assert_eq!(node.auth.refresh(&second.refresh_token).await, Err(AuthError::RefreshRefused));
}

#[tokio::test]
async fn a_refresh_token_is_no_access_token_and_the_reverse() {
    let node = Node::with_ada().await;
    let pair = node.login("ada", "correct horse").await.unwrap();
    assert_eq!(node.said(&pair.refresh_token).await, Err(Reason::Malformed));
    assert_eq!(node.auth.refresh(&pair.access_token).await, Err(AuthError::RefreshRefused));
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_name_are_refused_alike() {
    let node = Node::with_ada().await;
    for (name, password) in [("ada", "wrong horse"), ("bob", "correct horse"), ("", ""), ("a b", "x"), ("ada", "")] {
        assert_eq!(node.login(name, password).await, Err(AuthError::WrongCredentials), "{name}");
    }
}

#[tokio::test]
async fn a_removed_account_neither_logs_in_nor_refreshes() {
    let node = Node::with_ada().await;
    let pair = node.login("ada", "correct horse").await.unwrap();
    node.auth.remove_account("ada").await.unwrap();
    assert_eq!(node.login("ada", "correct horse").await, Err(AuthError::WrongCredentials));
    assert_eq!(node.auth.refresh(&pair.refresh_token).await, Err(AuthError::RefreshRefused));
}

#[tokio::test]
async fn failed_logins_wait_and_the_right_password_waits_too_from_a_new_address() {
    let node = Node::with_ada().await;
    for n in 0..5 {
        let stranger = IpAddr::V4(Ipv4Addr::new(10, 0, 0, n));
        let said = node.auth.login("ada", &Secret::new("wrong horse"), stranger).await;
        assert_eq!(said, Err(AuthError::WrongCredentials));
    }
    let retry_after = Duration::from_secs(1);
    assert_eq!(node.login("ada", "correct horse").await, Err(AuthError::TooManyAttempts { retry_after }));
    node.pass(retry_after);
    node.login("ada", "correct horse").await.unwrap();
}

#[tokio::test]
async fn successful_logins_are_not_slowed_down() {
    let node = Node::with_ada().await;
    for _ in 0..60 {
        node.login("ada", "correct horse").await.unwrap();
    }
}

#[tokio::test]
async fn a_token_for_a_script_has_the_subject_and_the_life_it_was_made_with() {
    let node = Node::start();
    let token = node.auth.issue("script", "acme", Duration::from_secs(60)).unwrap();
    let caller = node.auth.verify(token.reveal()).await.unwrap();
    assert_eq!((&*caller.tenant, &*caller.subject), ("acme", "script"));
    node.pass(Duration::from_secs(90));
    assert_eq!(node.said(&token).await, Err(Reason::Expired));
    for (subject, tenant, ttl) in [("", "t", 60), ("s", "", 60), ("s", "t", 0), ("s", "t", 31 * 86_400)] {
        assert!(node.auth.issue(subject, tenant, Duration::from_secs(ttl)).is_err());
    }
}

#[tokio::test]
async fn keys_are_rotated_without_refusing_anybody() {
    let node = Node::with_files(&[("old.pem", ED25519), ("new.pem", ED25519_OTHER)]);
    let minute = Duration::from_secs(60);
    let old = node.auth.issue("ada", "acme", minute).unwrap();
    assert_eq!(node.auth.jwks().keys.len(), 2);
    fs::write(node.file("old.pem"), ED25519_OTHER).unwrap();
    fs::write(node.file("new.pem"), ED25519).unwrap();
    assert!(node.auth.reload().unwrap());
    let new = node.auth.issue("ada", "acme", minute).unwrap();
    let kid = |token: &Secret| tokens::parse(token.reveal()).unwrap().kid;
    assert_ne!(kid(&old), kid(&new));
    assert_eq!((node.said(&old).await, node.said(&new).await), (Ok(()), Ok(())));
    assert!(!node.auth.reload().unwrap());
}

#[tokio::test]
async fn a_withdrawn_key_ends_the_tokens_that_were_verified_with_it() {
    let node = Node::with_files(&[("key.pem", ED25519)]);
    let token = node.auth.issue("ada", "acme", Duration::from_secs(60)).unwrap();
    assert_eq!(node.said(&token).await, Ok(()));
    fs::write(node.file("key.pem"), RSA).unwrap();
    node.auth.reload().unwrap();
    assert_eq!(node.said(&token).await, Err(Reason::UnknownKey));
}

#[tokio::test]
async fn keys_stay_while_their_files_cannot_be_read() {
    let node = Node::with_files(&[("key.pem", ED25519)]);
    let token = node.auth.issue("ada", "acme", Duration::from_secs(60)).unwrap();
    fs::write(node.file("key.pem"), "half a k").unwrap();
    assert!(node.auth.reload().unwrap_err().to_string().contains("key.pem is not a private key"));
    fs::remove_file(node.file("key.pem")).unwrap();
    assert!(node.auth.reload().is_err());
    assert_eq!(node.said(&token).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn upkeep_sees_a_changed_key_file() {
    let node = Node::with_files(&[("key.pem", ED25519)]);
    let before = node.auth.jwks();
    let upkeep = tokio::spawn(node.auth.clone().upkeep());
    fs::write(node.file("key.pem"), P256).unwrap();
    let mut ticks = every(KEY_FILES_EVERY);
    while node.auth.jwks() == before {
        ticks.tick().await;
    }
    upkeep.abort();
}

#[tokio::test]
async fn a_secret_signs_where_there_is_no_key_and_is_shown_to_nobody() {
    let node = Node::start_with(|options, folder| {
        fs::write(folder.join("secret"), "s".repeat(32)).unwrap();
        options.hs256_secret_file = Some(folder.join("secret"));
    });
    let token = node.auth.issue("ada", "acme", Duration::from_secs(60)).unwrap();
    assert_eq!(node.said(&token).await, Ok(()));
    assert!(node.auth.jwks().keys.is_empty());
    assert!(!node.file("keys").exists());
}

/// Its port answers nobody: what counts here is what is decided without it.
fn another_issuer(options: &mut AuthOptions) {
    options.jwks_url = Some("http://127.0.0.1:1/keys".into());
    options.jwks_issuer = Some("other".into());
}

#[tokio::test]
async fn beside_another_issuer_a_token_without_a_key_id_is_refused_and_one_of_ours_is_not() {
    let node = Node::start_with(|options, _| another_issuer(options));
    let token = node.auth.issue("ada", "acme", Duration::from_secs(60)).unwrap();
    assert_eq!(node.said(&token).await, Ok(()));
    let without_kid = Secret::new("eyJhbGciOiJFZERTQSJ9.e30.AA");
    assert_eq!(node.said(&without_kid).await, Err(Reason::UnknownKey));
}

#[tokio::test]
async fn an_issuer_that_cannot_be_reached_is_a_temporary_fault() {
    let node = Node::start_with(|options, _| another_issuer(options));
    let denied = node.auth.verify("eyJhbGciOiJSUzI1NiIsImtpZCI6IngifQ.e30.AA").await.unwrap_err();
    assert!(denied.is_temporary());
}

#[tokio::test]
async fn a_node_that_only_verifies_signs_nothing() {
    let mut options = AuthOptions::default();
    another_issuer(&mut options);
    let auth = Auth::open(&options, Arc::new(MemoryRecords::default()), None).unwrap();
    assert_eq!(auth.issue("ada", "acme", Duration::from_secs(60)), Err(AuthError::NoSigningKey));
}

#[tokio::test]
async fn every_refusal_of_a_token_reads_the_same() {
    let node = Node::start();
    let mut texts = Vec::new();
    for token in ["", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", &"a".repeat(9_000)] {
        texts.push(node.auth.verify(token).await.unwrap_err().to_string());
    }
    texts.dedup();
    assert_eq!(texts.len(), 1);
}

#[tokio::test]
async fn the_real_clock_and_the_real_passwords_work_together() {
    let folder = tempfile::tempdir().unwrap();
    let records = Arc::new(MemoryRecords::default());
    let auth = Auth::open(&AuthOptions::default(), records, Some(folder.path())).unwrap();
    auth.add_account("ada", "acme", &Secret::new("correct horse")).await.unwrap();
    let pair = auth.login("ada", &Secret::new("correct horse"), HOME).await.unwrap();
    assert!(auth.verify(pair.access_token.reveal()).await.is_ok());
}
