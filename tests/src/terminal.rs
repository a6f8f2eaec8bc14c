//! A program on a terminal of its own: it is typed into, and what is looked at is what a person would see.
//!
//! Waits for what the screen shows, never for a time to pass; every wait has an end. Dropped, it kills the program.

use std::io::{Read, Write};
use std::num::NonZero;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use portable_pty::{ChildKiller, CommandBuilder, MasterPty, PtySize, native_pty_system};
use tokio::sync::watch;

/// A debug build on a busy machine, with a failover in it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lines above the screen are kept, so that a long talk can be read to its beginning.
const SCROLLED_MAX: usize = 1000;

pub struct Terminal {
    seen: Arc<Mutex<Seen>>,
    changed: watch::Receiver<u64>,
    exit: watch::Receiver<Option<u32>>,
    keyboard: Box<dyn Write + Send>,
    /// Closed, it would hang up.
    _master: Box<dyn MasterPty + Send>,
    killer: Box<dyn ChildKiller + Send + Sync>,
}

struct Seen {
    screen: vt100::Parser,
    raw: Vec<u8>,
}

/// What is started, and on what.
pub struct Launch<'a> {
    pub program: &'a Path,
    pub arguments: &'a [&'a str],
    /// Beside the test's own environment, without what concerns colours and Klatch.
    pub environment: &'a [(&'a str, &'a str)],
    pub rows: u16,
    pub columns: u16,
}

impl<'a> Launch<'a> {
    pub fn new(program: &'a Path, arguments: &'a [&'a str], environment: &'a [(&'a str, &'a str)]) -> Self {
        Self { program, arguments, environment, rows: 40, columns: 120 }
    }
}

impl Terminal {
    pub fn start(launch: &Launch<'_>) -> anyhow::Result<Self> {
        let size = PtySize { rows: launch.rows, cols: launch.columns, pixel_width: 0, pixel_height: 0 };
        let pair = native_pty_system().openpty(size)?;
        let mut command = CommandBuilder::new(launch.program);
        command.args(launch.arguments);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("KLATCH_") || name == "NO_COLOR") {
            command.env_remove(name);
        }
        command.env("TERM", "xterm-256color");
        launch.environment.iter().for_each(|(name, value)| command.env(name, value));
        command.cwd(std::env::temp_dir());
        let mut child = pair.slave.spawn_command(command)?;
        // Held open, it would keep the end of the program from being seen.
        drop(pair.slave);
        let (rows, columns) = (NonZero::new(launch.rows), NonZero::new(launch.columns));
        let (rows, columns) = rows.zip(columns).context("a terminal has rows and columns")?;
        let screen = vt100::Parser::new(rows, columns, SCROLLED_MAX);
        let seen = Arc::new(Mutex::new(Seen { screen, raw: Vec::new() }));
        let (changes, changed) = watch::channel(0);
        let (exits, exit) = watch::channel(None);
        let killer = child.clone_killer();
        let (mut reader, keyboard) = (pair.master.try_clone_reader()?, pair.master.take_writer()?);
        let writes = seen.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Linux tells the end as an error.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                let mut seen = writes.lock().unwrap_or_else(PoisonError::into_inner);
                seen.screen.process(&bytes[..count]);
                seen.raw.extend_from_slice(&bytes[..count]);
                drop(seen);
                changes.send_modify(|version| *version += 1);
            }
        });
        std::thread::spawn(move || exits.send(child.wait().ok().map(|status| status.exit_code())));
        Ok(Self { seen, changed, exit, keyboard, _master: pair.master, killer })
    }

    /// As a person types, or a terminal pastes: `\r` is Enter, `\x03` is Ctrl-C, `\x04` is Ctrl-D.
    pub fn types(&mut self, keys: &str) -> anyhow::Result<()> {
        self.keyboard.write_all(keys.as_bytes())?;
        Ok(self.keyboard.flush()?)
    }

    /// The screen's lines, those that are wrapped as one.
    pub fn screen(&self) -> String {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).screen.screen().contents()
    }

    /// Every byte that the program wrote.
    pub fn raw(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap_or_else(PoisonError::into_inner).raw).into_owned()
    }

    /// Until the screen is like that; the screen then.
    pub async fn until(&mut self, what: &str, is_so: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let waiting = async {
            loop {
                self.changed.borrow_and_update();
                let screen = self.screen();
                if is_so(&screen) {
                    return Some(screen);
                }
                if self.changed.changed().await.is_err() {
                    // The program has ended; what it wrote last is there.
                    return Some(self.screen()).filter(|screen| is_so(screen));
                }
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(Some(screen)) => Ok(screen),
            Ok(None) => bail!("the program ended before {what}:\n{}", self.screen()),
            Err(_) => bail!("not seen: {what}. The screen is\n{}", self.screen()),
        }
    }

    pub async fn shows(&mut self, text: &str) -> anyhow::Result<String> {
        self.until(text, |screen| screen.contains(text)).await
    }

    /// The program's exit code, once it has ended and all that it wrote is there.
    pub async fn ended(&mut self) -> anyhow::Result<u32> {
        let ending = async {
            let code = self.exit.wait_for(Option::is_some).await.map(|code| *code);
            while self.changed.changed().await.is_ok() {}
            code
        };
        let ended = tokio::time::timeout(PATIENCE, ending).await;
        let code = ended.with_context(|| format!("the program did not end:\n{}", self.screen()))??;
        code.context("the exit code was looked at")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.killer.kill();
    }
}
