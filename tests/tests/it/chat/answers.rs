//! Answers on a terminal: as they come, cancelled, broken off, and in colours.

use std::time::Duration;

use anyhow::ensure;
use klatch_tests::process::binary;
use klatch_tests::terminal::{Launch, Terminal};

use super::{Bench, PROMPT, at_prompt, is_note, leave, numbers};

/// What stands below the last message that was typed, notes left out.
fn answer(screen: &str) -> String {
    let below = screen.rsplit_once(PROMPT).map_or(screen, |(above, _)| above);
    let lines: Vec<&str> = below.lines().collect();
    let typed = lines.iter().rposition(|line| line.starts_with(PROMPT)).unwrap_or_default();
    lines[typed + 1..].iter().filter(|line| !line.is_empty() && !is_note(line)).copied().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_shown_as_it_comes() -> anyhow::Result<()> {
    let bench = Bench::start().await?;
    let mut terminal = bench.chat(&["--model", "slow"]).await?;
    let said = numbers(20);
    terminal.types(&format!("{said}\r"))?;
    // What is typed shows each word once, and the answer each word again.
    let twice = |screen: &str, word: &str| screen.matches(word).count() == 2;
    let half = terminal.until("the beginning of the answer", |screen| twice(screen, "w3 ")).await?;
    ensure!(!twice(&half, "w20") && !at_prompt(&half), "the answer came as a whole:\n{half}");
    let whole = terminal.until("the end of the answer", at_prompt).await?;
    ensure!(answer(&whole) == said, "{whole}");
    leave(terminal).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_cancels_the_answer_at_the_server_and_the_program_goes_on() -> anyhow::Result<()> {
    let bench = Bench::start().await?;
    let mut terminal = bench.chat(&["--model", "slow"]).await?;
    terminal.types(&format!("{}\r", numbers(60)))?;
    terminal.until("the beginning of the answer", |screen| screen.matches("w3 ").count() == 2).await?;
    terminal.types("\x03")?;
    let cancelled = terminal.until("a prompt after the cancelled answer", at_prompt).await?;
    ensure!(cancelled.contains("\ncancelled\n") && cancelled.matches("w60").count() == 1, "{cancelled}");
    let stored = bench.stored().await?;
    ensure!(stored.len() == 2 && stored[1].starts_with("w1 w2 w3") && !stored[1].contains("w60"), "{stored:?}");
    terminal.types("again\r")?;
    terminal.until("the next answer", |screen| screen.contains("\nagain\n") && at_prompt(screen)).await?;
    leave(terminal).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_goes_on_where_it_stopped_when_its_node_is_killed_and_comes_back() -> anyhow::Result<()> {
    let mut bench = Bench::start().await?;
    let mut terminal = bench.chat_on(&["--model", "slow"], &[], 40, 200).await?;
    let said = numbers(40);
    terminal.types(&format!("{said}\r"))?;
    terminal.until("the beginning of the answer", |screen| screen.matches("w5 ").count() == 2).await?;
    bench.node.kill().await?;
    terminal.shows("trying again").await?;
    bench.node.restart().await?;
    let whole = terminal.until("the end of the answer", at_prompt).await?;
    ensure!(answer(&whole) == said, "{whole}");
    ensure!(bench.stored().await? == [said.clone(), said], "another answer is stored");
    leave(terminal).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn colours_are_shown_on_a_terminal_and_not_where_nobody_wants_them() -> anyhow::Result<()> {
    let bench = Bench::start().await?;
    for (environment, coloured) in
        [(&[][..], true), (&[("NO_COLOR", "1")], false), (&[("NO_COLOR", "")], true), (&[("TERM", "dumb")], false)]
    {
        let mut terminal = bench.chat_on(&[], environment, 40, 120).await?;
        terminal.types("/help\r")?;
        terminal.until("the help", |screen| screen.contains("/list") && at_prompt(screen)).await?;
        let raw = terminal.raw();
        ensure!(has_colours(&raw) == coloured, "with {environment:?}: {raw:?}");
        leave(terminal).await?;
    }
    Ok(())
}

/// Any escape sequence that ends in `m`.
fn has_colours(raw: &str) -> bool {
    let sequences = raw.split("\x1b[").skip(1);
    sequences.filter_map(|rest| rest.chars().find(char::is_ascii_alphabetic)).any(|end| end == 'm')
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_answer_fits_a_narrow_terminal() -> anyhow::Result<()> {
    let bench = Bench::start().await?;
    let mut terminal = bench.chat_on(&["--model", "echo"], &[], 24, 20).await?;
    let said = "ein langes Wort: Donaudampfschifffahrt, und weiter";
    terminal.types(&format!("{said}\r"))?;
    // The screen tells a row that goes on in the next from one that ends.
    terminal.until("the answer", |screen| screen.contains(&format!("\n{said}\n")) && at_prompt(screen)).await?;
    leave(terminal).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_and_a_password_are_asked_for_and_the_password_is_not_shown() -> anyhow::Result<()> {
    let bench = Bench::start().await?;
    bench.node.add_user("berta", "correct horse").await?;
    let environment = [("KLATCH_URL", bench.node.url.as_str())];
    let launch = Launch::new(&bench.program, &["chat"], &environment);
    let mut terminal = Terminal::start(&launch)?;
    terminal.shows("User: ").await?;
    terminal.types("berta\r")?;
    terminal.shows("Password: ").await?;
    terminal.types("correct horse\r")?;
    terminal.until("a prompt", at_prompt).await?;
    ensure!(!terminal.raw().contains("horse"), "the password was shown");
    leave(terminal).await?;

    // Whoever gives up at the password gets a terminal back that shows what is typed.
    let script = format!("trap : INT; '{}' chat; echo ended with $?; stty -a", bench.program.display());
    let shell = std::path::Path::new("/bin/sh");
    let mut terminal = Terminal::start(&Launch::new(shell, &["-c", &script], &environment))?;
    terminal.shows("User: ").await?;
    terminal.types("berta\r")?;
    terminal.shows("Password: ").await?;
    terminal.types("\x03")?;
    terminal.shows("ended with 1").await?;
    terminal.ended().await?;
    let settings = terminal.screen();
    ensure!(settings.contains(" echo ") && !settings.contains("-echo "), "{settings}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_ends_the_wait_for_a_server_that_is_not_there() -> anyhow::Result<()> {
    let environment = [("KLATCH_URL", "http://127.0.0.1:9"), ("KLATCH_TOKEN", "x")];
    let program = binary()?;
    let mut terminal = Terminal::start(&Launch::new(&program, &["chat"], &environment))?;
    terminal.shows("trying again for up to").await?;
    let asked = std::time::Instant::now();
    terminal.types("\x03")?;
    ensure!(terminal.ended().await? == 1, "{}", terminal.screen());
    ensure!(asked.elapsed() < Duration::from_secs(30), "it waited all the same");
    Ok(())
}
