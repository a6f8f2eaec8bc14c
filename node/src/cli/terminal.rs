//! What the commands want of the terminal: its width, its colours, and that it is quiet for a while.

use std::ffi::OsStr;
use std::io::stdin;
use std::os::fd::AsFd;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// Where nobody says: a page that is pasted anywhere.
const COLUMNS_ELSEWHERE: usize = 80;

/// NO_COLOR, to any value but an empty one, means none (no-color.org); a dumb terminal would show the codes.
pub fn colours_wanted(on_terminal: bool) -> bool {
    wanted(on_terminal, std::env::var_os("NO_COLOR").as_deref(), std::env::var_os("TERM").as_deref())
}

fn wanted(on_terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    on_terminal && no_color.is_none_or(OsStr::is_empty) && term.is_none_or(|term| term != "dumb")
}

/// Columns of the terminal behind it, if there is one.
pub fn columns(of: impl AsFd) -> usize {
    match rustix::termios::tcgetwinsize(of) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        Ok(_) | Err(_) => COLUMNS_ELSEWHERE,
    }
}

/// As long as this lives, what is typed is kept for whoever reads next, and is not shown: it would stand in the middle of
/// what is being written. Does nothing where stdin is no terminal.
pub struct Quiet(Option<Termios>);

impl Quiet {
    pub fn keep() -> Self {
        let before = tcgetattr(stdin()).ok();
        if let Some(mut quiet) = before.clone() {
            quiet.local_modes.remove(LocalModes::ECHO);
            set(&quiet);
        }
        Self(before)
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        self.0.iter().for_each(set);
    }
}

fn set(modes: &Termios) {
    // A terminal that is gone needs nothing.
    let _ = tcsetattr(stdin(), OptionalActions::Now, modes);
}

#[cfg(test)]
pub mod tests {
    use std::io::{Result, Write};
    use std::sync::{Arc, Mutex};

    use super::*;

    /// What was written, to be looked at afterwards.
    #[derive(Clone, Default)]
    pub struct Page(Arc<Mutex<Vec<u8>>>);

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    impl Page {
        pub fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn colours_are_for_terminals_that_have_them_and_people_who_want_them() {
        let wanted = |on_terminal, no_color: Option<&str>, term: Option<&str>| {
            super::wanted(on_terminal, no_color.map(OsStr::new), term.map(OsStr::new))
        };
        assert!(wanted(true, None, Some("xterm")) && wanted(true, Some(""), None));
        assert!(!wanted(false, None, Some("xterm")), "no terminal");
        assert!(!wanted(true, Some("0"), Some("xterm")), "NO_COLOR with any value");
        assert!(!wanted(true, None, Some("dumb")));
    }
}
