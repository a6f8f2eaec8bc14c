//! What the user sees: answers on stdout, notes on stderr. Used by all of `klatch chat`.
//!
//! On a terminal, control characters of an answer are left out: a model's text must not move the cursor, retitle the
//! window or reach the clipboard. A file gets every byte.

use std::borrow::Cow;
use std::io::{IsTerminal, Result, Write};

use serde::Deserialize;

use crate::cli::client::events::StreamEvent;
use crate::cli::terminal::colours_wanted;

const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

pub struct Printer {
    json: bool,
    answers: Box<dyn Write + Send>,
    answers_on_terminal: bool,
    notes: Box<dyn Write + Send>,
    notes_on_terminal: bool,
    coloured: bool,
    /// Something of an answer was shown, and its last line is still open.
    line_open: bool,
}

#[derive(Deserialize)]
struct Delta {
    delta: String,
}

impl Printer {
    pub fn of_this_process(json: bool) -> Self {
        let (answers, notes) = (std::io::stdout(), std::io::stderr());
        Self {
            json,
            answers_on_terminal: answers.is_terminal(),
            notes_on_terminal: notes.is_terminal(),
            coloured: colours_wanted(notes.is_terminal()),
            answers: Box::new(answers),
            notes: Box::new(notes),
            line_open: false,
        }
    }

    pub fn event(&mut self, event: &StreamEvent) -> Result<()> {
        if self.json {
            writeln!(self.answers, "{}", event.data)?;
            return self.answers.flush();
        }
        match event.kind.as_str() {
            "response.output_text.delta" | "response.refusal.delta" => match serde_json::from_str::<Delta>(&event.data)
            {
                Ok(Delta { delta }) => self.show(&delta),
                Err(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn show(&mut self, text: &str) -> Result<()> {
        let text = if self.answers_on_terminal { harmless(text) } else { Cow::Borrowed(text) };
        self.answers.write_all(text.as_bytes())?;
        self.line_open = text.chars().last().map_or(self.line_open, |last| last != '\n');
        self.answers.flush()
    }

    pub fn end_answer(&mut self) -> Result<()> {
        if std::mem::take(&mut self.line_open) {
            writeln!(self.answers)?;
        }
        self.answers.flush()
    }

    /// A line for the person, on its own line also in mid-answer; the answer then goes on in the next. Where only one of
    /// the two is a terminal, nothing joins them.
    pub fn note(&mut self, text: &str) -> Result<()> {
        let (dim, plain) = if self.coloured { (DIM, PLAIN) } else { ("", "") };
        let joined = self.answers_on_terminal && self.notes_on_terminal;
        let before = if joined && std::mem::take(&mut self.line_open) { "\n" } else { "" };
        writeln!(self.notes, "{before}{dim}{}{plain}", harmless(text))
    }
}

fn harmless(text: &str) -> Cow<'_, str> {
    let harmful = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.contains(harmful) { text.replace(harmful, "").into() } else { text.into() }
}

/// `2026-01-31 13:05` UTC of seconds since 1970, by the days-from-civil rule turned round.
pub fn date_of(unix_secs: u64) -> String {
    let (days, minutes) = (unix_secs / 86_400, unix_secs % 86_400 / 60);
    let since_0000_03_01 = days + 719_468;
    let (era, day_of_era) = (since_0000_03_01 / 146_097, since_0000_03_01 % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * month_from_march + 2) / 5 + 1, (month_from_march + 2) % 12 + 1);
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}", minutes / 60, minutes % 60)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::cli::terminal::tests::Page;

    pub fn printer(json: bool, on_terminal: bool) -> (Printer, Page, Page) {
        let (answers, notes) = (Page::default(), Page::default());
        let printer = Printer {
            json,
            answers: Box::new(answers.clone()),
            answers_on_terminal: on_terminal,
            notes: Box::new(notes.clone()),
            notes_on_terminal: on_terminal,
            coloured: on_terminal,
            line_open: false,
        };
        (printer, answers, notes)
    }

    fn delta(text: &str) -> StreamEvent {
        let data = serde_json::json!({ "delta": text }).to_string();
        StreamEvent { kind: "response.output_text.delta".to_owned(), sequence_number: 1, data }
    }

    #[test]
    fn an_answer_ends_with_exactly_one_line_end() {
        for text in ["hello", "hello\n"] {
            let (mut printer, answers, _) = printer(false, false);
            printer.event(&delta(text)).unwrap();
            printer.end_answer().unwrap();
            assert_eq!(answers.text(), "hello\n");
        }
    }

    #[test]
    fn a_terminal_gets_no_control_characters_and_a_file_gets_them_all() {
        for (on_terminal, shown) in [(true, "a]52;c;b\tc"), (false, "a\x1b]52;c;b\u{7}\tc")] {
            let (mut printer, answers, _) = printer(false, on_terminal);
            printer.event(&delta("a\x1b]52;c;b\u{7}\tc")).unwrap();
            assert_eq!(answers.text(), shown);
        }
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (secs, date) in [
            (0, "1970-01-01 00:00"),
            (951_782_400, "2000-02-29 00:00"),
            (1_767_225_599, "2025-12-31 23:59"),
            (1_772_323_200, "2026-03-01 00:00"),
        ] {
            assert_eq!(date_of(secs), date);
        }
    }

    #[test]
    fn json_is_one_event_a_line() {
        let (mut printer, answers, _) = printer(true, true);
        let event = delta("a\nb");
        printer.event(&event).unwrap();
        printer.end_answer().unwrap();
        assert_eq!(answers.text(), format!("{}\n", event.data));
    }

    #[test]
    fn notes_are_coloured_on_a_terminal_only_and_never_join_an_answers_line() {
        let (mut printer, answers, notes) = printer(false, true);
        printer.event(&delta("half")).unwrap();
        printer.note("lost\x1b").unwrap();
        assert_eq!((answers.text().as_str(), notes.text().as_str()), ("half", "\n\x1b[2mlost\x1b[0m\n"));
        printer.end_answer().unwrap();
        assert_eq!(answers.text(), "half", "the note has ended the line");
        let (mut printer, answers, notes) = super::tests::printer(false, false);
        printer.event(&delta("half")).unwrap();
        printer.note("lost").unwrap();
        printer.end_answer().unwrap();
        assert_eq!((answers.text().as_str(), notes.text().as_str()), ("half\n", "lost\n"));
    }
}
