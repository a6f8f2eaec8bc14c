//! Webhooks hear of the ends of turns: in order, signed, at least once, over refusals, deaths of the node and of the owner.

use anyhow::ensure;
use klatch_tests::client::{Answer, Api, Ask};
use klatch_tests::cluster::{ClusterProcesses, ClusterSettings, Links, until};
use klatch_tests::process::{NodeProcess, NodeSettings};
use klatch_tests::webhook_receiver::{Call, Mood, SECRET, SECRET_ENV, WebhookReceiver};

use super::cluster::{PATIENCE, alone};

/// Waits that a test can wait for.
const SOON: &str = "retry_after = \"200ms\"\nretry_after_max = \"400ms\"\ntimeout = \"500ms\"\nattempts = 200";

fn environment() -> Vec<(String, String)> {
    vec![(SECRET_ENV.to_owned(), SECRET.to_owned())]
}

async fn node(config: String) -> anyhow::Result<NodeProcess> {
    NodeProcess::start(NodeSettings { config, environment: environment(), ..NodeSettings::default() }).await
}

async fn turn(api: &Api, url: &str, conversation: &str, model: &str) -> anyhow::Result<Answer> {
    Ok(api.turn(url, &Ask { conversation, model, text: "hello", key: None }, PATIENCE).await)
}

async fn completes(api: &Api, url: &str, conversation: &str) -> anyhow::Result<()> {
    let answer = turn(api, url, conversation, "echo").await?;
    ensure!(matches!(answer, Answer::Completed { .. }), "{answer:?}");
    Ok(())
}

/// Each call as the standard and OpenAI want it, and all of one event alike.
fn well(calls: &[Call]) -> anyhow::Result<()> {
    for call in calls {
        ensure!(call.verified, "its signature is wrong: {call:?}");
        ensure!(
            call.body["object"] == "event" && call.body["id"] == call.id && call.id.starts_with("evt_"),
            "{call:?}"
        );
        ensure!(call.response().starts_with("resp_") && call.body["created_at"].is_u64(), "{call:?}");
        let same = calls.iter().filter(|other| other.id == call.id).all(|other| other.body == call.body);
        ensure!(same, "an event was told in two ways: {call:?}");
    }
    Ok(())
}

