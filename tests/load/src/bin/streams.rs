//! What a streamed answer costs, in three parts: a token when it is saved and sent alone and when many are ready together;
//! many streams at once on one node, and how late their tokens come; the time to the first token that Klatch adds.
//!
//! The model server of the last two is asked in both ways by the same client from this process, directly and through
//! Klatch, and its tokens read in the same way. It and the client share the machine's cores with the node.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use futures::future::try_join_all;
use klatch_load::asking::{Api, read};
use klatch_load::measured::{Cpu, Measured, Program, StoreKind};
use klatch_load::page::{Page, Published};
use klatch_load::pulse::Pulse;
use klatch_load::table::{Table, percentile};
use klatch_tests::measure::{Spread, cpu_seconds, machine};
use klatch_tests::model_server::ModelServer;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

/// Streams at once, where the cost of a token is measured.
const AT_ONCE: usize = 64;
/// Of a long answer; the cost of one of a single token is taken off.
const TOKENS: usize = 200;
/// How the tokens of an answer come: the responder's name, what it is told, and what that means.
const KINDS: [(&str, usize, u64, &str); 6] = [
    ("alone-1", 1, 25, ""),
    ("alone", TOKENS, 25, "each alone, 25 ms apart"),
    ("gathered-1", 1, 1, ""),
    ("gathered", TOKENS, 1, "1 ms apart, saved each 20 ms together"),
    ("ready-1", 1, 0, ""),
    ("ready", TOKENS, 0, "all ready at once"),
];
/// Of the answers whose first token is waited for.
const WORDS: usize = 20;
const MODEL: &str = "words 20";
const WARM_UP: usize = 50;
/// How often the node's memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Tokens,
    Many,
    First,
}

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    program: Program,
    #[command(flatten)]
    published: Published,
    #[arg(long, value_enum, value_delimiter = ',', default_value = "tokens,first,many")]
    parts: Vec<Part>,
    #[arg(long, value_enum, value_delimiter = ',', default_value = "embedded,redis")]
    stores: Vec<StoreKind>,
    /// Streams at once on one node, rising: one number after the other, up to the first whose tokens come too late.
    #[arg(long, value_delimiter = ',', default_value = "500,1000,1500,2000,2500,3000,4000,5000")]
    streams: Vec<usize>,
    /// Of the tokens 99 % should come within so many ms.
    #[arg(long, default_value_t = 250.0)]
    within: f64,
    /// Of each of these streams.
    #[arg(long, default_value_t = 20)]
    tokens_per_second: u32,
    /// How long each of them is.
    #[arg(long, default_value_t = 15)]
    seconds: u32,
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// First tokens that are waited for, each way.
    #[arg(long, default_value_t = 1000)]
    samples: usize,
    /// Few of all: whether it works, and no number.
    #[arg(long, conflicts_with = "markdown")]
    short: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut options = Options::parse();
    options.program.choose()?;
    if options.short {
        (options.streams, options.seconds) = (vec![20], 1);
        (options.rounds, options.samples) = (1, 20);
    }
    // Each stream is a connection of this process, and one of the model server's beside it.
    let granted = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: granted.maximum, maximum: granted.maximum })?;
    let mut page = Page::new("streams", &options.published)?;
    page.say(machine());
    for store in &options.stores {
        for part in &options.parts {
            match part {
                Part::Tokens => tokens(*store, &options, &mut page).await?,
                Part::Many => many(*store, &options, &mut page).await?,
                Part::First => first(*store, &options, &mut page).await?,
            }
        }
    }
    page.publish()
}

