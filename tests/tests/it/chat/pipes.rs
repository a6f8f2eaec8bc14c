//! Scripts: stdin is the message, stdout the answer alone, and the exit code tells.

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use klatch_tests::terminal::{Launch, Terminal};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::Bench;

const RUN_MAX: Duration = Duration::from_secs(60);

async fn run(bench: &Bench, arguments: &[&str], token: Option<&str>, stdin: &str) -> anyhow::Result<Output> {
    let mut command = Command::new(&bench.program);
    command.arg("chat").args(arguments).env("KLATCH_URL", &bench.node.url).env_remove("KLATCH_TOKEN");
    if let Some(token) = token {
        command.env("KLATCH_TOKEN", token);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut writer = child.stdin.take().context("stdin is a pipe")?;
    // Whoever refuses the arguments does not read.
    let _ = writer.write_all(stdin.as_bytes()).await;
    drop(writer);
    Ok(tokio::time::timeout(RUN_MAX, child.wait_with_output()).await??)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn conversation(output: &Output) -> anyhow::Result<String> {
    let said = text(&output.stderr);
    let id = said.lines().find_map(|line| line.strip_prefix("conversation "));
    Ok(id.with_context(|| format!("no conversation is named: {said}"))?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_from_a_pipe_is_answered_on_stdout_and_nothing_else_is_there() -> anyhow::Result<()> {
    let bench = Bench::start().await?;
    let token = Some(bench.token.as_str());
    let said = run(&bench, &["--model", "echo"], token, "two\nlines, 日本語\n").await?;
    ensure!(said.status.code() == Some(0), "{said:?}");
    ensure!(text(&said.stdout) == "two\nlines, 日本語\n", "{:?}", text(&said.stdout));
    ensure!(!text(&said.stdout).contains('\x1b') && !text(&said.stderr).contains('\x1b'), "{said:?}");

    let id = conversation(&said)?;
    let more = run(&bench, &["--model", "echo", "--conversation", &id], token, "more").await?;
    ensure!(conversation(&more)? == id && bench.stored_in(&id).await?.len() == 4, "{more:?}");
    let other = run(&bench, &["--model", "echo"], token, "elsewhere").await?;
    ensure!(conversation(&other)? != id, "{other:?}");
    let resumed = run(&bench, &["--model", "echo", "--resume"], token, "there").await?;
    ensure!(conversation(&resumed)? == conversation(&other)?, "{resumed:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_is_one_event_a_line_in_the_order_of_their_numbers() -> anyhow::Result<()> {
    let bench = Bench::start().await?;
    let said = run(&bench, &["--model", "slow", "--json"], Some(&bench.token), "a b c").await?;
    ensure!(said.status.code() == Some(0), "{said:?}");
    let events: Vec<Value> = text(&said.stdout).lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(events.iter().enumerate().all(|(n, event)| event["sequence_number"] == n), "{events:?}");
    let deltas: String = events.iter().filter_map(|event| event["delta"].as_str()).collect();
    ensure!(deltas == "a b c" && events.last().is_some_and(|it| it["type"] == "response.completed"), "{events:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exit_code_tells_how_it_went() -> anyhow::Result<()> {
    let bench = Bench::start().await?;
    let token = Some(bench.token.as_str());
    /// Arguments, token, standard input; exit code and what is said.
    type Case<'a> = (&'a [&'a str], Option<&'a str>, &'a str, i32, &'a str);
    let cases: [Case; 8] = [
        (&["--model", "echo"], token, "hi", 0, "go on with"),
        (&["--model", "failing"], token, "hi", 1, "the responder failed"),
        (&["--model", "nobody"], token, "hi", 1, "nobody"),
        (&[], Some("wrong"), "hi", 1, "the access token is missing, wrong or expired"),
        (&[], None, "hi", 2, "KLATCH_TOKEN is not set"),
        (&[], token, "\n", 2, "stdin is empty"),
        (&["--conversation", "../x"], token, "hi", 2, "is not a conversation's id"),
        (&["--url", "nowhere"], token, "hi", 2, "is not a URL"),
    ];
    for (arguments, token, stdin, code, words) in cases {
        let said = run(&bench, arguments, token, stdin).await?;
        let told = text(&said.stderr);
        ensure!(said.status.code() == Some(code) && told.contains(words), "{arguments:?}: {:?} {told}", said.status);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_only_the_answer_goes_to_a_file_the_prompt_stays_on_the_terminal() -> anyhow::Result<()> {
    let bench = Bench::start().await?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("answers");
    let script = format!("'{}' chat --model echo > '{}'", bench.program.display(), file.display());
    let arguments = ["-c", script.as_str()];
    let environment = bench.environment();
    let mut terminal = Terminal::start(&Launch::new(std::path::Path::new("/bin/sh"), &arguments, &environment))?;
    terminal.until("a prompt", super::at_prompt).await?;
    terminal.types("into the file\r")?;
    terminal.until("the next prompt", |screen| screen.contains("> into the file") && super::at_prompt(screen)).await?;
    super::leave(terminal).await?;
    let answers = std::fs::read_to_string(file)?;
    ensure!(answers == "into the file\n", "{answers:?}");
    Ok(())
}
