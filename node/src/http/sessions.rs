//! Signing in and out, and the keys that verify tokens: the only routes that need no token.
//!
//! Wraps what auth gives; knows the client's address, and nothing of passwords.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::extract::{ConnectInfo, FromRef, Request, State};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;

use super::edge::Edge;
use super::errors::{ApiError, Refused};
use super::extract::read_json;
use super::options::EdgeOptions;
use crate::auth::Auth;
use crate::auth::routes::{self, Jwks, LoginRequest, LogoutRequest, RefreshRequest, TokenPair};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Tokens are nobody's to keep on the way.
const NO_STORE: [(HeaderName, HeaderValue); 1] = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];

/// What these routes need: a part of every edge, and all that a process of the role `auth` has.
#[derive(Clone)]
pub struct SignIn {
    pub auth: Arc<Auth>,
    pub options: Arc<EdgeOptions>,
}

impl FromRef<Edge> for SignIn {
    fn from_ref(edge: &Edge) -> Self {
        Self { auth: edge.auth.clone(), options: edge.options.clone() }
    }
}

/// Gives a pair of tokens for a name and a password.
#[utoipa::path(post, path = "/auth/login", tag = "auth", security(()), request_body = LoginRequest,
    responses((status = 200, body = TokenPair), Refused))]
pub async fn login(State(sign_in): State<SignIn>, request: Request) -> Result<impl IntoResponse, ApiError> {
    let peer = peer(request.extensions(), request.headers(), sign_in.options.trust_forwarded_for);
    let body: LoginRequest = read_json(request, &sign_in.options.limits).await?;
    Ok((NO_STORE, Json(routes::login(&sign_in.auth, peer, body).await?)))
}

/// Gives the next pair of tokens. Each refresh token is used once; a used one that comes again ends the login.
#[utoipa::path(post, path = "/auth/refresh", tag = "auth", security(()), request_body = RefreshRequest,
    responses((status = 200, body = TokenPair), Refused))]
pub async fn refresh(State(sign_in): State<SignIn>, request: Request) -> Result<impl IntoResponse, ApiError> {
    let body: RefreshRequest = read_json(request, &sign_in.options.limits).await?;
    Ok((NO_STORE, Json(routes::refresh(&sign_in.auth, body).await?)))
}

/// Ends the login: no refresh token of it is valid any more. The access token is, until it expires.
#[utoipa::path(post, path = "/auth/logout", tag = "auth", security(()), request_body = LogoutRequest,
    responses((status = 204, description = "There is no such login now"), Refused))]
pub async fn logout(State(sign_in): State<SignIn>, request: Request) -> Result<StatusCode, ApiError> {
    let body: LogoutRequest = read_json(request, &sign_in.options.limits).await?;
    routes::logout(&sign_in.auth, body).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Shows the public keys that access tokens are verified with.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "auth", security(()),
    responses((status = 200, body = Jwks)))]
pub async fn jwks(State(sign_in): State<SignIn>) -> Json<Jwks> {
    Json(routes::jwks(&sign_in.auth).await)
}

/// The client's address: the connection's, or what a trusted proxy wrote last.
fn peer(extensions: &Extensions, headers: &HeaderMap, trust_forwarded_for: bool) -> IpAddr {
    let forwarded =
        || headers.get_all(FORWARDED_FOR).iter().next_back()?.to_str().ok()?.rsplit(',').next()?.trim().parse().ok();
    let connected = extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip());
    let forwarded = if trust_forwarded_for { forwarded() } else { None };
    forwarded.or(connected).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forwarded_address_counts_only_where_it_is_trusted_and_only_the_last() {
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo(SocketAddr::from(([10, 0, 0, 1], 1))));
        let headers = HeaderMap::from_iter([(FORWARDED_FOR, HeaderValue::from_static("6.6.6.6, 1.2.3.4"))]);
        assert_eq!(peer(&extensions, &headers, false), IpAddr::from([10, 0, 0, 1]));
        assert_eq!(peer(&extensions, &headers, true), IpAddr::from([1, 2, 3, 4]));
        assert_eq!(peer(&extensions, &HeaderMap::new(), true), IpAddr::from([10, 0, 0, 1]));
    }
}
