//! The life of a login: rotation, loss, theft, logout, end.

use futures::FutureExt;
use futures::future::BoxFuture;
use klatch_actors::store::StoreError;
use proptest::prelude::*;

use super::*;
use crate::stores::memory_records::MemoryRecords;
use crate::stores::records::Record;

const TTL: u64 = 1_000_000;

struct Setting {
    records: Arc<MemoryRecords>,
    accounts: Accounts,
    sessions: Arc<Sessions>,
}

async fn setting() -> Setting {
    let records = Arc::new(MemoryRecords::default());
    let accounts = Accounts::new(records.clone());
    accounts.add("ada", "acme", "hash".into(), 0).await.unwrap();
    let sessions = Arc::new(Sessions::new(records.clone(), accounts.clone(), TTL));
    Setting { records, accounts, sessions }
}

impl Setting {
    async fn login(&self) -> Secret {
        let account = self.accounts.get("ada").await.unwrap().unwrap();
        self.sessions.begin("ada", &account, 0).await.unwrap()
    }

    async fn refresh(&self, token: &Secret, now: u64) -> Result<Secret, AuthError> {
        self.sessions.refresh(token, now).await.map(|refreshed| refreshed.token)
    }

    async fn families(&self) -> usize {
        self.records.keys(PREFIX.into(), None, 1_000).await.unwrap().len()
    }
}

#[tokio::test]
async fn each_token_gives_its_successor() {
    let s = setting().await;
    let mut token = s.login().await;
    for now in 1..10 {
        let next = s.refresh(&token, now * GRACE_MS).await.unwrap();
        assert_ne!(next, token);
        token = next;
    }
    let refreshed = s.sessions.refresh(&token, 10 * GRACE_MS).await.unwrap();
    assert_eq!((refreshed.name.as_str(), refreshed.account.tenant.as_str()), ("ada", "acme"));
}

#[tokio::test]
async fn a_used_token_revokes_the_whole_family() {
    let s = setting().await;
    let first = s.login().await;
    let second = s.refresh(&first, 1).await.unwrap();
    assert_eq!(s.refresh(&first, 1 + GRACE_MS).await, Err(AuthError::RefreshRefused));
    assert_eq!(s.refresh(&second, 2 + GRACE_MS).await, Err(AuthError::RefreshRefused));
    assert_eq!(s.families().await, 0);
}

#[tokio::test]
async fn within_the_grace_the_token_before_gives_the_same_successor() {
    let s = setting().await;
    let first = s.login().await;
    let second = s.refresh(&first, 1).await.unwrap();
    assert_eq!(s.refresh(&first, GRACE_MS).await.unwrap(), second);
    assert!(s.refresh(&second, GRACE_MS + 1).await.is_ok());
}

#[tokio::test]
async fn there_is_no_grace_once_the_successor_was_used() {
    let s = setting().await;
    let first = s.login().await;
    let second = s.refresh(&first, 1).await.unwrap();
    s.refresh(&second, 2).await.unwrap();
    assert_eq!(s.refresh(&first, 3).await, Err(AuthError::RefreshRefused));
    assert_eq!(s.families().await, 0);
}

#[tokio::test]
async fn a_thief_within_the_grace_is_found_when_both_go_on() {
    let s = setting().await;
    let first = s.login().await;
    let owner = s.refresh(&first, 1).await.unwrap();
    let thief = s.refresh(&first, 2).await.unwrap();
    s.refresh(&owner, 3).await.unwrap();
    assert!(s.refresh(&thief, 3 + GRACE_MS).await.is_err());
    assert_eq!(s.families().await, 0);
}

#[tokio::test]
async fn a_login_ends_at_its_time_however_often_it_was_refreshed() {
    let s = setting().await;
    let token = s.refresh(&s.login().await, TTL - 2).await.unwrap();
    let token = s.refresh(&token, TTL - 1).await.unwrap();
    assert_eq!(s.refresh(&token, TTL).await, Err(AuthError::RefreshRefused));
}

#[tokio::test]
async fn a_longer_life_cannot_be_written_into_the_token() {
    let s = setting().await;
    let mut token = RefreshToken::parse(s.login().await.reveal()).unwrap();
    token.family.ends_at_ms += 1;
    let forged = RefreshToken::text(token.family, &token.secret);
    assert_eq!(s.refresh(&forged, 1).await, Err(AuthError::RefreshRefused));
}

#[tokio::test]
async fn logout_ends_the_family_whichever_of_its_tokens_is_shown() {
    let s = setting().await;
    let first = s.login().await;
    let second = s.refresh(&first, 1).await.unwrap();
    s.sessions.end(&first).await.unwrap();
    assert_eq!(s.refresh(&second, 2).await, Err(AuthError::RefreshRefused));
    s.sessions.end(&first).await.unwrap();
    s.sessions.end(&Secret::new("nonsense")).await.unwrap();
}

#[tokio::test]
async fn a_removed_account_a_new_one_of_its_name_and_a_new_password_end_its_logins() {
    let s = setting().await;
    let token = s.login().await;
    s.accounts.set_password("ada", "other".into()).await.unwrap();
    assert_eq!(s.refresh(&token, 1).await, Err(AuthError::RefreshRefused));
    assert_eq!(s.families().await, 0);
    let token = s.login().await;
    s.accounts.remove("ada").await.unwrap();
    s.accounts.add("ada", "acme", "hash".into(), 1).await.unwrap();
    assert_eq!(s.refresh(&token, 1).await, Err(AuthError::RefreshRefused));
}

