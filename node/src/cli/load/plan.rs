//! The arguments, checked against one another. Pure; used by `load.rs` before anything is sent.

use std::time::Duration;

use super::LoadArgs;
use super::pacing::Limit;

const DURATION_WITHOUT_ONE: Duration = Duration::from_secs(10);

#[derive(Clone, Debug)]
pub struct Plan {
    /// Turns in flight at most: the clients of a closed loop, the bound of an open one.
    pub clients: u32,
    pub rate: Option<f64>,
    pub limit: Limit,
    pub warmup: Duration,
    pub conversations: u32,
    pub items: u32,
    pub stream: bool,
    pub retry: bool,
    pub any_text: bool,
    pub timeout: Duration,
    pub verify: bool,
    pub seed: u64,
}

impl Plan {
    pub fn of(args: &LoadArgs) -> Result<Self, String> {
        if args.rate.is_some_and(|rate| !(0.001..=1_000_000.0).contains(&rate)) {
            return Err("--rate is arrivals per second, from 0.001 to 1000000".to_owned());
        }
        if args.duration.is_some_and(|duration| duration.is_zero()) || args.timeout.is_zero() {
            return Err("--duration and --timeout must be longer than nothing".to_owned());
        }
        let clients = if args.rate.is_some() { args.in_flight } else { args.connections };
        let limit = match args.turns {
            Some(turns) => Limit::Turns(turns),
            None => Limit::Until(args.duration.unwrap_or(DURATION_WITHOUT_ONE)),
        };
        Ok(Self {
            clients,
            rate: args.rate,
            limit,
            warmup: args.warmup,
            conversations: args.conversations.unwrap_or(clients),
            items: args.items,
            stream: args.stream,
            retry: args.retry,
            any_text: args.any_text,
            timeout: args.timeout,
            verify: args.verify,
            seed: args.seed,
        })
    }
}

#[cfg(test)]
pub mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: LoadArgs,
    }

    pub fn args(line: &str) -> Result<LoadArgs, clap::Error> {
        let words = ["load", "--token", "t"].into_iter().chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.args)
    }

    fn plan(line: &str) -> Result<Plan, String> {
        args(line).map_err(|wrong| wrong.to_string()).and_then(|args| Plan::of(&args))
    }

    #[test]
    fn without_arguments_it_is_a_closed_loop_of_ten_seconds() {
        let plan = plan("").unwrap();
        assert_eq!((plan.clients, plan.conversations, plan.rate), (32, 32, None));
        assert_eq!(plan.limit, Limit::Until(Duration::from_secs(10)));
    }

    #[test]
    fn an_open_loop_is_bounded_in_flight() {
        let plan = plan("--rate 50.5 --in-flight 8 --turns 7").unwrap();
        assert_eq!((plan.clients, plan.conversations, plan.rate), (8, 8, Some(50.5)));
        assert_eq!(plan.limit, Limit::Turns(7));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for wrong in [
            "--rate 0",
            "--rate NaN",
            "--rate 5 --connections 3",
            "--in-flight 3",
            "--turns 0",
            "--turns 5 --duration 5s",
            "--duration 0s",
            "--duration 10",
            "--message-bytes 5",
            "--connections 0",
        ] {
            assert!(plan(wrong).is_err(), "{wrong}");
        }
    }
}
