//! `klatch demo`, run as anybody runs it: what it shows, and that nothing of it stays behind, however it ends.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use klatch_tests::process::binary;
use klatch_tests::terminal::{Launch, Terminal};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::cluster::alone;

/// A debug build on a busy machine: starts, an answer of some ten seconds, a failover, and a start again.
const RUN_MAX: Duration = Duration::from_secs(180);

/// Where the demonstration makes its folder, so that it can be seen whether it has removed it.
fn place() -> anyhow::Result<TempDir> {
    Ok(tempfile::Builder::new().prefix("klatch-place-").tempdir()?)
}

fn demo(place: &TempDir, arguments: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(binary()?);
    command.arg("demo").args(arguments).env("TMPDIR", place.path()).current_dir("/");
    // Of somebody who has set a node of his own: that is none of the demonstration's business.
    command.env("KLATCH_STORE", "file:/nowhere").env("KLATCH_CONFIG", "/nowhere.toml").env("KLATCH_HTTP_ADDR", "wrong");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Ok(command)
}

async fn run(mut command: Command) -> anyhow::Result<(Output, String)> {
    let output = tokio::time::timeout(RUN_MAX, command.output()).await.context("the demonstration did not end")??;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output, said))
}

/// The processes that it names.
fn pids(said: &str) -> Vec<u32> {
    let words: Vec<&str> = said.split_whitespace().collect();
    let after = words.windows(2).filter(|pair| pair[0] == "pid").map(|pair| pair[1]);
    after.filter_map(|pid| pid.trim_end_matches(':').parse().ok()).collect()
}

fn nothing_is_left(place: &TempDir, said: &str) -> anyhow::Result<()> {
    for pid in pids(said) {
        ensure!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there:\n{said}");
    }
    let left: Vec<_> = std::fs::read_dir(place.path())?.flatten().map(|entry| entry.path()).collect();
    ensure!(left.is_empty(), "{left:?} is left:\n{said}");
    Ok(())
}

