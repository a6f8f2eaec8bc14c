//! Passwords: hashed with argon2id, a few at a time, away from the threads that serve requests.
//!
//! Each hash takes 19 MiB and tens of milliseconds by intention. A flood of logins may use half the cores; what does
//! not fit into the queue is refused as busy.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::errors::AuthError;
use super::secret::Secret;

/// OWASP's first recommendation of 2023: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 << 10;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Passwords that may wait for their turn, per one being hashed: about a second of waiting.
const WAITING_PER_LANE: usize = 16;
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Protects nothing: that hash is of no account.
const NOBODYS_SALT: &[u8; 16] = b"salt of nobody's";
pub const PASSWORD_CHARS_MIN: usize = 8;
/// Longer ones are files pasted by mistake.
pub const PASSWORD_BYTES_MAX: usize = 1_024;

pub struct Passwords {
    params: Params,
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// Compared with where there is no account, so that its absence takes as long as a wrong password.
    nobody: String,
}

impl Default for Passwords {
    fn default() -> Self {
        let lanes = available_parallelism().map_or(1, NonZero::get).div_ceil(2);
        Self::with(MEMORY_KIB, PASSES, lanes)
    }
}

impl Passwords {
    /// Anything cheaper than the default is for tests.
    pub fn with(memory_kib: u32, passes: u32, lanes: usize) -> Self {
        let params = Params::new(memory_kib, passes, LANES, None).expect("the constants are in argon2's range");
        let nobody: PasswordHash = argon2id(&params)
            .hash_password_with_salt(b"nobody", NOBODYS_SALT)
            .expect("argon2 takes a salt of 16 bytes and a short password");
        let running = Arc::new(Semaphore::new(lanes));
        let waiting = Arc::new(Semaphore::new(lanes * (WAITING_PER_LANE + 1)));
        Self { params, running, waiting, nobody: nobody.to_string() }
    }

    /// The hash to store, with its salt and parameters.
    pub async fn hash(&self, password: &Secret) -> Result<String, AuthError> {
        check_length(password)?;
        let (params, password) = (self.params.clone(), password.clone());
        self.run(move || hash(&params, password.reveal().as_bytes())).await?
    }

    /// Whether it is the password; without a stored hash it never is, and that takes as long.
    pub async fn verify(&self, password: &Secret, stored: Option<&str>) -> Result<bool, AuthError> {
        if password.reveal().len() > PASSWORD_BYTES_MAX {
            return Ok(false);
        }
        let known = stored.is_some();
        let (password, stored) = (password.clone(), stored.unwrap_or(&self.nobody).to_owned());
        let same = self.run(move || is_password_of(&password, &stored)).await??;
        Ok(same && known)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, AuthError> {
        let busy = AuthError::Busy { retry_after: RETRY_AFTER };
        let waiting = self.waiting.clone().try_acquire_owned().map_err(|_| busy.clone())?;
        let running = self.running.clone().acquire_owned().await.map_err(|_| busy)?;
        // The places are kept until the work is done, not until the client has gone: it cannot be interrupted.
        let places: (OwnedSemaphorePermit, OwnedSemaphorePermit) = (waiting, running);
        let done = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(places);
            result
        });
        done.await.map_err(|_| AuthError::Broken("hashing a password panicked"))
    }
}

pub fn check_length(password: &Secret) -> Result<(), AuthError> {
    let text = password.reveal();
    if text.chars().count() < PASSWORD_CHARS_MIN || text.len() > PASSWORD_BYTES_MAX {
        return Err(AuthError::Invalid { param: "password", problem: "must have from 8 to 1024 characters" });
    }
    Ok(())
}

fn hash(params: &Params, password: &[u8]) -> Result<String, AuthError> {
    let broken = |_| AuthError::Broken("argon2id failed");
    let hash: PasswordHash = argon2id(params).hash_password(password).map_err(broken)?;
    Ok(hash.to_string())
}

fn argon2id(params: &Params) -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
}

fn is_password_of(password: &Secret, stored: &str) -> Result<bool, AuthError> {
    let hash = PasswordHash::new(stored).map_err(|_| AuthError::Broken("a stored password hash is unreadable"))?;
    Ok(Argon2::default().verify_password(password.reveal().as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cheap() -> Passwords {
        Passwords::with(8, 1, 2)
    }

    #[tokio::test]
    async fn a_password_is_known_again_and_another_is_not() {
        let passwords = cheap();
        let stored = passwords.hash(&Secret::new("correct horse")).await.unwrap();
        assert!(passwords.verify(&Secret::new("correct horse"), Some(&stored)).await.unwrap());
        assert!(!passwords.verify(&Secret::new("correct hors"), Some(&stored)).await.unwrap());
        assert!(!passwords.verify(&Secret::new(""), Some(&stored)).await.unwrap());
        assert_ne!(stored, passwords.hash(&Secret::new("correct horse")).await.unwrap());
    }

    #[tokio::test]
    async fn nobody_has_no_password() {
        assert!(!cheap().verify(&Secret::new("nobody"), None).await.unwrap());
    }

    #[test]
    fn the_stored_form_names_the_recommended_parameters_for_accounts_and_for_nobody() {
        let passwords = Passwords::default();
        assert!(passwords.nobody.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", passwords.nobody);
    }

    #[tokio::test]
    async fn a_password_has_8_characters_and_no_more_than_1024_bytes() {
        let passwords = cheap();
        for (password, fits) in [("x".repeat(7), false), ("é".repeat(8), true), ("x".repeat(1_024), true)] {
            assert_eq!(passwords.hash(&Secret::new(password)).await.is_ok(), fits);
        }
        let long = Secret::new("x".repeat(1_025));
        assert!(passwords.hash(&long).await.is_err());
        assert!(!passwords.verify(&long, None).await.unwrap());
    }

    #[tokio::test]
    async fn what_does_not_fit_into_the_queue_is_refused_as_busy() {
        let passwords = Passwords::with(8, 1, 1);
        let _running = passwords.running.clone().acquire_owned().await.unwrap();
        let _waiting = passwords.waiting.clone().try_acquire_many_owned(1 + WAITING_PER_LANE as u32).unwrap();
        let said = passwords.verify(&Secret::new("x"), None).await;
        assert_eq!(said, Err(AuthError::Busy { retry_after: RETRY_AFTER }));
    }
}
