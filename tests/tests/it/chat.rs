//! `klatch chat` as people and scripts use it: on a real terminal, and through pipes.

mod answers;
mod pipes;
mod typing;

use std::path::PathBuf;

use anyhow::{Context, ensure};
use klatch_tests::process::{NodeProcess, NodeSettings, binary};
use klatch_tests::terminal::{Launch, Terminal};
use serde_json::Value;

/// `slow` gives time to do something in mid-answer, `failing` never answers.
const RESPONDERS: &str = "[[responder]]\nname = \"slow\"\nkind = \"echo\"\ntoken_delay_ms = 100\n\n\
    [[responder]]\nname = \"failing\"\nkind = \"echo\"\nfail_every = 1\n";

const PROMPT: &str = "> ";

/// A node, and somebody who talks to it.
struct Bench {
    node: NodeProcess,
    program: PathBuf,
    token: String,
    http: reqwest::Client,
}

impl Bench {
    async fn start() -> anyhow::Result<Self> {
        let node = NodeProcess::start(NodeSettings { config: RESPONDERS.into(), ..NodeSettings::default() }).await?;
        let token = node.token("ann", "default").await?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { node, program: binary()?, token, http })
    }

    /// At the prompt.
    async fn chat(&self, arguments: &[&str]) -> anyhow::Result<Terminal> {
        self.chat_on(arguments, &[], 40, 120).await
    }

    async fn chat_on(
        &self,
        arguments: &[&str],
        environment: &[(&str, &str)],
        rows: u16,
        columns: u16,
    ) -> anyhow::Result<Terminal> {
        let arguments = [&["chat"], arguments].concat();
        let environment = [&self.environment()[..], environment].concat();
        let launch = Launch { rows, columns, ..Launch::new(&self.program, &arguments, &environment) };
        let mut terminal = Terminal::start(&launch)?;
        terminal.until("a prompt", at_prompt).await?;
        Ok(terminal)
    }

    fn environment(&self) -> [(&str, &str); 2] {
        [("KLATCH_URL", &self.node.url), ("KLATCH_TOKEN", &self.token)]
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        let answer = self.http.get(format!("{}{path}", self.node.url)).bearer_auth(&self.token).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// The texts of the newest conversation, in order: question, answer, and so on.
    async fn stored(&self) -> anyhow::Result<Vec<String>> {
        let newest = self.get("/v1/conversations?limit=1&order=desc").await?;
        let id = newest["data"][0]["id"].as_str().context("there is a conversation")?.to_owned();
        self.stored_in(&id).await
    }

    async fn stored_in(&self, conversation: &str) -> anyhow::Result<Vec<String>> {
        let items = self.get(&format!("/v1/conversations/{conversation}/items?limit=100&order=asc")).await?;
        let text = |item: &Value| {
            let parts = item["content"].as_array().into_iter().flatten();
            parts.filter_map(|part| part["text"].as_str()).collect::<String>()
        };
        Ok(items["data"].as_array().context("a page has items")?.iter().map(text).collect())
    }
}

/// The last line is a prompt with nothing behind it.
fn at_prompt(screen: &str) -> bool {
    screen.trim_end_matches('\n').lines().last().is_some_and(|line| line.trim_end() == PROMPT.trim_end())
}

/// Lines of the program's own, beside prompts and answers.
fn is_note(line: &str) -> bool {
    ["conversation conv_", "/help lists", "go on with:", "the connection was lost", "the server at", "cancel", "Ctrl-D"]
        .iter()
        .any(|begin| line.starts_with(begin))
}

async fn leave(mut terminal: Terminal) -> anyhow::Result<()> {
    terminal.types("\x04")?;
    let code = terminal.ended().await?;
    ensure!(code == 0, "Ctrl-D ended with {code}:\n{}", terminal.screen());
    Ok(())
}

fn numbers(count: usize) -> String {
    (1..=count).map(|n| format!("w{n}")).collect::<Vec<_>>().join(" ")
}
