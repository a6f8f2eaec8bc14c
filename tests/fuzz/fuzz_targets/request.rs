//! Bytes that claim to be a request body are read or refused; a refusal names the field, and nothing panics.
#![no_main]

use klatch::http::parse;
use klatch::http::wire::chat::CreateChatCompletion;
use klatch::http::wire::create_response::CreateResponse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(body) = parse::<CreateResponse>(bytes) {
        if let Err(wrong) = body.check() {
            assert!(!wrong.param.is_empty(), "a refusal names no field: {}", wrong.message);
        }
    }
    if let Ok(body) = parse::<CreateChatCompletion>(bytes) {
        let _ = body.check();
    }
});