/// The answer as it was shown: its lines are indented, the notices between them are not its.
fn answer(said: &str) -> String {
    let lines = said.lines().filter(|line| line.starts_with("    "));
    lines.map(str::trim).collect::<Vec<_>>().join(" ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_dies_in_mid_answer_and_the_answer_is_whole() -> anyhow::Result<()> {
    let _alone = alone().await;
    let place = place()?;
    let (output, said) = run(demo(&place, &["--once"])?).await?;
    println!("{said}");
    ensure!(output.status.code() == Some(0), "{said}");
    let begins = answer(&said).starts_with("This answer comes word by word. One node of three makes it,");
    let ends = answer(&said).ends_with("the connection through which you read this was never broken.");
    ensure!(begins && ends && answer(&said).contains("will be killed, without a warning"), "{said}");
    let killed = said.lines().find(|line| line.contains("*** kill -9 ")).context("no node was killed")?;
    let victim = killed.split_whitespace().find(|word| word.starts_with("klatch-")).context("no node is named")?;
    let victim = victim.trim_end_matches(',');
    let took_over = said.lines().find(|line| line.contains("has taken over")).context("no node took over")?;
    ensure!(!took_over.contains(victim), "{said}");
    ensure!(said.contains("Verified: 118 words, each once and in order"), "{said}");
    ensure!(said.contains(&format!("{victim} was started again as pid ")), "{said}");
    ensure!(!said.contains('\x1b') && !said.contains("Try it"), "{said:?}");
    ensure!(pids(&said).len() == 5, "{:?} of\n{said}", pids(&said));
    nothing_is_left(&place, &said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_it_says_what_to_install_and_leaves_nothing() -> anyhow::Result<()> {
    let place = place()?;
    let mut command = demo(&place, &["--once"])?;
    command.env("PATH", place.path());
    let (output, said) = run(command).await?;
    ensure!(output.status.code() == Some(1) && output.stdout.is_empty(), "{output:?}");
    ensure!(said.contains("apt-get install redis-server") && said.contains("brew install redis"), "{said}");
    nothing_is_left(&place, &said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_does_not_run_is_told_with_its_last_words() -> anyhow::Result<()> {
    let (place, programs) = (place()?, tempfile::tempdir()?);
    let program = programs.path().join("redis-server");
    std::fs::write(&program, "#!/bin/sh\necho 'no more memory'\nexit 3\n")?;
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut command = demo(&place, &["--once"])?;
    command.env("PATH", format!("{}:/usr/bin:/bin", programs.path().display()));
    let (output, said) = run(command).await?;
    ensure!(output.status.code() == Some(1), "{said}");
    ensure!(said.contains("redis-server has ended by itself") && said.contains("no more memory"), "{said}");
    nothing_is_left(&place, &said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_in_mid_answer_it_ends_all_that_it_started() -> anyhow::Result<()> {
    let _alone = alone().await;
    let place = place()?;
    let mut child = demo(&place, &[])?.spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("stdout is a pipe")?).lines();
    let mut said = String::new();
    let reading = async {
        while let Some(line) = lines.next_line().await? {
            said.push_str(&line);
            said.push('\n');
            if line.contains("This answer comes") {
                break;
            }
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(RUN_MAX, reading).await.context("there was no answer")??;
    let id = child.id().context("it runs")?;
    ensure!(Command::new("kill").args(["-TERM", &id.to_string()]).status().await?.success());
    let status = tokio::time::timeout(RUN_MAX, child.wait()).await??;
    ensure!(status.code() == Some(1), "{status}:\n{said}");
    ensure!(pids(&said).len() == 4, "{said}");
    nothing_is_left(&place, &said)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_terminal_it_stays_starts_again_what_dies_and_ends_with_ctrl_c() -> anyhow::Result<()> {
    let _alone = alone().await;
    let place = place()?;
    let program = binary()?;
    let temporary = place.path().display().to_string();
    let environment = [("TMPDIR", temporary.as_str())];
    let mut terminal = Terminal::start(&Launch { rows: 80, ..Launch::new(&program, &["demo"], &environment) })?;
    terminal.shows("*** kill -9 ").await?;
    ensure!(terminal.raw().contains("\x1b[1;33m"), "the notice does not stand out");
    let said = terminal.shows("Ctrl-C ends all of it.").await?;

    // What it says is true: the pages are there, and the account can log in.
    let after = |text: &str| {
        let found = said.split_once(text).and_then(|(_, rest)| rest.split_whitespace().next());
        found.map(str::to_owned).with_context(|| format!("{text} is not shown:\n{said}"))
    };
    let (chat, operators, password) = (after("chat page ")?, after("operators ")?, after("the password ")?);
    let http = reqwest::Client::builder().no_proxy().build()?;
    for page in [&chat, &operators] {
        let text = http.get(page).send().await?.error_for_status()?.text().await?;
        ensure!(text.contains("<html"), "{page} is no page");
    }
    let login = serde_json::json!({"username": "ann", "password": password});
    http.post(format!("{chat}auth/login")).json(&login).send().await?.error_for_status()?;

    let line = said.lines().find(|line| line.contains("kill -9  ")).context("nobody is told whom to kill")?;
    let pid = line.split("klatch-2 is ").nth(1).and_then(|rest| rest.split([',', ';']).next()).context("no pid")?;
    ensure!(Command::new("kill").args(["-KILL", pid]).status().await?.success());
    terminal.shows("klatch-2 is dead").await?;
    let said = terminal.shows("klatch-2 is back, as pid ").await?;
    terminal.types("\x03")?;
    let code = terminal.ended().await?;
    ensure!(code == 0, "it ended with {code}:\n{}", terminal.screen());
    ensure!(terminal.screen().contains("its folder is gone"), "{}", terminal.screen());
    nothing_is_left(&place, &said)
}
