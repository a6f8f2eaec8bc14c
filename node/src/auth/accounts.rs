//! Accounts: a name, a tenant and a password's hash, one record each.
//!
//! Each password has a random generation. A login's refresh tokens carry it, so a changed password or a removed account
//! ends them all at once, also those that are being made at that moment. Access tokens live on to their end.
//!
//! A name that is removed and added again has the conversations that it had before.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use klatch_actors::store::StoreError;
use serde::{Deserialize, Serialize};

use super::errors::AuthError;
use crate::stores::records::Records;

const PREFIX: &str = "account/";
const NAME_CHARS_MAX: usize = 64;
/// Accounts in one page of a list.
pub const PAGE: usize = 500;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub tenant: String,
    /// argon2id, as a PHC string.
    pub password: String,
    pub generation: String,
    /// Unix time in ms.
    pub created_at_ms: u64,
}

/// What a list shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRow {
    pub name: String,
    pub tenant: String,
    pub created_at_ms: u64,
}

#[derive(Clone)]
pub struct Accounts {
    records: Arc<dyn Records>,
}

impl Accounts {
    pub fn new(records: Arc<dyn Records>) -> Self {
        Self { records }
    }

    pub async fn get(&self, name: &str) -> Result<Option<Account>, AuthError> {
        if check_name("username", name).is_err() {
            return Ok(None);
        }
        Ok(self.versioned(name).await?.map(|(_, account)| account))
    }

    pub async fn add(&self, name: &str, tenant: &str, password: String, now_ms: u64) -> Result<(), AuthError> {
        check_name("username", name)?;
        check_name("tenant", tenant)?;
        let account =
            Account { tenant: tenant.to_owned(), password, generation: random_text()?, created_at_ms: now_ms };
        let added = self.records.put(key(name), None, encode(&account)?).await?;
        if added { Ok(()) } else { Err(AuthError::AccountExists) }
    }

    pub async fn set_password(&self, name: &str, password: String) -> Result<(), AuthError> {
        let Some((version, account)) = self.versioned(name).await? else {
            return Err(AuthError::NoAccount);
        };
        let account = Account { password, generation: random_text()?, ..account };
        let written = self.records.put(key(name), Some(version), encode(&account)?).await?;
        // Somebody changed or removed it just now; whoever asks again sees which.
        if written { Ok(()) } else { Err(AuthError::Store(StoreError::Unavailable("it changed meanwhile".into()))) }
    }

    pub async fn remove(&self, name: &str) -> Result<(), AuthError> {
        if self.get(name).await?.is_none() {
            return Err(AuthError::NoAccount);
        }
        Ok(self.records.remove(key(name)).await?)
    }

    /// At most [`PAGE`] accounts by name, behind `after`.
    pub async fn list(&self, after: Option<&str>) -> Result<Vec<AccountRow>, AuthError> {
        let keys = self.records.keys(PREFIX.to_owned(), after.map(key), PAGE).await?;
        let mut rows = Vec::with_capacity(keys.len());
        for name in keys.iter().filter_map(|key| key.strip_prefix(PREFIX)) {
            if let Some((_, account)) = self.versioned(name).await? {
                let Account { tenant, created_at_ms, .. } = account;
                rows.push(AccountRow { name: name.to_owned(), tenant, created_at_ms });
            }
        }
        Ok(rows)
    }

    async fn versioned(&self, name: &str) -> Result<Option<(u64, Account)>, AuthError> {
        let Some(record) = self.records.get(key(name)).await? else {
            return Ok(None);
        };
        Ok(Some((record.version, decode(&record.bytes)?)))
    }
}