async fn metric(node: &NodeProcess, line: &str) -> anyhow::Result<f64> {
    let all = reqwest::get(format!("{}/metrics", node.ops_url)).await?.text().await?;
    let value = all.lines().find_map(|known| known.strip_prefix(line));
    Ok(value.map_or(0.0, |value| value.trim().parse().unwrap_or(f64::NAN)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_are_heard_in_order_whatever_the_receiver_does_at_first() -> anyhow::Result<()> {
    let receiver = WebhookReceiver::start(Mood::Refuses).await?;
    let failing = "[[responder]]\nname = \"failing\"\nkind = \"echo\"\nfail_every = 1\n";
    let node = node(receiver.section(SOON) + failing).await?;
    let api = Api::new(node.token("ann", "default").await?)?;
    let conversation = api.create(&node.url).await?;
    for _ in 0..3 {
        completes(&api, &node.url, &conversation).await?;
    }
    let failed = turn(&api, &node.url, &conversation, "failing").await?;
    ensure!(!matches!(failed, Answer::Completed { .. }), "{failed:?}");
    let calls = |receiver: &WebhookReceiver| receiver.calls().len();
    for (mood, what) in
        [(Mood::Refuses, "refused"), (Mood::Hangs, "left without an answer"), (Mood::Redirects, "sent elsewhere")]
    {
        receiver.be(mood);
        let before = calls(&receiver);
        receiver.until(&format!("it was tried again when it was {what}"), |it| calls(it) >= before + 2).await?;
    }
    receiver.be(Mood::Hears);
    receiver.until("it heard of four ends", |it| it.heard().len() == 4).await?;
    well(&receiver.calls())?;
    let heard = receiver.heard();
    let kinds: Vec<&str> = heard.iter().map(Call::kind).collect();
    ensure!(
        kinds == ["response.completed", "response.completed", "response.completed", "response.failed"],
        "{kinds:?}"
    );
    // Turns are numbered at the end of a response's id.
    ensure!(heard.is_sorted_by_key(|call| call.response().to_owned()), "{heard:?}");
    let until_heard = receiver.calls().into_iter().take_while(|call| !call.heard);
    ensure!(until_heard.into_iter().all(|call| call.id == heard[0].id), "a later end was told before the first");
    ensure!(metric(&node, "klatch_webhook_attempts_total{result=\"timeout\"}").await? >= 1.0);
    until("all four are counted", async || {
        let heard = metric(&node, "klatch_webhook_attempts_total{result=\"heard\"}").await?;
        ensure!(heard == 4.0, "{heard}");
        Ok(())
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_between_an_end_and_its_telling_tells_it_when_it_is_back() -> anyhow::Result<()> {
    let receiver = WebhookReceiver::start(Mood::Refuses).await?;
    let mut node = node(receiver.section(SOON)).await?;
    let api = Api::new(node.token("ann", "default").await?)?;
    let conversation = api.create(&node.url).await?;
    completes(&api, &node.url, &conversation).await?;
    completes(&api, &node.url, &conversation).await?;
    receiver.until("it was told once", |it| !it.calls().is_empty()).await?;
    node.kill().await?;
    let before = receiver.calls();
    receiver.be(Mood::Hears);
    node.restart().await?;
    receiver.until("the next life told both", |it| it.heard().len() == 2).await?;
    well(&receiver.calls())?;
    ensure!(receiver.heard()[0].id == before[0].id, "the event has another id after a restart");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_owner_tells_what_a_killed_one_did_not() -> anyhow::Result<()> {
    let _alone = alone().await;
    let receiver = WebhookReceiver::start(Mood::Refuses).await?;
    let sections = receiver.section(SOON);
    let settings = ClusterSettings { nodes: 2, links: Links::Direct, limits: String::new(), sections };
    let mut cluster = ClusterProcesses::start_in(settings, "", &environment()).await?;
    let api = cluster.api("ann").await?;
    let conversations = cluster.owned_by(0, &api, 5).await?;
    for conversation in &conversations {
        completes(&api, &cluster.nodes[0].url, conversation).await?;
        completes(&api, &cluster.nodes[1].url, conversation).await?;
    }
    receiver.until("each was told once", |it| it.calls().len() >= conversations.len()).await?;
    cluster.nodes[0].kill().await?;
    receiver.be(Mood::Hears);
    receiver.until("the other node told all", |it| it.heard().len() == 2 * conversations.len()).await?;
    well(&receiver.calls())?;
    let heard = receiver.heard();
    for conversation in &conversations {
        let mine = conversation.trim_start_matches("conv_");
        let told: Vec<&str> = heard.iter().map(Call::response).filter(|id| id.contains(&mine[..32])).collect();
        ensure!(told.len() == 2 && told.is_sorted(), "{conversation}: {told:?}");
    }
    // And nothing is left that the node would come back for.
    for conversation in &conversations {
        completes(&api, &cluster.nodes[1].url, conversation).await?;
    }
    receiver.until("the turns after are told too", |it| it.heard().len() == 3 * conversations.len()).await?;
    ensure!(cluster.panics().is_empty(), "{:?}", cluster.panics());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_receiver_holds_no_memory_and_hears_when_it_lives_again() -> anyhow::Result<()> {
    let receiver = WebhookReceiver::start(Mood::Refuses).await?;
    let slowly = "retry_after = \"6s\"\nretry_after_max = \"6s\"";
    let node = node(receiver.section(slowly) + "[limits]\nidle_after = \"1s\"\n").await?;
    let api = Api::new(node.token("ann", "default").await?)?;
    let conversation = api.create(&node.url).await?;
    completes(&api, &node.url, &conversation).await?;
    receiver.until("it was told once", |it| !it.calls().is_empty()).await?;
    until("the conversation has left memory", async || {
        let active = metric(&node, "klatch_conversations_active").await?;
        ensure!(active == 0.0, "{active} are active");
        Ok(())
    })
    .await?;
    ensure!(receiver.heard().is_empty());
    receiver.be(Mood::Hears);
    receiver.until("it was woken to tell", |it| it.heard().len() == 1).await?;
    well(&receiver.calls())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_up_is_said_and_counted_and_what_is_inside_is_not_connected_to() -> anyhow::Result<()> {
    let (receiver, inside) = (WebhookReceiver::start(Mood::Refuses).await?, WebhookReceiver::start(Mood::Hears).await?);
    let port = inside.address.port();
    let forbidden = format!(
        "[[webhook]]\nurl = \"http://localhost:{port}/hook\"\nsecret_env = \"{SECRET_ENV}\"\nallow_http = true\nattempts = 2\nretry_after = \"1ms\"\n"
    );
    let few = "attempts = 3\nretry_after = \"10ms\"";
    let node = node(receiver.section(few) + &forbidden).await?;
    let api = Api::new(node.token("ann", "default").await?)?;
    let conversation = api.create(&node.url).await?;
    completes(&api, &node.url, &conversation).await?;
    until("both were given up", async || {
        let given_up = metric(&node, "klatch_webhook_given_up_total{reason=\"attempts\"}").await?;
        ensure!(given_up == 2.0, "{given_up}");
        Ok(())
    })
    .await?;
    ensure!(receiver.calls().len() == 3, "{:?}", receiver.calls());
    ensure!(inside.calls().is_empty(), "an address inside was connected to");
    ensure!(metric(&node, "klatch_webhook_attempts_total{result=\"forbidden\"}").await? == 2.0);
    let log = node.log();
    ensure!(log.contains("a webhook will not be told of a turn's end") && !log.contains(SECRET), "{log}");
    // It goes on with the next end.
    receiver.be(Mood::Hears);
    completes(&api, &node.url, &conversation).await?;
    receiver.until("the next end is heard", |it| it.heard().len() == 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_of_one_tenant_or_of_some_ends_hears_of_nothing_else() -> anyhow::Result<()> {
    let (mine, cancelled) = (WebhookReceiver::start(Mood::Hears).await?, WebhookReceiver::start(Mood::Hears).await?);
    let slow = "[[responder]]\nname = \"slow\"\nkind = \"echo\"\ndelay_ms = 60000\n";
    let hooks = mine.section("tenant = \"mine\"") + &cancelled.section("events = [\"response.cancelled\"]");
    let node = node(hooks + slow).await?;
    let (ann, other) = (Api::new(node.token("ann", "mine").await?)?, Api::new(node.token("bob", "other").await?)?);
    let conversation = other.create(&node.url).await?;
    completes(&other, &node.url, &conversation).await?;
    let running =
        other.begin(&node.url, &Ask { conversation: &conversation, model: "slow", text: "hi", key: None }).await?;
    let token = node.token("bob", "other").await?;
    let cancel = format!("{}/v1/responses/{running}/cancel", node.url);
    reqwest::Client::new().post(cancel).bearer_auth(&token).send().await?.error_for_status()?;
    let conversation = ann.create(&node.url).await?;
    completes(&ann, &node.url, &conversation).await?;
    mine.until("the tenant's end is heard", |it| it.heard().len() == 1).await?;
    cancelled.until("the cancelled one is heard", |it| it.heard().len() == 1).await?;
    ensure!(cancelled.heard()[0].response() == running, "{:?}", cancelled.heard());
    ensure!(mine.calls().len() == 1 && cancelled.calls().len() == 1);
    Ok(())
}
