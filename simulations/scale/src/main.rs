//! Writes the page and its plots, or (`--quick`) says whether the page is what the smaller half of the simulation gives.
//!
//!   cargo run --release -p klatch-scale [-- --quick]

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use klatch_scale::page;
use klatch_scale::plots::plots;
use klatch_scale::results::Results;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = home.join("README.md");
    let page = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            let results = Results::full();
            fs::write(&path, page::filled(&page, &page::parts(&results))?)?;
            for (name, text) in plots(&results)? {
                fs::write(home.join("plots").join(name), text)?;
            }
            println!("{} and its plots are written", path.display());
        }
        ["--quick"] => {
            page::check(&page, &page::parts(&Results::quick()))?;
            println!("{} says what is computed", path.display());
        }
        _ => bail!("there is no option but --quick"),
    }
    Ok(())
}
