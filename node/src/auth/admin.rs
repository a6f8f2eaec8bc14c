//! The local admin socket, `admin.sock` in the data folder: through it `klatch user` changes the accounts of a running
//! node, which alone has its store open. One connection carries one request and its answer, a line of JSON each.
//!
//! Started by `main` beside the listeners; if it ends, accounts cannot be changed until the node restarts, and nothing
//! else is lost. Whoever may open the socket may do everything: its mode is 0600, and no password but this protects it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Auth;
use super::accounts::{AccountRow, PAGE};
use super::errors::AuthError;
use super::secret::Secret;
use super::tokens::DEFAULT_TENANT;

pub const SOCKET: &str = "admin.sock";
/// A password of 1,024 bytes, each of them escaped, and the rest.
const REQUEST_BYTES_MAX: u64 = 16 << 10;
/// A page of accounts with the longest names.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Both ends give up: the program on the other side is stopped.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// An administrator, and his script.
const CONNECTIONS_MAX: usize = 8;
/// After a failed accept, of which there is no reason but a lack of file descriptors.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum AdminRequest {
    Add {
        name: String,
        /// None: `default`.
        tenant: Option<String>,
        password: Secret,
    },
    /// One page, behind that name.
    List {
        after: Option<String>,
    },
    Remove {
        name: String,
    },
    SetPassword {
        name: String,
        password: Secret,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminAnswer {
    Done,
    Accounts(Vec<AccountRow>),
    /// Nothing was done; why, in words for a person.
    Refused(String),
}

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("no node answers at {path}; is one running with this data folder?")]
    NoNode { path: PathBuf, source: io::Error },
    #[error("the node was lost before it answered")]
    Lost(#[from] io::Error),
    #[error("the node answered something that this program does not understand; are they the same version?")]
    Strange(#[from] serde_json::Error),
    #[error("{0}")]
    Refused(String),
}

/// Makes the socket, in place of one that a dead node left behind. At no time can others open it: it is made in a
/// folder of its own, and moved when its mode is right.
pub fn bind(data_dir: &Path) -> io::Result<UnixListener> {
    let folder = data_dir.join(format!(".admin-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let draft = folder.join("s");
    let bound = UnixListener::bind(&draft).and_then(|listener| {
        fs::set_permissions(&draft, Permissions::from_mode(0o600))?;
        fs::rename(&draft, data_dir.join(SOCKET))?;
        Ok(listener)
    });
    fs::remove_dir_all(&folder)?;
    bound
}

/// Serves until dropped.
pub async fn serve(auth: Arc<Auth>, listener: UnixListener) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let auth = auth.clone();
                tokio::spawn(async move {
                    let served = timeout(WAIT_MAX, serve_one(&auth, stream)).await;
                    if !matches!(served, Ok(Ok(()))) {
                        tracing::debug!("a connection to the admin socket ended early");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                log_failed_accept(&error);
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

fn log_failed_accept(error: &io::Error) {
    let error = error as &(dyn std::error::Error + 'static);
    tracing::warn!(error, "the admin socket could not accept a connection");
}

async fn serve_one(auth: &Auth, mut stream: UnixStream) -> io::Result<()> {
    let line = read_line(&mut stream, REQUEST_BYTES_MAX).await?;
    let answer = match serde_json::from_slice(&line) {
        Ok(request) => answer(auth, request).await,
        // The text of the error would quote the request, and with it a password.
        Err(_) => AdminAnswer::Refused("the request is not understood; are they the same version?".to_owned()),
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

async fn read_line(stream: impl AsyncRead + Unpin, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(stream.take(bytes_max)).read_until(b'\n', &mut line).await?;
    if line.pop() == Some(b'\n') { Ok(line) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

async fn answer(auth: &Auth, request: AdminRequest) -> AdminAnswer {
    let done = match request {
        AdminRequest::Add { name, tenant, password } => {
            auth.add_account(&name, tenant.as_deref().unwrap_or(DEFAULT_TENANT), &password).await
        }
        AdminRequest::List { after } => match auth.list_accounts(after.as_deref()).await {
            Ok(rows) => return AdminAnswer::Accounts(rows),
            Err(error) => Err(error),
        },
        AdminRequest::Remove { name } => auth.remove_account(&name).await,
        AdminRequest::SetPassword { name, password } => auth.set_password(&name, &password).await,
    };
    done.map_or_else(|error| refused(&error), |()| AdminAnswer::Done)
}

fn refused(error: &AuthError) -> AdminAnswer {
    if let AuthError::Store(_) | AuthError::Broken(_) = error {
        let error = error as &(dyn std::error::Error + 'static);
        tracing::error!(error, "the accounts could not be changed");
    }
    AdminAnswer::Refused(error.to_string())
}

/// Asks the node that runs with this data folder.
pub async fn ask(data_dir: &Path, request: &AdminRequest) -> Result<AdminAnswer, AdminError> {
    let path = data_dir.join(SOCKET);
    let stream = UnixStream::connect(&path).await.map_err(|source| AdminError::NoNode { path, source })?;
    let asked = timeout(WAIT_MAX, ask_on(stream, request));
    match asked.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
        AdminAnswer::Refused(why) => Err(AdminError::Refused(why)),
        answer => Ok(answer),
    }
}

async fn ask_on(mut stream: UnixStream, request: &AdminRequest) -> Result<AdminAnswer, AdminError> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    Ok(serde_json::from_slice(&read_line(&mut stream, ANSWER_BYTES_MAX).await?)?)
}

/// All accounts, page by page.
pub async fn list_all(data_dir: &Path) -> Result<Vec<AccountRow>, AdminError> {
    let mut all: Vec<AccountRow> = Vec::new();
    loop {
        let after = all.last().map(|row| row.name.clone());
        match ask(data_dir, &AdminRequest::List { after }).await? {
            AdminAnswer::Accounts(page) => {
                let last = page.len() < PAGE;
                all.extend(page);
                if last {
                    return Ok(all);
                }
            }
            AdminAnswer::Done | AdminAnswer::Refused(_) => return Ok(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::tests::Node;

    async fn running() -> (tempfile::TempDir, Node) {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::start();
        let listener = bind(folder.path()).unwrap();
        tokio::spawn(serve(node.auth.clone(), listener));
        (folder, node)
    }

    fn add(name: &str) -> AdminRequest {
        AdminRequest::Add { name: name.into(), tenant: None, password: Secret::new("correct horse") }
    }

    #[tokio::test]
    async fn accounts_are_added_listed_changed_and_removed() {
        let (folder, node) = running().await;
        let data_dir = folder.path();
        ask(data_dir, &add("ada")).await.unwrap();
        ask(data_dir, &add("bob")).await.unwrap();
        let names: Vec<String> = list_all(data_dir).await.unwrap().into_iter().map(|row| row.name).collect();
        assert_eq!(names, ["ada", "bob"]);
        node.login("ada", "correct horse").await.unwrap();
        let password = Secret::new("another horse");
        ask(data_dir, &AdminRequest::SetPassword { name: "ada".into(), password }).await.unwrap();
        node.login("ada", "another horse").await.unwrap();
        ask(data_dir, &AdminRequest::Remove { name: "bob".into() }).await.unwrap();
        assert_eq!(list_all(data_dir).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_refusal_says_why() {
        let (folder, _node) = running().await;
        ask(folder.path(), &add("ada")).await.unwrap();
        let said = ask(folder.path(), &add("ada")).await.unwrap_err();
        assert_eq!(said.to_string(), "there is an account of this name");
        let said = ask(folder.path(), &add("")).await.unwrap_err();
        assert_eq!(said.to_string(), "`username` must have from 1 to 64 printable characters, and no spaces");
    }

    #[tokio::test]
    async fn only_its_owner_may_open_the_socket_and_a_dead_one_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        drop(bind(folder.path()).unwrap());
        let _again = bind(folder.path()).unwrap();
        let mode = fs::metadata(folder.path().join(SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn without_a_node_the_error_says_where_it_was_sought() {
        let folder = tempfile::tempdir().unwrap();
        let said = ask(folder.path(), &add("ada")).await.unwrap_err();
        assert!(matches!(said, AdminError::NoNode { .. }) && said.to_string().contains(SOCKET));
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_or_no_request_does_no_harm() {
        let (folder, _node) = running().await;
        for line in [vec![b'x'; REQUEST_BYTES_MAX as usize + 1], b"\n".to_vec(), b"{\"do\":\"fly\"}\n".to_vec()] {
            let mut stream = UnixStream::connect(folder.path().join(SOCKET)).await.unwrap();
            let _ = stream.write_all(&line).await;
            let mut answer = String::new();
            let _ = stream.read_to_string(&mut answer).await;
            assert!(answer.is_empty() || answer.contains("not understood"), "{answer}");
        }
        ask(folder.path(), &add("ada")).await.unwrap();
    }
}
