//! What is shown: lines, an answer as it grows, and notices that stand between its lines. Used by all of the demonstration.
//!
//! Everything goes through here, so that nothing can be written into the middle of something else.

use std::io::{IsTerminal, Result, Write, stdout};

use crate::cli::terminal::{colours_wanted, columns};

/// Longer lines are tiring to read.
const COLUMNS_MAX: usize = 100;
const COLUMNS_MIN: usize = 20;
/// Before each line of the answer.
const INDENT: &str = "    ";

const NOTICE: &str = "\x1b[1;33m";
const PLAIN: &str = "\x1b[0m";

pub struct Screen {
    out: Box<dyn Write + Send>,
    columns: usize,
    coloured: bool,
    /// Where the answer's last line ends; none: no line is open.
    column: Option<usize>,
    /// The last line is an empty one.
    blank: bool,
}

impl Screen {
    pub fn of_this_process() -> Self {
        let out = stdout();
        let (columns, coloured) = (columns(&out), colours_wanted(out.is_terminal()));
        Self::new(Box::new(out), columns, coloured)
    }

    fn new(out: Box<dyn Write + Send>, columns: usize, coloured: bool) -> Self {
        Self { out, columns: columns.clamp(COLUMNS_MIN, COLUMNS_MAX), coloured, column: None, blank: false }
    }

    /// Lines of their own.
    pub fn say(&mut self, text: &str) -> Result<()> {
        self.end_answer()?;
        writeln!(self.out, "{text}")?;
        self.blank = text.is_empty() || text.ends_with('\n');
        self.out.flush()
    }

    /// Stands out, and apart from the answer.
    pub fn notice(&mut self, text: &str) -> Result<()> {
        let (notice, plain) = if self.coloured { (NOTICE, PLAIN) } else { ("", "") };
        let before = if self.blank { "" } else { "\n" };
        self.say(&format!("{before}{notice}  *** {text}{plain}\n"))
    }

    /// The next words of the answer, broken between words.
    pub fn answer(&mut self, text: &str) -> Result<()> {
        for word in text.split_inclusive(' ') {
            self.word(word)?;
        }
        self.out.flush()
    }

    fn word(&mut self, word: &str) -> Result<()> {
        let width = word.trim_end().chars().count();
        let column = match self.column {
            Some(column) if column + width <= self.columns => column,
            open => {
                let before = if open.is_some() { "\n" } else { "" };
                write!(self.out, "{before}{INDENT}")?;
                INDENT.len()
            }
        };
        write!(self.out, "{word}")?;
        self.column = Some(column + word.chars().count());
        self.blank = false;
        Ok(())
    }

    /// What comes next stands on a line of its own.
    pub fn end_answer(&mut self) -> Result<()> {
        if self.column.take().is_some() {
            writeln!(self.out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::terminal::tests::Page;

    fn shown(columns: usize, coloured: bool, show: impl FnOnce(&mut Screen)) -> String {
        let page = Page::default();
        show(&mut Screen::new(Box::new(page.clone()), columns, coloured));
        page.text()
    }

    #[test]
    fn an_answer_is_broken_between_words() {
        let text = shown(20, false, |screen| {
            for piece in ["one two ", "three ", "four five", " six"] {
                screen.answer(piece).unwrap();
            }
        });
        assert_eq!(text, "    one two three \n    four five six");
    }

    #[test]
    fn a_notice_stands_between_the_lines_of_an_answer() {
        let text = shown(40, false, |screen| {
            screen.answer("it will be ").unwrap();
            screen.notice("dead").unwrap();
            screen.notice("alive").unwrap();
            screen.answer("killed").unwrap();
            screen.say("Done.").unwrap();
        });
        assert_eq!(text, "    it will be \n\n  *** dead\n\n  *** alive\n\n    killed\nDone.\n");
    }

    #[test]
    fn only_notices_are_coloured_and_only_where_that_is_wanted() {
        let text = shown(40, true, |screen| screen.notice("dead").unwrap());
        assert_eq!(text, "\n\x1b[1;33m  *** dead\x1b[0m\n\n");
        assert!(!shown(40, true, |screen| screen.say("Done.").unwrap()).contains('\x1b'));
    }
}