#[tokio::test]
async fn the_sweep_removes_what_has_ended_and_nothing_else() {
    let s = setting().await;
    let account = s.accounts.get("ada").await.unwrap().unwrap();
    for now in 0..SWEEP_PAGE as u64 * 2 {
        s.sessions.begin("ada", &account, now).await.unwrap();
    }
    assert_eq!(s.sessions.sweep(TTL).await.unwrap(), 0);
    assert_eq!(s.sessions.sweep(TTL + SWEEP_PAGE as u64 + 5).await.unwrap(), SWEEP_PAGE + 5);
    assert_eq!(s.sessions.sweep(TTL * 2).await.unwrap(), SWEEP_PAGE - 5);
    assert!(s.accounts.get("ada").await.unwrap().is_some());
}

#[test]
fn the_stored_form_stays_as_it_is() {
    let family = Family {
        account: "ada".into(),
        generation: "g".into(),
        key: [1; 32],
        current: [2; 32],
        previous: [3; 32],
        rotated_at_ms: 7,
    };
    let golden = concat!(
        r#"{"account":"ada","generation":"g","key":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE","#,
        r#""current":"AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI","#,
        r#""previous":"AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM","rotated_at_ms":7}"#
    );
    assert_eq!(String::from_utf8(encode(&family).unwrap()).unwrap(), golden);
    assert_eq!(decode::<Family>(golden.as_bytes()).unwrap(), family);
    let id = FamilyId { ends_at_ms: 255, random: [0xab; 16] };
    assert_eq!(id.key(), format!("refresh/00000000000000ff-{}", "ab".repeat(16)));
}

#[tokio::test]
async fn the_store_holds_no_token() {
    let s = setting().await;
    let token = RefreshToken::parse(s.login().await.reveal()).unwrap();
    let stored = s.records.get(token.family.key()).await.unwrap().unwrap().bytes;
    let text = URL_SAFE_NO_PAD.encode(token.secret);
    assert!(!String::from_utf8(stored).unwrap().contains(&text));
}

/// Lets others in between a read and the write that follows it, as a store over a network does.
struct Slow(Arc<MemoryRecords>);

impl Records for Slow {
    fn get(&self, key: String) -> BoxFuture<'_, Result<Option<Record>, StoreError>> {
        async move {
            let found = self.0.get(key).await;
            tokio::task::yield_now().await;
            found
        }
        .boxed()
    }

    fn put(&self, key: String, expected: Option<u64>, bytes: Vec<u8>) -> BoxFuture<'_, Result<bool, StoreError>> {
        self.0.put(key, expected, bytes)
    }

    fn remove(&self, key: String) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.remove(key)
    }

    fn keys(&self, p: String, after: Option<String>, limit: usize) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        self.0.keys(p, after, limit)
    }
}

#[tokio::test]
async fn a_token_that_many_use_at_once_gives_all_of_them_the_same_successor() {
    let s = setting().await;
    let token = s.login().await;
    let sessions = Sessions::new(Arc::new(Slow(s.records.clone())), s.accounts.clone(), TTL);
    let answers = futures::future::join_all((0..20).map(|_| sessions.refresh(&token, 1))).await;
    let tokens: Vec<Secret> = answers.into_iter().map(|answer| answer.unwrap().token).collect();
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    let record = s.records.get(RefreshToken::parse(token.reveal()).unwrap().family.key()).await.unwrap();
    assert_eq!(record.unwrap().version, 2);
}

#[tokio::test]
async fn a_reuse_beside_a_rotation_leaves_no_family() {
    let s = setting().await;
    let first = s.login().await;
    let second = s.refresh(&first, 1).await.unwrap();
    let sessions = Sessions::new(Arc::new(Slow(s.records.clone())), s.accounts.clone(), TTL);
    let late = 1 + GRACE_MS;
    let (_, reused) = tokio::join!(sessions.refresh(&second, late), sessions.refresh(&first, late));
    assert!(reused.is_err());
    assert_eq!(s.families().await, 0);
}

#[tokio::test]
async fn a_login_that_is_logged_out_while_it_is_refreshed_gives_no_token() {
    let s = setting().await;
    let token = s.login().await;
    let sessions = Sessions::new(Arc::new(Slow(s.records.clone())), s.accounts.clone(), TTL);
    let (refreshed, ended) = tokio::join!(sessions.refresh(&token, 1), s.sessions.end(&token));
    ended.unwrap();
    assert_eq!(refreshed.err(), Some(AuthError::RefreshRefused));
    assert_eq!(s.families().await, 0);
}

proptest! {
    #[test]
    fn no_text_is_a_token_by_accident_or_panics(text in ".*", tail in "[A-Za-z0-9_-]{70,80}") {
        prop_assert!(RefreshToken::parse(&text).is_none());
        let _ = RefreshToken::parse(&format!("{TOKEN_PREFIX}{tail}"));
    }
}