async fn tokens(store: StoreKind, options: &Options, page: &mut Page) -> anyhow::Result<()> {
    let responder = |(name, tokens, delay, _): &(&str, usize, u64, &str)| {
        format!("[[responder]]\nname = \"{name}\"\nkind = \"echo\"\ntokens = {tokens}\ntoken_delay_ms = {delay}\n\n")
    };
    let measured = Measured::start(store, "", &KINDS.iter().map(responder).collect::<String>()).await?;
    let api = measured.api().await?;
    let mut costs = [const { Vec::<Cpu>::new() }; KINDS.len()];
    for round in 0..=options.rounds {
        for (kind, (name, tokens, _, _)) in KINDS.iter().enumerate() {
            // A stream of one token costs little: more of them, so that it can be told from nothing.
            let repeated = if *tokens == 1 { 8 } else { 1 };
            let before = measured.cpu()?;
            for _ in 0..repeated {
                let told = try_join_all((0..AT_ONCE).map(|_| api.streamed(None, name, "word "))).await?;
                ensure!(told.iter().all(|told| told.deltas.len() == *tokens), "an answer is not {tokens} events long");
            }
            let spent = measured.cpu()? - before;
            let each = |seconds: f64| seconds * 1e6 / (AT_ONCE * repeated) as f64;
            if round > 0 {
                costs[kind].push(Cpu { node: each(spent.node), redis: each(spent.redis) });
            }
        }
    }
    page.say(format_args!("### {store}: CPU of a token, {AT_ONCE} streams at once, {} rounds", options.rounds));
    let mut table =
        Table::new(["tokens come", "node, µs/token", "Redis, µs/token", "an answer of one token, both, µs"]);
    let costs: Vec<&[Cpu]> = costs.iter().map(Vec::as_slice).collect();
    for (pair, kinds) in costs.chunks(2).zip(KINDS.chunks(2)) {
        let [one, all] = pair else { continue };
        let per_token = |of: fn(&Cpu) -> f64| {
            let token = one.iter().zip(*all).map(|(one, all)| (of(all) - of(one)) / (TOKENS - 1) as f64);
            Spread::of(token.collect())
        };
        let (node, redis) = (per_token(|cpu| cpu.node), per_token(|cpu| cpu.redis));
        table.row([
            kinds[1].3.to_owned(),
            format!("{:.1} ({:.1} to {:.1})", node.median, node.least, node.most),
            format!("{:.1}", redis.median),
            Spread::of(one.iter().map(|cpu| cpu.all()).collect()).to_string(),
        ]);
    }
    page.say(table);
    complained(&measured)
}

async fn first(store: StoreKind, options: &Options, page: &mut Page) -> anyhow::Result<()> {
    let model = ModelServer::start().await?;
    let responder = format!(
        "[[responder]]\nname = \"model\"\nkind = \"openai\"\nbase_url = \"{}\"\nmodel = \"{MODEL}\"\n",
        model.base_url()
    );
    let measured = Measured::start(store, "", &responder).await?;
    let api = measured.api().await?;
    let mut took = [Vec::new(), Vec::new()];
    for sample in 0..options.samples + WARM_UP {
        let conversation = api.conversation(0).await?;
        for way in if sample % 2 == 0 { [0, 1] } else { [1, 0] } {
            let begun = Instant::now();
            let told = if way == 0 {
                let body = json!({"model": MODEL, "stream": true, "messages": [{"role": "user", "content": "hello"}]});
                read(api.http.post(format!("{}/chat/completions", model.base_url())).json(&body), b"\"content\":\"")
                    .await?
            } else {
                api.streamed(Some(&conversation), "model", "hello").await?
            };
            ensure!(told.deltas.len() == WORDS, "an answer has {} words", told.deltas.len());
            let (first, _) = told.deltas.first().context("there is a first token")?;
            if sample >= WARM_UP {
                took[way].push(first.duration_since(begun).as_secs_f64() * 1e3);
            }
        }
    }
    took.iter_mut().for_each(|took| took.sort_by(f64::total_cmp));
    page.say(format_args!(
        "### {store}: time to the first token, {} each, one at a time, alternating",
        options.samples
    ));
    let mut table = Table::new(["", "p50, ms", "p99, ms"]);
    let [direct, through] = [&took[0], &took[1]].map(|took| [50.0, 99.0].map(|percent| percentile(took, percent)));
    for (name, [half, most]) in [
        ("the model server itself", direct),
        ("through Klatch", through),
        ("added: the difference of these", [through[0] - direct[0], through[1] - direct[1]]),
    ] {
        table.row([name.to_owned(), format!("{half:.2}"), format!("{most:.2}")]);
    }
    page.say(table);
    complained(&measured)
}