fn key(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// Letters and digits of any script, and ASCII signs: no spaces, and nothing that cannot be seen.
pub fn check_name(param: &'static str, name: &str) -> Result<(), AuthError> {
    let printable = |c: char| c.is_ascii_graphic() || c.is_alphanumeric();
    let length = name.chars().count();
    if length == 0 || length > NAME_CHARS_MAX || !name.chars().all(printable) {
        let problem = "must have from 1 to 64 printable characters, and no spaces";
        return Err(AuthError::Invalid { param, problem });
    }
    Ok(())
}

pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, AuthError> {
    serde_json::to_vec(value).map_err(|_| AuthError::Broken("a record could not be written as JSON"))
}

/// What is unreadable is named by its place, not by its content.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, AuthError> {
    serde_json::from_slice(bytes).map_err(|e| {
        let place = format!("a record of auth, line {} column {}", e.line(), e.column());
        AuthError::Store(StoreError::Damaged(place))
    })
}

/// 128 random bits.
pub(super) fn random_text() -> Result<String, AuthError> {
    Ok(URL_SAFE_NO_PAD.encode(random::<16>()?))
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], AuthError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| AuthError::Broken("the system's random source failed"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::memory_records::MemoryRecords;

    fn accounts() -> Accounts {
        Accounts::new(Arc::new(MemoryRecords::default()))
    }

    #[tokio::test]
    async fn a_name_is_given_once() {
        let accounts = accounts();
        accounts.add("ada", "acme", "hash".into(), 5).await.unwrap();
        assert_eq!(accounts.add("ada", "other", "hash".into(), 6).await, Err(AuthError::AccountExists));
        assert_eq!(accounts.get("ada").await.unwrap().unwrap().tenant, "acme");
        accounts.remove("ada").await.unwrap();
        assert_eq!(accounts.remove("ada").await, Err(AuthError::NoAccount));
        assert_eq!(accounts.set_password("ada", "hash".into()).await, Err(AuthError::NoAccount));
    }

    #[tokio::test]
    async fn a_new_password_and_a_new_account_of_the_name_have_a_new_generation() {
        let accounts = accounts();
        let generation = async || accounts.get("ada").await.unwrap().unwrap().generation;
        accounts.add("ada", "acme", "hash".into(), 5).await.unwrap();
        let first = generation().await;
        accounts.set_password("ada", "other".into()).await.unwrap();
        let second = generation().await;
        accounts.remove("ada").await.unwrap();
        accounts.add("ada", "acme", "hash".into(), 5).await.unwrap();
        assert!(first != second && second != generation().await && first != generation().await);
    }

    #[tokio::test]
    async fn a_list_comes_in_pages() {
        let accounts = accounts();
        for n in 0..=PAGE {
            accounts.add(&format!("{n:04}"), "acme", "hash".into(), 5).await.unwrap();
        }
        let page = accounts.list(None).await.unwrap();
        assert_eq!((page.len(), page[0].name.as_str()), (PAGE, "0000"));
        let rest = accounts.list(Some(&page[PAGE - 1].name)).await.unwrap();
        assert_eq!(rest.len(), 1);
    }

    #[test]
    fn a_name_has_from_1_to_64_printable_characters() {
        for name in ["a", "ada@example.org", "ædå", "a/b", &"é".repeat(64)] {
            assert_eq!(check_name("username", name), Ok(()), "{name}");
        }
        for name in ["", " ", "a b", "a\n", "a\0", "a\u{202e}b", "a\u{200b}", &"a".repeat(65)] {
            assert!(check_name("username", name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_stored_form_stays_as_it_is() {
        let account =
            Account { tenant: "acme".into(), password: "$p".into(), generation: "g".into(), created_at_ms: 5 };
        let golden = br#"{"tenant":"acme","password":"$p","generation":"g","created_at_ms":5}"#;
        assert_eq!(encode(&account).unwrap(), golden);
        assert_eq!(decode::<Account>(golden).unwrap(), account);
    }

    #[tokio::test]
    async fn an_unreadable_record_is_named_without_its_content() {
        let records = Arc::new(MemoryRecords::default());
        records.put("account/ada".into(), None, b"{\"tenant\":\"secret".to_vec()).await.unwrap();
        let said = Accounts::new(records).get("ada").await.unwrap_err();
        assert!(matches!(&said, AuthError::Store(StoreError::Damaged(_))) && !format!("{said:?}").contains("secret"));
    }
}
