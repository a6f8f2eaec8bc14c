//! Who speaks: a token that was given, or a login whose access token is renewed before it expires.
//!
//! Used by `answer.rs` before each connection. Tokens stay in memory; a session that the server has ended is not
//! mended here: the person is asked again by `session.rs`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use crate::cli::client::failure::Failure;
use crate::cli::client::{ApiClient, Call};
use crate::cli::terminal::Quiet;

/// So long before its end a token is renewed, or a fifth of its life for a short one.
const MARGIN: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub struct Credentials(Option<Arc<Mutex<Login>>>);

struct Login {
    refresh_token: String,
    renew_at: Instant,
}

#[derive(Deserialize)]
struct Tokens {
    access_token: String,
    refresh_token: String,
    expires_in: u64,
}

impl Credentials {
    /// The client has its token already, and there is none to follow it.
    pub fn fixed() -> Self {
        Self(None)
    }

    /// Asks on the terminal. Fails where the person does not want to answer (Ctrl-C): the thread that reads cannot be called
    /// back, so the program is to end then.
    pub async fn ask(client: &ApiClient, interrupts: &mut mpsc::Receiver<()>) -> anyhow::Result<Result<Self, Failure>> {
        let before = tcgetattr(std::io::stdin());
        let (name, password) = tokio::select! {
            answer = tokio::task::spawn_blocking(ask_on_terminal) => answer??,
            Some(()) = interrupts.recv() => {
                // The password is typed without an echo, and the terminal outlives this program.
                if let Ok(before) = before {
                    tcsetattr(std::io::stdin(), OptionalActions::Now, &before)?;
                }
                eprintln!();
                bail!("nobody has logged in");
            }
        };
        tokio::select! {
            login = Self::login(client, &name, &password) => Ok(login),
            Some(()) = interrupts.recv() => bail!("nobody has logged in"),
        }
    }

    pub async fn login(client: &ApiClient, name: &str, password: &str) -> Result<Self, Failure> {
        let body = json!({"username": name, "password": password}).to_string();
        let login = Login::take(client, &Call::post("/auth/login", body)).await?;
        Ok(Self(Some(Arc::new(Mutex::new(login)))))
    }

    pub fn can_be_asked_again(&self) -> bool {
        self.0.is_some()
    }

    pub async fn keep_fresh(&self, client: &ApiClient) -> Result<(), Failure> {
        let Some(login) = &self.0 else { return Ok(()) };
        let mut login = login.lock().await;
        if Instant::now() >= login.renew_at {
            let body = json!({"refresh_token": login.refresh_token}).to_string();
            *login = Login::take(client, &Call::post("/auth/refresh", body)).await?;
        }
        Ok(())
    }
}

impl Login {
    async fn take(client: &ApiClient, call: &Call) -> Result<Self, Failure> {
        let asked_at = Instant::now();
        let tokens: Tokens = client.patiently(call).await?;
        client.set_bearer(&tokens.access_token).map_err(Failure::Malformed)?;
        let life = Duration::from_secs(tokens.expires_in);
        Ok(Self { refresh_token: tokens.refresh_token, renew_at: asked_at + life - MARGIN.min(life / 5) })
    }
}

fn ask_on_terminal() -> anyhow::Result<(String, String)> {
    eprint!("User: ");
    let mut name = String::new();
    std::io::stdin().read_line(&mut name)?;
    // Before the prompt, or what is typed as soon as it is seen would be shown.
    let _quiet = Quiet::keep();
    Ok((name.trim().to_owned(), rpassword::prompt_password("Password: ")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::tests::{FakeServer, Reply};

    fn tokens(number: u32) -> Reply {
        Reply::ok(
            json!({"access_token": format!("a{number}"), "refresh_token": format!("r{number}"), "token_type": "Bearer", "expires_in": 900}),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_a_minute_before_its_end_and_not_before() {
        let server = FakeServer::script([tokens(1), tokens(2), tokens(3)]).await;
        let client = server.client();
        let credentials = Credentials::login(&client, "ada", "secret").await.unwrap();
        tokio::time::advance(Duration::from_secs(830)).await;
        credentials.keep_fresh(&client).await.unwrap();
        assert_eq!(server.asked().len(), 1);
        for _ in 0..2 {
            tokio::time::advance(Duration::from_secs(841)).await;
            credentials.keep_fresh(&client).await.unwrap();
        }
        let seen = server.seen();
        assert_eq!(seen[0].body, json!({"username": "ada", "password": "secret"}));
        assert_eq!((seen[1].path.as_str(), &seen[1].body), ("/auth/refresh", &json!({"refresh_token": "r1"})));
        assert_eq!((&seen[2].body, seen[2].bearer.as_deref()), (&json!({"refresh_token": "r2"}), Some("Bearer a2")));
        assert!(seen.iter().all(|one| one.key.is_some()));
    }

    #[tokio::test]
    async fn a_given_token_is_never_renewed() {
        let server = FakeServer::script([]).await;
        Credentials::fixed().keep_fresh(&server.client()).await.unwrap();
        assert!(!Credentials::fixed().can_be_asked_again());
    }
}
