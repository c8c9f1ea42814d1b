//! The small decoders: versions, percent-encoding, glob patterns.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turbopump_core::pipe::percent;
use turbopump_core::version::Version;
use turbopump_core::{glob::Pattern, slot};

fuzz_target!(|input: (&[u8], &[u8])| {
    let (one, other) = input;
    if let Some(version) = std::str::from_utf8(one).ok().and_then(|text| text.parse::<Version>().ok()) {
        assert_eq!(version.to_string().as_bytes(), one.to_ascii_lowercase());
    }
    assert_eq!(percent::decode(&percent::encode(one)).as_deref(), Some(one));
    if let Some(decoded) = percent::decode(one) {
        assert!(decoded.len() <= one.len());
    }
    Pattern::new(one).matches(other);
    assert!(Pattern::new(b"*").matches(other) && usize::from(slot::key_slot(other)) < slot::SLOTS);
});
