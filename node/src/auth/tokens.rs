//! Access tokens: what is in them, how they are made, and the whole of what is checked. Pure: keys and time are
//! given.
//!
//! A token of ours says `typ: at+jwt` (RFC 9068), so that no other JWT that may one day be signed with the same key
//! passes for one (RFC 8725, 3.11). Other issuers, and those who share a secret with us, may say `JWT` or nothing.
//!
//! The header chooses nothing but the key's id: the algorithm is the key's own, and a key that the token brings along
//! is a reason to refuse it.

use std::borrow::Cow;
use std::str::FromStr;

use jsonwebtoken::{Algorithm, Header, crypto};
use klatch_actors::Caller;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Number;
use sha2::{Digest, Sha256};

use super::errors::{AuthError, Reason};
use super::keys::{Key, SigningKey, TokenDigest, Typed, Verified};

/// Room for a few hundred group names in another issuer's token, and no more work than that for a stranger's.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;
/// They become parts of the store's keys.
const NAME_BYTES_MAX: usize = 255;
pub const DEFAULT_TENANT: &str = "default";
const ACCESS_TOKEN_TYPE: &str = "at+jwt";

/// What must be true of the claims, beside the signature.
pub struct Rules {
    pub issuer: String,
    pub audience: String,
    pub leeway_secs: u64,
}

/// What a token of ours says.
#[derive(Serialize)]
pub struct NewClaims<'a> {
    pub iss: &'a str,
    pub aud: &'a str,
    pub sub: &'a str,
    pub tenant: &'a str,
    pub iat: u64,
    pub exp: u64,
    pub jti: &'a str,
}

pub fn sign(claims: &NewClaims<'_>, key: &SigningKey) -> Result<String, AuthError> {
    let mut header = Header::new(key.algorithm);
    header.typ = Some(ACCESS_TOKEN_TYPE.to_owned());
    header.kid = Some(key.kid.clone());
    jsonwebtoken::encode(&header, claims, &key.encoding).map_err(|_| AuthError::Broken("the key did not sign"))
}

pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && !text.chars().any(char::is_control)
}

pub fn digest(token: &str) -> Result<TokenDigest, Reason> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Reason::Oversize);
    }
    Ok(Sha256::digest(token).into())
}

/// A token taken apart; nothing of it is believed yet.
pub struct Unverified<'a> {
    pub kid: Option<String>,
    algorithm: Option<Algorithm>,
    typ: Option<String>,
    /// Header and claims, as signed.
    message: &'a str,
    claims: &'a str,
    signature: &'a str,
}

#[derive(Deserialize)]
struct JoseHeader {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    #[serde(default)]
    crit: Present,
    #[serde(default)]
    jwk: Present,
    #[serde(default)]
    jku: Present,
    #[serde(default)]
    x5u: Present,
}

/// The member is there, whatever it says, even null.
#[derive(Clone, Copy, Default)]
struct Present(bool);

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

#[derive(Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    iss: Option<Cow<'a, str>>,
    #[serde(borrow)]
    aud: Option<Audience<'a>>,
    #[serde(borrow)]
    sub: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tenant: Option<Cow<'a, str>>,
    exp: Option<Number>,
    nbf: Option<Number>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience<'a> {
    One(#[serde(borrow)] Cow<'a, str>),
    Any(Vec<String>),
}

/// Takes it apart; what can be refused without a key is.
pub fn parse(token: &str) -> Result<Unverified<'_>, Reason> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Reason::Oversize);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(Reason::Malformed)?;
    let (header, claims) = message.split_once('.').ok_or(Reason::Malformed)?;
    if claims.contains('.') {
        return Err(Reason::Malformed);
    }
    let header: JoseHeader = serde_json::from_slice(&decode(header)?).map_err(|_| Reason::Malformed)?;
    if header.crit.0 {
        return Err(Reason::CriticalHeader);
    }
    if header.jwk.0 || header.jku.0 || header.x5u.0 {
        return Err(Reason::EmbeddedKey);
    }
    // `none`, and all that is unknown, is no algorithm, and equals that of no key.
    let algorithm = Algorithm::from_str(&header.alg).ok();
    Ok(Unverified { kid: header.kid, algorithm, typ: header.typ, message, claims, signature })
}

