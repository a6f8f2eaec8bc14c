//! What an operator writes, and what the node makes of it.

use super::*;
use crate::config::sources::Origin;

fn sources(file: &str, environment: &[(&str, &str)], command_line: &[(&str, &str)]) -> Sources {
    let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Sources {
        file: (!file.is_empty()).then(|| ("klatch.toml".into(), file.to_owned())),
        environment: owned(environment),
        command_line: owned(command_line),
    }
}

fn from_file(file: &str) -> Result<Config, ConfigRefused> {
    Config::load(&sources(file, &[], &[]))
}

/// What is in force where nothing is set.
fn default() -> Config {
    from_file("").unwrap()
}

fn refused(file: &str) -> String {
    from_file(file).unwrap_err().to_string()
}

/// Every key that can be set, with another value than its default.
const EVERYTHING: &str = r#"
node_name = "klatch-7"
http_addr = "0.0.0.0:80"
ops_addr = "[::]:81"
store = "memory:"
role = "auth"
drain_lag = "7s"
trust_forwarded_for = true
drain_timeout = "90s"

[[responder]]
kind = "eliza"
name = "doctor"
script = "doctor.txt"

[[responder]]
kind = "echo"
name = "slow"
history = true
delay_ms = 7
token_delay_ms = 7
tokens = 7
fail_every = 7

[[responder]]
kind = "openai"
name = "model"
base_url = "http://127.0.0.1:1/v1"
model = "m"
api_key_env = "KEY"
connect_timeout = "7s"
first_token_timeout = "7s"
idle_timeout = "7s"
concurrency = 7
queue = 7
retries = 7
fallback = "doctor"
continue = "prefill"
context_tokens = 7
max_tokens_field = "max_completion_tokens"

[[webhook]]
url = "http://10.0.0.7/klatch"
secret_env = "HOOK"
events = ["response.failed"]
tenant = "tiny"
allow_private = true
allow_http = true
connect_timeout = "7s"
timeout = "7s"
attempts = 7
retry_after = "7s"
retry_after_max = "7m"
concurrency = 7

[log]
format = "json"
level = "debug"

[telemetry]
otlp_endpoint = "http://collector:4318"
sample_ratio = 0.25

[cluster]
addr = "127.0.0.1:7"
advertise = "klatch-7.peers:7"
secret_file = "secret"
plain = true

[auth]
issuer = "a"
audience = "b"
access_ttl = "7m"
refresh_ttl = "7d"
signing_keys = ["a.pem", "b.pem"]
hs256_secret_file = "secret"
jwks_url = "https://id.example/keys"
jwks_issuer = "c"
algorithms = ["ES256"]
jwks_refresh = "7m"
jwks_retry = "7s"
jwks_timeout = "7s"
jwks_bytes_max = 7
leeway = "7s"

[limits]
requests_per_minute = 60
connections = 7
body_bytes = 7
body_timeout = "7s"
wait_max = "7s"
keep_alive = "7s"
owner_lost_max = "7s"
chat_completions_at_once = 7
queue_per_conversation = 7
turns_in_flight = 7
active_conversations = 7
active_bytes = 70000
hot_bytes_per_conversation = 7000
waiting_per_conversation = 7
reply_bytes = 7
unsaved_pieces = 7
history_items = 7
history_bytes = 7
idle_after = "7s"
compact_after_entries = 7
compact_after_bytes = 7
batch_every = "7ms"
recoveries_at_once = 7

[limits.tenant.tiny]
requests_per_minute = 3

[limits.tenant."with.a dot"]
requests_per_minute = 4

[retention]
conversations_after = "90d"
idempotency_keys = "24h"

[redis]
password_file = "password"
durability = "replica"
replicas = 2
connections = 3
prefix = "chat:"
connect_timeout = "7s"
answer_timeout = "7s"
replica_timeout = "7s"
replica_lag_max = "70s"
"#;

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
    let file = "http_addr = \"127.0.0.1:1\"\nops_addr = \"127.0.0.1:2\"\ndrain_timeout = \"3s\"";
    let environment = [("KLATCH_HTTP_ADDR", "127.0.0.1:11"), ("KLATCH_OPS_ADDR", "127.0.0.1:12")];
    let config = Config::load(&sources(file, &environment, &[("http-addr", "127.0.0.1:111")])).unwrap();
    assert_eq!((config.http_addr.port(), config.ops_addr.port()), (111, 12));
    assert_eq!(config.drain_timeout, Duration::from_secs(3));
    assert_eq!(config.store, Config::default().store);
}

