//! How a receiver knows who sent an event, and that nothing of it was changed: Standard Webhooks, `v1`. The three lines stand
//! on the crates that are here; `standardwebhooks` would bring a second HMAC and base64, and is what the tests verify with.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

const PREFIX: &str = "whsec_";

/// What Standard Webhooks allows, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Signs with each: more than one while a receiver changes from one to the next.
pub(super) struct Secrets(Vec<Vec<u8>>);

impl Secrets {
    /// None where one of them is no secret.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let one = |text: &str| {
            let bytes = STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?;
            SECRET_BYTES.contains(&bytes.len()).then_some(bytes)
        };
        let secrets: Vec<_> = text.split_whitespace().map(one).collect::<Option<_>>()?;
        (!secrets.is_empty()).then_some(Self(secrets))
    }

    /// The value of `webhook-signature`.
    pub(super) fn sign(&self, id: &str, timestamp: u64, body: &str) -> String {
        let signed = format!("{id}.{timestamp}.{body}");
        let one = |secret: &Vec<u8>| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
            mac.update(signed.as_bytes());
            format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Standard Webhooks' own libraries.
    #[test]
    fn it_is_signed_as_the_standard_says() {
        let secrets = Secrets::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn while_a_secret_is_changed_both_sign() {
        let (old, new) = (format!("whsec_{}", "QUFB".repeat(8)), format!("whsec_{}", "QkJC".repeat(8)));
        let both = Secrets::parse(&format!("{new} {old}")).unwrap().sign("evt_1", 1, "{}");
        let alone = |secret: &str| Secrets::parse(secret).unwrap().sign("evt_1", 1, "{}");
        assert_eq!(both, format!("{} {}", alone(&new), alone(&old)));
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let (short, long) =
            (format!("whsec_{}", STANDARD.encode([1; 23])), format!("whsec_{}", STANDARD.encode([1; 65])));
        for wrong in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_???", short.as_str(), long.as_str()] {
            assert!(Secrets::parse(wrong).is_none(), "{wrong}");
        }
    }
}