fn decode(segment: &str) -> Result<Vec<u8>, Reason> {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(segment).map_err(|_| Reason::Malformed)
}

/// Everything else: algorithm, type and signature by the key, then the claims by the rules.
pub fn check(token: &Unverified<'_>, key: &Key, rules: &Rules, now_secs: u64) -> Result<Verified, Reason> {
    if token.algorithm != Some(key.algorithm) {
        return Err(Reason::Algorithm);
    }
    check_type(token.typ.as_deref(), key.typed)?;
    match crypto::verify(token.signature, token.message.as_bytes(), &key.decoding, key.algorithm) {
        Ok(true) => {}
        Ok(false) | Err(_) => return Err(Reason::Signature),
    }
    let bytes = decode(token.claims)?;
    let claims: Claims<'_> = serde_json::from_slice(&bytes).map_err(|_| Reason::Malformed)?;
    check_claims(&claims, rules, now_secs)
}

fn check_type(typ: Option<&str>, typed: Typed) -> Result<(), Reason> {
    let is = |name: &str| typ.is_some_and(|typ| typ.eq_ignore_ascii_case(name));
    let access_token = is(ACCESS_TOKEN_TYPE) || is("application/at+jwt");
    let untyped = typ.is_none() || is("JWT");
    match (access_token, typed) {
        (true, _) => Ok(()),
        (false, Typed::AlsoUntyped) if untyped => Ok(()),
        (false, Typed::AlsoUntyped | Typed::AccessTokenOnly) => Err(Reason::Type),
    }
}

fn check_claims(claims: &Claims<'_>, rules: &Rules, now_secs: u64) -> Result<Verified, Reason> {
    if claims.iss.as_deref() != Some(rules.issuer.as_str()) {
        return Err(Reason::Issuer);
    }
    let audience = rules.audience.as_str();
    let meant = match &claims.aud {
        Some(Audience::One(one)) => one == audience,
        Some(Audience::Any(any)) => any.iter().any(|one| one == audience),
        None => false,
    };
    if !meant {
        return Err(Reason::Audience);
    }
    let until_secs = check_times(claims, rules.leeway_secs, now_secs)?;
    let subject = claims.sub.as_deref().unwrap_or_default();
    let tenant = claims.tenant.as_deref().unwrap_or(DEFAULT_TENANT);
    if !is_name(subject) || !is_name(tenant) {
        return Err(Reason::Subject);
    }
    Ok(Verified { caller: Caller { tenant: tenant.into(), subject: subject.into() }, until_secs })
}

fn check_times(claims: &Claims<'_>, leeway_secs: u64, now_secs: u64) -> Result<u64, Reason> {
    let expires = claims.exp.as_ref().ok_or(Reason::NoExpiry)?;
    let until_secs = seconds(expires)?.saturating_add(leeway_secs);
    if now_secs >= until_secs {
        return Err(Reason::Expired);
    }
    let not_before = claims.nbf.as_ref().map(seconds).transpose()?.unwrap_or(0);
    if now_secs.saturating_add(leeway_secs) < not_before {
        return Err(Reason::NotYetValid);
    }
    Ok(until_secs)
}

/// Some issuers write fractions (RFC 7519 allows them). Before 1970 nothing was signed.
fn seconds(date: &Number) -> Result<u64, Reason> {
    let fraction = || date.as_f64().filter(|date| *date >= 0.0).map(|date| date as u64);
    date.as_u64().or_else(fraction).ok_or(Reason::Malformed)
}

#[cfg(test)]
mod tests;
