//! What a Redis says of itself, asked with its own `redis-cli`.

use std::collections::HashMap;

use anyhow::{Context, ensure};
use tokio::process::Command;

/// `INFO`, by name.
pub async fn info(port: u16) -> anyhow::Result<HashMap<String, String>> {
    let text = ask(port, &["INFO"]).await?;
    let pairs = text.lines().filter_map(|line| line.trim().split_once(':'));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// A number of `INFO`.
pub async fn number(port: u16, name: &str) -> anyhow::Result<u64> {
    let info = info(port).await?;
    let value = info.get(name).with_context(|| format!("INFO says nothing of {name}"))?;
    value.parse().with_context(|| format!("{name} is {value}"))
}

/// Its file, as `deploy/compose.yaml` has it.
pub async fn sync_every_second(port: u16) -> anyhow::Result<()> {
    ask(port, &["CONFIG", "SET", "appendfsync", "everysec"]).await.map(drop)
}

/// Bytes of all keys, as `MEMORY USAGE` counts them: each is looked at whole.
pub async fn bytes_of_keys(port: u16) -> anyhow::Result<u64> {
    let count = "local n, at = 0, '0' repeat local page = redis.call('SCAN', at, 'COUNT', 1000) at = page[1] \
                 for _, key in ipairs(page[2]) do n = n + redis.call('MEMORY', 'USAGE', key, 'SAMPLES', 0) end \
                 until at == '0' return n";
    let counted = ask(port, &["EVAL", count, "0"]).await?;
    counted.trim().parse().with_context(|| format!("Redis counted {counted}"))
}

async fn ask(port: u16, command: &[&str]) -> anyhow::Result<String> {
    let mut client = Command::new("redis-cli");
    let output = client.args(["-p", &port.to_string()]).args(command).kill_on_drop(true).output().await?;
    ensure!(output.status.success(), "redis-cli {command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}
