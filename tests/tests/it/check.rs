//! `klatch serve --check` tells all that is wrong at once, before anything is started.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use klatch_tests::process::binary;
use klatch_tests::redis_server::RedisServer;

fn openssl(folder: &Path, arguments: &str) {
    let made =
        Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output().expect("openssl");
    assert!(made.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&made.stderr));
}

/// A node's folder with an authority, a certificate for `*.peers.svc` that ends after so many days, and a signing key.
fn folder(days: u32) -> tempfile::TempDir {
    let made = tempfile::tempdir().expect("a folder");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(made.path(), &format!("req -x509 {key} -days 30 -subj /CN=authority -keyout ca.key -out ca.crt"));
    openssl(
        made.path(),
        &format!(
            "req -x509 {key} -days {days} -subj /CN=node -CA ca.crt -CAkey ca.key -addext subjectAltName=DNS:*.peers.svc \
             -addext extendedKeyUsage=serverAuth,clientAuth -addext basicConstraints=critical,CA:FALSE -keyout tls.key \
             -out tls.crt"
        ),
    );
    openssl(made.path(), "genpkey -algorithm ed25519 -out signing.pem");
    made
}

fn check(folder: &Path, config: &str) -> Output {
    std::fs::write(folder.join("klatch.toml"), config).expect("a file is written");
    let program: PathBuf = binary().expect("the program is built");
    let arguments = ["serve", "--check", "--config", "klatch.toml"];
    Command::new(program).args(arguments).current_dir(folder).env_remove("KLATCH_STORE").output().expect("it runs")
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

const TLS: &str = "cert = \"tls.crt\"\nkey = \"tls.key\"\nca = \"ca.crt\"\n";
const SECRET: &str = "secret = \"0123456789abcdef0123456789abcdef\"\n";

#[tokio::test]
async fn a_configuration_that_is_good_says_so() {
    let (redis, folder) = (RedisServer::start().await.unwrap(), folder(20));
    let config = format!(
        "store = \"{}\"\nnode_name = \"klatch-0\"\nhttp_addr = \"127.0.0.1:0\"\nops_addr = \"127.0.0.1:0\"\n[auth]\n\
         signing_keys = [\"signing.pem\"]\n[cluster]\naddr = \"127.0.0.1:0\"\nadvertise = \"klatch-0.peers.svc:7946\"\n\
         {SECRET}{TLS}",
        redis.url()
    );
    let output = check(folder.path(), &config);
    assert_eq!(
        (output.status.code(), lines(&output)),
        (Some(0), vec!["nothing would keep it from serving".to_owned()])
    );
    assert!(!folder.path().join("klatch-data").exists(), "it leaves nothing behind");
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once() {
    let options = ["--appendonly", "no", "--maxmemory-policy", "allkeys-lru"];
    let (redis, folder) = (RedisServer::start_with(&options).await.unwrap(), folder(3));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    std::fs::write(folder.path().join("klatch-data"), "no folder").unwrap();
    openssl(folder.path(), "genpkey -algorithm ed25519 -out tls.key");
    // What is not there: a port that nobody has any more.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "store = \"{}\"\nnode_name = \"klatch-1\"\nhttp_addr = \"{}\"\nops_addr = \"127.0.0.1:0\"\n\
         [auth]\nsigning_keys = [\"nowhere.pem\"]\njwks_issuer = \"other\"\n\
         [limits]\nconnections = 4000000000\nturns_in_flight = 0\n\
         [redis]\ndurability = \"replica\"\nreplicas = 2\n\
         [cluster]\naddr = \"127.0.0.1:0\"\nadvertise = \"klatch-0.peers.svc:7946\"\n{SECRET}{TLS}\
         [[responder]]\nname = \"m\"\nkind = \"openai\"\nbase_url = \"http://{gone}/v1\"\n",
        redis.url(),
        taken.local_addr().unwrap()
    );
    let output = check(folder.path(), &config);
    let said = lines(&output);
    assert_eq!(output.status.code(), Some(2), "{said:#?}");
    let expected = [
        ("error: auth.jwks_issuer", "has no meaning without jwks_url"),
        ("error: limits.turns_in_flight", "is 0"),
        ("error: http_addr", "is in use already"),
        ("error: store", "is not a folder"),
        ("error: cluster.cert", "is not for this node"),
        ("error: cluster.key", "is not the key of the certificate"),
        ("error: limits.connections", "open files"),
        ("error: store", "set noeviction"),
        ("error: store", "set appendonly yes"),
        ("error: redis.replicas", "2 replicas are waited for, and 0 are connected"),
        ("warning: cluster.cert", "within a week"),
        ("warning: responder `m`", "cannot be reached"),
    ];
    for (begin, part) in expected {
        assert!(said.iter().any(|line| line.starts_with(begin) && line.contains(part)), "{begin} {part}: {said:#?}");
    }
    assert_eq!(said.len(), expected.len(), "{said:#?}");

    let output = check(folder.path(), &config.replace("jwks_issuer = \"other\"\n", ""));
    assert!(lines(&output).iter().any(|line| line.starts_with("error: auth.signing_keys: nowhere.pem")), "{output:?}");
}

#[tokio::test]
async fn a_folder_of_another_and_a_redis_that_is_gone_are_found() {
    let folder = folder(20);
    let ports = "http_addr = \"127.0.0.1:0\"\nops_addr = \"127.0.0.1:0\"\n";
    let embedded = format!("{ports}store = \"file:data\"\n");
    std::fs::create_dir(folder.path().join("data")).unwrap();
    std::fs::write(folder.path().join("data/photo.jpg"), "").unwrap();
    let output = check(folder.path(), &embedded);
    assert!(lines(&output)[0].contains("holds no Klatch store"), "{output:?}");
    std::fs::remove_file(folder.path().join("data/photo.jpg")).unwrap();

    // As another process has it that makes no admin socket.
    let format = folder.path().join("data/FORMAT");
    std::fs::write(&format, "format = 1\n").unwrap();
    let held = std::fs::File::open(&format).unwrap();
    held.lock().unwrap();
    let output = check(folder.path(), &embedded);
    assert_eq!(output.status.code(), Some(2));
    assert!(lines(&output)[0].contains("another process uses the store"), "{output:?}");
    drop(held);
    assert_eq!(check(folder.path(), &embedded).status.code(), Some(0));

    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = format!(
        "{ports}store = \"redis://ann:hidden@{gone}\"\n[auth]\nsigning_keys = [\"signing.pem\"]\n[cluster]\naddr = \"127.0.0.1:0\"\n{SECRET}"
    );
    let output = check(folder.path(), &config);
    assert_eq!(output.status.code(), Some(2));
    let said = lines(&output).join("\n");
    assert!(said.contains(&format!("Redis cannot be reached at {gone}")) && !said.contains("hidden"), "{said}");
}