#[test]
fn an_option_reaches_into_its_section_and_leaves_the_rest_of_it() {
    let config = Config::load(&sources("[log]\nformat = \"json\"", &[("KLATCH_LOG_LEVEL", "warn")], &[])).unwrap();
    assert_eq!((config.log.format, config.log.level.as_str()), (crate::telemetry::LogFormat::Json, "warn"));
}

#[test]
fn a_variable_that_is_set_to_nothing_is_not_set() {
    assert_eq!(Config::load(&sources("", &[("KLATCH_STORE", "")], &[])).unwrap(), default());
}

#[test]
fn an_unknown_key_is_refused_with_its_name_and_the_nearest_right_one() {
    for (file, name, near) in [
        ("htp_addr = \"x\"", "htp_addr", "http_addr"),
        ("[limits]\nrequest_per_minute = 3", "limits.request_per_minute", "requests_per_minute"),
        (
            "[limits.tenant.tiny]\nrequests_per_minut = 3",
            "limits.tenant.tiny.requests_per_minut",
            "requests_per_minute",
        ),
        ("[log]\nformat = \"jsn\"", "log.format", "json"),
        ("[auth]\nisuer = \"x\"", "auth.isuer", "issuer"),
        ("[limts]\nbody_bytes = 3", "limts", "limits"),
    ] {
        let said = refused(file);
        assert!(said.starts_with(&format!("{name} (klatch.toml): ")), "{said}");
        assert!(said.contains(&format!("`{near}` is probably meant")), "{said}");
    }
    let said = refused("[retention]\nfoo = 1");
    assert!(said.contains("there are conversations_after, idempotency_keys"), "{said}");
}

#[test]
fn a_wrong_value_is_refused_with_what_would_be_right_and_where_it_was_set() {
    for (file, key, right) in [
        ("http_addr = \"localhost\"", "http_addr", "127.0.0.1:8080"),
        ("http_addr = 8080", "http_addr", "string"),
        ("drain_timeout = 60", "drain_timeout", "\"15m\""),
        ("drain_lag = \"5\"", "drain_lag", "15m"),
        ("[limits]\nconnections = \"many\"", "limits.connections", "a whole number"),
        ("[limits]\nconnections = 0", "limits.connections", "1 or more"),
        ("[log]\nlevel = \"klatch=loud\"", "log.level", "info,klatch=debug"),
        ("store = \"radis://localhost\"", "store", "file:FOLDER"),
        ("store = \"redis+sentinel://localhost\"", "store", "redis+sentinel://"),
        ("store = \"redis://localhost\"", "cluster.secret", "openssl rand"),
        ("node_name = \"\"", "node_name", "klatch-0"),
        ("[auth]\naccess_ttl = \"25h\"", "auth.access_ttl", "24h"),
        ("[[responder]]\nname = \"x\"\nkind = \"oracle\"", "responder[0].kind", "openai"),
        ("[[responder]]\nname = \"x\"\nkind = \"echo\"\ndelay_m = 3", "responder[0].delay_m", "delay_ms"),
        ("log = 3", "log", "a section"),
    ] {
        let said = refused(file);
        assert!(said.starts_with(&format!("{key} (klatch.toml): ")) && said.contains(right), "{said}");
    }
    let wrong = Config::load(&sources("", &[("KLATCH_DRAIN_TIMEOUT", "60")], &[])).unwrap_err();
    assert_eq!(wrong.origin, Some(Origin::Environment("KLATCH_DRAIN_TIMEOUT".into())));
    let wrong = Config::load(&sources("", &[], &[("http-addr", "x")])).unwrap_err();
    assert!(wrong.to_string().starts_with("http_addr (--http-addr): "), "{wrong}");
}

#[test]
fn a_file_that_is_no_toml_is_refused_with_its_line() {
    let said = refused("node_name = \"a\"\nstore = file:x");
    assert!(said.starts_with("klatch.toml: ") && said.contains("line 2"), "{said}");
}

#[test]
fn what_contradicts_itself_is_refused() {
    assert!(refused("ops_addr = \"127.0.0.1:8080\"").starts_with("ops_addr"));
    assert!(refused("[retention]\nidempotency_keys = \"1h\"").contains("1d is the only value"));
    assert!(refused("[retention]\nconversations_after = \"1h\"").starts_with("retention.conversations_after"));
}

#[test]
fn what_is_printed_is_read_again_as_the_same_configuration() {
    for config in [default(), from_file(EVERYTHING).unwrap()] {
        let printed = print(&config);
        assert_eq!(from_file(&printed).unwrap(), config, "{printed}");
    }
}

#[test]
fn every_key_is_printed_with_a_comment_and_set_by_the_test_of_everything() {
    let everything: toml::Table = EVERYTHING.parse().unwrap();
    check_section("", &toml::Table::try_from(from_file(EVERYTHING).unwrap()).unwrap(), &everything);
}

