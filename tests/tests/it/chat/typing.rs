//! What is typed, edited and pasted at the prompt, and what arrives at the server.

use anyhow::ensure;

use super::{Bench, at_prompt, leave};

const UP: &str = "\x1b[A";
const LEFT: &str = "\x1b[D";
const HOME: &str = "\x01";

/// Types on this terminal and asks what was sent: the questions alone.
async fn sent(bench: &Bench) -> anyhow::Result<Vec<String>> {
    Ok(bench.stored().await?.into_iter().step_by(2).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_arrows_bring_back_what_was_said() -> anyhow::Result<()> {
    let bench = Bench::start().await?;
    let mut terminal = bench.chat(&["--model", "echo"]).await?;
    for said in ["first", "second"] {
        terminal.types(&format!("{said}\r"))?;
        terminal.until("the answer", |screen| screen.contains(&format!("\n{said}\n")) && at_prompt(screen)).await?;
    }
    terminal.types(UP)?;
    terminal.until("the last line", |screen| screen.trim_end().ends_with("> second")).await?;
    terminal.types(UP)?;
    terminal.until("the line before", |screen| screen.trim_end().ends_with("> first")).await?;
    terminal.types(" again\r")?;
    terminal.until("the answer", |screen| screen.contains("\nfirst again\n") && at_prompt(screen)).await?;
    ensure!(sent(&bench).await? == ["first", "second", "first again"]);
    leave(terminal).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backslash_at_the_end_continues_the_message_in_the_next_line() -> anyhow::Result<()> {
    let bench = Bench::start().await?;
    let mut terminal = bench.chat(&["--model", "echo"]).await?;
    terminal.types("one\\\r")?;
    terminal.until("a second line", |screen| screen.trim_end().ends_with("> one\\")).await?;
    terminal.types("two\r")?;
    terminal.until("the answer", |screen| screen.contains("\none\ntwo\n") && at_prompt(screen)).await?;
    ensure!(sent(&bench).await? == ["one\ntwo"]);
    let help = bench.node.command(&["chat", "--help"], "").await?;
    ensure!(help.contains("a line that ends in \\ goes on in the next"), "{help}");
    leave(terminal).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pasted_lines_are_one_message_and_wait_for_enter() -> anyhow::Result<()> {
    let bench = Bench::start().await?;
    let mut terminal = bench.chat(&["--model", "echo"]).await?;
    ensure!(terminal.raw().contains("\x1b[?2004h"), "the terminal is not asked to mark what is pasted");
    terminal.types("\x1b[200~/etc/passwd\nand\tmore\r\nof it\x1b[201~")?;
    terminal.until("what was pasted", |screen| screen.contains("of it")).await?;
    ensure!(bench.stored().await?.is_empty(), "it was sent before Enter");
    terminal.types("\r")?;
    terminal.until("the answer", |screen| screen.matches("of it").count() == 2 && at_prompt(screen)).await?;
    let sent = sent(&bench).await?;
    ensure!(sent == ["/etc/passwd\nand\tmore\nof it"], "{sent:?}");
    leave(terminal).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_drops_the_line_and_leaves_nobody() -> anyhow::Result<()> {
    let bench = Bench::start().await?;
    let mut terminal = bench.chat(&["--model", "echo"]).await?;
    terminal.types("not meant\x03")?;
    terminal.until("a hint", |screen| screen.contains("Ctrl-D leaves") && at_prompt(screen)).await?;
    terminal.types("meant\r")?;
    terminal.until("the answer", |screen| screen.contains("\nmeant\n") && at_prompt(screen)).await?;
    ensure!(sent(&bench).await? == ["meant"]);
    leave(terminal).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wide_characters_are_edited_where_the_cursor_stands() -> anyhow::Result<()> {
    let bench = Bench::start().await?;
    let mut terminal = bench.chat_on(&["--model", "echo"], &[], 24, 20).await?;
    // Twelve characters of two columns each do not fit into one row.
    terminal.types("日本語日本語日本語日本語")?;
    terminal.until("all of it", |screen| screen.matches('語').count() == 4).await?;
    terminal.types(&LEFT.repeat(7))?;
    terminal.types("é👍")?;
    terminal.types(HOME)?;
    terminal.types("ü\r")?;
    terminal.until("the answer", |screen| screen.matches('👍').count() == 2 && at_prompt(screen)).await?;
    ensure!(sent(&bench).await? == ["ü日本語日本é👍語日本語日本語"], "{:?}", sent(&bench).await?);
    leave(terminal).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_longer_than_the_terminal_can_be_edited_at_both_ends() -> anyhow::Result<()> {
    let bench = Bench::start().await?;
    let mut terminal = bench.chat_on(&["--model", "echo"], &[], 24, 20).await?;
    let long = "abcdefghij ".repeat(5);
    terminal.types(&long)?;
    // The editor ends each row itself.
    terminal.until("all of it", |screen| screen.replace('\n', "").matches("abcdefghij").count() == 5).await?;
    terminal.types(HOME)?;
    terminal.types("first ")?;
    terminal.types("\x05last\r")?;
    let last = |screen: &str| screen.replace('\n', "").matches("last").count();
    terminal.until("the answer", |screen| last(screen) == 2 && at_prompt(screen)).await?;
    let sent = sent(&bench).await?;
    ensure!(sent == [format!("first {long}last")], "{sent:?}");
    leave(terminal).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_typed_during_an_answer_is_there_at_the_next_prompt() -> anyhow::Result<()> {
    let bench = Bench::start().await?;
    let mut terminal = bench.chat(&["--model", "slow"]).await?;
    terminal.types("one two three four five six seven eight nine ten\r")?;
    terminal.until("the beginning of the answer", |screen| screen.matches("two ").count() == 2).await?;
    terminal.types("next")?;
    let whole = terminal.until("a prompt with it", |screen| screen.trim_end().ends_with("> next")).await?;
    ensure!(whole.contains("\none two three four five six seven eight nine ten\n"), "it is mixed up:\n{whole}");
    terminal.types(" one\r")?;
    terminal.until("its answer", |screen| screen.contains("\nnext one\n") && at_prompt(screen)).await?;
    leave(terminal).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_change_the_conversation_and_a_wrong_one_is_told() -> anyhow::Result<()> {
    let bench = Bench::start().await?;
    let mut terminal = bench.chat(&["--model", "echo"]).await?;
    terminal.types("hello\r")?;
    let first = terminal.until("the answer", |screen| screen.contains("\nhello\n") && at_prompt(screen)).await?;
    let id = first.split_whitespace().find(|word| word.starts_with("conv_")).unwrap_or_default().to_owned();
    terminal.types("/new\r")?;
    terminal.until("another", |screen| screen.matches("conversation conv_").count() == 2 && at_prompt(screen)).await?;
    terminal.types("/list\r")?;
    terminal.until("the list", |screen| screen.contains("* conv_") && at_prompt(screen)).await?;
    terminal.types(&format!("/open {id}\r"))?;
    terminal.until("what was said", |screen| screen.contains("assistant: hello") && at_prompt(screen)).await?;
    terminal.types("/nonsense\r")?;
    terminal
        .until("what is wrong", |screen| screen.contains("no such command: /nonsense") && at_prompt(screen))
        .await?;
    terminal.types("/quit\r")?;
    ensure!(terminal.ended().await? == 0);
    ensure!(terminal.screen().contains(&format!("go on with: klatch chat --conversation {id}")));
    Ok(())
}
