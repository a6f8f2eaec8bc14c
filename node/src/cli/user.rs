//! `klatch user`: the accounts of a running node, through its admin socket: the node alone has its store open.

use std::io::{IsTerminal, stdin};
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};

use super::serve::NodeArgs;
use crate::auth::Secret;
use crate::auth::accounts::AccountRow;
use crate::auth::admin::{self, AdminRequest};

#[derive(Debug, Args)]
pub(super) struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add an account; the password is asked for, or read from stdin as one line
    Add {
        #[command(flatten)]
        node: NodeArgs,
        /// What it logs in with
        name: String,
        /// The tenant that it is part of [default: default]
        #[arg(long, value_name = "NAME")]
        tenant: Option<String>,
    },
    /// List the accounts
    List {
        #[command(flatten)]
        node: NodeArgs,
    },
    /// Remove an account and end its logins; an access token lives on for `auth.access_ttl` at most
    Remove {
        #[command(flatten)]
        node: NodeArgs,
        /// What it logs in with
        name: String,
    },
    /// Change a password and end the account's logins
    Password {
        #[command(flatten)]
        node: NodeArgs,
        /// What it logs in with
        name: String,
    },
}

impl UserArgs {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            UserCommand::Add { node, name, tenant } => {
                let password = password()?;
                ask(&node, AdminRequest::Add { name: name.clone(), tenant, password }).await?;
                println!("{name} was added");
            }
            UserCommand::List { node } => {
                let rows = admin::list_all(&node.load()?.data_folder()?).await?;
                print!("{}", table(&rows));
            }
            UserCommand::Remove { node, name } => {
                ask(&node, AdminRequest::Remove { name: name.clone() }).await?;
                println!("{name} was removed");
            }
            UserCommand::Password { node, name } => {
                let password = password()?;
                ask(&node, AdminRequest::SetPassword { name: name.clone(), password }).await?;
                println!("the password of {name} was changed");
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn ask(node: &NodeArgs, request: AdminRequest) -> anyhow::Result<()> {
    admin::ask(&node.load()?.data_folder()?, &request).await?;
    Ok(())
}

/// Never an argument: those are seen by everyone on the host, and kept by shells.
fn password() -> anyhow::Result<Secret> {
    if !stdin().is_terminal() {
        let mut line = String::new();
        stdin().read_line(&mut line).context("cannot read the password from stdin")?;
        return Ok(Secret::new(line.trim_end_matches(['\r', '\n'])));
    }
    let first = rpassword::prompt_password("Password: ").context("cannot ask for the password")?;
    let second = rpassword::prompt_password("The same again: ").context("cannot ask for the password")?;
    ensure!(first == second, "the two passwords differ");
    Ok(Secret::new(first))
}

fn table(rows: &[AccountRow]) -> String {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
    rows.iter().map(|row| format!("{:width$}  {}\n", row.name, row.tenant)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_listed_with_their_tenants() {
        let row = |name: &str| AccountRow { name: name.into(), tenant: "default".into(), created_at_ms: 0 };
        assert_eq!(table(&[row("ada"), row("grace")]), "ada    default\ngrace  default\n");
    }
}
