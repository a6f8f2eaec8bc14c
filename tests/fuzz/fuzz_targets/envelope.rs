//! Bytes that claim to be an entry are refused or read; what was read is written the same, and its fold never panics.
#![no_main]

use klatch_protocol::{Entry, State, envelope};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(entry) = envelope::open::<Entry>(bytes) {
        let again: Entry = envelope::open(&envelope::seal(&entry)).expect("what is sealed is opened");
        assert_eq!(again, entry);
        let mut state = State::replay([&entry]);
        state.settle();
    }
});
