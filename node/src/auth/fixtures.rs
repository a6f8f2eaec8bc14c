//! Keys of the tests, made for them and used nowhere else.

pub const ED25519: &str = include_str!("fixtures/ed25519.pem");
pub const ED25519_OTHER: &str = include_str!("fixtures/ed25519-other.pem");
pub const RSA: &str = include_str!("fixtures/rsa.pem");
pub const RSA_1024: &str = include_str!("fixtures/rsa-1024.pem");
pub const RSA_PUBLIC: &str = include_str!("fixtures/rsa-public.pem");
pub const P256: &str = include_str!("fixtures/p256.pem");
pub const P384: &str = include_str!("fixtures/p384.pem");
