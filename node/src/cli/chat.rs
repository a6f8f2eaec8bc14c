//! `klatch chat`: talk to a responder from a terminal, or from a script through stdin and stdout.
//!
//! Answers go to stdout and all else to stderr, so that `echo hi | klatch chat > answer` holds the answer alone.
//! It keeps nothing on disk: no token, no history; a conversation is taken up again by its id, from the server.

mod answer;
mod conversations;
mod credentials;
mod output;
mod prompt;
mod session;
mod turn;

use std::io::{IsTerminal, Read};
use std::process::ExitCode;

use clap::Args;
use tokio::sync::mpsc;

use self::credentials::Credentials;
use self::output::Printer;
use self::prompt::Prompt;
use self::session::Session;
use super::client::{ApiClient, CONNECT_TIMEOUT};

/// Three of the server's keep-alives (every 10 s) missed: the connection is dead, whatever TCP thinks.
const SILENCE_MAX: std::time::Duration = std::time::Duration::from_secs(30);

/// Far above what a server takes; it keeps `cat /dev/zero | klatch chat` from filling the memory.
const MESSAGE_BYTES_MAX: u64 = 64 << 20;

/// Talk in a terminal; or send stdin as one message and get the answer on stdout.
#[derive(Args, Debug)]
#[command(after_help = "In a terminal: Enter sends; a line that ends in \\ goes on in the next; what is pasted stays \
    together; the arrows up and down bring back what was said; Ctrl-C cancels the answer that is being given, or drops \
    the line that is being typed; Ctrl-D leaves; /help lists the commands. An answer that breaks off is taken up again \
    where it stopped.\n\n\
    Exit codes: 0 all went well, or you left; 1 an answer failed or was cancelled, or the server could not be reached; 2 \
    the arguments cannot work.")]
pub struct ChatArgs {
    /// Where the server is.
    #[arg(long, env = "KLATCH_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// An access token (see `klatch token`); without one, asks for name and password on a terminal.
    #[arg(long, env = "KLATCH_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// The responder that answers.
    #[arg(long, env = "KLATCH_MODEL", default_value = "eliza")]
    pub model: String,
    /// Go on with this conversation.
    #[arg(long, value_name = "ID", conflicts_with = "resume", value_parser = conversations::id)]
    pub conversation: Option<String>,
    /// Go on with the newest conversation.
    #[arg(long)]
    pub resume: bool,
    /// Print the events of the answers as they are, one JSON object per line.
    #[arg(long)]
    pub json: bool,
}

/// 0: all went well, or the user ended it; 1: not; 2: the arguments cannot work.
pub async fn run(args: ChatArgs) -> anyhow::Result<ExitCode> {
    let piped = !std::io::stdin().is_terminal();
    let client = match client(&args) {
        Ok(client) => client,
        Err(wrong) => return Ok(usage(&wrong)),
    };
    let message = match piped.then(message_of_stdin).transpose() {
        Ok(message) => message,
        Err(wrong) => return Ok(usage(&wrong)),
    };
    let mut interrupts = interrupts();
    let credentials = match &args.token {
        Some(_) => Credentials::fixed(),
        None if piped => {
            return Ok(usage("KLATCH_TOKEN is not set, and there is no terminal to ask for a password on"));
        }
        None => Credentials::ask(&client, &mut interrupts).await??,
    };
    let printer = Printer::of_this_process(args.json);
    let session = Session::start(client, credentials, printer, interrupts, &args).await?;
    match message {
        Some(message) => session.say_one(&message).await,
        None => session.talk(Prompt::new(args.json)?).await,
    }
}

fn client(args: &ChatArgs) -> Result<ApiClient, String> {
    let http = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(SILENCE_MAX).build();
    let client = ApiClient::new(http.map_err(|wrong| wrong.to_string())?, &args.url)?;
    if let Some(token) = &args.token {
        client.set_bearer(token)?;
    }
    Ok(client)
}

fn message_of_stdin() -> Result<String, String> {
    let mut message = String::new();
    let read = std::io::stdin().take(MESSAGE_BYTES_MAX).read_to_string(&mut message);
    read.map_err(|wrong| format!("stdin cannot be read as text: {wrong}"))?;
    match message.trim_end_matches(['\n', '\r']) {
        "" => Err("stdin is empty: there is nothing to say".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// From now on Ctrl-C is a message and does not end the program. At the prompt the terminal is raw, and it is a key.
fn interrupts() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            // When two wait already, a third says nothing new.
            let _ = sender.try_send(());
        }
    });
    receiver
}

fn usage(wrong: &str) -> ExitCode {
    eprintln!("klatch chat: {wrong}");
    ExitCode::from(2)
}