fn check_section(path: &str, table: &toml::Table, everything: &toml::Table) {
    let comments = comments::of_section(path);
    for (key, value) in table {
        let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        assert!(everything.contains_key(key), "{inner} is not in EVERYTHING");
        let section = value.as_table();
        if path != "limits.tenant" && key != "kind" {
            let comment = comments.iter().find(|comment| comment.key == *key);
            let sections = section.is_some() && path.is_empty();
            assert!(comment.is_some_and(|comment| sections || !comment.lines.is_empty()), "{inner} has no comment");
        }
        if let Some(section) = section {
            check_section(&inner, section, everything[key].as_table().unwrap());
        }
        for (index, section) in value.as_array().into_iter().flatten().enumerate() {
            if let Some(section) = section.as_table() {
                check_section(&print::of_kind(&inner, section), section, everything[key][index].as_table().unwrap());
            }
        }
    }
}

#[test]
fn no_key_is_left_at_its_default_by_the_test_of_everything() {
    let default = toml::Table::try_from(Config::default()).unwrap();
    let changed = changed(&from_file(EVERYTHING).unwrap());
    for (section, keys) in &default {
        for key in keys.as_table().into_iter().flat_map(toml::Table::keys).filter(|key| *key != "idempotency_keys") {
            assert!(changed.iter().any(|line| line.starts_with(&format!("{section}.{key} = "))), "{section}.{key}");
        }
    }
}

#[test]
fn passwords_are_not_shown() {
    assert_eq!(print::without_password("redis://user:secret@host/1"), "redis://********@host/1");
    assert_eq!(print::without_password("https://host/a@b"), "https://host/a@b");
    let webhook = "[[webhook]]\nurl = \"https://host/a?token=hidden\"\nsecret_env = \"HOOK\"";
    let printed = print(&from_file(webhook).unwrap());
    assert!(!printed.contains("hidden") && printed.contains("https://host/a?********"), "{printed}");
    let said = refused("store = \"redis://user:hidden@host\"");
    assert!(!said.contains("hidden"), "{said}");
}

#[test]
fn secrets_are_not_shown_wherever_they_stand() {
    let mut table: toml::Table =
        "cluster_secret = \"s\"\nhs256_secret_file = \"f\"\n[[responder]]\napi_key = \"s\"\napi_key_env = \"E\""
            .parse()
            .unwrap();
    print::mask_table(&mut table);
    let shown = table.to_string();
    assert!(!shown.contains("\"s\"") && shown.contains("\"f\"") && shown.contains("\"E\""), "{shown}");
}

#[test]
fn a_cluster_that_contradicts_itself_is_refused_with_the_key_and_what_would_be_right() {
    let secret = "secret = \"0123456789abcdef0123456789abcdef\"\n";
    for (section, key, right) in [
        ("addr = \"127.0.0.1:7946\"".to_owned(), "secret", "openssl"),
        ("addr = \"127.0.0.1:7946\"\nsecret = \"short\"".to_owned(), "secret", "32 or more"),
        (format!("{secret}secret_file = \"f\""), "secret_file", "one of the two"),
        (format!("{secret}addr = \"10.0.0.1:7946\""), "addr", "set cert, key and ca"),
        (format!("{secret}addr = \"0.0.0.0:7946\"\nplain = true"), "advertise", "klatch-0.peers"),
        (format!("{secret}cert = \"c\""), "key", "all of cert, key and ca"),
        (format!("{secret}cert = \"c\"\nkey = \"k\"\nca = \"a\"\nplain = true"), "plain", "leave it"),
        ("addr = \"here\"".to_owned(), "addr", "127.0.0.1:7946"),
    ] {
        let said = refused(&format!("store = \"memory:\"\n[cluster]\n{section}"));
        assert!(said.starts_with(&format!("cluster.{key} (klatch.toml): ")) && said.contains(right), "{said}");
    }
    assert!(refused("[cluster]\naddr = \"127.0.0.1:7946\"").contains("redis://"));
}

#[test]
fn a_process_that_only_signs_in_needs_the_nodes_store_and_none_of_their_secrets() {
    let said = refused("role = \"auth\"");
    assert!(said.starts_with("role (klatch.toml): ") && said.contains("redis://"), "{said}");
    let keys = "[auth]\nsigning_keys = [\"a.pem\"]\n";
    let shared = from_file(&format!("role = \"auth\"\nstore = \"redis://localhost\"\n{keys}")).unwrap();
    assert_eq!(shared.cluster_addr(), None);
    let said = refused("role = \"none\"");
    assert!(said.starts_with("role ") && said.contains("all"), "{said}");
}

