//! What one would write instead of Klatch: `baseline MODE --addr HOST:PORT [--redis URL]`, with the secret of its tokens in
//! `BASELINE_SECRET`. One answer to `POST /v1/responses` in all modes, an echo; each mode is a file, which says how a
//! turn is kept. Prints its URL once it listens, and serves until it is killed.

mod append;
mod echo;
mod locking;
mod optimistic;
mod server;
mod stateless;
mod store;

use std::net::SocketAddr;

use anyhow::Context;
use clap::{Parser, ValueEnum};

use crate::server::serve;
use crate::store::connect;

/// As Klatch has it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A server as one would write it instead of Klatch.
#[derive(Parser)]
struct Arguments {
    mode: Mode,
    #[arg(long)]
    addr: SocketAddr,
    #[arg(long, default_value = "redis://127.0.0.1:6379/0")]
    redis: String,
    /// Of the tokens (HS256).
    #[arg(long, env = "BASELINE_SECRET", hide_env_values = true)]
    secret: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    Echo,
    Append,
    Optimistic,
    Locking,
    Stateless,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { mode, addr, redis, secret } = Arguments::parse();
    let redis = async || connect(&redis).await.with_context(|| format!("{redis} cannot be reached"));
    match mode {
        Mode::Echo => serve(addr, &secret, echo::Echo).await,
        Mode::Append => serve(addr, &secret, append::Append::new(redis().await?)).await,
        Mode::Optimistic => serve(addr, &secret, optimistic::Optimistic::new(redis().await?)).await,
        Mode::Locking => serve(addr, &secret, locking::Locking::start(redis().await?).await?).await,
        Mode::Stateless => serve(addr, &secret, stateless::Stateless::new(redis().await?)).await,
    }
}
