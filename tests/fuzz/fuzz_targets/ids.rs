//! Text that claims to be an id is refused, or is exactly what the id is written as.
#![no_main]

use klatch_protocol::{ConversationId, ItemId, ResponseId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(id) = text.parse::<ConversationId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(id) = text.parse::<ResponseId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(id) = text.parse::<ItemId>() {
        assert!(["msg_", "fc_", "fco_"].iter().any(|prefix| id.text(prefix) == text));
    }
});
