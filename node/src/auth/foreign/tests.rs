//! Against a real server on this host: rotation, outage, stampede, and documents that are not what they should be.

use std::sync::Mutex as Lock;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::json;

use super::*;
use crate::auth::fixtures::*;
use crate::auth::keys::SigningKey;

const NOW: u64 = 1_000_000_000;

/// The other issuer: shows what it is told to.
struct Issuer {
    url: String,
    shows: Lock<(StatusCode, String)>,
    asked: AtomicUsize,
}

impl Issuer {
    async fn start(keys: Value) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let issuer = Arc::new(Self { url, shows: Lock::default(), asked: AtomicUsize::new(0) });
        issuer.show(keys);
        let answers = issuer.clone();
        let app = Router::new().route(
            "/keys",
            get(move || async move {
                answers.asked.fetch_add(1, Ordering::SeqCst);
                answers.shows.lock().unwrap().clone()
            }),
        );
        tokio::spawn(async move { axum::serve(listener, app).await });
        issuer
    }

    fn show(&self, keys: Value) {
        *self.shows.lock().unwrap() = (StatusCode::OK, json!({ "keys": keys }).to_string());
    }

    fn fail(&self) {
        *self.shows.lock().unwrap() = (StatusCode::BAD_GATEWAY, String::new());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn trusted(&self) -> Arc<Foreign> {
        self.trusted_with(|_| {})
    }

    fn trusted_with(&self, change: impl FnOnce(&mut AuthOptions)) -> Arc<Foreign> {
        let mut options = AuthOptions {
            jwks_url: Some(self.url.clone()),
            jwks_issuer: Some("other".into()),
            algorithms: vec![Algorithm::EdDSA, Algorithm::RS256],
            ..Default::default()
        };
        change(&mut options);
        Foreign::new(&options).unwrap().unwrap()
    }
}

fn signing(pem: &str) -> SigningKey {
    keys::from_pem(pem.as_bytes()).unwrap().0
}

fn shown(pem: &str) -> Value {
    serde_json::to_value(keys::from_pem(pem.as_bytes()).unwrap().1.public).unwrap()
}

fn without_alg(mut key: Value) -> Value {
    key.as_object_mut().unwrap().remove("alg");
    key
}

fn token(key: &SigningKey, kid: &str) -> String {
    let mut header = jsonwebtoken::Header::new(key.algorithm);
    header.kid = Some(kid.to_owned());
    let claims = json!({"iss": "other", "aud": "klatch", "sub": "ada", "exp": NOW / 1_000 + 60});
    jsonwebtoken::encode(&header, &claims, &key.encoding).unwrap()
}

fn token_of(pem: &str) -> String {
    let key = signing(pem);
    token(&key, &key.kid)
}

async fn said(foreign: &Arc<Foreign>, token: &str, now_ms: u64) -> Result<(), Reason> {
    let digest = tokens::digest(token).unwrap();
    let parsed = tokens::parse(token).unwrap();
    foreign.verify(&parsed, digest, now_ms).await.map(|_| ())
}

