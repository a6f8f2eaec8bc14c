//! A process of the role `auth` beside a node: what it gives is good there, and it is nothing else.

use klatch::ops::NodeShown;
use klatch_tests::process::{NodeProcess, NodeSettings, free_port};
use klatch_tests::redis_server::RedisServer;
use serde_json::{Value, json};

/// Both sign with the same key.
fn settings(redis: &RedisServer, key: &str, more: &[(&str, &str)]) -> NodeSettings {
    let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    NodeSettings {
        config: format!("[auth]\nsigning_keys = [\"{key}\"]\n"),
        store: redis.url(),
        environment: more.collect(),
        ..NodeSettings::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_signs_in_for_the_nodes_and_is_none_of_them() {
    let redis = RedisServer::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signing.pem");
    let made =
        std::process::Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(&path).output();
    assert!(made.unwrap().status.success());
    let key = path.display().to_string();
    let address = format!("127.0.0.1:{}", free_port().unwrap());
    let secret = [
        ("KLATCH_CLUSTER_SECRET", "a secret of these tests, long enough for anybody"),
        ("KLATCH_CLUSTER_ADDR", &address),
    ];
    let (node, mut auth) = tokio::join!(
        NodeProcess::start(settings(&redis, &key, &secret)),
        NodeProcess::start(settings(&redis, &key, &[("KLATCH_ROLE", "auth")]))
    );
    let node = node.unwrap();
    let auth = auth.as_mut().unwrap();
    auth.add_user("ann", "correct horse battery").await.unwrap();

    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let login = json!({"username": "ann", "password": "correct horse battery"});
    let pair = http.post(format!("{}/auth/login", auth.url)).json(&login).send().await.unwrap();
    let pair: Value = pair.error_for_status().unwrap().json().await.unwrap();
    let token = pair["access_token"].as_str().unwrap();
    let listed = |url: &str| http.get(format!("{url}/v1/models")).bearer_auth(token).send();
    assert_eq!(listed(&node.url).await.unwrap().status(), 200);
    assert_eq!(listed(&auth.url).await.unwrap().status(), 404);
    let keys =
        async |url: &str| http.get(format!("{url}/.well-known/jwks.json")).send().await.unwrap().text().await.unwrap();
    assert_eq!(keys(&auth.url).await, keys(&node.url).await);

    let ready = http.get(format!("{}/readyz", auth.ops_url)).send().await.unwrap();
    assert_eq!(ready.status(), 200);
    let shown = http.get(format!("{}/cluster", node.ops_url)).send().await.unwrap();
    assert_eq!(shown.json::<NodeShown>().await.unwrap().members.len(), 1);
    assert_eq!(auth.terminate().await.unwrap(), 0);
}
