//! The program `klatch`: allocator, runtime and exit codes. What it does is in [`klatch::cli`].

use std::process::ExitCode;

use klatch::cli::Cli;
use klatch::config::{CONFIG_REFUSED, ConfigRefused};

/// glibc's gives nothing back after many conversations were in memory at once, and mimalloc's only while it is busy.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const FAILED: u8 = 1;

fn main() -> ExitCode {
    let cli = Cli::from_arguments(std::env::args_os());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("klatch").build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("klatch: the runtime cannot be started: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let code = match runtime.block_on(cli.run()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("klatch: {error:#}");
            ExitCode::from(if error.is::<ConfigRefused>() { CONFIG_REFUSED } else { FAILED })
        }
    };
    // Whatever still runs was finished, or given up; waiting for it could take forever.
    runtime.shutdown_background();
    code
}
