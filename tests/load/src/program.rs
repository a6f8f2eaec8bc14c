//! Another program as a child: started on the core of the thread that starts it, ready when it prints what was waited for,
//! ended with its own children when it is dropped.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, ErrorKind};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};

const START_MAX: Duration = Duration::from_secs(30);
/// One that has children ends them first.
const STOP_MAX: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
/// Of what it prints, to tell why it did not start.
const LINES_KEPT: usize = 20;

pub struct Program {
    name: String,
    child: Child,
    said: Arc<Mutex<VecDeque<String>>>,
}

impl Program {
    /// Waits for a line that has this in it, at most so long as it should take.
    pub fn start(name: &str, mut command: Command, ready: &str) -> anyhow::Result<Self> {
        let (reader, writer) = std::io::pipe()?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let child = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::NotFound => anyhow!("{name}: there is no {}", command.get_program().display()),
            _ => anyhow!("{name}: {error}"),
        })?;
        // It holds the pipe's other end, and would keep it open.
        drop(command);
        let program = Self { name: name.to_owned(), child, said: Arc::default() };
        let (found, wait) = mpsc::channel();
        let (said, ready) = (program.said.clone(), ready.to_owned());
        // Until the pipe closes, so that a full one never stops the program.
        std::thread::spawn(move || listen(BufReader::new(reader), &said, &ready, &found));
        match wait.recv_timeout(START_MAX) {
            Ok(()) => Ok(program),
            Err(mpsc::RecvTimeoutError::Timeout) => bail!("{name} did not start: {}", program.complaints()),
            Err(mpsc::RecvTimeoutError::Disconnected) => bail!("{name} ended at once: {}", program.complaints()),
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The last that it said.
    fn complaints(&self) -> String {
        let said = self.said.lock().expect("nothing panics while it holds the lines");
        said.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    }
}

fn listen(lines: impl BufRead, said: &Mutex<VecDeque<String>>, ready: &str, found: &Sender<()>) {
    for line in lines.lines().map_while(Result::ok) {
        if line.contains(ready) {
            // Nobody waits any longer after the first.
            let _ = found.send(());
        }
        let mut said = said.lock().expect("nothing panics while it holds the lines");
        if said.len() == LINES_KEPT {
            said.pop_front();
        }
        said.push_back(line);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // One that is killed leaves its children behind.
        let _ = Command::new("kill").args(["-TERM", &self.id().to_string()]).stderr(Stdio::null()).status();
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < STOP_MAX {
            std::thread::sleep(POLL);
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            eprintln!("{} did not end, and is killed", self.name);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn one_that_ends_says_why() {
        let failed = Program::start("a server", shell("echo the port is taken >&2"), "ready").err().unwrap();
        assert_eq!(failed.to_string(), "a server ended at once: the port is taken");
        let missing = Program::start("a server", Command::new("no-such-program"), "ready").err().unwrap();
        assert_eq!(missing.to_string(), "a server: there is no no-such-program");
    }

    #[test]
    fn it_ends_when_it_is_dropped() {
        let program = Program::start("a server", shell("echo is ready; exec sleep 60"), "ready").unwrap();
        let id = program.id();
        drop(program);
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists());
    }
}
