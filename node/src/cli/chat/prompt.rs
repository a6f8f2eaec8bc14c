//! The line editor, and what a line means. Used by `session.rs`; the history lives as long as the program, since what
//! people say to a bot does not belong into a file they do not know of.

use std::borrow::Cow;
use std::io::IsTerminal;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Behavior, Config, Editor, Helper};

use crate::cli::terminal::colours_wanted;

pub const HELP: &str = "/help        this
/new         start a new conversation
/list        the newest conversations
/open ID     go on with a conversation
/quit        leave (so does Ctrl-D)
A line that ends in \\ goes on in the next; what is pasted is sent with Enter, with all its lines.
Ctrl-C cancels the answer that is being given, or drops the line that is being typed.";

#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    Nothing,
    Message(String),
    Help,
    New,
    List,
    Open(String),
    /// Ctrl-C: what was typed is not meant. It never leaves, since it may have come for an answer that has just ended.
    Dropped,
    Quit,
    /// Looks like a command, and is none: what to tell the user.
    Unknown(String),
}

pub struct Prompt {
    editor: Editor<Hand, DefaultHistory>,
}

impl Prompt {
    /// Where stdout goes to a file or a script, the prompt goes to the terminal all the same.
    pub fn new(json: bool) -> anyhow::Result<Self> {
        let apart = json || !std::io::stdout().is_terminal();
        let behavior = if apart { Behavior::PreferTerm } else { Behavior::Stdio };
        let config = Config::builder().behavior(behavior).auto_add_history(true).build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Hand { coloured: colours_wanted(true) }));
        Ok(Self { editor })
    }

    /// Blocks a thread of its own while the user thinks; gives the prompt back for the next line.
    pub async fn read(mut self) -> anyhow::Result<(Self, Line)> {
        tokio::task::spawn_blocking(move || {
            let line = match self.editor.readline("> ") {
                Ok(text) => meaning(&text),
                Err(ReadlineError::Interrupted) => Line::Dropped,
                Err(ReadlineError::Eof) => Line::Quit,
                Err(wrong) => return Err(wrong.into()),
            };
            Ok((self, line))
        })
        .await?
    }
}

fn meaning(text: &str) -> Line {
    let text = text.replace("\\\n", "\n");
    let mut words = text.split_whitespace();
    let command = words.next().filter(|_| text.starts_with('/') && !text.trim_end().contains('\n'));
    match (command, words.next(), words.next()) {
        _ if text.trim().is_empty() => Line::Nothing,
        (None, _, _) => Line::Message(text.trim().to_owned()),
        (Some("/help"), None, None) => Line::Help,
        (Some("/new"), None, None) => Line::New,
        (Some("/list"), None, None) => Line::List,
        (Some("/quit"), None, None) => Line::Quit,
        (Some("/open"), Some(id), None) => super::conversations::id(id).map_or_else(Line::Unknown, Line::Open),
        (Some(command), _, _) => Line::Unknown(format!(
            "no such command: {command}; /help lists them; a message that begins with / needs a space before it"
        )),
    }
}

/// What the editor asks of us: when a line goes on, and how the prompt looks.
struct Hand {
    coloured: bool,
}

impl Validator for Hand {
    fn validate(&self, context: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        Ok(if context.input().ends_with('\\') { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

impl Highlighter for Hand {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _default: bool) -> Cow<'b, str> {
        if self.coloured { format!("\x1b[1;36m{prompt}\x1b[0m").into() } else { prompt.into() }
    }
}

impl Completer for Hand {
    type Candidate = String;
}

impl Hinter for Hand {
    type Hint = String;
}

impl Helper for Hand {}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Line {
        Line::Message(text.to_owned())
    }

    #[test]
    fn what_is_no_command_is_a_message() {
        assert_eq!(meaning("hello"), message("hello"));
        assert_eq!(meaning(" /quit"), message("/quit"));
        assert_eq!(meaning("/a\n/b"), message("/a\n/b"), "a paste of paths is no command");
        assert_eq!(meaning(" \n"), Line::Nothing);
    }

    #[test]
    fn a_line_ending_in_a_backslash_goes_on_in_the_next() {
        assert_eq!(meaning("one\\\ntwo\\\nthree"), message("one\ntwo\nthree"));
    }

    #[test]
    fn commands_are_known_by_name_and_arguments() {
        assert_eq!(meaning("/help"), Line::Help);
        assert_eq!(meaning("/new "), Line::New);
        assert_eq!(meaning("/list"), Line::List);
        assert_eq!(meaning("/open conv_1"), Line::Open("conv_1".to_owned()));
        assert_eq!(meaning("/quit"), Line::Quit);
        for wrong in ["/open", "/open ../x", "/quit now", "/what"] {
            assert!(matches!(meaning(wrong), Line::Unknown(_)), "{wrong}");
        }
    }

    #[test]
    fn help_names_every_command() {
        for command in ["/help", "/new", "/list", "/open", "/quit"] {
            assert!(HELP.contains(command));
        }
    }
}
