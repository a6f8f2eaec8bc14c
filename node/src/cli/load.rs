//! `klatch load`: makes turns at a running server, checks every answer, and measures.
//!
//! A generator that only measures proves nothing about what was answered; here each reply must be the right one, and
//! `--verify` reads back what was stored. It starts no server, and it never repeats a request unless told to.

mod check;
mod conversations;
mod drive;
mod host;
mod messages;
mod pacing;
mod plan;
mod progress;
mod report;
mod tally;
mod turn;
mod verify;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use clap::Args;

use self::drive::Drive;
use self::messages::{MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN, Messages};
use self::pacing::Limit;
use self::plan::Plan;
use self::progress::Progress;
use self::report::Report;
use super::client::{ApiClient, CONNECT_TIMEOUT, random_bytes};
use crate::durations;

/// Make turns at a running server, check every answer, and measure.
#[derive(Args, Clone, Debug)]
pub struct LoadArgs {
    /// Where the server is.
    #[arg(long, env = "KLATCH_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// An access token (see `klatch token`).
    #[arg(long, env = "KLATCH_TOKEN", hide_env_values = true)]
    pub token: String,
    /// The responder that answers.
    #[arg(long, default_value = "echo")]
    pub model: String,
    /// Accept any text as an answer: for responders that do not echo.
    #[arg(long)]
    pub any_text: bool,
    /// Closed loop: so many clients, each sending its next turn when the last is answered.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=65_536), conflicts_with = "rate")]
    pub connections: u32,
    /// Open loop: so many arrivals a second, whatever the server does; latency counts from when a turn was due.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Open loop: no more turns than these wait for an answer; further ones wait here, and their time counts.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536), requires = "rate")]
    pub in_flight: u32,
    /// How long to measure; 10s without this and --turns.
    #[arg(long, value_parser = durations::parse, conflicts_with = "turns")]
    pub duration: Option<Duration>,
    /// How many turns to measure.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub turns: Option<u64>,
    /// Checked, but not measured, before the rest.
    #[arg(long, value_parser = durations::parse, default_value = "0s")]
    pub warmup: Duration,
    /// Spread over so many conversations, made first; as many as connections (or, open loop, --in-flight) without this.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub conversations: Option<u32>,
    /// Fill each conversation with so many items first.
    #[arg(long, default_value_t = 0)]
    pub items: u32,
    /// Length of a message.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(MESSAGE_BYTES_MIN as i64..=MESSAGE_BYTES_MAX as i64))]
    pub message_bytes: u32,
    /// Ask for streams.
    #[arg(long)]
    pub stream: bool,
    /// Repeat under the same key what was refused or lost; streams go on after the last event that was seen.
    #[arg(long)]
    pub retry: bool,
    /// A turn without an end after so long, repetitions included, has failed.
    #[arg(long, value_parser = durations::parse, default_value = "60s")]
    pub timeout: Duration,
    /// At the end, read all conversations back: each acknowledged turn must be there exactly once and in order.
    #[arg(long)]
    pub verify: bool,
    /// Fixes the text of the messages and the order of the conversations.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The result as JSON on stdout.
    #[arg(long)]
    pub json: bool,
}

/// 0: every turn and every check went well; 1: not; 2: the arguments cannot work.
pub async fn run(args: LoadArgs) -> anyhow::Result<ExitCode> {
    let (plan, client) = match Plan::of(&args).and_then(|plan| client(&args).map(|client| (plan, client))) {
        Ok(both) => both,
        Err(wrong) => {
            eprintln!("klatch load: {wrong}");
            return Ok(ExitCode::from(2));
        }
    };
    let report = measure(&args, plan, client).await?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(if report.all_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn measure(args: &LoadArgs, plan: Plan, client: ApiClient) -> anyhow::Result<Report> {
    let messages = Messages::new(u64::from_le_bytes(random_bytes()), args);
    let progress = Progress::start();
    let (made, making) = progress.of("making conversations", u64::from(plan.conversations));
    let conversations = conversations::prepare(&client, &plan, &messages, &made).await?;
    drop(making);
    let drive = Arc::new(Drive::new(client.clone(), plan, messages, conversations));
    stop_on_interrupt(&drive);

    let turning = progress.turns(drive.counters.clone(), &drive.plan);
    let mut warmed = drive.phase(Limit::Until(drive.plan.warmup)).await;
    let started = Instant::now();
    let mut measured = drive.phase(drive.plan.limit).await;
    let seconds = started.elapsed().as_secs_f64();
    drop(turning);

    let mut records = std::mem::take(&mut warmed.records);
    records.append(&mut measured.records);
    let verified = if drive.plan.verify {
        let (read, _reading) = progress.of("reading conversations back", drive.conversations.len() as u64);
        Some(verify::read_back(&client, &drive, records, &read).await?)
    } else {
        None
    };
    progress.end();
    let interrupted = drive.stopped.load(Ordering::Relaxed);
    Ok(Report::new(args, &warmed, &measured, seconds, verified, interrupted))
}

fn client(args: &LoadArgs) -> Result<ApiClient, String> {
    // A proxy of the environment would be measured along with the server.
    let http = reqwest::Client::builder().no_proxy().connect_timeout(CONNECT_TIMEOUT).build();
    let client = ApiClient::new(http.map_err(|wrong| wrong.to_string())?, &args.url)?;
    client.set_bearer(&args.token)?;
    Ok(client)
}

/// The first Ctrl-C ends the measurement and still reports it; the second ends the program.
fn stop_on_interrupt(drive: &Arc<Drive>) {
    let drive = drive.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            drive.stopped.store(true, Ordering::Relaxed);
        }
        if tokio::signal::ctrl_c().await.is_ok() {
            std::process::exit(1);
        }
    });
}
