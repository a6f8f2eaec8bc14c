//! What the auth routes take and give. Plain functions: the HTTP edge wraps them, knows the peer's address, and maps
//! errors to status codes.

use std::fmt;
use std::net::IpAddr;

use jsonwebtoken::jwk::Jwk;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Auth;
use super::errors::AuthError;
use super::secret::Secret;

#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct LoginRequest {
    pub username: String,
    pub password: Secret,
}

#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct RefreshRequest {
    pub refresh_token: Secret,
}

#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct LogoutRequest {
    pub refresh_token: Secret,
}

/// To be sent with `Cache-Control: no-store`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenPair {
    /// Goes into `Authorization: Bearer …`.
    pub access_token: Secret,
    /// Used once, for the next pair.
    pub refresh_token: Secret,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    pub token_type: String,
    /// Life of the access token, in seconds.
    #[schema(example = 900)]
    pub expires_in: u64,
}

/// Public keys that verify access tokens (RFC 7517); a secret is never among them.
#[derive(Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Jwks {
    #[schema(value_type = Vec<Object>)]
    pub keys: Vec<Jwk>,
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.common.key_id)).finish()
    }
}

/// Gives a pair of tokens for a name and a password.
#[utoipa::path(post, path = "/auth/login", tag = "auth", request_body = LoginRequest, security(()), responses(
    (status = 200, body = TokenPair),
    (status = 401, description = "The username or the password is wrong"),
    (status = 429, description = "Too many logins have failed; `retry-after` says how long to wait"),
))]
pub async fn login(auth: &Auth, peer: IpAddr, body: LoginRequest) -> Result<TokenPair, AuthError> {
    auth.login(&body.username, &body.password, peer).await
}

/// Gives the next pair of tokens. Each refresh token is used once; a used one that comes again ends the login.
#[utoipa::path(post, path = "/auth/refresh", tag = "auth", request_body = RefreshRequest, security(()), responses(
    (status = 200, body = TokenPair),
    (status = 401, description = "The refresh token is not valid any more; log in again"),
))]
pub async fn refresh(auth: &Auth, body: RefreshRequest) -> Result<TokenPair, AuthError> {
    auth.refresh(&body.refresh_token).await
}

/// Ends the login: no refresh token of it is valid any more. The access token is, until it expires.
#[utoipa::path(post, path = "/auth/logout", tag = "auth", request_body = LogoutRequest, security(()), responses(
    (status = 204, description = "There is no such login now"),
))]
pub async fn logout(auth: &Auth, body: LogoutRequest) -> Result<(), AuthError> {
    auth.logout(&body.refresh_token).await
}

/// Shows the public keys that access tokens are verified with.
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "auth", security(()), responses((status = 200, body = Jwks)))]
pub async fn jwks(auth: &Auth) -> Jwks {
    auth.jwks()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(utoipa::OpenApi)]
    #[openapi(paths(login, refresh, logout, jwks))]
    struct Document;

    #[test]
    fn the_routes_describe_themselves() {
        use utoipa::OpenApi;
        let document = serde_json::to_value(Document::openapi()).unwrap();
        let paths: Vec<_> = document["paths"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(paths, ["/.well-known/jwks.json", "/auth/login", "/auth/logout", "/auth/refresh"]);
        let schemas = &document["components"]["schemas"];
        for name in ["LoginRequest", "RefreshRequest", "LogoutRequest", "TokenPair", "Jwks"] {
            assert!(schemas[name].is_object(), "{name}: {schemas}");
        }
    }

    #[test]
    fn nothing_secret_can_be_printed() {
        let request = LoginRequest { username: "ada".into(), password: Secret::new("hunter22") };
        assert!(!format!("{request:?}").contains("hunter22"));
    }
}