#[test]
fn the_secret_comes_from_the_environment_and_is_never_shown() {
    let secret = "0123456789abcdef0123456789abcdef";
    let config = Config::load(&sources("store = \"memory:\"", &[("KLATCH_CLUSTER_SECRET", secret)], &[])).unwrap();
    assert_eq!(config.cluster.read_secret().unwrap(), secret.as_bytes());
    let shown = format!("{}{:?}{:?}", print(&config), changed(&config), config);
    assert!(!shown.contains(secret), "{shown}");
    assert!(OPTIONS.iter().all(|(option, _)| *option != "cluster-secret"));
}

#[test]
fn only_a_node_that_others_can_reach_lags_by_default() {
    assert_eq!(Config::default().drain_lag(), Duration::ZERO);
    assert_eq!(from_file("http_addr = \"0.0.0.0:80\"").unwrap().drain_lag(), LAG_BEHIND_A_BALANCER);
    assert_eq!(
        from_file("http_addr = \"0.0.0.0:80\"\ndrain_lag = \"1s\"").unwrap().drain_lag(),
        Duration::from_secs(1)
    );
}

#[test]
fn a_variable_that_is_nearly_an_option_is_pointed_out_and_those_of_kubernetes_are_not() {
    let names = ["KLATCH_HTTP_ADR", "KLATCH_SERVICE_HOST", "KLATCH_PORT_8080_TCP", "KLATCH_URL", "KLATCH_STORE"];
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(misspelt(names.iter()), [("KLATCH_HTTP_ADR".to_owned(), "KLATCH_HTTP_ADDR".to_owned())]);
}

#[tokio::test]
async fn what_only_the_start_can_refuse_is_refused_by_the_check() {
    let folder = tempfile::tempdir().unwrap();
    let free = format!(
        "http_addr = \"127.0.0.1:0\"\nops_addr = \"127.0.0.1:0\"\nstore = \"file:{}\"\n",
        folder.path().display()
    );
    let said = async |config: Config| check::check(&config, Vec::new()).await.to_string();
    assert_eq!(said(from_file(&free).unwrap()).await, "");
    let missing = from_file(&format!("{free}[auth]\nsigning_keys = [\"/nowhere.pem\"]")).unwrap();
    assert!(said(missing).await.starts_with("error: auth.signing_keys: /nowhere.pem"));
    let unanswered = from_file(&format!(
        "{free}[[responder]]\nname = \"m\"\nkind = \"openai\"\nbase_url = \"http://h/v1\"\napi_key_env = \"KLATCH_NO_SUCH_KEY\""
    ));
    assert!(said(unanswered.unwrap()).await.contains("KLATCH_NO_SUCH_KEY"));
}

#[tokio::test]
async fn a_port_in_use_and_a_folder_that_cannot_be_made_are_found_before_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    let config = Config {
        http_addr: taken.local_addr().unwrap(),
        ops_addr: "127.0.0.1:0".parse().unwrap(),
        store: format!("file:{}/below", file.path().display()),
        ..Config::default()
    };
    let problems = check::check(&config, Vec::new()).await.errors;
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("http_addr: ") && problems[0].contains("in use"), "{problems:?}");
    assert!(problems[1].starts_with("store: ") && problems[1].contains("not a folder"), "{problems:?}");
}

#[test]
fn a_store_in_redis_needs_keys_that_all_nodes_share() {
    const SECRET: &str = "[cluster]\nsecret = \"0123456789abcdef0123456789abcdef\"\n";
    let refused = |text: &str| from_file(&format!("{text}\n{SECRET}")).unwrap_err().to_string();
    let from_file = |text: &str| from_file(&format!("{text}\n{SECRET}"));
    let said = refused("store = \"redis://ann:hidden@localhost\"");
    assert!(said.starts_with("auth.signing_keys") && !said.contains("hidden"), "{said}");
    let said = refused("store = \"redis+sentinel://ann:hidden@localhost\"");
    assert!(said.starts_with("store ") && !said.contains("hidden"), "{said}");
    let keys = "[auth]\nsigning_keys = [\"a.pem\"]\n";
    let config = from_file(&format!("store = \"redis://ann:hidden@localhost\"\n{keys}")).unwrap();
    assert_eq!(config.data_folder().unwrap(), std::path::Path::new("./klatch-data"));
    assert!(!print(&config).contains("hidden"), "the password is shown");
    let primary = "store = \"redis+cluster://a\"\n[redis]\ndurability = \"primary\"\n";
    assert!(refused(&format!("{primary}{keys}")).starts_with("redis.durability "));
}
