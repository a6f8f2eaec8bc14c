//! Every way in which a token can be wrong, and the reason that is counted for it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::auth::fixtures::*;
use crate::auth::keys::{self, KeySet};

const NOW: u64 = 1_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn rules() -> Rules {
    Rules { issuer: "klatch".into(), audience: "klatch".into(), leeway_secs: 30 }
}

fn pair(pem: &str) -> (SigningKey, Key) {
    keys::from_pem(pem.as_bytes()).unwrap()
}

fn claims() -> Value {
    json!({"iss": "klatch", "aud": "klatch", "sub": "ada", "tenant": "acme", "exp": NOW + 60})
}

fn with(mut object: Value, member: &str, value: Value) -> Value {
    object[member] = value;
    object
}

fn without(mut object: Value, member: &str) -> Value {
    object.as_object_mut().unwrap().remove(member);
    object
}

fn header(key: &SigningKey) -> Value {
    json!({"alg": key.algorithm, "kid": key.kid, "typ": "at+jwt"})
}

fn segment(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A token with any header and any claims, signed by `key` with `algorithm`.
fn made(header: &Value, claims: &Value, encoding: &jsonwebtoken::EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", segment(header), segment(claims));
    let signature = crypto::sign(message.as_bytes(), encoding, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// The node's keys: all kinds at once.
fn set() -> KeySet {
    let pems = [ED25519, RSA, P256].map(|pem| pair(pem).1);
    KeySet::new(pems.into_iter().chain([keys::from_secret(SECRET).unwrap().1]))
}

fn verify_at(token: &str, set: &KeySet, now: u64) -> Result<Verified, Reason> {
    let parsed = parse(token)?;
    let key = set.find(parsed.kid.as_deref()).ok_or(Reason::UnknownKey)?;
    check(&parsed, key, &rules(), now)
}

fn refused(header: &Value, claims: &Value) -> Reason {
    let (signing, _) = pair(ED25519);
    verify_at(&made(header, claims, &signing.encoding, Algorithm::EdDSA), &set(), NOW).unwrap_err()
}

fn refused_claims(claims: &Value) -> Reason {
    refused(&header(&pair(ED25519).0), claims)
}

fn refused_header(member: &str, value: Value) -> Reason {
    refused(&with(header(&pair(ED25519).0), member, value), &claims())
}

fn ours(claims: &Value) -> String {
    let (signing, _) = pair(ED25519);
    made(&header(&signing), claims, &signing.encoding, Algorithm::EdDSA)
}

#[test]
fn a_good_token_says_who_asks_and_until_when() {
    for signing in [pair(ED25519).0, pair(RSA).0, pair(P256).0, keys::from_secret(SECRET).unwrap().0] {
        let token = made(&header(&signing), &claims(), &signing.encoding, signing.algorithm);
        let verified = verify_at(&token, &set(), NOW).unwrap();
        assert_eq!((&*verified.caller.tenant, &*verified.caller.subject), ("acme", "ada"));
        assert_eq!(verified.until_secs, NOW + 90);
    }
}

#[test]
fn what_we_sign_we_accept() {
    let (signing, _) = pair(ED25519);
    let said = NewClaims { iss: "klatch", aud: "klatch", sub: "ada", tenant: "t", iat: NOW, exp: NOW + 1, jti: "x" };
    let verified = verify_at(&sign(&said, &signing).unwrap(), &set(), NOW).unwrap();
    assert_eq!(&*verified.caller.tenant, "t");
}

#[test]
fn without_a_tenant_the_caller_is_of_the_default_one() {
    let verified = verify_at(&ours(&without(claims(), "tenant")), &set(), NOW).unwrap();
    assert_eq!(&*verified.caller.tenant, "default");
}

#[test]
fn an_audience_may_be_one_of_several() {
    let several = with(claims(), "aud", json!(["other", "klatch"]));
    assert!(verify_at(&ours(&several), &set(), NOW).is_ok());
    assert_eq!(refused_claims(&with(claims(), "aud", json!(["other"]))), Reason::Audience);
    assert_eq!(refused_claims(&with(claims(), "aud", json!([]))), Reason::Audience);
}

#[test]
fn an_unsigned_token_is_refused_however_it_spells_none() {
    let kid = pair(ED25519).0.kid;
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let message = format!("{}.{}", segment(&json!({"alg": none, "kid": kid, "typ": "at+jwt"})), segment(&claims()));
        for signature in ["", "AA"] {
            let said = verify_at(&format!("{message}.{signature}"), &set(), NOW);
            assert_eq!(said.unwrap_err(), Reason::Algorithm, "{none}");
        }
    }
}

#[test]
fn a_public_key_taken_for_a_secret_is_refused() {
    for public in [RSA_PUBLIC.as_bytes().to_vec(), RSA_PUBLIC.trim_end().as_bytes().to_vec()] {
        let (rsa, _) = pair(RSA);
        let secret = jsonwebtoken::EncodingKey::from_secret(&public);
        let header = json!({"alg": "HS256", "kid": rsa.kid, "typ": "at+jwt"});
        let token = made(&header, &claims(), &secret, Algorithm::HS256);
        assert_eq!(verify_at(&token, &set(), NOW).unwrap_err(), Reason::Algorithm);
    }
}

#[test]
fn a_secret_taken_for_a_public_key_is_refused() {
    let (secret, _) = keys::from_secret(SECRET).unwrap();
    let (rsa, _) = pair(RSA);
    let header = json!({"alg": "RS256", "kid": secret.kid, "typ": "at+jwt"});
    let token = made(&header, &claims(), &rsa.encoding, Algorithm::RS256);
    assert_eq!(verify_at(&token, &set(), NOW).unwrap_err(), Reason::Algorithm);
}

#[test]
fn another_algorithm_of_the_same_family_is_refused() {
    let (rsa, _) = pair(RSA);
    for algorithm in [Algorithm::RS512, Algorithm::PS256] {
        let header = json!({"alg": algorithm, "kid": rsa.kid, "typ": "at+jwt"});
        let token = made(&header, &claims(), &rsa.encoding, algorithm);
        assert_eq!(verify_at(&token, &set(), NOW).unwrap_err(), Reason::Algorithm);
    }
}

#[test]
fn the_id_of_another_key_is_refused() {
    let (other, _) = pair(ED25519_OTHER);
    let header = header(&pair(ED25519).0);
    let token = made(&header, &claims(), &other.encoding, Algorithm::EdDSA);
    assert_eq!(verify_at(&token, &set(), NOW).unwrap_err(), Reason::Signature);
    let header = with(header, "kid", json!(pair(RSA).0.kid));
    let token = made(&header, &claims(), &other.encoding, Algorithm::EdDSA);
    assert_eq!(verify_at(&token, &set(), NOW).unwrap_err(), Reason::Algorithm);
}

#[test]
fn an_unknown_key_or_none_among_several_is_refused() {
    let (other, _) = pair(ED25519_OTHER);
    let token = made(&header(&other), &claims(), &other.encoding, Algorithm::EdDSA);
    assert_eq!(verify_at(&token, &set(), NOW).unwrap_err(), Reason::UnknownKey);
    assert_eq!(refused(&without(header(&pair(ED25519).0), "kid"), &claims()), Reason::UnknownKey);
    assert_eq!(refused_header("kid", json!("../../dev/null")), Reason::UnknownKey);
}

#[test]
fn without_an_id_the_only_key_is_used() {
    let (signing, key) = pair(ED25519);
    let token = made(&without(header(&signing), "kid"), &claims(), &signing.encoding, Algorithm::EdDSA);
    assert!(verify_at(&token, &KeySet::new([key]), NOW).is_ok());
}

#[test]
fn a_key_that_the_token_brings_along_is_refused_even_beside_a_right_signature() {
    let public = serde_json::to_value(pair(ED25519).1.public).unwrap();
    assert_eq!(refused_header("jwk", public), Reason::EmbeddedKey);
    assert_eq!(refused_header("jku", json!("https://evil.example/keys")), Reason::EmbeddedKey);
    assert_eq!(refused_header("x5u", json!(null)), Reason::EmbeddedKey);
    let (other, key) = pair(ED25519_OTHER);
    let header = with(header(&pair(ED25519).0), "jwk", serde_json::to_value(key.public).unwrap());
    let token = made(&header, &claims(), &other.encoding, Algorithm::EdDSA);
    assert_eq!(verify_at(&token, &set(), NOW).unwrap_err(), Reason::EmbeddedKey);
}

#[test]
fn a_critical_header_is_refused_whatever_it_names() {
    for crit in [json!(["exp"]), json!(["b64"]), json!([]), json!(null)] {
        assert_eq!(refused_header("crit", crit), Reason::CriticalHeader);
    }
}

#[test]
fn a_token_of_another_type_is_refused() {
    for typ in [json!("JWT"), json!("logout+jwt"), json!("dpop+jwt"), json!("")] {
        assert_eq!(refused_header("typ", typ), Reason::Type);
    }
    assert_eq!(refused(&without(header(&pair(ED25519).0), "typ"), &claims()), Reason::Type);
}

#[test]
fn who_shares_a_secret_may_write_jwt_or_nothing_but_no_other_type() {
    let (secret, _) = keys::from_secret(SECRET).unwrap();
    let said = |header: &Value| {
        verify_at(&made(header, &claims(), &secret.encoding, Algorithm::HS256), &set(), NOW).map(|_| ())
    };
    assert_eq!(said(&with(header(&secret), "typ", json!("JWT"))), Ok(()));
    assert_eq!(said(&without(header(&secret), "typ")), Ok(()));
    assert_eq!(said(&with(header(&secret), "typ", json!("logout+jwt"))), Err(Reason::Type));
}

#[test]
fn another_issuer_or_audience_or_none_is_refused() {
    assert_eq!(refused_claims(&with(claims(), "iss", json!("other"))), Reason::Issuer);
    assert_eq!(refused_claims(&without(claims(), "iss")), Reason::Issuer);
    assert_eq!(refused_claims(&with(claims(), "iss", json!(["klatch"]))), Reason::Malformed);
    assert_eq!(refused_claims(&with(claims(), "aud", json!("klatch2"))), Reason::Audience);
    assert_eq!(refused_claims(&without(claims(), "aud")), Reason::Audience);
}

#[test]
fn a_token_ends_at_the_second_after_its_leeway() {
    let token = ours(&claims());
    assert!(verify_at(&token, &set(), NOW + 89).is_ok());
    assert_eq!(verify_at(&token, &set(), NOW + 90).unwrap_err(), Reason::Expired);
}

#[test]
fn a_token_begins_at_the_second_before_its_leeway() {
    let early = with(claims(), "nbf", json!(NOW + 30));
    assert!(verify_at(&ours(&early), &set(), NOW).is_ok());
    assert_eq!(refused_claims(&with(claims(), "nbf", json!(NOW + 31))), Reason::NotYetValid);
}

#[test]
fn a_token_that_never_ends_is_refused() {
    assert_eq!(refused_claims(&without(claims(), "exp")), Reason::NoExpiry);
    assert_eq!(refused_claims(&with(claims(), "exp", json!(null))), Reason::NoExpiry);
    assert_eq!(refused_claims(&with(claims(), "exp", json!("9999999999"))), Reason::Malformed);
    assert_eq!(refused_claims(&with(claims(), "exp", json!(-1))), Reason::Malformed);
}

#[test]
fn a_fraction_of_a_second_is_understood_and_an_end_beyond_all_time_does_not_overflow() {
    assert!(verify_at(&ours(&with(claims(), "exp", json!(NOW as f64 + 0.5))), &set(), NOW).is_ok());
    assert!(verify_at(&ours(&with(claims(), "exp", json!(1e300))), &set(), NOW).is_ok());
    assert!(verify_at(&ours(&with(claims(), "exp", json!(u64::MAX))), &set(), NOW).is_ok());
    assert_eq!(refused_claims(&with(claims(), "nbf", json!(1e300))), Reason::NotYetValid);
}

#[test]
fn a_subject_that_is_empty_missing_too_long_or_unprintable_is_refused() {
    assert_eq!(refused_claims(&without(claims(), "sub")), Reason::Subject);
    for subject in ["", "a\nb", &"a".repeat(256)] {
        assert_eq!(refused_claims(&with(claims(), "sub", json!(subject))), Reason::Subject);
        assert_eq!(refused_claims(&with(claims(), "tenant", json!(subject))), Reason::Subject);
    }
    assert!(verify_at(&ours(&with(claims(), "sub", json!("a".repeat(255)))), &set(), NOW).is_ok());
}

#[test]
fn each_segment_is_protected() {
    let token = ours(&claims());
    let segments: Vec<&str> = token.split('.').collect();
    for which in 0..3 {
        for at in 0..segments[which].len() {
            let mut bytes = segments[which].as_bytes().to_vec();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let mut changed: Vec<String> = segments.iter().map(|s| (*s).to_owned()).collect();
            changed[which] = String::from_utf8(bytes).unwrap();
            assert!(verify_at(&changed.join("."), &set(), NOW).is_err(), "segment {which}, byte {at}");
        }
    }
}

#[test]
fn the_claims_of_another_token_do_not_fit_its_signature() {
    let token = ours(&claims());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = message.split_once('.').unwrap();
    let forged = segment(&with(claims(), "sub", json!("root")));
    let said = verify_at(&format!("{header}.{forged}.{signature}"), &set(), NOW);
    assert_eq!(said.unwrap_err(), Reason::Signature);
}

#[test]
fn what_is_no_token_is_refused_as_malformed() {
    let token = ours(&claims());
    for text in ["", ".", "..", "...", "a.b", "a.b.c", "klatch_rt_abc", &format!("{token}."), &format!(" {token}")] {
        assert_eq!(verify_at(text, &set(), NOW).unwrap_err(), Reason::Malformed, "{text}");
    }
    let twice = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","alg":"none","typ":"at+jwt"}"#);
    assert_eq!(verify_at(&format!("{twice}.e30.AA"), &set(), NOW).unwrap_err(), Reason::Malformed);
}

#[test]
fn a_token_of_8_kib_is_read_and_a_longer_one_is_not() {
    let at_limit = "a".repeat(TOKEN_BYTES_MAX);
    assert_eq!(parse(&at_limit).err(), Some(Reason::Malformed));
    assert_eq!(parse(&format!("{at_limit}a")).err(), Some(Reason::Oversize));
    assert_eq!(digest(&format!("{at_limit}a")), Err(Reason::Oversize));
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,300}") {
        prop_assert!(verify_at(&text, &set(), NOW).is_err());
    }

    #[test]
    fn no_segments_panic(header in "[ -~]{0,80}", claims in "[ -~]{0,80}", signature: Vec<u8>) {
        let [header, claims] = [header, claims].map(|text| URL_SAFE_NO_PAD.encode(text));
        let token = format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(signature));
        prop_assert!(verify_at(&token, &set(), NOW).is_err());
    }

    #[test]
    fn no_signature_of_any_length_panics_or_passes(signature: Vec<u8>) {
        for key in [pair(ED25519).0, pair(P256).0, keys::from_secret(SECRET).unwrap().0] {
            let message = format!("{}.{}", segment(&header(&key)), segment(&claims()));
            let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(&signature));
            prop_assert_eq!(verify_at(&token, &set(), NOW).err(), Some(Reason::Signature));
        }
    }

    #[test]
    fn signed_claims_of_any_shape_do_not_panic(claims in "[ -~]{0,120}") {
        let (signing, key) = pair(ED25519);
        let message = format!("{}.{}", segment(&header(&signing)), URL_SAFE_NO_PAD.encode(claims));
        let signature = crypto::sign(message.as_bytes(), &signing.encoding, Algorithm::EdDSA).unwrap();
        let said = verify_at(&format!("{message}.{signature}"), &KeySet::new([key]), NOW);
        prop_assert!(said.is_err());
    }
}
