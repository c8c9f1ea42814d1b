//! Any bytes from a server: a reply, more needed, or a typed error. What is read is within the bytes given.
#![no_main]

use libfuzzer_sys::fuzz_target;
use turbopump_core::pipe::response::read;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some((response, length))) = read(bytes, 1000) {
        assert!(length <= bytes.len() && response.body.len() <= 1000 && response.body.len() < length);
    }
});
