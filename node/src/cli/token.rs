//! `klatch token`: an access token for a script or an SDK, signed with the node's own key. Needs no running node, only
//! its configuration and data folder.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use clap::Args;

use super::serve::NodeArgs;
use crate::auth::Auth;
use crate::config::ConfigRefused;
use crate::durations;
use crate::stores::memory_records::MemoryRecords;

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Whom the token is for: the owner of the conversations that are made with it
    #[arg(long, value_name = "NAME")]
    sub: String,
    /// The tenant that this is part of
    #[arg(long, value_name = "NAME", default_value = "default")]
    tenant: String,
    /// How long it lasts: it cannot be revoked, so no longer than needed, 30d at most
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = durations::parse)]
    ttl: Duration,
}

impl TokenArgs {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        println!("{}", self.token()?);
        Ok(ExitCode::SUCCESS)
    }

    fn token(&self) -> anyhow::Result<String> {
        let config = self.node.load()?;
        let folder = config.data_folder()?;
        // A key made here would be one that no node knows.
        ensure!(
            config.has_keys(),
            "no node has made its keys in {} yet: --store names another folder, --config the node's configuration",
            folder.display()
        );
        let nobody = Arc::new(MemoryRecords::default());
        let auth = Auth::open(&config.auth, nobody, Some(&folder)).map_err(ConfigRefused::from)?;
        Ok(auth.issue(&self.sub, &self.tenant, self.ttl)?.reveal().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use klatch_actors::Caller;

    use super::*;
    use crate::auth::AuthOptions;

    fn arguments(store: &str) -> TokenArgs {
        let node = NodeArgs { store: Some(store.to_owned()), ..NodeArgs::default() };
        TokenArgs { node, sub: "ada".into(), tenant: "t".into(), ttl: Duration::from_secs(60) }
    }

    #[tokio::test]
    async fn the_node_believes_the_token_that_was_made_in_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let records = Arc::new(MemoryRecords::default());
        let auth = Auth::open(&AuthOptions::default(), records, Some(folder.path())).unwrap();
        let token = arguments(&format!("file:{}", folder.path().display())).token().unwrap();
        let caller = auth.verify(&token).await.unwrap();
        assert_eq!(caller, Caller { tenant: "t".into(), subject: "ada".into() });
    }

    #[test]
    fn where_there_is_no_node_no_key_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = folder.path().join("klatch-data");
        let said = arguments(&format!("file:{}", nowhere.display())).token().unwrap_err().to_string();
        assert!(said.contains("no node has made its keys") && !nowhere.exists(), "{said}");
    }
}