async fn many(store: StoreKind, options: &Options, page: &mut Page) -> anyhow::Result<()> {
    let tokens = options.tokens_per_second * options.seconds;
    let pulse = Pulse::start(tokens, Duration::from_secs(1) / options.tokens_per_second).await?;
    let responder = format!(
        "[[responder]]\nname = \"pulse\"\nkind = \"openai\"\nconcurrency = 100000\nbase_url = \"{}\"\nmodel = \"any\"\n",
        pulse.base_url()
    );
    let rate = options.tokens_per_second;
    page.say(format_args!("### {store}: many streams at once, {rate} tokens/s each for {} s", options.seconds));
    let mut table = Table::new([
        "streams",
        "through",
        "tokens/s",
        "behind their time: p50, ms",
        "p99, ms",
        "longest, ms",
        "node, µs/token",
        "Redis, µs/token",
        "cores: node, Redis, driver",
        "KB of RSS per stream",
    ]);
    let mut carried = None;
    for streams in &options.streams {
        let measured = Measured::start(store, "", &responder).await?;
        let api = measured.api().await?;
        // Connections and code paths are warm, and the first pages of memory taken.
        try_join_all((0..20).map(|_| api.streamed(None, "pulse", "hello"))).await?;
        let mut late = 0.0;
        for through in [false, true] {
            let ramp = Duration::from_secs(1) / rate;
            let asking = Asking { api: &api, pulse: &pulse, through, tokens, ramp };
            let resident = measured.resident()?;
            let (begun, before, own) = (Instant::now(), measured.cpu()?, cpu_seconds(std::process::id())?);
            let (lags, most) = watched(&measured, asking.streams(*streams)).await?;
            let (spent, own) = (measured.cpu()? - before, cpu_seconds(std::process::id())? - own);
            let took = begun.elapsed().as_secs_f64();
            ensure!(lags.len() == *streams * tokens as usize, "tokens were lost");
            late = percentile(&lags, 99.0);
            let (each, cores) = (spent / lags.len() as f64, spent / took);
            let kilobytes = (most.saturating_sub(resident) / *streams as u64) as f64 / 1024.0;
            let only_through = |text: String| if through { text } else { "–".to_owned() };
            table.row([
                streams.to_string(),
                if through { "Klatch" } else { "nothing" }.to_owned(),
                format!("{:.0}", lags.len() as f64 / took),
                format!("{:.1}", percentile(&lags, 50.0)),
                format!("{late:.1}"),
                format!("{:.0}", percentile(&lags, 100.0)),
                only_through(format!("{:.1}", each.node * 1e6)),
                only_through(format!("{:.1}", each.redis * 1e6)),
                format!("{:.2}, {:.2}, {:.2}", cores.node, cores.redis, own / took),
                only_through(format!("{kilobytes:.1}")),
            ]);
        }
        eprintln!("{store}: of {streams} streams 99 % of the tokens came within {late:.0} ms");
        complained(&measured)?;
        if late > options.within {
            break;
        }
        carried = Some(streams);
    }
    page.say(table);
    let carried = carried.map_or("Fewer than these".to_owned(), |streams| format!("{streams}"));
    page.say(format_args!("{carried} streams are carried with 99 % of their tokens within {} ms.", options.within));
    Ok(())
}

struct Asking<'a> {
    api: &'a Api,
    pulse: &'a Pulse,
    /// Klatch; else the model server is asked itself.
    through: bool,
    tokens: u32,
    /// All begin within so long, so that their tokens are spread over time.
    ramp: Duration,
}

impl Asking<'_> {
    /// How late each token came, in ms, in order.
    async fn streams(&self, streams: usize) -> anyhow::Result<Vec<f64>> {
        // A node that takes a thousand connections at once refuses some.
        let ramp = self.ramp.max(Duration::from_millis(streams as u64));
        let one = |stream: usize| async move {
            tokio::time::sleep(ramp.mul_f64(stream as f64 / streams as f64)).await;
            self.one().await
        };
        let mut lags = try_join_all((0..streams).map(one)).await?.concat();
        lags.sort_by(f64::total_cmp);
        Ok(lags)
    }

    async fn one(&self) -> anyhow::Result<Vec<f64>> {
        let told = if self.through {
            self.api.streamed(None, "pulse", "hello").await?
        } else {
            let url = format!("{}/chat/completions", self.pulse.base_url());
            read(self.api.http.post(url).json(&json!({"stream": true})), b"\"content\":\"").await?
        };
        ensure!(told.deltas.len() == self.tokens as usize, "an answer has {} tokens", told.deltas.len());
        told.deltas.iter().map(|(came, token)| self.pulse.lag_ms(*came, token)).collect()
    }
}

/// And the most that the node had in RAM meanwhile.
async fn watched<T>(measured: &Measured, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<(T, u64)> {
    let (mut most, mut ticks) = (0, tokio::time::interval(LOOK_EVERY));
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok((done?, most.max(measured.resident()?))),
            _ = ticks.tick() => most = most.max(measured.resident()?),
        }
    }
}

fn complained(measured: &Measured) -> anyhow::Result<()> {
    ensure!(measured.complaints().is_empty(), "the node complains: {:?}", measured.complaints());
    Ok(())
}
