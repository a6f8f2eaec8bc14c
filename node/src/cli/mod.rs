//! The command line: which command, with which options. Each command is a file; without one the program serves.

mod chat;
mod client;
mod cluster;
mod demo;
mod load;
mod serve;
mod terminal;
mod token;
mod user;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A conversation server: chat with bots and models behind OpenAI's Conversations and Responses API, in order, durable
/// and resumable.
///
/// Without a command it serves, with all defaults: API on http://127.0.0.1:8080, data in ./klatch-data.
#[derive(Debug, Parser)]
#[command(name = "klatch", version, max_term_width = 120)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node (the default)
    Serve(Box<serve::ServeArgs>),
    /// Talk to a node from a terminal
    Chat(chat::ChatArgs),
    /// Change the accounts of a running node
    User(user::UserArgs),
    /// Print an access token, signed with the node's own key; for scripts and SDKs
    Token(token::TokenArgs),
    /// Show what a node knows of the cluster: view, shards, load
    Cluster(cluster::ClusterArgs),
    /// Start three nodes, kill one in the middle of an answer, and see the answer go on
    Demo(demo::DemoArgs),
    /// Make turns at a running server, check every answer, and measure
    Load(load::LoadArgs),
}

impl Cli {
    /// Ends the program with a help text where that is asked for, or where the arguments are wrong (code 2).
    pub fn from_arguments(arguments: impl IntoIterator<Item = OsString>) -> Self {
        Self::parse_from(or_serve(arguments))
    }

    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(arguments) => arguments.run().await,
            Command::Chat(arguments) => chat::run(arguments).await,
            Command::User(arguments) => arguments.run().await,
            Command::Token(arguments) => arguments.run(),
            Command::Cluster(arguments) => arguments.run().await,
            Command::Demo(arguments) => arguments.run().await,
            Command::Load(arguments) => load::run(arguments).await,
        }
    }
}

fn or_serve(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.len() < 2 {
        arguments.resize(1, OsString::from("klatch"));
        arguments.push(OsString::from("serve"));
    }
    arguments
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(or_serve(line.split_whitespace().map(OsString::from)))
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_command_it_serves() {
        assert!(matches!(parse("klatch").unwrap().command, Command::Serve(_)));
        assert!(matches!(parse("").unwrap().command, Command::Serve(_)));
        assert!(matches!(parse("klatch serve --http-addr 0.0.0.0:80").unwrap().command, Command::Serve(_)));
    }

    #[test]
    fn a_wrong_option_ends_with_the_code_of_a_refused_configuration() {
        assert_eq!(parse("klatch serve --http-adr 1").unwrap_err().exit_code(), 2);
        assert_eq!(parse("klatch swerve").unwrap_err().exit_code(), 2);
    }

    #[test]
    fn every_command_and_option_says_what_it_does() {
        let program = Cli::command();
        for command in program.get_subcommands().flat_map(|command| command.get_subcommands().chain([command])) {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }
}
