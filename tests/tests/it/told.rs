//! What `klatch serve` and `klatch load` say to the person at the terminal, and that pipes are spared of it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use klatch_tests::client::{Api, Ask};
use klatch_tests::process::{NodeProcess, NodeSettings, binary, free_port};
use klatch_tests::terminal::{Launch, Terminal};
use tokio::process::Command;

const RUN_MAX: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_says_where_its_pages_are_and_what_it_waits_for_when_it_stops() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("klatch.toml");
    std::fs::write(&config, "[[responder]]\nname = \"slow\"\nkind = \"echo\"\ntoken_delay_ms = 200\n")?;
    let (http, ops) = (free_port()?, free_port()?);
    let (http_addr, ops_addr) = (format!("127.0.0.1:{http}"), format!("127.0.0.1:{ops}"));
    let store = format!("file:{}", folder.path().join("data").display());
    let config = config.display().to_string();
    let arguments =
        ["serve", "--config", &config, "--store", &store, "--http-addr", &http_addr, "--ops-addr", &ops_addr];
    let program = binary()?;
    let mut terminal = Terminal::start(&Launch { rows: 100, ..Launch::new(&program, &arguments, &[]) })?;
    let said = terminal.shows("Ctrl-C stops it.").await?;
    let url = format!("http://127.0.0.1:{http}");
    ensure!(said.contains(&format!("chat page   {url}/")), "{said}");
    ensure!(said.contains(&format!("operators   http://127.0.0.1:{ops}/\n")), "{said}");
    ensure!(said.contains("user add") && said.contains("--sub YOUR_NAME"), "{said}");

    let mut token = Command::new(&program);
    let token = token.args(["token", "--store", &store, "--sub", "ann"]).output().await?;
    let api = Api::new(String::from_utf8(token.stdout)?.trim().to_owned())?;
    let conversation = api.create(&url).await?;
    let text = "word ".repeat(20);
    let turn = tokio::spawn(async move {
        let ask = Ask { conversation: &conversation, model: "slow", text: text.trim(), key: None };
        api.turn(&url, &ask, RUN_MAX).await
    });
    // The answer is being made: then it is told to stop.
    let client = reqwest::Client::builder().no_proxy().build()?;
    let cluster = format!("http://127.0.0.1:{ops}/cluster");
    let begun = async {
        loop {
            let shown: serde_json::Value = client.get(&cluster).send().await?.json().await?;
            if shown["members"][0]["load"]["open_turns"] == 1 {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(RUN_MAX, begun).await.context("no turn began")??;
    terminal.types("\x03")?;
    terminal.shows("for 1 connection to end what is in flight. Ctrl-C again ends it at once.").await?;
    ensure!(terminal.ended().await? == 0, "{}", terminal.screen());
    let answered = turn.await?;
    ensure!(matches!(answered, klatch_tests::client::Answer::Completed { .. }), "{answered:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_shows_how_far_it_is_on_a_terminal_and_spares_a_pipe() -> anyhow::Result<()> {
    let node = NodeProcess::start(NodeSettings::default()).await?;
    let token = node.token("ann", "default").await?;
    let environment = [("KLATCH_URL", node.url.as_str()), ("KLATCH_TOKEN", token.as_str())];
    let arguments = ["load", "--connections", "2", "--duration", "2s", "--verify"];
    let program = binary()?;
    let mut terminal = Terminal::start(&Launch::new(&program, &arguments, &environment))?;
    terminal.until("how far it is", |screen| screen.contains(" of 2 s: ") && screen.contains("per second")).await?;
    ensure!(terminal.ended().await? == 0, "{}", terminal.screen());
    let screen = terminal.screen();
    ensure!(!screen.contains(" of 2 s: "), "progress stayed behind:\n{screen}");

    let mut command = Command::new(&program);
    command.args(arguments).arg("--json").envs(environment).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = tokio::time::timeout(RUN_MAX, command.kill_on_drop(true).output()).await??;
    let (stdout, stderr) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(output.status.success(), "{stderr}");
    serde_json::from_str::<serde_json::Value>(&stdout).context("stdout is the result alone")?;
    ensure!(!stderr.contains(['\x1b', '\r']), "a pipe gets a terminal's characters: {stderr:?}");
    ensure!(stderr.lines().all(|line| line.starts_with("klatch load: ")), "{stderr}");
    Ok(())
}
