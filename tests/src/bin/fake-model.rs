//! The model server of the tests as a program: `fake-model [--addr HOST:PORT] [--token-delay-ms N]`. Prints its base
//! URL in a line of its own, and serves until it is killed.

use std::time::Duration;

use anyhow::{Context, bail};
use klatch_tests::model_server::ModelServer;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let (mut address, mut delay_ms) = ("127.0.0.1:0".to_owned(), 10);
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--addr" => address = value,
            "--token-delay-ms" => delay_ms = value.parse().context("--token-delay-ms needs a number")?,
            _ => bail!("unknown option {name}; there are --addr HOST:PORT and --token-delay-ms N"),
        }
    }
    let server = ModelServer::bind(&address, Duration::from_millis(delay_ms)).await?;
    println!("{}", server.base_url());
    server.serve().await;
    Ok(())
}