#[tokio::test]
async fn a_token_of_the_other_issuer_is_accepted_and_remembered() {
    let issuer = Issuer::start(json!([shown(RSA)])).await;
    let foreign = issuer.trusted();
    assert_eq!(said(&foreign, &token_of(RSA), NOW).await, Ok(()));
    let digest = tokens::digest(&token_of(RSA)).unwrap();
    assert_eq!(&*foreign.recall(&digest, NOW / 1_000).unwrap().subject, "ada");
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it_and_the_withdrawn_one_is_forgotten() {
    let issuer = Issuer::start(json!([shown(RSA)])).await;
    let foreign = issuer.trusted();
    assert_eq!(said(&foreign, &token_of(RSA), NOW).await, Ok(()));
    issuer.show(json!([shown(ED25519)]));
    assert_eq!(said(&foreign, &token_of(ED25519), NOW + 29_999).await, Err(Reason::UnknownKey));
    assert_eq!(said(&foreign, &token_of(ED25519), NOW + 30_000).await, Ok(()));
    assert_eq!(issuer.asked(), 2);
    let old = tokens::digest(&token_of(RSA)).unwrap();
    assert_eq!(foreign.recall(&old, NOW / 1_000), None);
    assert_eq!(said(&foreign, &token_of(RSA), NOW + 30_001).await, Err(Reason::UnknownKey));
}

#[tokio::test]
async fn keys_stay_while_the_issuer_fails() {
    let issuer = Issuer::start(json!([shown(RSA)])).await;
    let foreign = issuer.trusted();
    assert_eq!(said(&foreign, &token_of(RSA), NOW).await, Ok(()));
    issuer.fail();
    assert_eq!(said(&foreign, &token_of(ED25519), NOW + 40_000).await, Err(Reason::UnknownKey));
    assert_eq!(issuer.asked(), 2);
    issuer.show(json!([]));
    foreign.fetch().await;
    assert_eq!(said(&foreign, &token_of(RSA), NOW + 40_000).await, Ok(()));
}

#[tokio::test]
async fn an_issuer_that_was_never_reached_is_no_fault_of_the_token() {
    let issuer = Issuer::start(json!([shown(RSA)])).await;
    let foreign = issuer.trusted();
    issuer.fail();
    assert_eq!(said(&foreign, &token_of(RSA), NOW).await, Err(Reason::KeysUnavailable));
    issuer.show(json!([shown(RSA)]));
    assert_eq!(said(&foreign, &token_of(RSA), NOW + 30_000).await, Ok(()));
}

#[tokio::test]
async fn a_stampede_of_unknown_ids_makes_one_fetch() {
    let issuer = Issuer::start(json!([shown(RSA)])).await;
    let foreign = issuer.trusted();
    let strange = signing(ED25519_OTHER);
    let tokens: Vec<String> = (0..200).map(|n| token(&strange, &format!("kid-{n}"))).collect();
    let answers = futures::future::join_all(tokens.iter().map(|token| said(&foreign, token, NOW))).await;
    assert!(answers.iter().all(|answer| *answer == Err(Reason::UnknownKey)));
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn all_who_wait_for_the_one_fetch_have_its_keys() {
    let issuer = Issuer::start(json!([shown(RSA)])).await;
    let foreign = issuer.trusted();
    let token = token_of(RSA);
    let answers = futures::future::join_all((0..200).map(|_| said(&foreign, &token, NOW))).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn more_waiting_requests_than_the_maximum_are_refused_at_once() {
    let issuer = Issuer::start(json!([shown(RSA)])).await;
    let foreign = issuer.trusted();
    let _all = foreign.waiting.try_acquire_many(WAITING_MAX as u32).unwrap();
    assert_eq!(said(&foreign, &token_of(RSA), NOW).await, Err(Reason::KeysUnavailable));
    assert_eq!(issuer.asked(), 0);
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_end_the_fetch() {
    let issuer = Issuer::start(json!([shown(RSA)])).await;
    let foreign = issuer.trusted();
    let token = token_of(RSA);
    assert!(futures::FutureExt::now_or_never(said(&foreign, &token, NOW)).is_none());
    assert_eq!(said(&foreign, &token, NOW).await, Ok(()));
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn a_secret_from_a_url_is_no_key() {
    let (secret, _) = keys::from_secret(&[b's'; 32]).unwrap();
    let oct =
        json!({"kty": "oct", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M", "kid": secret.kid, "alg": "HS256"});
    let issuer = Issuer::start(json!([oct, shown(RSA)])).await;
    let foreign = issuer.trusted();
    assert_eq!(said(&foreign, &token(&secret, &secret.kid), NOW).await, Err(Reason::UnknownKey));
}

#[tokio::test]
async fn a_public_key_of_the_url_taken_for_a_secret_is_refused() {
    let issuer = Issuer::start(json!([shown(RSA)])).await;
    let foreign = issuer.trusted();
    let (mut forger, _) = keys::from_secret(RSA_PUBLIC.as_bytes()).unwrap();
    forger.kid = signing(RSA).kid;
    assert_eq!(said(&foreign, &token(&forger, &forger.kid), NOW).await, Err(Reason::Algorithm));
}

#[tokio::test]
async fn a_key_without_an_algorithm_has_the_configured_one_of_its_kind() {
    let issuer = Issuer::start(json!([without_alg(shown(RSA)), without_alg(shown(ED25519))])).await;
    let foreign = issuer.trusted();
    assert_eq!(said(&foreign, &token_of(RSA), NOW).await, Ok(()));
    assert_eq!(said(&foreign, &token_of(ED25519), NOW).await, Ok(()));
    let mut rsa = signing(RSA);
    rsa.algorithm = Algorithm::PS256;
    assert_eq!(said(&foreign, &token(&rsa, &rsa.kid), NOW).await, Err(Reason::Algorithm));
}

#[tokio::test]
async fn an_algorithm_that_is_not_configured_is_not_used_even_if_the_key_names_it() {
    let issuer = Issuer::start(json!([shown(P256), shown(RSA)])).await;
    let foreign = issuer.trusted();
    assert_eq!(said(&foreign, &token_of(P256), NOW).await, Err(Reason::UnknownKey));
}

#[tokio::test]
async fn keys_that_are_strange_weak_or_for_encryption_spoil_nothing() {
    let mut encryption = shown(ED25519);
    encryption["use"] = json!("enc");
    let short = json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "short"});
    let strange = json!({"kty": "AKP", "alg": "ML-DSA-65", "pub": "AAAA", "kid": "strange"});
    let weak = json!({"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "weak"});
    let issuer = Issuer::start(json!([encryption, short, strange, weak, 7, shown(RSA)])).await;
    let foreign = issuer.trusted();
    assert_eq!(said(&foreign, &token_of(RSA), NOW).await, Ok(()));
    assert_eq!(said(&foreign, &token_of(ED25519), NOW).await, Err(Reason::UnknownKey));
    let other = signing(ED25519_OTHER);
    for kid in ["short", "strange", "weak"] {
        assert_eq!(said(&foreign, &token(&other, kid), NOW).await, Err(Reason::UnknownKey));
    }
}

#[tokio::test]
async fn a_document_at_the_maximum_is_read_and_a_longer_one_is_not() {
    let issuer = Issuer::start(json!([shown(RSA)])).await;
    let size = issuer.shows.lock().unwrap().1.len();
    assert!(issuer.trusted_with(|o| o.jwks_bytes_max = size).fetched().await.is_ok());
    let said = issuer.trusted_with(|o| o.jwks_bytes_max = size - 1).fetched().await;
    assert!(matches!(said, Err(FetchError::TooLarge)));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let issuer = Issuer::start(json!([shown(RSA)])).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let to = issuer.url.clone();
    let app = Router::new().route("/", get(move || async move { axum::response::Redirect::temporary(&to) }));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let said = issuer.trusted_with(|o| o.jwks_url = Some(url)).fetched().await;
    assert!(matches!(said, Err(FetchError::Status(307))));
}

#[tokio::test]
async fn an_issuer_that_does_not_answer_is_waited_for_no_longer_than_its_timeout() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = Issuer::start(json!([])).await;
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let foreign = issuer.trusted_with(|o| {
        o.jwks_url = Some(url);
        o.jwks_timeout = Duration::from_millis(20);
    });
    assert!(matches!(foreign.fetched().await, Err(FetchError::Http(e)) if e.is_timeout()));
}
