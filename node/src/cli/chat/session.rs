//! A person's (or a script's) stay: which conversation is open, what each line does, how it ends.
//! Started by `chat.rs`; the turn itself is `answer.rs`.

use std::process::ExitCode;

use tokio::sync::mpsc;

use super::ChatArgs;
use super::answer::{Answering, post};
use super::conversations;
use super::credentials::Credentials;
use super::output::Printer;
use super::prompt::{HELP, Line, Prompt};
use super::turn::Ending;
use crate::cli::client::ApiClient;
use crate::cli::client::failure::Failure;
use crate::cli::terminal::Quiet;

pub struct Session {
    client: ApiClient,
    credentials: Credentials,
    printer: Printer,
    interrupts: mpsc::Receiver<()>,
    model: String,
    conversation: String,
}

impl Session {
    pub async fn start(
        client: ApiClient,
        credentials: Credentials,
        mut printer: Printer,
        mut interrupts: mpsc::Receiver<()>,
        args: &ChatArgs,
    ) -> anyhow::Result<Self> {
        let conversation = tokio::select! {
            found = choose(&client, args) => found?,
            Some(()) = interrupts.recv() => anyhow::bail!("stopped before there was a conversation"),
        };
        printer.note(&format!("conversation {conversation}"))?;
        Ok(Self { client, credentials, printer, interrupts, model: args.model.clone(), conversation })
    }

    /// One message and its answer, for scripts.
    pub async fn say_one(mut self, message: &str) -> anyhow::Result<ExitCode> {
        let ending = self.say(message).await?;
        self.farewell()?;
        Ok(if ending == Ending::Completed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Until the user leaves. Whatever fails on the way is told, and the prompt comes back.
    pub async fn talk(mut self, mut prompt: Prompt) -> anyhow::Result<ExitCode> {
        self.recall().await?;
        self.printer.note("/help lists the commands")?;
        loop {
            let line;
            (prompt, line) = prompt.read().await?;
            if line == Line::Quit {
                self.farewell()?;
                return Ok(ExitCode::SUCCESS);
            }
            self.obey(line).await?;
        }
    }

    async fn obey(&mut self, line: Line) -> anyhow::Result<()> {
        if matches!(line, Line::New | Line::List | Line::Open(_)) {
            let told = self.command_unless_interrupted(line).await;
            return Ok(self.printer.note(&told)?);
        }
        match line {
            Line::Message(message) => {
                if let Ending::Unauthorized(_) = self.say(&message).await? {
                    self.log_in_again().await?;
                }
            }
            Line::Help => self.printer.note(HELP)?,
            Line::Unknown(wrong) => self.printer.note(&wrong)?,
            Line::Dropped => self.printer.note("Ctrl-D leaves")?,
            Line::Nothing | Line::New | Line::List | Line::Open(_) | Line::Quit => {}
        }
        Ok(())
    }

    /// What to tell the user afterwards. A server that is away is asked for a minute, and nobody has to wait for that.
    async fn command_unless_interrupted(&mut self, line: Line) -> String {
        let (_sender, none) = mpsc::channel(1);
        let mut interrupts = std::mem::replace(&mut self.interrupts, none);
        let told = tokio::select! {
            told = self.command(line) => told.unwrap_or_else(|failure| failure.to_string()),
            Some(()) = interrupts.recv() => "stopped".to_owned(),
        };
        self.interrupts = interrupts;
        told
    }

    async fn command(&mut self, line: Line) -> Result<String, Failure> {
        self.credentials.keep_fresh(&self.client).await?;
        match line {
            Line::New => self.conversation = conversations::create(&self.client).await?,
            Line::Open(id) => {
                self.conversation = conversations::find(&self.client, &id).await?;
                let said = conversations::recall(&self.client, &id).await?;
                return Ok(format!("conversation {id}\n{}", said.join("\n")).trim_end().to_owned());
            }
            _ => return conversations::list(&self.client).await.map(|list| self.table(&list)),
        }
        Ok(format!("conversation {}", self.conversation))
    }

    fn table(&self, list: &[conversations::Conversation]) -> String {
        let row = |one: &conversations::Conversation| {
            let here = if one.id == self.conversation { "*" } else { " " };
            let title = one.metadata["title"].as_str().unwrap_or_default();
            format!("{here} {}  {}  {title}", one.id, super::output::date_of(one.created_at)).trim_end().to_owned()
        };
        if list.is_empty() { "there are none".to_owned() } else { list.iter().map(row).collect::<Vec<_>>().join("\n") }
    }

    async fn say(&mut self, message: &str) -> std::io::Result<Ending> {
        let answering = Answering {
            client: &self.client,
            credentials: &self.credentials,
            printer: &mut self.printer,
            interrupts: &mut self.interrupts,
            post: post(&self.model, &self.conversation, message),
        };
        let quiet = Quiet::keep();
        let ending = answering.run().await?;
        drop(quiet);
        if let Some(told) = in_words(&ending) {
            self.printer.note(&told)?;
        }
        Ok(ending)
    }

    async fn log_in_again(&mut self) -> anyhow::Result<()> {
        if !self.credentials.can_be_asked_again() {
            return Ok(());
        }
        self.printer.note("log in again, then send the message again")?;
        match Credentials::ask(&self.client, &mut self.interrupts).await? {
            Ok(credentials) => self.credentials = credentials,
            Err(failure) => self.printer.note(&failure.to_string())?,
        }
        Ok(())
    }

    /// Someone who comes back wants to know where they were; failing to tell is no reason to fail.
    async fn recall(&mut self) -> std::io::Result<()> {
        let said = conversations::recall(&self.client, &self.conversation).await.unwrap_or_default();
        said.iter().try_for_each(|line| self.printer.note(line))
    }

    fn farewell(&mut self) -> std::io::Result<()> {
        self.printer.note(&format!("go on with: klatch chat --conversation {}", self.conversation))
    }
}

async fn choose(client: &ApiClient, args: &ChatArgs) -> Result<String, Failure> {
    let known = match &args.conversation {
        Some(id) => Some(conversations::find(client, id).await?),
        None if args.resume => conversations::newest(client).await?,
        None => None,
    };
    match known {
        Some(id) => Ok(id),
        None => conversations::create(client).await,
    }
}

fn in_words(ending: &Ending) -> Option<String> {
    match ending {
        Ending::Completed => None,
        Ending::Incomplete(reason) => Some(format!("the answer is incomplete: {reason}")),
        Ending::Cancelled => Some("cancelled".to_owned()),
        Ending::Failed(message) => Some(format!("the responder failed: {message}")),
        Ending::Abandoned => Some("not waiting any longer; the answer may still be written".to_owned()),
        Ending::GivenUp(failure) | Ending::Unauthorized(failure) => Some(failure.clone()),
    }
}

#[cfg(test)]
mod tests;
