//! Where something stands in a trace: what W3C's `traceparent` says, and what travels with a request between nodes.
//!
//! Only ids. What a span is, and where it is sent, the node knows.

use std::fmt;

use serde::{Deserialize, Serialize};

const VERSION: &str = "00";
const SAMPLED: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    pub trace: [u8; 16],
    /// The span that what follows is a part of.
    pub span: [u8; 8],
    pub flags: u8,
}

impl TraceContext {
    /// None of what is no `traceparent`. Of later versions the fields that are known are read, as W3C wants it.
    pub fn read(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let [version_byte] = hex(version)?;
        if version_byte == 0xff || (version == VERSION && parts.next().is_some()) {
            return None;
        }
        let ([flags], trace, span) = (hex(flags)?, hex(trace)?, hex(span)?);
        (trace != [0; 16] && span != [0; 8]).then_some(Self { trace, span, flags })
    }

    pub fn sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// As logs show it.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace))
    }
}

/// The `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION}-{}-{:016x}-{:02x}", self.trace_id(), u64::from_be_bytes(self.span), self.flags)
    }
}

/// Lower case, as W3C demands.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 2 * N || !text.bytes().all(lower) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written() {
        let context = TraceContext::read(PARENT).unwrap();
        assert_eq!(context.to_string(), PARENT);
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(context.sampled());
        assert!(!TraceContext::read(&PARENT.replace("-01", "-00")).unwrap().sampled());
        assert!(TraceContext::read(&PARENT.replacen("00", "01", 1)).is_some(), "a later version");
        assert!(TraceContext::read(&format!("{}-more", PARENT.replacen("00", "01", 1))).is_some());
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        let zeros = PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let no_span = PARENT.replace("00f067aa0ba902b7", &"0".repeat(16));
        let (loud, never) = (PARENT.to_uppercase(), PARENT.replacen("00", "ff", 1));
        let longer = format!("{PARENT}-more");
        let wide = "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-01";
        for wrong in ["", "00-short", &zeros, &no_span, &loud, &never, &longer, &PARENT[..54], wide] {
            assert_eq!(TraceContext::read(wrong), None, "{wrong}");
        }
    }
}
